//! An endpoint that blocks when it is told to, to be isolated.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, ThreadId};

use futures::executor::block_on;
use ringpost::{
    CallContext, Endpoint, EndpointContext, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RegisterError,
    RpcEnv, message,
};
use serde::{Deserialize, Serialize};

use super::echo::until;
use super::gate::pass;
use super::scene::Scene;
use super::{seen_from, uri};

/// Blocks the thread at a gate.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Block(pub(crate) u64);
message!(Block as "isolated.Block" => ());

/// Answered with the number, and noted.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Number(pub(crate) u32);
message!(Number as "isolated.Number" => u32);

/// Noted.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Note(pub(crate) u32);
message!(Note as "isolated.Note");

/// Panics.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Panic;
message!(Panic as "isolated.Panic" => ());

/// Has the endpoint send notes and ask, blocking and awaiting in turn, numbered from 0; answered with their number.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Talk(pub(crate) EndpointRef);
message!(Talk as "isolated.Talk" => u32);

/// Has the endpoint ask another for how long its asker still waits, in milliseconds: blocking, then awaiting.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Relay(pub(crate) EndpointRef);
message!(Relay as "isolated.Relay" => [u64; 2]);

/// Answered with how long the asker still waits, in milliseconds.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Left;
message!(Left as "isolated.Left" => u64);

#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) enum Step {
    Start(ThreadId),
    Number(u32),
    Stop,
    Drop,
}

pub(crate) struct Worker(pub(crate) Sender<Step>);

impl Worker {
    fn tell(&self, step: Step) {
        // The test may have ended.
        let _ = self.0.send(step);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tell(Step::Drop);
    }
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Block>().ask_sync::<Number>().send_sync::<Note>().ask_sync::<Panic>();
        handlers.ask::<Talk>().ask::<Relay>().ask_sync::<Left>();
    }

    async fn on_start(&mut self, _: &EndpointContext) -> Result<(), HandlerError> {
        self.tell(Step::Start(thread::current().id()));
        Ok(())
    }

    async fn on_stop(&mut self) {
        self.tell(Step::Stop);
    }
}

impl HandleSync<Block> for Worker {
    fn handle(&mut self, block: Block, _: &mut CallContext) -> Result<(), HandlerError> {
        block_on(pass(block.0));
        Ok(())
    }
}

impl HandleSync<Number> for Worker {
    fn handle(&mut self, number: Number, _: &mut CallContext) -> Result<u32, HandlerError> {
        self.tell(Step::Number(number.0));
        Ok(number.0)
    }
}

impl HandleSync<Note> for Worker {
    fn handle(&mut self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.tell(Step::Number(note.0));
        Ok(())
    }
}

impl HandleSync<Panic> for Worker {
    fn handle(&mut self, _: Panic, _: &mut CallContext) -> Result<(), HandlerError> {
        panic!("no milk");
    }
}

impl Handle<Talk> for Worker {
    async fn handle(&mut self, talk: Talk, _: &mut CallContext) -> Result<u32, HandlerError> {
        for number in (0..90).step_by(3) {
            talk.0.send(Note(number))?;
            assert_eq!(talk.0.ask_blocking(Number(number + 1))?, number + 1);
            assert_eq!(talk.0.ask(Number(number + 2)).await?, number + 2);
        }
        Ok(90)
    }
}

impl Handle<Relay> for Worker {
    async fn handle(&mut self, relay: Relay, _: &mut CallContext) -> Result<[u64; 2], HandlerError> {
        Ok([relay.0.ask_blocking(Left)?, relay.0.ask(Left).await?])
    }
}

impl HandleSync<Left> for Worker {
    fn handle(&mut self, _: Left, context: &mut CallContext) -> Result<u64, HandlerError> {
        Ok(context.remaining().map_or(u64::MAX, |left| left.as_millis() as u64))
    }
}

/// A worker whose steps nobody looks at.
pub(crate) fn unseen() -> Worker {
    Worker(channel().0)
}

/// Registers an isolated endpoint at the scene's distance, and gives the asker's ref to it.
pub(crate) fn isolate(scene: &Scene, name: &str, make: impl FnOnce() -> Worker + Send + 'static) -> EndpointRef {
    let own = scene.answering.register_isolated(name, make).unwrap();
    if scene.distance.is_remote() { seen_from(&scene.asking, &own) } else { own }
}

/// Registers once the thread of an endpoint that has ended is free again.
pub(crate) fn when_free<E: Endpoint>(
    env: &RpcEnv,
    make: impl Fn() -> E + Send + Clone + 'static,
) -> Result<EndpointRef, RegisterError> {
    let mut outcome = None;
    until("the thread is free", || {
        outcome = Some(env.register_isolated("worker", make.clone()));
        !matches!(outcome, Some(Err(RegisterError::TooManyIsolated { .. })))
    });
    outcome.unwrap()
}

pub(crate) trait OwnRef {
    fn endpoint_ref_of(&self, name: &str, seen: &EndpointRef) -> EndpointRef;
}

impl OwnRef for RpcEnv {
    /// The env's own ref to an endpoint of which `seen` may be a peer's.
    fn endpoint_ref_of(&self, name: &str, seen: &EndpointRef) -> EndpointRef {
        match self.address() {
            Some(_) => self.endpoint_ref(&uri(self, name)).unwrap(),
            None => seen.clone(),
        }
    }
}
