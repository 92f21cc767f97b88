//! Refs that peers tell: which addresses are dialled on their word, and how host names are resolved.

mod common;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::echo::{Echoing, cut, echo_blocking, on_core, serve, until, within};
use common::{LIMIT, bounded, builder, client, config, eventually, kind, seen_from, serving, uri};
use futures::channel::oneshot;
use futures::future::join_all;
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointRef, Handle, HandlerError, Handlers, RefPolicy, RpcEnv, SendError,
    message,
};
use serde::{Deserialize, Serialize};

/// Asks all of these, and answers how that failed.
#[derive(Serialize, Deserialize)]
struct AskAll(Vec<EndpointRef>);
message!(AskAll as "told.AskAll" => Vec<(String, String)>);

/// Sends to this one, and answers how that failed.
#[derive(Serialize, Deserialize)]
struct SendTo(EndpointRef);
message!(SendTo as "told.SendTo" => String);

/// Answered with the ref itself.
#[derive(Serialize, Deserialize)]
struct Back(EndpointRef);
message!(Back as "told.Back" => EndpointRef);

/// Answered with the error `Moved`.
#[derive(Serialize, Deserialize)]
struct Where(EndpointRef);
message!(Where as "told.Where" => ());

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("it has moved")]
struct Moved(EndpointRef);
ringpost::wire_error!(Moved as "told.Moved");

/// Keeps the endpoint until the gate opens.
#[derive(Serialize, Deserialize)]
struct Hold;
message!(Hold as "told.Hold");

/// Asks this one, and keeps how that ended.
#[derive(Serialize, Deserialize)]
struct AskLater(EndpointRef);
message!(AskLater as "told.AskLater");

/// Answered with how that ended.
#[derive(Serialize, Deserialize)]
struct HowEnded;
message!(HowEnded as "told.HowEnded" => String);

/// How an ask to this one ends: the kind of its error, or nothing.
async fn ask_it(to: &EndpointRef) -> String {
    to.ask(common::echo::Echo { payload: bytes::Bytes::new() }).await.map_or_else(|e| kind(&e), |_| String::new())
}

struct Keeper {
    gate: Option<oneshot::Receiver<()>>,
    ended: String,
}

impl Endpoint for Keeper {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Where>().send::<Hold>().send::<AskLater>().ask::<HowEnded>();
    }
}

impl Handle<Where> for Keeper {
    async fn handle(&mut self, to: Where, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(HandlerError::typed(Moved(to.0)))
    }
}

impl Handle<Hold> for Keeper {
    async fn handle(&mut self, _: Hold, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(self.gate.take().unwrap().await?)
    }
}

impl Handle<AskLater> for Keeper {
    async fn handle(&mut self, to: AskLater, _: &mut CallContext) -> Result<(), HandlerError> {
        self.ended = format!("{:?}", ask_it(&to.0).await);
        Ok(())
    }
}

impl Handle<HowEnded> for Keeper {
    async fn handle(&mut self, _: HowEnded, _: &mut CallContext) -> Result<String, HandlerError> {
        Ok(std::mem::take(&mut self.ended))
    }
}

/// An endpoint of this kind whose gate opens with the sender.
fn keeper(env: &RpcEnv) -> (EndpointRef, oneshot::Sender<()>) {
    let (open, gate) = oneshot::channel();
    let make = || Keeper { gate: Some(gate), ended: String::new() };
    (env.register_on(0, "keeper", make).unwrap(), open)
}

struct Reader;

impl Endpoint for Reader {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<AskAll>().ask::<SendTo>().ask::<Back>();
    }
}

impl Handle<AskAll> for Reader {
    async fn handle(&mut self, all: AskAll, _: &mut CallContext) -> Result<Vec<(String, String)>, HandlerError> {
        let payload = bytes::Bytes::from_static(b"x");
        let asks = all.0.iter().map(|to| to.ask(common::echo::Echo { payload: payload.clone() }));
        let ends = join_all(asks).await.into_iter();
        Ok(ends.map(|end| end.map_or_else(|e| (kind(&e), e.to_string()), |_| Default::default())).collect())
    }
}

impl Handle<SendTo> for Reader {
    async fn handle(&mut self, to: SendTo, _: &mut CallContext) -> Result<String, HandlerError> {
        match to.0.send(common::echo::Note { payload: bytes::Bytes::new() }) {
            Err(error @ SendError::ForbiddenAddress { .. }) => Ok(error.to_string()),
            other => Err(HandlerError::new(format!("{other:?}"))),
        }
    }
}

impl Handle<Back> for Reader {
    async fn handle(&mut self, back: Back, _: &mut CallContext) -> Result<EndpointRef, HandlerError> {
        Ok(back.0)
    }
}

/// Resolves names that begin with `hang` when it is opened, and then says that there are none; others are this machine.
#[derive(Clone, Default)]
struct Names(Arc<(Mutex<bool>, Condvar, AtomicU32)>);

impl Names {
    fn lookup(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        if !host.starts_with("hang") {
            return Ok(vec!["127.0.0.1:0".parse().unwrap()]);
        }
        let (open, opened, hanging) = &*self.0;
        hanging.fetch_add(1, Ordering::SeqCst);
        let (open, _) = opened.wait_timeout_while(open.lock().unwrap(), LIMIT, |open| !*open).unwrap();
        assert!(*open, "nobody opens");
        Err(io::Error::other("no such host"))
    }

    fn hanging(&self) -> u32 {
        self.0.2.load(Ordering::SeqCst)
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// A server that resolves in this way, with the endpoint `reader`.
fn reading(config: Config, lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> RpcEnv {
    let env = builder("server", 1, config).bind("127.0.0.1:0").resolve_by(lookup).start().unwrap();
    env.register("reader", || Reader).unwrap();
    env
}

/// The threads of this process that resolve names.
fn resolver_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("ringpost-resolv")).count()
}

#[test]
fn names_that_peers_tell_take_few_threads_a_bounded_queue_and_no_time_of_the_users_own_names() {
    let _alone = common::echo::alone();
    bounded(|| {
        let names = Names::default();
        let lookup = names.clone();
        let env = reading(Config { connect_timeout: LIMIT, ..config() }, move |host| lookup.lookup(host));
        let (asking, other) = (client(1), serve("127.0.0.1:0", config()));
        let refs = (0..3000).map(|n| asking.endpoint_ref(&format!("ringpost://x@hang{n}.test:1")).unwrap()).collect();
        let reader = asking.endpoint_ref(&uri(&env, "reader")).unwrap();

        let told = reader.ask(AskAll(refs));
        eventually(&env, "the queue is full", |c| c.overloaded_resolver == 1976);
        until("four names hang", || names.hanging() == 4);

        assert_eq!(resolver_threads(), 4);
        let port = other.address().unwrap().port().unwrap();
        let own = env.endpoint_ref(&format!("ringpost://echo@own.test:{port}")).unwrap();
        echo_blocking(&own, 1, 100).unwrap();
        names.open();

        let told = within(told).unwrap();
        let of_kind = |wanted: &str| told.iter().filter(|(kind, _)| kind == wanted).count();
        assert_eq!((of_kind("Overloaded"), of_kind("Unreachable")), (1976, 1024));
        assert!(told.iter().any(|(_, text)| text.contains("Config::resolver_queue")), "{:?}", told.last());
        cut([asking, env, other]);
        until("the threads have ended", || resolver_threads() == 0);
    });
}

#[test]
fn a_name_that_a_peer_told_and_that_hangs_is_resolved_anew_for_the_user() {
    let _alone = common::echo::alone();
    bounded(|| {
        let (names, calls) = (Names::default(), Arc::new(AtomicU32::new(0)));
        let (lookup, count) = (names.clone(), calls.clone());
        let env = reading(Config { connect_timeout: LIMIT, ..config() }, move |host| {
            lookup.lookup(if count.fetch_add(1, Ordering::SeqCst) == 0 { "hang" } else { host })
        });
        let (asking, other) = (client(1), serve("127.0.0.1:0", config()));
        let name = format!("ringpost://echo@both.test:{}", other.address().unwrap().port().unwrap());
        let reader = asking.endpoint_ref(&uri(&env, "reader")).unwrap();
        let told = reader.ask(AskAll(vec![asking.endpoint_ref(&name).unwrap()]));
        until("it hangs", || names.hanging() == 1);

        echo_blocking(&env.endpoint_ref(&name).unwrap(), 1, 100).unwrap();

        assert_eq!(within(told).unwrap(), [Default::default()], "what was told leads there too now");
        names.open();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        cut([asking, env, other]);
    });
}

#[test]
fn a_ref_that_the_policy_forbids_is_an_error_with_address_and_policy_wherever_it_was_told() {
    let _alone = common::echo::alone();
    bounded(|| {
        common::log::keep();
        let [good, bad] = [(); 2].map(|()| serve("127.0.0.1:0", config()));
        let policy = RefPolicy::only([good.address().unwrap().to_string()]);
        let env = builder("server", 2, config()).bind("127.0.0.1:0").ref_policy(policy.clone()).start().unwrap();
        let asking = builder("client", 1, config()).ref_policy(policy).start().unwrap();
        let helper = serving(1, config());
        let [near, far] = [&env, &helper].map(|env| env.register("reader", || Reader).unwrap());
        let [near, far] = [near, far].map(|reader| seen_from(&asking, &reader));
        let [good_ref, bad_ref] = [&good, &bad].map(|env| asking.endpoint_ref(&uri(env, "echo")).unwrap());

        let ends = near.ask_blocking(AskAll(vec![good_ref.clone(), bad_ref.clone()])).unwrap();
        assert_eq!(ends[0], Default::default());
        let sent = near.ask_blocking(SendTo(bad_ref.clone())).unwrap();
        // In a reply, after it was passed on by a node that may use it.
        let back = far.ask_blocking(Back(bad_ref.clone())).unwrap();
        let address = bad.address().unwrap().to_string();
        assert_eq!((back.uri(), back.name()), (uri(&bad, "echo"), "echo"));
        let error = echo_blocking(&back, 1, 10).unwrap_err();
        assert!(matches!(&error, AskError::ForbiddenAddress { address: told, .. } if **told == *address), "{error}");
        for text in [&ends[1].1, &sent, &error.to_string()] {
            for part in [&*address, "RefPolicy::only", "RpcEnv::endpoint_ref", "Builder::ref_policy"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        // A forbidden ref may travel on; one to the env itself is always good.
        assert_eq!(near.ask_blocking(Back(bad_ref.clone())).unwrap().uri(), uri(&bad, "echo"));
        let home = seen_from(&asking, &env.register("echo", || Echoing).unwrap());
        assert_eq!(near.ask_blocking(AskAll(vec![home])).unwrap(), [Default::default()]);

        for _ in 0..100 {
            near.ask_blocking(SendTo(bad_ref.clone())).unwrap();
        }
        eventually(&env, "each is counted", |c| c.refs_forbidden == 103);
        assert_eq!(bad.snapshot().total().accepted, 0, "nobody said hello there");
        let warned = common::log::take().into_iter().filter(|(_, line)| line.contains(&address)).count();
        assert!((2..50).contains(&warned), "{warned} warnings");
        cut([asking, env, good, bad, helper]);
    });
}

#[test]
fn a_name_that_somebody_unknown_told_leads_nowhere_on_this_machine_until_the_user_gives_it() {
    let _alone = common::echo::alone();
    bounded(|| {
        let env = reading(config(), |_| Ok(vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()]));
        let other = serve("127.0.0.1:0", Config { backoff_first: Duration::from_millis(1), ..config() });
        let port = other.address().unwrap().port().unwrap();
        let name = format!("ringpost://echo@inside.test:{port}");
        let json = format!("[{name:?}, null]");
        let ask = move || {
            let json = json.clone();
            async move {
                let told: EndpointRef = serde_json::from_str(&json).unwrap();
                told.ask(common::echo::Echo { payload: bytes::Bytes::new() }).await
            }
        };
        let forbidden = on_core(&env, ask.clone()).unwrap_err();
        let AskError::ForbiddenAddress { address, policy } = &forbidden else { panic!("{forbidden}") };
        assert_eq!((&**address, *policy), (&*format!("inside.test:{port}"), "RefPolicy::outward"));
        assert_eq!(eventually(&env, "it is counted", |c| c.refs_forbidden == 1).dialled, 0);

        let own = env.endpoint_ref(&name).unwrap();
        until("the pause is over", || echo_blocking(&own, 1, 10).is_ok());
        on_core(&env, ask).unwrap();
        cut([env, other]);
    });
}

#[test]
fn the_default_lets_processes_of_one_machine_tell_each_other_of_themselves() {
    let _alone = common::echo::alone();
    bounded(|| {
        let [env, third] = [(); 2].map(|()| serving(1, config()));
        let asking = client(1);
        third.register("echo", || Echoing).unwrap();
        let reader = seen_from(&asking, &env.register("reader", || Reader).unwrap());
        let told = vec![asking.endpoint_ref(&uri(&third, "echo")).unwrap()];
        assert_eq!(reader.ask_blocking(AskAll(told)).unwrap(), [Default::default()]);
        assert_eq!(env.snapshot().total().refs_forbidden, 0);
        cut([asking, env, third]);
    });
}

#[test]
fn a_ref_in_a_typed_error_of_this_machine_or_of_an_own_core_may_be_used() {
    let _alone = common::echo::alone();
    bounded(|| {
        let [env, third] = [2, 1].map(|cores| serving(cores, config()));
        let asking = client(1);
        third.register("echo", || Echoing).unwrap();
        let (own, _gate) = keeper(&env);
        let there = seen_from(&asking, &own);
        // Core 0 is the handler's own, core 1 another one.
        for (name, asker, core, to) in
            [("a peer", &asking, 0, there), ("here", &env, 0, own.clone()), ("a core", &env, 1, own)]
        {
            let echo = asker.endpoint_ref(&uri(&third, "echo")).unwrap();
            let asked = asker.spawn_on(core, move || async move {
                let moved: Moved = to.ask(Where(echo)).await.unwrap_err().downcast().unwrap();
                ask_it(&moved.0).await
            });
            assert_eq!(asked.unwrap().join().unwrap(), "", "told by {name}");
            assert_eq!(asker.snapshot().total().refs_forbidden, 0);
        }
        cut([asking, env, third]);
    });
}

#[test]
fn a_ref_gets_no_more_trust_from_an_own_typed_error_around_it() {
    let _alone = common::echo::alone();
    bounded(|| {
        let env = reading(config(), |_| Ok(vec!["127.0.0.1:0".parse().unwrap()]));
        let other = serve("127.0.0.1:0", config());
        let port = other.address().unwrap().port().unwrap();
        // Nobody knows who told these.
        for address in ["127.0.0.1", "inside.test"] {
            let json = format!(r#"["ringpost://echo@{address}:{port}", null]"#);
            let ended = on_core(&env, move || async move {
                let told: EndpointRef = serde_json::from_str(&json).unwrap();
                let moved: Moved = HandlerError::typed(Moved(told)).downcast().unwrap();
                ask_it(&moved.0).await
            });
            assert_eq!(ended, "ForbiddenAddress", "{address}");
        }
        assert_eq!(other.snapshot().total().accepted, 0);
        cut([env, other]);
    });
}

#[test]
fn a_ref_may_be_used_that_a_process_of_this_machine_has_sent_before_it_went() {
    let _alone = common::echo::alone();
    bounded(|| {
        let [env, third] = [2, 1].map(|cores| serving(cores, config()));
        third.register("echo", || Echoing).unwrap();
        let (own, open) = keeper(&env);
        let sender = client(1);
        let (to, echo) = (seen_from(&sender, &own), sender.endpoint_ref(&uri(&third, "echo")).unwrap());
        to.send(Hold).unwrap();
        to.send(AskLater(echo)).unwrap();
        eventually(&env, "it waits", |now| now.inbox_messages == 1);
        common::end(&sender);
        eventually(&env, "its sender has gone", |now| now.connections == 0);

        open.send(()).unwrap();

        assert_eq!(own.ask_blocking(HowEnded).unwrap(), r#""""#);
        assert_eq!(env.snapshot().total().refs_forbidden, 0);
        cut([env, third]);
    });
}
