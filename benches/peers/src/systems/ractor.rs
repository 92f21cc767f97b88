//! ractor: an actor in the same process, asked on its own thread or across two.
//!
//! - Without its default feature `message_span_propogation`: no span per message.
//! - `call` without a timeout, so no timers. Its mailbox is unbounded; there is no other.
//! - On one thread: actor and askers share a runtime. Across two: each has a runtime of one thread of its own.

use ::ractor::rpc::CallResult;
use ::ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::{Run, System};
use crate::Error;
use crate::asking::ask_all;
use crate::payload::Payload;
use crate::plan::{Idle, Path};
use crate::sample::Meter;
use crate::threads::{across, on_one};
use crate::variant::{Caller, PayloadKind, Shape};

pub(super) const SYSTEM: System = System {
    name: "ractor",
    paths: &[Path::Mesh, Path::Local],
    idles: &[Idle::Spin, Idle::Park],
    callers: &[Caller::Core],
    shape: Some(Shape::Task),
    payload_kind: Some(PayloadKind::Array),
    run,
};

struct Echo;

struct Ask(Payload, RpcReplyPort<Payload>);

impl Actor for Echo {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Ask>,
        Ask(payload, reply): Ask,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        // Fails only if the asker has gone.
        let _ = reply.send(payload);
        Ok(())
    }
}

fn run(run: &Run) -> Result<Meter, Error> {
    let make = async || Ok(Actor::spawn(None, Echo, ()).await?.0);
    let ask = async |echo: ActorRef<Ask>| {
        ask_all(run.load, run.span, async move |payload| match echo.call(|reply| Ask(payload, reply), None).await {
            Ok(CallResult::Success(answer)) => Ok(answer),
            Ok(other) => Err(format!("{other:?}").into()),
            Err(error) => Err(error.to_string().into()),
        })
        .await
    };
    let on = if run.path == Path::Local { on_one } else { across };
    on(run.cpus, run.idle, make, ask)
}
