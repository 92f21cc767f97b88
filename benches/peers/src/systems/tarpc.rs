//! tarpc over TCP with bincode.
//!
//! - The transport that `tarpc::serde_transport::tcp` makes (length-delimited frames), over our own stream, since
//!   tarpc's leaves Nagle's delay on.
//! - Room for the whole window in its queues: the docs say that small ones may decrease throughput.
//! - The server awaits each handler where it is, instead of spawning a task for it: an echo never waits.

use std::net::SocketAddr;

use ::tarpc::client::{self, RpcError};
use ::tarpc::context::{self, Context};
use ::tarpc::serde_transport;
use ::tarpc::server::{self, BaseChannel, Channel};
use ::tarpc::tokio_serde::formats::Bincode;
use ::tokio::net::TcpListener;
use futures::StreamExt;
use tokio_util::codec::LengthDelimitedCodec;

use super::{Run, System};
use crate::Error;
use crate::asking::{Ask, ask_all};
use crate::payload::Payload;
use crate::plan::{Idle, Path};
use crate::sample::Meter;
use crate::threads::{accept, connect, over_tcp, over_tcp_from_tokio};
use crate::variant::{Caller, PayloadKind, Shape};

pub(super) const SYSTEM: System = System {
    name: "tarpc",
    paths: &[Path::Tcp],
    idles: &[Idle::Spin, Idle::Park],
    callers: &[Caller::Core, Caller::Tokio],
    shape: Some(Shape::Task),
    payload_kind: Some(PayloadKind::Array),
    run,
};

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

impl Ask for EchoClient {
    async fn ask(&self, payload: Payload) -> Result<Payload, Error> {
        self.echo(context::current(), payload).await.map_err(|error: RpcError| error.into())
    }
}

fn run(run: &Run) -> Result<Meter, Error> {
    if run.caller == Caller::Tokio {
        return over_tcp_from_tokio(run, serve, client);
    }
    over_tcp(run.cpus, run.idle, serve, async |address| {
        let client = client(address).await?;
        ask_all(run.load, run.span, async move |payload| client.ask(payload).await).await
    })
}

async fn serve(listener: TcpListener) -> Result<(), Error> {
    let framed = LengthDelimitedCodec::builder().new_framed(accept(&listener).await?);
    let transport = serde_transport::new(framed, Bincode::default());
    let config = server::Config { pending_response_buffer: QUEUE };
    BaseChannel::new(config, transport).execute(Server.serve()).for_each(|handler| handler).await;
    Ok(())
}

async fn client(address: SocketAddr) -> Result<EchoClient, Error> {
    let framed = LengthDelimitedCodec::builder().new_framed(connect(address).await?);
    let transport = serde_transport::new(framed, Bincode::default());
    let mut config = client::Config::default();
    config.max_in_flight_requests = QUEUE;
    config.pending_request_buffer = QUEUE;
    Ok(EchoClient::new(config, transport).spawn())
}
