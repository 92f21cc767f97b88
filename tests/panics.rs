//! A panic in user code is an error of the one call concerned, whatever kind of handler it is in.

mod common;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};

use common::echo::within;
use common::scene::{Scene, at_every_distance};
use common::{LIMIT, bounded, config, eventually};
use ringpost::{
    AskError, CallContext, Endpoint, EndpointRef, Handle, HandleDeferred, HandleShared, HandleSync, HandlerError,
    Handlers, Replier, message,
};
use serde::{Deserialize, Serialize};

/// When to panic.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
enum When {
    Never,
    AtOnce,
    /// After a suspension.
    Later,
    /// When what the handler holds is dropped, after it has returned a value.
    Leaving,
}

macro_rules! messages {
    ($($ask:ident $one_way:ident $name:literal $name_one_way:literal,)*) => {$(
        #[derive(Serialize, Deserialize, Clone)]
        struct $ask(When);
        message!($ask as $name => u32);

        #[derive(Serialize, Deserialize, Clone)]
        struct $one_way(When);
        message!($one_way as $name_one_way);
    )*};
}

messages! {
    Sync SyncNote "panics.Sync" "panics.SyncNote",
    Serial SerialNote "panics.Serial" "panics.SerialNote",
    Shared SharedNote "panics.Shared" "panics.SharedNote",
}

#[derive(Serialize, Deserialize, Clone)]
struct Deferred(When);
message!(Deferred as "panics.Deferred" => u32);

/// Answered late with a reply whose drop panics, to an asker that has gone.
#[derive(Serialize, Deserialize, Clone)]
struct LateReply;
message!(LateReply as "panics.LateReply" => Heavy);

/// Panics when it is dropped, at the handler's side only.
#[derive(Serialize)]
struct Heavy(bool);

impl<'de> Deserialize<'de> for Heavy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Heavy, D::Error> {
        bool::deserialize(deserializer).map(|_| Heavy(false))
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        assert!(!self.0, "heavy");
    }
}

/// Is ready at once, and panics when it is dropped then.
struct Leaving(Option<u32>);

impl Future for Leaving {
    type Output = Result<u32, HandlerError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(self.0.take().unwrap()))
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        assert!(self.0.is_some(), "oops");
    }
}

async fn act(when: When) -> Result<u32, HandlerError> {
    match when {
        When::Never => Ok(7),
        When::AtOnce => panic!("oops"),
        When::Later => {
            yield_once().await;
            panic!("oops")
        }
        When::Leaving => Leaving(Some(7)).await,
    }
}

/// Suspends once.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn act_now(when: When) -> Result<u32, HandlerError> {
    let _leaving = (when == When::Leaving).then(|| Heavy(true));
    assert!(matches!(when, When::Never | When::Leaving), "oops");
    Ok(7)
}

/// Allows `K` shared handlers at once; panics in `on_error` too.
struct Clumsy<const K: usize> {
    errors: Sender<String>,
    give: Sender<Replier<Heavy>>,
}

impl<const K: usize> Endpoint for Clumsy<K> {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Sync>().send_sync::<SyncNote>().ask::<Serial>().send::<SerialNote>();
        handlers.ask_shared::<Shared>().send_shared::<SharedNote>().concurrency(K);
        handlers.ask_deferred::<Deferred>().ask_deferred::<LateReply>();
    }

    fn on_error(&mut self, error: &HandlerError) {
        let _ = self.errors.send(error.to_string());
        panic!("in on_error too");
    }
}

impl<const K: usize> HandleSync<Sync> for Clumsy<K> {
    fn handle(&mut self, message: Sync, _: &mut CallContext) -> Result<u32, HandlerError> {
        act_now(message.0)
    }
}

impl<const K: usize> HandleSync<SyncNote> for Clumsy<K> {
    fn handle(&mut self, message: SyncNote, _: &mut CallContext) -> Result<(), HandlerError> {
        act_now(message.0).map(drop)
    }
}

impl<const K: usize> Handle<Serial> for Clumsy<K> {
    async fn handle(&mut self, message: Serial, _: &mut CallContext) -> Result<u32, HandlerError> {
        act(message.0).await
    }
}

impl<const K: usize> Handle<SerialNote> for Clumsy<K> {
    async fn handle(&mut self, message: SerialNote, _: &mut CallContext) -> Result<(), HandlerError> {
        act(message.0).await.map(drop)
    }
}

impl<const K: usize> HandleShared<Shared> for Clumsy<K> {
    async fn handle(&self, message: Shared, _: &mut CallContext) -> Result<u32, HandlerError> {
        act(message.0).await
    }
}

impl<const K: usize> HandleShared<SharedNote> for Clumsy<K> {
    async fn handle(&self, message: SharedNote, _: &mut CallContext) -> Result<(), HandlerError> {
        act(message.0).await.map(drop)
    }
}

impl<const K: usize> HandleDeferred<Deferred> for Clumsy<K> {
    fn handle(&mut self, ask: Deferred, replier: Replier<u32>, _: &mut CallContext) -> Result<(), HandlerError> {
        let value = act_now(ask.0)?;
        replier.reply(value);
        Ok(())
    }
}

impl<const K: usize> HandleDeferred<LateReply> for Clumsy<K> {
    fn handle(&mut self, _: LateReply, replier: Replier<Heavy>, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(self.give.send(replier)?)
    }
}

/// Asks in the same way as before, and checks that the endpoint serves on.
fn ask<M>(scene: &Scene, to: &EndpointRef, make: impl Fn(When) -> M, whens: &[When], errors: &dyn Fn() -> String)
where
    M: ringpost::Ask<Reply = u32> + Clone,
{
    for &when in whens {
        for outcome in scene.outcomes(to, make(when)) {
            let Err(AskError::Handler { target, error }) = outcome else { panic!("{} {when:?}: {outcome:?}", M::NAME) };
            assert!(error.is_panic() && target.contains("clumsy"), "{} {when:?}: {error}", M::NAME);
            assert_eq!(errors(), error.to_string());
        }
        assert_eq!(to.ask_blocking(make(When::Never)).unwrap(), 7, "{} {when:?}", M::NAME);
    }
}

fn send<M: ringpost::OneWay>(to: &EndpointRef, make: impl Fn(When) -> M, whens: &[When], errors: &dyn Fn() -> String) {
    for &when in whens {
        to.send(make(when)).unwrap();
        assert!(errors().starts_with("the handler panicked: "), "{} {when:?}", M::NAME);
    }
}

fn play<const K: usize>(scene: &Scene) {
    const NOW: [When; 1] = [When::AtOnce];
    const EACH: [When; 3] = [When::AtOnce, When::Later, When::Leaving];
    let ((tell, told), (give, given)) = (channel(), channel());
    let clumsy = scene.place(&format!("clumsy-{K}"), move || Clumsy::<K> { errors: tell, give });
    let errors = || told.recv_timeout(LIMIT).unwrap();
    ask(scene, &clumsy, Sync, &[When::AtOnce, When::Leaving], &errors);
    ask(scene, &clumsy, Serial, &EACH, &errors);
    ask(scene, &clumsy, Shared, &EACH, &errors);
    ask(scene, &clumsy, Deferred, &NOW, &errors);
    send(&clumsy, SyncNote, &NOW, &errors);
    send(&clumsy, SerialNote, &EACH, &errors);
    send(&clumsy, SharedNote, &EACH, &errors);
    // A reply that comes too late is dropped on the core.
    let asking = clumsy.ask(LateReply);
    let mut replier = given.recv_timeout(LIMIT).unwrap();
    drop(asking);
    within(replier.cancelled());
    let before = eventually(&scene.answering, "a look", |_| true).replies_late;
    replier.reply(Heavy(true));
    eventually(&scene.answering, "it has come", |now| now.replies_late == before + 1);
    assert_eq!(clumsy.ask_blocking(Sync(When::Never)).unwrap(), 7);
    assert!(told.try_recv().is_err(), "each was told once");
}

#[test]
fn a_panic_in_a_handler_of_any_kind_is_an_error_of_its_call_and_the_endpoint_serves_on() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            play::<1>(scene);
            play::<4>(scene);
        });
    });
}
