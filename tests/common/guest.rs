//! An endpoint of a node that does not listen, and a desk at a server where it leaves its ref.

use std::future::Future;

use ringpost::{CallContext, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RpcEnv, message};
use serde::{Deserialize, Serialize};

use super::gate::pass;
use super::seen_from;

/// Answered with the number and that of the guest.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Number(pub(crate) u64);
message!(Number as "refs.Number" => (u64, u64));

/// Noted down.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Note(pub(crate) u64);
message!(Note as "refs.Note");

/// Answered with all that was noted down.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Notes;
message!(Notes as "refs.Notes" => Vec<u64>);

/// Waits at a gate.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Wait(pub(crate) u64);
message!(Wait as "refs.Wait" => ());

/// Fails, or panics if told to.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Fail(pub(crate) bool);
message!(Fail as "refs.Fail" => ());

/// Nobody handles it.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Unknown;
message!(Unknown as "refs.Unknown" => ());

/// Lives at a node that does not listen.
pub(crate) struct Guest {
    id: u64,
    notes: Vec<u64>,
}

pub(crate) fn guest(env: &RpcEnv, core: usize, name: &str, id: u64) -> EndpointRef {
    env.register_on(core, name, move || Guest { id, notes: Vec::new() }).unwrap()
}

impl Endpoint for Guest {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers
            .ask_sync::<Number>()
            .send_sync::<Note>()
            .ask_sync::<Notes>()
            .ask::<Wait>()
            .ask_sync::<Fail>()
            .ask_sync::<WhoAreYou>();
    }
}

impl HandleSync<Number> for Guest {
    fn handle(&mut self, number: Number, _: &mut CallContext) -> Result<(u64, u64), HandlerError> {
        self.notes.push(number.0);
        Ok((number.0, self.id))
    }
}

impl HandleSync<Note> for Guest {
    fn handle(&mut self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.notes.push(note.0);
        Ok(())
    }
}

impl HandleSync<Notes> for Guest {
    fn handle(&mut self, _: Notes, _: &mut CallContext) -> Result<Vec<u64>, HandlerError> {
        Ok(self.notes.clone())
    }
}

impl Handle<Wait> for Guest {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(wait.0).await;
        Ok(())
    }
}

impl HandleSync<Fail> for Guest {
    fn handle(&mut self, fail: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        assert!(!fail.0, "as told");
        Err(HandlerError::new("no room"))
    }
}

/// Leaves a ref at a desk; answered with what the desk had before.
#[derive(Serialize, Deserialize)]
pub(crate) struct Leave(pub(crate) EndpointRef);
message!(Leave as "refs.Leave" => Option<EndpointRef>);

/// Answered with the ref that was left last.
#[derive(Serialize, Deserialize)]
pub(crate) struct Collect;
message!(Collect as "refs.Collect" => Option<EndpointRef>);

/// Keeps a ref for others.
#[derive(Default)]
pub(crate) struct Desk(pub(crate) Option<EndpointRef>);

impl Endpoint for Desk {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Leave>().ask_sync::<Collect>();
    }
}

impl HandleSync<Leave> for Desk {
    fn handle(&mut self, leave: Leave, _: &mut CallContext) -> Result<Option<EndpointRef>, HandlerError> {
        Ok(self.0.replace(leave.0))
    }
}

impl HandleSync<Collect> for Desk {
    fn handle(&mut self, _: Collect, _: &mut CallContext) -> Result<Option<EndpointRef>, HandlerError> {
        Ok(self.0.clone())
    }
}

/// The desk of a server, and the ref to it that the client has.
pub(crate) fn desk(server: &RpcEnv, client: &RpcEnv) -> (EndpointRef, EndpointRef) {
    let own = server.register("desk", Desk::default).unwrap();
    let seen = seen_from(client, &own);
    (own, seen)
}

/// Leaves a guest's ref at the desk; the ref as the server has it.
pub(crate) fn left(desk: &(EndpointRef, EndpointRef), guest: &EndpointRef) -> EndpointRef {
    desk.1.ask_blocking(Leave(guest.clone())).unwrap();
    desk.0.ask_blocking(Collect).unwrap().unwrap()
}

/// Runs a future on this core of the env.
pub(crate) fn on<F, Fut>(env: &RpcEnv, core: usize, make: F) -> Fut::Output
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send,
{
    env.spawn_on(core, make).unwrap().join().unwrap()
}

/// Answered with a ref to the guest itself.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct WhoAreYou;
message!(WhoAreYou as "refs.WhoAreYou" => EndpointRef);

impl HandleSync<WhoAreYou> for Guest {
    fn handle(&mut self, _: WhoAreYou, context: &mut CallContext) -> Result<EndpointRef, HandlerError> {
        Ok(context.myself().clone())
    }
}
