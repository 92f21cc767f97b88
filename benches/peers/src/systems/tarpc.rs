//! tarpc over TCP with bincode.
//!
//! - The transport that `tarpc::serde_transport::tcp` makes (length-delimited frames), over our own stream, since
//!   tarpc's leaves Nagle's delay on.
//! - Room for the whole window in its queues: the docs say that small ones may decrease throughput.
//! - The server awaits each handler where it is, instead of spawning a task for it: an echo never waits.

use ::tarpc::client::{self, RpcError};
use ::tarpc::context::{self, Context};
use ::tarpc::serde_transport;
use ::tarpc::server::{self, BaseChannel, Channel};
use ::tarpc::tokio_serde::formats::Bincode;
use futures::StreamExt;
use tokio_util::codec::LengthDelimitedCodec;

use super::{Run, System};
use crate::Error;
use crate::asking::ask_all;
use crate::payload::Payload;
use crate::plan::{Idle, Path};
use crate::sample::Meter;
use crate::threads::{accept, connect, over_tcp};

pub(super) const SYSTEM: System = System { name: "tarpc", paths: &[Path::Tcp], idles: &[Idle::Spin, Idle::Park], run };

/// More than any window.
const QUEUE: usize = 2048;

#[::tarpc::service]
trait Echo {
    async fn echo(payload: Payload) -> Payload;
}

#[derive(Clone)]
struct Server;

impl Echo for Server {
    async fn echo(self, _context: Context, payload: Payload) -> Payload {
        payload
    }
}

fn run(run: &Run) -> Result<Meter, Error> {
    over_tcp(
        run.cpus,
        run.idle,
        async |listener| {
            let framed = LengthDelimitedCodec::builder().new_framed(accept(&listener).await?);
            let transport = serde_transport::new(framed, Bincode::default());
            let config = server::Config { pending_response_buffer: QUEUE };
            BaseChannel::new(config, transport).execute(Server.serve()).for_each(|handler| handler).await;
            Ok(())
        },
        async |address| {
            let framed = LengthDelimitedCodec::builder().new_framed(connect(address).await?);
            let transport = serde_transport::new(framed, Bincode::default());
            let mut config = client::Config::default();
            config.max_in_flight_requests = QUEUE;
            config.pending_request_buffer = QUEUE;
            let client = EchoClient::new(config, transport).spawn();
            ask_all(run.load, run.span, async move |payload| {
                client.echo(context::current(), payload).await.map_err(|error: RpcError| error.into())
            })
            .await
        },
    )
}
