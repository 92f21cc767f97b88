//! Registering from anywhere: handlers and tasks on cores await it.

mod common;

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use common::gate::{Event, Gate, pass};
use common::scene::at_every_distance;
use common::{LIMIT, bounded, config, end, server};
use futures::executor::block_on;
use ringpost::{
    CallContext, Endpoint, EndpointContext, Handle, HandleSync, HandlerError, Handlers, NameError, RegisterError,
    message,
};
use serde::{Deserialize, Serialize};

/// Has an endpoint make others and ask them; answered with the sum of their cores.
#[derive(Serialize, Deserialize, Clone)]
struct Make(String);
message!(Make as "registering.Make" => usize);

/// Answered with the endpoint's core.
#[derive(Serialize, Deserialize, Clone)]
struct Where;
message!(Where as "registering.Where" => usize);

struct Maker;

impl Endpoint for Maker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Make>();
    }
}

impl Handle<Make> for Maker {
    async fn handle(&mut self, make: Make, context: &mut CallContext) -> Result<usize, HandlerError> {
        let env = context.env();
        let mut sum = 0;
        for core in 0..env.core_count() {
            let child = env.register_on_async(core, &format!("{}{core}", make.0), Child::default).await?;
            sum += child.ask(Where).await?;
            assert!(env.stop(&child));
        }
        let child = env.register_async(&make.0, Child::default).await?;
        let core = child.ask(Where).await?;
        let children = env.register_per_core_async("children", |_| Child::default()).await?;
        for _ in 0..env.core_count() {
            assert_eq!(children.ask(Where).await?, context.core());
        }
        let taken = env.register_async(&make.0, Child::default).await;
        assert!(matches!(taken, Err(RegisterError::Name(NameError::Taken(_)))), "{taken:?}");
        let blocking = env.register("other", Child::default);
        assert!(matches!(blocking, Err(RegisterError::BlockingOnCore)), "{blocking:?}");
        assert!(core < env.core_count());
        Ok(sum)
    }
}

#[derive(Default)]
struct Child {
    gate: Option<u64>,
    fails: bool,
    told: Option<Sender<()>>,
}

impl Endpoint for Child {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Where>();
    }

    async fn on_start(&mut self, _: &EndpointContext) -> Result<(), HandlerError> {
        if let Some(gate) = self.gate {
            pass(gate).await;
        }
        if self.fails { Err(HandlerError::new("no milk")) } else { Ok(()) }
    }

    async fn on_stop(&mut self) {
        if let Some(told) = &self.told {
            told.send(()).unwrap();
        }
    }
}

impl HandleSync<Where> for Child {
    fn handle(&mut self, _: Where, context: &mut CallContext) -> Result<usize, HandlerError> {
        Ok(context.core())
    }
}

#[test]
fn a_handler_registers_endpoints_on_its_own_core_and_on_others() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let maker = scene.place("maker", || Maker);
            let sum: usize = (0..scene.answering.core_count()).sum();
            assert_eq!(maker.ask_blocking(Make("child".into())).unwrap(), sum);
        });
    });
}

#[test]
fn whoever_awaits_a_registration_is_told_why_it_failed() {
    bounded(|| {
        let env = server(2);
        let there = env.clone();
        let failed = env.spawn_on(0, move || async move {
            there.register_on_async(1, "bad", || Child { fails: true, ..Child::default() }).await
        });
        match failed.unwrap().join().unwrap() {
            Err(RegisterError::Failed { name, error }) => {
                assert_eq!((&*name, error.to_string().contains("no milk")), ("bad", true));
            }
            other => panic!("{other:?}"),
        }
        let partly =
            block_on(env.register_per_core_async("bad", |core| Child { fails: core == 1, ..Child::default() }));
        assert!(matches!(partly, Err(RegisterError::Failed { .. })), "{partly:?}");
        let nowhere = block_on(env.register_on_async(2, "bad", Child::default));
        assert!(matches!(nowhere, Err(RegisterError::NoSuchCore { core: 2, cores: 2 })), "{nowhere:?}");
        block_on(env.register_async("bad", Child::default)).expect("the name is free again");
        end(&env);
        let late = block_on(env.register_async("late", Child::default));
        assert!(matches!(late, Err(RegisterError::Stopped { .. })), "{late:?}");
    });
}

#[test]
fn a_registration_that_nobody_awaits_any_more_is_undone() {
    bounded(|| {
        let env = server(1);
        let mut gate = Gate::new();
        let (tell, told) = channel();
        let (id, tell_too) = (gate.id, tell.clone());
        let starting =
            env.register_async("child", move || Child { gate: Some(id), told: Some(tell), ..Child::default() });
        gate.expect(Event::Entered);
        drop(starting);
        gate.open();
        told.recv_timeout(LIMIT).expect("it is stopped once it has started");
        // One that has started already, which nobody has been told.
        let started = env.register_async("child", move || Child { told: Some(tell_too), ..Child::default() });
        env.lookup_blocking(&common::uri(&env, "child")).unwrap();
        common::turn(&env);
        drop(started);
        told.recv_timeout(LIMIT).expect("it is stopped");
        env.register("child", Child::default).expect("the name is free again");
        end(&env);
    });
}

#[test]
fn a_registration_that_the_end_of_the_env_overtakes_ends_too() {
    bounded(|| {
        let env = server(1);
        let gate = Gate::new();
        let id = gate.id;
        let starting = env.register_async("child", move || Child { gate: Some(id), ..Child::default() });
        gate.expect(Event::Entered);
        env.shutdown(Duration::ZERO);
        assert!(env.await_termination_within(LIMIT).unwrap());
        let outcome = block_on(starting);
        assert!(matches!(outcome, Err(RegisterError::Stopped { .. })), "{outcome:?}");
    });
}
