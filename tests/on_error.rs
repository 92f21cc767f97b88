//! What an endpoint may do while it is told of an error.

mod common;

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Waker};
use std::time::Duration;

use common::echo::{Hang, Hanging, on_core};
use common::{LIMIT, bounded, client, end, eventually};
use ringpost::{
    AskError, CallContext, Endpoint, EndpointRef, HandleShared, HandleSync, HandlerError, Handlers, message, spawn,
};
use serde::{Deserialize, Serialize};

/// Fails.
#[derive(Serialize, Deserialize)]
struct Fail;
message!(Fail as "on_error.Fail" => ());

/// How often has it been told of an error?
#[derive(Serialize, Deserialize)]
struct Told;
message!(Told as "on_error.Told" => u32);

/// Looks at an ask of itself, and has a task await another, when it is told of an error. May have several in flight.
#[derive(Default)]
struct Introspective {
    hang: Option<EndpointRef>,
    own: Option<EndpointRef>,
    told: Rc<Cell<u32>>,
    outcome: Option<Sender<AskError>>,
}

/// Tells an endpoint where it is.
#[derive(Serialize, Deserialize)]
struct Where(EndpointRef);
message!(Where as "on_error.Where" => ());

/// Fails after a turn.
#[derive(Serialize, Deserialize)]
struct FailLater;
message!(FailLater as "on_error.FailLater" => ());

impl Endpoint for Introspective {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.concurrency(if SHARED.get() { 2 } else { 1 });
        handlers.ask_sync::<Fail>().ask_shared::<FailLater>().ask_sync::<Told>().ask_sync::<Where>();
    }

    fn on_error(&mut self, _: &HandlerError) {
        if let Some(own) = &self.own {
            let looked = pin!(own.ask(Told)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(looked.is_pending(), "it is handled while its endpoint is told of an error");
        }
        if let (Some(hang), Some(tell)) = (&self.hang, self.outcome.take()) {
            let ask = hang.ask(Hang);
            drop(spawn(async move { tell.send(ask.await.unwrap_err()).unwrap() }));
        }
        self.told.set(self.told.get() + 1);
    }
}

thread_local! {
    /// Whether the endpoint that is registered next has handlers in flight side by side.
    static SHARED: Cell<bool> = const { Cell::new(false) };
}

impl HandleSync<Where> for Introspective {
    fn handle(&mut self, Where(own): Where, _: &mut CallContext) -> Result<(), HandlerError> {
        self.own = Some(own);
        Ok(())
    }
}

impl HandleSync<Told> for Introspective {
    fn handle(&mut self, _: Told, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(self.told.get())
    }
}

impl HandleSync<Fail> for Introspective {
    fn handle(&mut self, _: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(HandlerError::new("as asked"))
    }
}

impl HandleShared<FailLater> for Introspective {
    async fn handle(&self, _: FailLater, _: &mut CallContext) -> Result<(), HandlerError> {
        spawn(async {}).await?;
        Err(HandlerError::new("as asked"))
    }
}

#[test]
fn an_endpoint_that_is_told_of_an_error_may_ask_itself() {
    bounded(|| {
        let env = client(1);
        let own = env.register_on(0, "own", Introspective::default).unwrap();
        let shared = || {
            SHARED.set(true);
            Introspective::default()
        };
        let shared = env.register_on(0, "shared", shared).unwrap();
        for endpoint in [own, shared] {
            endpoint.ask_blocking(Where(endpoint.clone())).unwrap();
            let there = endpoint.clone();
            on_core(&env, move || async move { there.ask(Fail).await.unwrap_err() });
            endpoint.ask_blocking(FailLater).unwrap_err();
            assert_eq!(endpoint.ask_blocking(Told).unwrap(), 2, "{endpoint}");
        }
        eventually(&env, "nobody waits", |now| now.pending_asks == 0);
        end(&env);
    });
}

#[test]
fn what_on_error_asks_for_ends_with_the_call_that_failed() {
    bounded(|| {
        let env = client(1);
        let (tell, told) = channel();
        let hang = env.register_on(0, "hang", || Hanging).unwrap();
        let failing = move || Introspective { hang: Some(hang), outcome: Some(tell), ..Introspective::default() };
        let failing = env.register_on(0, "failing", failing).unwrap();
        on_core(&env, move || async move { failing.ask_within(Fail, Duration::from_millis(20)).await }).unwrap_err();
        let error = told.recv_timeout(LIMIT / 2).unwrap();
        assert!(
            matches!(&error, AskError::Timeout { setting, .. } if setting.contains("deadline of the call")),
            "{error}"
        );
        end(&env);
    });
}
