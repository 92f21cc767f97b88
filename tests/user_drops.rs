//! What users make may send, ask and panic when it is dropped, wherever that is: the right asker is told, and the env
//! serves on.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use common::echo::{until, within};
use common::gate::{Event, Gate, pass};
use common::scene::{Distance, Scene, at};
use common::{LIMIT, bounded, config, eventually, kind, seen_from, server, turn};
use futures::executor::block_on;
use ringpost::{
    Ask, AskError, CallContext, Config, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, JoinError,
    message,
};
use serde::{Deserialize, Serialize};

/// What something does when it is dropped.
#[derive(Serialize, Deserialize, Clone, Debug)]
enum Deed {
    Send(EndpointRef),
    Ask(EndpointRef),
    Panic,
}

static BLOWN: LazyLock<Mutex<HashMap<u64, usize>>> = LazyLock::new(Mutex::default);

/// Does its deed when it is dropped; one that came from another node does it too.
#[derive(Serialize, Deserialize, Debug)]
struct Fuse {
    deed: Deed,
    id: u64,
    #[serde(skip, default = "armed")]
    armed: bool,
}

fn armed() -> bool {
    true
}

impl Fuse {
    fn new(deed: &Deed, armed: bool) -> Fuse {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Fuse { deed: deed.clone(), id: NEXT.fetch_add(1, Relaxed), armed }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        *BLOWN.lock().unwrap().entry(self.id).or_default() += 1;
        // A second panic would abort the process: a test that fails is enough.
        if std::thread::panicking() {
            return;
        }
        match &self.deed {
            Deed::Send(to) => drop(to.send(Note())),
            Deed::Ask(to) => drop(to.ask(Ping())),
            Deed::Panic => panic!("a drop panics"),
        }
    }
}

/// Waits until the fuse has gone off.
#[track_caller]
fn expect_blown(id: u64) {
    until("something is dropped", || BLOWN.lock().unwrap().contains_key(&id));
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($($field:ty),*) = $wire:literal $(=> $reply:ty)?;)*) => {$(
        $(#[$doc])*
        #[derive(Serialize, Deserialize)]
        struct $name($($field),*);
        message!($name as $wire $(=> $reply)?);
    )*};
}

messages! {
    /// One-way.
    Note() = "user_drops.Note";
    /// Answered at once.
    Ping() = "user_drops.Ping" => u32;
    /// Waits at a gate.
    Wait(u64) = "user_drops.Wait" => ();
    /// Dropped by its handler.
    Bomb(Fuse) = "user_drops.Bomb" => ();
    /// Nobody handles it.
    Orphan(Fuse) = "user_drops.Orphan" => ();
    /// Kept by its handler, which waits at a gate.
    Keep(u64, Fuse) = "user_drops.Keep" => ();
    /// Answered with a fuse; the core waits at a gate first, if there is one.
    Give(Option<u64>, Deed) = "user_drops.Give" => Fuse;
}

/// Another type under the name of one that is handled.
#[derive(Serialize, Deserialize)]
struct OtherWait(Fuse);
message!(OtherWait as "user_drops.Wait" => ());

#[derive(Default)]
struct Subject {
    _held: Option<Fuse>,
    given: Option<Sender<u64>>,
}

impl Endpoint for Subject {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send_sync::<Note>().ask_sync::<Ping>().ask::<Wait>().ask_sync::<Bomb>().ask::<Keep>();
        handlers.ask_sync::<Give>();
    }
}

impl HandleSync<Note> for Subject {
    fn handle(&mut self, _: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl HandleSync<Ping> for Subject {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(7)
    }
}

impl Handle<Wait> for Subject {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(wait.0).await;
        Ok(())
    }
}

impl HandleSync<Bomb> for Subject {
    fn handle(&mut self, _: Bomb, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Handle<Keep> for Subject {
    async fn handle(&mut self, keep: Keep, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(keep.0).await;
        drop(keep);
        Ok(())
    }
}

impl HandleSync<Give> for Subject {
    fn handle(&mut self, give: Give, _: &mut CallContext) -> Result<Fuse, HandlerError> {
        if let Some(gate) = give.0 {
            block_on(pass(gate));
        }
        let fuse = Fuse::new(&give.1, true);
        if let Some(tell) = &self.given {
            let _ = tell.send(fuse.id);
        }
        Ok(fuse)
    }
}

const IN_ENV: [Distance; 2] = [Distance::Local, Distance::Lane];
const ANY: [Distance; 4] = [Distance::Local, Distance::Lane, Distance::Peer, Distance::PeerLane];

/// Plays with a new subject for each distance and each deed, which is done to the subject itself. Whatever happens, both
/// envs serve afterwards, and end cleanly.
fn with_each_deed(distances: &[Distance], config: Config, play: impl Fn(&Scene, &EndpointRef, &Deed)) {
    let deeds: [fn(EndpointRef) -> Deed; 3] = [Deed::Send, Deed::Ask, |_| Deed::Panic];
    for &distance in distances {
        at(distance, config.clone(), |scene| {
            for (number, deed) in deeds.iter().enumerate() {
                let name = format!("subject-{number}");
                let own = scene.answering.register_on(scene.core, &name, Subject::default).unwrap();
                let subject = if distance.is_remote() { seen_from(&scene.asking, &own) } else { own.clone() };
                let deed = deed(own);
                println!("  {deed:?}");
                play(scene, &subject, &deed);
                serves(scene);
            }
        });
    }
}

/// A name that nobody had before: who asked an earlier holder would be told once that it is gone.
fn unused(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{name}-{}", NEXT.fetch_add(1, Relaxed))
}

#[track_caller]
fn serves(scene: &Scene) {
    let ping = scene.place(&unused("ping"), Subject::default);
    assert_eq!(ping.ask_blocking(Ping()).unwrap(), 7);
    let there = ping.clone();
    assert_eq!(scene.run(move || async move { there.ask(Ping()).await }).unwrap(), 7);
    let own = scene.answering.endpoint_ref(&ping.uri()).unwrap_or(ping);
    let before = eventually(&scene.answering, "it runs", |_| true).endpoints;
    assert!(scene.answering.stop(&own));
    eventually(&scene.answering, "its end", |now| now.endpoints == before - 1);
}

/// The name of the error of an ask from the asking core, and from a thread that is no core. The message has a fuse that
/// goes off each time.
fn errors<M: Ask<Reply = ()>>(scene: &Scene, to: &EndpointRef, make: impl Fn() -> (M, u64)) -> [String; 2] {
    let ((first, first_id), (second, second_id)) = (make(), make());
    let there = to.clone();
    let on_core = scene.run(move || async move { there.ask(first).await });
    let blocking = to.ask_blocking(second);
    expect_blown(first_id);
    expect_blown(second_id);
    [on_core, blocking].map(|outcome| kind(&outcome.unwrap_err()))
}

fn bomb(deed: &Deed) -> (Bomb, u64) {
    let fuse = Fuse::new(deed, true);
    let id = fuse.id;
    (Bomb(fuse), id)
}

#[test]
fn what_a_full_inbox_refuses_may_do_anything_when_it_is_dropped() {
    bounded(|| {
        with_each_deed(&IN_ENV, Config { inbox_messages: 1, ..config() }, |scene, subject, deed| {
            let (mut first, mut second) = (Gate::new(), Gate::new());
            let running = subject.ask(Wait(first.id));
            first.expect(Event::Entered);
            let queued = subject.ask(Wait(second.id));
            turn(&scene.answering);
            assert_eq!(errors(scene, subject, || bomb(deed)), ["Overloaded", "Overloaded"]);
            first.open();
            second.open();
            within(running).unwrap();
            within(queued).unwrap();
        });
    });
}

#[test]
fn a_message_that_finds_no_endpoint_or_no_handler_may_do_anything_when_it_is_dropped() {
    bounded(|| {
        with_each_deed(&IN_ENV, config(), |scene, subject, deed| {
            let orphan = || {
                let (Bomb(fuse), id) = bomb(deed);
                (Orphan(fuse), id)
            };
            assert_eq!(errors(scene, subject, orphan), ["UnknownMessage", "UnknownMessage"]);
            let other = || {
                let (Bomb(fuse), id) = bomb(deed);
                (OtherWait(fuse), id)
            };
            assert_eq!(errors(scene, subject, other), ["Undecodable", "Undecodable"]);
            let before = eventually(&scene.answering, "it runs", |_| true).endpoints;
            assert!(scene.answering.stop(subject));
            eventually(&scene.answering, "its end", |now| now.endpoints == before - 1);
            assert_eq!(errors(scene, subject, || bomb(deed)), ["NoEndpoint", "NoEndpoint"]);
        });
    });
}

#[test]
fn a_message_that_is_given_up_in_the_inbox_may_do_anything_when_it_is_dropped() {
    bounded(|| {
        with_each_deed(&IN_ENV, config(), |scene, subject, deed| {
            let mut gate = Gate::new();
            let running = subject.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            let ((dropped, dropped_id), (late, late_id)) = (bomb(deed), bomb(deed));
            let there = subject.clone();
            // Given up by its asker, and by its time.
            let outcome = scene.run(move || async move {
                drop(there.ask(dropped));
                there.ask_within(late, Duration::from_millis(1)).await
            });
            assert_eq!(kind(&outcome.unwrap_err()), "Timeout");
            expect_blown(dropped_id);
            expect_blown(late_id);
            gate.open();
            within(running).unwrap();
        });
    });
}

#[test]
fn what_a_cancelled_handler_held_may_do_anything_when_it_is_dropped() {
    bounded(|| {
        with_each_deed(&ANY, config(), |scene, subject, deed| {
            let gate = Gate::new();
            let (id, fuse) = (gate.id, Fuse::new(deed, !scene.distance.is_remote()));
            let blown = fuse.id;
            let asking = subject.ask(Keep(id, fuse));
            gate.expect(Event::Entered);
            drop(asking);
            gate.expect(Event::Dropped);
            expect_blown(blown);
            assert_eq!(subject.ask_blocking(Ping()).unwrap(), 7, "the endpoint lives on");
        });
    });
}

#[test]
fn a_reply_may_do_anything_when_it_is_dropped_late_or_untaken_or_sent() {
    bounded(|| {
        with_each_deed(&ANY, config(), |scene, _, deed| {
            let (tell, given) = channel();
            let giver = scene.place(&unused("giver"), move || Subject { given: Some(tell), ..Subject::default() });
            // Late: it is made when nobody waits for it any more. The handler's core is held meanwhile, so on the same
            // core nobody but another thread can give the ask up.
            let mut gate = Gate::new();
            let asking = giver.ask(Give(Some(gate.id), deed.clone()));
            gate.expect(Event::Entered);
            drop(asking);
            gate.open();
            expect_blown(given.recv_timeout(LIMIT).unwrap());
            // Late, and the asker is a core.
            if scene.distance != Distance::Local {
                let (mut gate, mut give_up) = (Gate::new(), Gate::new());
                let (there, message, wait) = (giver.clone(), Give(Some(gate.id), deed.clone()), give_up.id);
                let asker = scene.asking.spawn_on(0, move || async move {
                    let asking = there.ask(message);
                    pass(wait).await;
                    drop(asking);
                });
                gate.expect(Event::Entered);
                give_up.open();
                within(asker.unwrap()).unwrap();
                gate.open();
                expect_blown(given.recv_timeout(LIMIT).unwrap());
            }
            // Never taken: it is there before the one that is awaited.
            let (there, give) = (giver.clone(), Give(None, deed.clone()));
            let asker = scene.asking.spawn_on(0, move || async move {
                let asking = there.ask(give);
                let answer = there.ask(Ping()).await;
                drop(asking);
                answer
            });
            assert_eq!(within(asker.unwrap()).unwrap().unwrap(), 7);
            expect_blown(given.recv_timeout(LIMIT).unwrap());
            // Sent to a peer, its original is dropped; that is no matter of the asker.
            let mut reply = giver.ask_blocking(Give(None, deed.clone())).unwrap();
            reply.armed = false;
            assert_eq!(reply.id, given.recv_timeout(LIMIT).unwrap());
            if scene.distance.is_remote() {
                expect_blown(reply.id);
            }
            assert_eq!(giver.ask_blocking(Ping()).unwrap(), 7, "the endpoint lives on");
            let own = scene.answering.endpoint_ref(&giver.uri()).unwrap_or(giver);
            assert!(scene.answering.stop(&own));
        });
    });
}

#[test]
fn an_endpoint_may_do_anything_when_it_is_dropped() {
    bounded(|| {
        with_each_deed(&IN_ENV, config(), |scene, _, deed| {
            let fuse = Fuse::new(deed, true);
            let id = fuse.id;
            let holder = scene.place("holder", move || Subject { _held: Some(fuse), ..Subject::default() });
            assert!(scene.answering.stop(&holder));
            expect_blown(id);
        });
    });
}

#[test]
fn an_env_ends_whatever_its_endpoints_and_the_messages_in_them_do_when_they_are_dropped() {
    bounded(|| {
        for (number, core) in [0, 1, 0, 1, 0, 1].into_iter().enumerate() {
            let env = server(2);
            let target = env.register_on(core, "target", Subject::default).unwrap();
            let deed = [Deed::Send(target.clone()), Deed::Ask(target), Deed::Panic][number / 2].clone();
            let held = Fuse::new(&deed, true);
            let mut ids = vec![held.id];
            let stuck = env.register_on(core, "stuck", move || Subject { _held: Some(held), ..Subject::default() });
            let stuck = stuck.unwrap();
            let (gate, (queued, id)) = (Gate::new(), bomb(&deed));
            ids.push(id);
            let running = stuck.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            let queued = stuck.ask(queued);
            turn(&env);
            env.shutdown(Duration::ZERO);
            assert!(env.await_termination_within(LIMIT).unwrap(), "{deed:?}: {env:?} does not end");
            for outcome in [within(running), within(queued)] {
                assert!(matches!(outcome, Err(AskError::Stopped { .. })), "{deed:?}: {outcome:?}");
            }
            ids.into_iter().for_each(expect_blown);
        }
    });
}

#[test]
fn what_a_task_holds_may_do_anything_when_it_is_dropped() {
    bounded(|| {
        with_each_deed(&IN_ENV, config(), |scene, _, deed| {
            let (ended, waiting) = (Fuse::new(deed, true), Fuse::new(deed, true));
            let (gate, ids) = (Gate::new(), [ended.id, waiting.id]);
            let gate_id = gate.id;
            drop(scene.asking.spawn_on(scene.core, move || async move { drop(ended) }).unwrap());
            let asker = scene.asking.spawn_on(scene.core, move || async move {
                let _waiting = waiting;
                pass(gate_id).await;
            });
            gate.expect(Event::Entered);
            drop(gate);
            // A task that panics where it drops says so to its handle, and no one else.
            match (within(asker.unwrap()), deed) {
                (Err(JoinError::Panicked(text)), Deed::Panic) => assert_eq!(text, "a drop panics"),
                (outcome, deed) => assert_eq!((outcome, matches!(deed, Deed::Panic)), (Ok(()), false)),
            }
            ids.into_iter().for_each(expect_blown);
        });
    });
}
