//! Messages to one ref keep their order, and a handler that waits holds up its own endpoint only.

mod common;

use std::time::Duration;

use common::gate::{Event, Gate, pass};
use common::scene::at_every_distance;
use common::{LIMIT, bounded, config};
use ringpost::{
    AskError, CallContext, Caller, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, message,
};
use serde::{Deserialize, Serialize};

/// Keeps a number; one-way, handled without a suspension.
#[derive(Serialize, Deserialize)]
struct Note(u32);
message!(Note as "order.Note");

/// Keeps a number after it has been suspended once; one-way.
#[derive(Serialize, Deserialize)]
struct Slow(u32);
message!(Slow as "order.Slow");

/// Keeps a number, and says how many were kept before.
#[derive(Serialize, Deserialize)]
struct Keep(u32);
message!(Keep as "order.Keep" => usize);

/// Waits at a gate between keeping the number and keeping it again.
#[derive(Serialize, Deserialize)]
struct Wait(u32, u64);
message!(Wait as "order.Wait" => ());

/// What was kept.
#[derive(Serialize, Deserialize)]
struct Kept;
message!(Kept as "order.Kept" => Vec<u32>);

/// What the context says.
#[derive(Serialize, Deserialize, Clone)]
struct About;
message!(About as "order.About" => (Option<Duration>, bool, usize, String));

/// What the context of a one-way message says is kept as 1 if all is as it should be.
#[derive(Serialize, Deserialize)]
struct AboutOneWay;
message!(AboutOneWay as "order.AboutOneWay");

#[derive(Default)]
struct Log(Vec<u32>);

impl Endpoint for Log {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send_sync::<Note>().send::<Slow>().ask_sync::<Keep>().ask::<Wait>().ask_sync::<Kept>();
        handlers.ask_sync::<About>().send_sync::<AboutOneWay>();
    }
}

impl HandleSync<Note> for Log {
    fn handle(&mut self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.push(note.0);
        Ok(())
    }
}

impl Handle<Slow> for Log {
    async fn handle(&mut self, slow: Slow, _: &mut CallContext) -> Result<(), HandlerError> {
        let mut resumed = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut resumed, true) {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        self.0.push(slow.0);
        Ok(())
    }
}

impl HandleSync<Keep> for Log {
    fn handle(&mut self, keep: Keep, _: &mut CallContext) -> Result<usize, HandlerError> {
        self.0.push(keep.0);
        Ok(self.0.len() - 1)
    }
}

impl Handle<Wait> for Log {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.push(wait.0);
        pass(wait.1).await;
        self.0.push(wait.0);
        Ok(())
    }
}

impl HandleSync<Kept> for Log {
    fn handle(&mut self, _: Kept, _: &mut CallContext) -> Result<Vec<u32>, HandlerError> {
        Ok(self.0.clone())
    }
}

impl HandleSync<About> for Log {
    fn handle(
        &mut self,
        _: About,
        context: &mut CallContext,
    ) -> Result<(Option<Duration>, bool, usize, String), HandlerError> {
        let caller = match context.caller() {
            Caller::Core(core) => format!("core {core}"),
            Caller::Peer(peer) => format!("peer {}", peer.remote()),
            other => format!("{other:?}"),
        };
        Ok((context.remaining(), context.is_ask(), context.core(), caller))
    }
}

impl HandleSync<AboutOneWay> for Log {
    fn handle(&mut self, _: AboutOneWay, context: &mut CallContext) -> Result<(), HandlerError> {
        self.0.push(u32::from(context.remaining().is_none() && !context.is_ask()));
        Ok(())
    }
}

const COUNT: u32 = 3000;

/// Sends `COUNT` messages of all kinds without waiting for any, then checks each answer.
async fn mix(log: EndpointRef) -> Result<(), AskError> {
    let mut asks = Vec::new();
    for number in 0..COUNT {
        match number % 3 {
            0 => log.send(Note(number)).unwrap(),
            1 => log.send(Slow(number)).unwrap(),
            _ => asks.push((number, log.ask(Keep(number)))),
        }
    }
    for (number, ask) in asks {
        assert_eq!(ask.await?, number as usize, "everything sent before has been handled, nothing sent after");
    }
    Ok(())
}

#[test]
fn asks_and_sends_to_one_ref_are_handled_in_the_order_in_which_they_were_sent() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let there = scene.place("from-core", Log::default);
            let log = there.clone();
            scene.run(move || mix(log)).unwrap();
            assert_eq!(there.ask_blocking(Kept).unwrap(), (0..COUNT).collect::<Vec<_>>());

            let there = scene.place("from-thread", Log::default);
            futures::executor::block_on(mix(there.clone())).unwrap();
            assert_eq!(there.ask_blocking(Kept).unwrap(), (0..COUNT).collect::<Vec<_>>());
        });
    });
}

#[test]
fn a_suspended_handler_holds_up_its_own_endpoint_and_no_other() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (log, other) = (scene.place("log", Log::default), scene.place("other", Log::default));
            let mut gates = [Gate::new(), Gate::new()];
            let [first, second] = [0, 1].map(|at| log.ask(Wait(at as u32, gates[at].id)));
            log.send(Note(2)).unwrap();
            let last = log.ask(Keep(3));
            gates[0].expect(Event::Entered);
            for round in 0..100 {
                assert_eq!(other.ask_blocking(Keep(round)).unwrap(), round as usize);
            }
            assert!(gates[1].is_untouched(), "the second began before the first had ended");
            gates[0].open();
            futures::executor::block_on(first).unwrap();
            gates[1].expect(Event::Entered);
            gates[1].open();
            futures::executor::block_on(second).unwrap();
            assert_eq!(futures::executor::block_on(last).unwrap(), 5);
            assert_eq!(log.ask_blocking(Kept).unwrap(), [0, 0, 1, 1, 2, 3]);
        });
    });
}

#[test]
fn a_handler_sees_the_deadline_the_sender_and_its_own_core() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let log = scene.place("log", Log::default);
            let there = log.clone();
            let limits = scene.run(move || async move {
                let given = there.ask_within(About, Duration::from_secs(5)).await?;
                Ok::<_, AskError>([(given, Duration::from_secs(5)), (there.ask(About).await?, LIMIT)])
            });
            for ((remaining, is_ask, core, sender), limit) in limits.unwrap() {
                let remaining = remaining.unwrap();
                assert!(remaining <= limit && remaining > limit - Duration::from_secs(4), "{remaining:?} of {limit:?}");
                assert!(is_ask);
                assert_eq!(core, scene.core);
                match scene.distance.is_remote() {
                    false => assert_eq!(sender, "core 0"),
                    true => assert!(sender.starts_with("peer "), "{sender}"),
                }
            }
            log.send(AboutOneWay).unwrap();
            assert_eq!(log.ask_blocking(Kept).unwrap(), [1]);
        });
    });
}
