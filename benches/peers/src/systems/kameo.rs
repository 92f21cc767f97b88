//! kameo: an actor in the same process, asked on its own thread or across two.
//!
//! - Without its `tracing` feature: no span per message.
//! - An unbounded mailbox: sending to it never waits, while the bounded default (64) is smaller than the windows.
//! - No timeouts, so no timers.
//! - On one thread: actor and askers share a runtime. Across two: each has a runtime of one thread of its own.

use std::convert::Infallible;

use ::kameo::Actor;
use ::kameo::actor::{ActorRef, Spawn};
use ::kameo::mailbox;
use ::kameo::message::{Context, Message};

use super::{Run, System};
use crate::Error;
use crate::asking::ask_all;
use crate::payload::Payload;
use crate::plan::{Idle, Path};
use crate::sample::Meter;
use crate::threads::{across, on_one};
use crate::variant::{Caller, PayloadKind, Shape};

pub(super) const SYSTEM: System = System {
    name: "kameo",
    paths: &[Path::Mesh, Path::Local],
    idles: &[Idle::Spin, Idle::Park],
    callers: &[Caller::Core],
    shape: Some(Shape::Task),
    payload_kind: Some(PayloadKind::Array),
    run,
};

struct Echo;

impl Actor for Echo {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _myself: ActorRef<Self>) -> Result<Echo, Infallible> {
        Ok(Echo)
    }
}

impl Message<Payload> for Echo {
    type Reply = Result<Payload, Infallible>;

    async fn handle(&mut self, payload: Payload, _context: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Ok(payload)
    }
}

fn run(run: &Run) -> Result<Meter, Error> {
    let make = async || Ok(Echo::spawn_with_mailbox((), mailbox::unbounded()));
    let ask = async |echo: ActorRef<Echo>| {
        ask_all(run.load, run.span, async move |payload| {
            echo.ask(payload).await.map_err(|error| error.to_string().into())
        })
        .await
    };
    let on = if run.path == Path::Local { on_one } else { across };
    on(run.cpus, run.idle, make, ask)
}
