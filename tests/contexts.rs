//! What an endpoint knows of itself: its own ref, its env, and how it stops itself.

mod common;

use std::sync::mpsc::{Sender, channel};

use common::gate::{Event, Gate, pass};
use common::scene::at_every_distance;
use common::{LIMIT, bounded, config, end, eventually, kind, server};
use futures::executor::block_on;
use ringpost::{
    CallContext, Endpoint, EndpointContext, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RpcEnv, message,
};
use serde::{Deserialize, Serialize};

/// Answered with the number.
#[derive(Serialize, Deserialize, Clone)]
struct Count(u32);
message!(Count as "contexts.Count" => u32);

/// Stops the endpoint from inside, after a gate.
#[derive(Serialize, Deserialize, Clone)]
struct StopYourself(u64, How);
message!(StopYourself as "contexts.StopYourself" => ());

#[derive(Serialize, Deserialize, Clone, Copy)]
enum How {
    Context,
    Env,
}

/// Answered with the endpoint's own ref and where it is.
#[derive(Serialize, Deserialize, Clone)]
struct Introduce;
message!(Introduce as "contexts.Introduce" => (EndpointRef, String, usize));

#[derive(Debug, PartialEq, Eq)]
enum Step {
    AskedItself(u32),
    Stopped,
    Dropped,
}

struct Aware {
    tell: Sender<Step>,
    /// Held to see that it holds nothing up.
    env: Option<RpcEnv>,
}

impl Aware {
    fn new(tell: &Sender<Step>) -> Aware {
        Aware { tell: tell.clone(), env: None }
    }
}

impl Drop for Aware {
    fn drop(&mut self) {
        let _ = self.tell.send(Step::Dropped);
    }
}

impl Endpoint for Aware {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Count>().ask::<StopYourself>().ask_sync::<Introduce>();
    }

    async fn on_start(&mut self, context: &EndpointContext) -> Result<(), HandlerError> {
        self.env = Some(context.env());
        let (myself, tell) = (context.myself(), self.tell.clone());
        drop(ringpost::spawn(async move {
            let answer = myself.ask(Count(40)).await.unwrap();
            let _ = tell.send(Step::AskedItself(answer));
        }));
        Ok(())
    }

    async fn on_stop(&mut self) {
        let _ = self.tell.send(Step::Stopped);
    }
}

impl HandleSync<Count> for Aware {
    fn handle(&mut self, count: Count, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(count.0 + 2)
    }
}

impl Handle<StopYourself> for Aware {
    async fn handle(&mut self, stop: StopYourself, context: &mut CallContext) -> Result<(), HandlerError> {
        pass(stop.0).await;
        match stop.1 {
            How::Context => {
                context.stop();
                context.stop();
            }
            How::Env => {
                assert!(context.env().stop(&context.myself()));
                assert!(!context.env().stop(&context.myself()), "once");
            }
        }
        Ok(())
    }
}

impl HandleSync<Introduce> for Aware {
    fn handle(
        &mut self,
        _: Introduce,
        context: &mut CallContext,
    ) -> Result<(EndpointRef, String, usize), HandlerError> {
        Ok((context.myself(), context.name().to_string(), context.core()))
    }
}

#[test]
fn an_endpoint_asks_itself_from_on_start_on_and_hands_its_ref_to_others() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, told) = channel();
            let aware = scene.place("aware", move || Aware::new(&tell));
            assert_eq!(told.recv_timeout(LIMIT), Ok(Step::AskedItself(42)));
            for answer in scene.outcomes(&aware, Introduce) {
                let (itself, name, core) = answer.unwrap();
                assert_eq!((itself == aware, name.as_str(), core), (true, "aware", scene.core));
                assert_eq!(itself.ask_blocking(Count(1)).unwrap(), 3);
            }
        });
    });
}

#[test]
fn an_endpoint_that_stops_itself_handles_what_is_queued_and_refuses_what_comes_later() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            for how in [How::Context, How::Env] {
                let (tell, told) = channel();
                let aware = scene.place("aware", move || Aware::new(&tell));
                assert_eq!(told.recv_timeout(LIMIT), Ok(Step::AskedItself(42)));
                let mut gate = Gate::new();
                let stopping = aware.ask(StopYourself(gate.id, how));
                gate.expect(Event::Entered);
                let queued: Vec<_> = (0..3).map(|number| aware.ask(Count(number))).collect();
                eventually(&scene.answering, "three messages that wait", |now| now.inbox_messages == 3);
                gate.open();
                block_on(stopping).unwrap();
                for (number, ask) in queued.into_iter().enumerate() {
                    assert_eq!(block_on(ask).unwrap(), number as u32 + 2);
                }
                for late in scene.outcomes(&aware, Count(9)) {
                    let late = kind(&late.unwrap_err());
                    assert!(["Stopped", "NoEndpoint"].contains(&late.as_str()), "{late}");
                }
                let steps: Vec<_> = (0..2).map(|_| told.recv_timeout(LIMIT).unwrap()).collect();
                assert_eq!(steps, [Step::Stopped, Step::Dropped]);
                assert!(told.try_recv().is_err(), "once");
            }
        });
    });
}

#[test]
fn an_instance_of_many_knows_the_ref_of_all_and_stops_all() {
    bounded(|| {
        let env = server(2);
        let (tell, told) = channel();
        let all = env.register_per_core("aware", move |_| Aware::new(&tell)).unwrap();
        let (itself, ..) = all.ask_blocking(Introduce).unwrap();
        assert_eq!(itself, all);
        let mut gate = Gate::new();
        gate.open();
        all.ask_blocking(StopYourself(gate.id, How::Context)).unwrap();
        let ends = told.iter().filter(|step| *step == Step::Dropped).take(2).count();
        assert_eq!(ends, 2);
        end(&env);
    });
}

#[test]
fn an_env_that_only_its_own_endpoints_hold_shuts_down() {
    bounded(|| {
        let (tell, told) = channel();
        let env = server(1);
        env.register("aware", move || Aware::new(&tell)).unwrap();
        assert_eq!(told.recv_timeout(LIMIT), Ok(Step::AskedItself(42)));
        drop(env);
        assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Stopped));
        assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Dropped));
    });
}
