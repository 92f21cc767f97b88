//! From a URI to an endpoint.

mod common;

use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use common::{LIMIT, bounded, builder, client, config, end, eventually, server, serving, uri};
use futures::executor::block_on;
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointRef, HandleDeferred, HandleSync, HandlerError, Handlers,
    LookupError, Replier, RpcEnv, message,
};
use serde::{Deserialize, Serialize};

/// Answers with the number of the server's run.
#[derive(Serialize, Deserialize)]
struct Run;
message!(Run as "lookup.Run" => u32);

struct Server(u32);

impl Endpoint for Server {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Run>();
    }
}

impl HandleSync<Run> for Server {
    fn handle(&mut self, _: Run, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(self.0)
    }
}

/// The outcome of a look-up from a thread that blocks, one that awaits, and a core.
fn lookups(env: &RpcEnv, uri: &str) -> [Result<EndpointRef, LookupError>; 3] {
    let (there, text) = (env.clone(), uri.to_owned());
    let on_core = env.spawn_on(0, move || async move { there.lookup(&text).await }).unwrap().join().unwrap();
    [env.lookup_blocking(uri), block_on(env.lookup(uri)), on_core]
}

#[test]
fn a_lookup_finds_an_endpoint_of_its_own_env_and_of_a_peer() {
    bounded(|| {
        let (env, other) = (server(2), client(2));
        env.register("server", || Server(1)).unwrap();
        env.register_per_core("everywhere", |_| Server(2)).unwrap();
        for (name, run) in [("server", 1), ("everywhere", 2)] {
            for asking in [&env, &other] {
                for found in lookups(asking, &uri(&env, name)) {
                    let found = found.unwrap();
                    assert_eq!(found.uri(), uri(&env, name));
                    assert_eq!(found.ask_blocking(Run).unwrap(), run);
                }
            }
        }
        end(&other);
        end(&env);
    });
}

#[test]
fn a_name_that_nobody_has_is_not_found_and_found_once_somebody_has_it() {
    bounded(|| {
        let (env, other) = (server(1), client(1));
        let uri = uri(&env, "server");
        for round in 0..2 {
            for asking in [&env, &other] {
                for missing in lookups(asking, &uri) {
                    let Err(LookupError::NotFound { uri: named }) = missing else { panic!("{missing:?}") };
                    assert_eq!(&*named, uri);
                }
            }
            // A ref of the env itself is looked up at once, one of a peer with its first ask.
            let own = env.endpoint_ref(&uri);
            assert!(matches!(own, Err(LookupError::NotFound { .. })), "{own:?}");
            let far = other.endpoint_ref(&uri).unwrap();
            let missing = far.ask_blocking(Run);
            assert!(matches!(missing, Err(AskError::NoEndpoint { .. })), "{missing:?}");
            let holder = env.register("server", move || Server(round)).unwrap();
            assert_eq!(far.ask_blocking(Run).unwrap(), round, "the same ref, now that the endpoint is there");
            for found in [&env, &other].into_iter().flat_map(|asking| lookups(asking, &uri)) {
                assert_eq!(found.unwrap().ask_blocking(Run).unwrap(), round);
            }
            assert!(env.stop(&holder));
        }
        end(&other);
        end(&env);
    });
}

#[test]
fn a_peer_that_cannot_be_reached_is_named() {
    bounded(|| {
        let other = client(1);
        // Nobody listens there any more.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let uri = format!("ringpost://server@{free}");
        for unreachable in lookups(&other, &uri) {
            let Err(LookupError::Ask { uri: named, error: AskError::Unreachable { peer, cause } }) = unreachable else {
                panic!("{unreachable:?}")
            };
            assert_eq!((&*named, peer.to_string()), (&*uri, free.to_string()));
            assert!(!cause.is_empty());
        }
        let nowhere = other.lookup_blocking("ringpost://server@no.such.host.invalid:7077");
        let Err(LookupError::Ask { error: AskError::Unreachable { peer, cause }, .. }) = nowhere else {
            panic!("{nowhere:?}")
        };
        assert_eq!(&*peer, "no.such.host.invalid:7077");
        assert!(cause.contains("resolved"), "{cause}");
        end(&other);
    });
}

#[test]
fn a_lookup_at_a_silent_peer_ends_by_its_own_limit_and_names_it() {
    bounded(|| {
        let limit = Duration::from_millis(40);
        let other = builder("client", 1, Config { lookup_timeout: limit, ..config() }).start().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("ringpost://server@{}", silent.local_addr().unwrap());
        for late in lookups(&other, &uri) {
            let Err(LookupError::Ask { error: AskError::Timeout { target, after, setting }, .. }) = late else {
                panic!("{late:?}")
            };
            assert!(target.contains(&silent.local_addr().unwrap().to_string()), "{target}");
            assert_eq!((after, setting), (limit, "Config::lookup_timeout"));
        }
        assert_eq!(eventually(&other, "all have ended", |c| c.pending_asks == 0).timeouts, 3);
        end(&other);
    });
}

#[test]
fn a_peer_that_says_no_hello_in_time_is_unreachable() {
    bounded(|| {
        let config = Config { handshake_timeout: Duration::from_millis(40), ..config() };
        let other = builder("client", 1, config).start().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let endpoint = other.endpoint_ref(&format!("ringpost://server@{address}")).unwrap();
        let outcome = endpoint.ask_blocking(Run);
        let Err(AskError::Unreachable { peer, cause }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(*peer, *address);
        assert!(cause.contains("Config::handshake_timeout"), "{cause}");
        end(&other);
    });
}

#[test]
fn what_is_no_uri_is_refused_before_anything_is_sent() {
    bounded(|| {
        let env = server(1);
        for bad in ["", "server", "http://server@h:1", "ringpost://server", "ringpost://a b@h:1", "ringpost://a@h:0"] {
            let refused = env.endpoint_ref(bad);
            assert!(matches!(refused, Err(LookupError::Address(_))), "{bad}: {refused:?}");
            for refused in lookups(&env, bad) {
                let Err(LookupError::Address(error)) = refused else { panic!("{bad}: {refused:?}") };
                assert!(error.to_string().contains(bad));
            }
        }
        assert_eq!(eventually(&env, "nothing", |_| true).dial_failures, 0);
        end(&env);
    });
}

#[test]
fn the_first_ask_carries_the_name_and_all_later_ones_the_id() {
    bounded(|| {
        let (env, other) = (server(1), client(1));
        let name = "a-rather-long-name-".repeat(10);
        env.register(&name, || Server(1)).unwrap();
        let far = other.endpoint_ref(&uri(&env, &name)).unwrap();
        let mut sent = vec![eventually(&other, "the start", |_| true)];
        for _ in 0..4 {
            assert_eq!(far.ask_blocking(Run).unwrap(), 1);
            sent.push(eventually(&other, "the answer", |now| now.pending_asks == 0));
        }
        let bytes: Vec<_> = sent.windows(2).map(|pair| pair[1].bytes_out - pair[0].bytes_out).collect();
        assert!(bytes[0] > name.len() as u64, "the hello and the first ask: {bytes:?}");
        // Header, deadline and no payload.
        assert_eq!(bytes[1..], [32, 32, 32], "{bytes:?}");
        assert_eq!(sent[4].replies_in, 4, "no look-up beside them");
        end(&other);
        end(&env);
    });
}

#[test]
fn a_ref_works_again_after_its_server_has_restarted() {
    bounded(|| {
        let first = server(2);
        let address = first.address().unwrap().to_string();
        let config = Config { backoff_first: Duration::from_millis(5), ..config() };
        let other = builder("client", 1, config.clone()).start().unwrap();
        // The new run gives the id of the old endpoint to another one: a ref must not believe in old ids.
        first.register("server", || Server(1)).unwrap();
        let far = other.endpoint_ref(&uri(&first, "server")).unwrap();
        assert_eq!(far.ask_blocking(Run).unwrap(), 1);
        end(&first);
        drop(first);
        let gone = far.ask_blocking(Run);
        assert!(matches!(gone, Err(AskError::Unreachable { .. } | AskError::Disconnected { .. })), "{gone:?}");

        let second = builder("server", 2, config).bind(&address).start().unwrap();
        assert_eq!(second.address().unwrap().to_string(), address, "its port is free at once");
        second.register("someone-else", || Server(99)).unwrap();
        second.register("server", || Server(2)).unwrap();
        let end_of_wait = Instant::now() + LIMIT;
        let run = loop {
            match far.ask_blocking(Run) {
                Ok(run) => break run,
                Err(AskError::Unreachable { .. } | AskError::Disconnected { .. }) if Instant::now() < end_of_wait => {}
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(run, 2);
        end(&other);
        end(&second);
    });
}

#[test]
fn an_advertised_host_is_what_refs_carry() {
    bounded(|| {
        let env = builder("server", 1, config()).bind("127.0.0.1:0").advertise("localhost").start().unwrap();
        let endpoint = env.register("server", || Server(4)).unwrap();
        let port = env.address().unwrap().port().unwrap();
        assert_eq!(endpoint.uri(), format!("ringpost://server@localhost:{port}"));
        let other = serving(1, config());
        for uri in [endpoint.uri(), format!("ringpost://server@127.0.0.1:{port}")] {
            assert_eq!(other.lookup_blocking(&uri).unwrap().ask_blocking(Run).unwrap(), 4, "{uri}");
        }
        end(&other);
        end(&env);
    });
}

#[test]
fn an_env_on_the_ipv6_loopback_is_reached_however_its_address_is_written() {
    bounded(|| {
        let (env, other) = (builder("server", 2, config()).bind("[::1]:0").start().unwrap(), client(1));
        let endpoint = env.register("server", || Server(6)).unwrap();
        let port = env.address().unwrap().port().unwrap();
        assert_eq!(endpoint.uri(), format!("ringpost://server@[::1]:{port}"));
        let found = ["[::1]", "[0:0:0:0:0:0:0:1]", "[0::0:1]"]
            .map(|host| other.endpoint_ref(&format!("ringpost://server@{host}:{port}")).unwrap());
        for found in &found {
            assert_eq!((found.uri(), found.ask_blocking(Run).unwrap()), (endpoint.uri(), 6));
        }
        assert_eq!(eventually(&other, "all went there", |_| true).dialled, 1, "one node, whatever it is called");
        end(&other);
        end(&env);
    });
}

#[test]
fn an_endpoint_is_found_by_uri_and_by_address_and_name() {
    bounded(|| {
        let (env, other) = (server(1), client(1));
        env.register("server", || Server(5)).unwrap();
        let (address, text) = (env.address().unwrap(), env.address().unwrap().to_string());
        let by_uri = other.endpoint_ref(&uri(&env, "server")).unwrap();
        for same in [
            other.endpoint_ref((address, "server")).unwrap(),
            other.endpoint_ref((&*text, "server")).unwrap(),
            other.lookup_blocking((address, "server")).unwrap(),
            block_on(other.lookup((&*text, "server"))).unwrap(),
        ] {
            assert_eq!(same, by_uri);
            assert_eq!(same.ask_blocking(Run).unwrap(), 5);
        }
        let missing = other.lookup_blocking((address, "nobody"));
        assert!(matches!(&missing, Err(LookupError::NotFound { uri }) if uri.contains("nobody@")), "{missing:?}");
        for (address, name) in [("127.0.0.1:0", "server"), (&*text, "a b"), ("nowhere", "server"), (&*text, "")] {
            let refused = other.endpoint_ref((address, name));
            assert!(matches!(refused, Err(LookupError::Address(_))), "{address} {name}: {refused:?}");
        }
        end(&other);
        end(&env);
    });
}

/// Leaves its answers to the test.
struct Slow(Sender<Replier<u32>>);

impl Endpoint for Slow {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_deferred::<Run>();
    }
}

impl HandleDeferred<Run> for Slow {
    fn handle(&mut self, _: Run, replier: Replier<u32>, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.send(replier).unwrap();
        Ok(())
    }
}

#[test]
fn a_late_answer_of_a_former_holder_leads_no_ref_back_to_it() {
    bounded(|| {
        let (env, other) = (server(2), client(2));
        for round in 0..10 {
            let name = format!("server{round}");
            let far = other.endpoint_ref(&uri(&env, &name)).unwrap();
            let (repliers, given) = channel();
            let former = env.register(&name, || Slow(repliers)).unwrap();
            let late = far.ask(Run);
            let replier = given.recv_timeout(LIMIT).unwrap();
            assert!(env.stop(&former));
            env.register(&name, || Server(2)).unwrap();
            assert_eq!(far.ask_blocking(Run), Ok(2));
            replier.reply(1);
            assert_eq!(block_on(late), Ok(1), "its asker is answered all the same");
            assert_eq!(far.ask_blocking(Run), Ok(2), "in round {round}");
        }
        end(&other);
        end(&env);
    });
}

#[test]
fn a_ref_tells_where_its_node_listens() {
    bounded(|| {
        let (env, guest) = (server(1), client(1));
        let [near, silent] = [&env, &guest].map(|env| env.register("server", || Server(7)).unwrap());
        let far = guest.endpoint_ref(&near.uri()).unwrap();
        assert!(near.address().is_some());
        assert_eq!((near.address().as_ref(), far.address().as_ref()), (env.address(), env.address()));
        assert_eq!(silent.address(), None);
        assert_eq!(env.endpoint_ref(&silent.uri()).unwrap().address(), None);
        let socket = env.endpoint_ref("ringpost://server@unix:/run/x.sock").unwrap();
        assert_eq!(socket.address(), Some(ringpost::Address::unix("/run/x.sock").unwrap()));
        [&env, &guest].into_iter().for_each(end);
    });
}
