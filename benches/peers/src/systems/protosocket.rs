//! protosocket-rpc: one connection that carries all calls, with prost messages.
//!
//! - The codec of its own protobuf example: `PooledEncoder`, which keeps the buffers that it writes into, around prost.
//! - Room for the whole window in the queues to the socket of both sides (256 by default).
//! - The server answers with a future that is ready; the connection's task polls it, nothing is spawned for it.
//! - A listener of our own, since its own one wants to bind for itself; TCP_NODELAY on both sides, as its own.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};

use ::protosocket::{PooledEncoder, SocketListener, SocketResult};
use ::tokio::net::{TcpListener, TcpStream};
use ::tokio::task::spawn_local;
use futures::stream::Empty;
use protosocket_prost::{ProstDecoder, ProstSerializer};
use protosocket_rpc::client::{Configuration, TcpStreamConnector, connect};
use protosocket_rpc::server::{ConnectionService, RpcKind, SocketRpcServer, SocketService};
use protosocket_rpc::{Message, ProtosocketControlCode};

use super::{Run, System};
use crate::Error;
use crate::asking::ask_all;
use crate::payload::Payload;
use crate::plan::{Idle, Path};
use crate::sample::Meter;
use crate::threads::over_tcp;
use crate::variant::{Caller, PayloadKind, Shape};

pub(super) const SYSTEM: System = System {
    name: "protosocket-rpc",
    paths: &[Path::Tcp],
    idles: &[Idle::Spin, Idle::Park],
    callers: &[Caller::Core],
    shape: Some(Shape::Task),
    payload_kind: Some(PayloadKind::Vec),
    run,
};

/// More than any window.
const QUEUE: usize = 2048;
/// Bytes of a buffer at most, and how many it grows by: the defaults of its client.
const BUFFER: (usize, usize) = (4 << 20, 1 << 20);

/// `message Echo { uint64 id = 1; uint32 control = 2; bytes payload = 3; }`
#[derive(Clone, PartialEq, prost::Message)]
struct EchoMessage {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    control: u32,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
}

impl EchoMessage {
    fn control(id: u64, code: ProtosocketControlCode) -> EchoMessage {
        EchoMessage { id, control: code.as_u8().into(), payload: Vec::new() }
    }
}

impl Message for EchoMessage {
    fn message_id(&self) -> u64 {
        self.id
    }

    fn control_code(&self) -> ProtosocketControlCode {
        // A number that is no code cancels, as it does in that crate.
        ProtosocketControlCode::from_u8(u8::try_from(self.control).unwrap_or(u8::MAX))
    }

    fn set_message_id(&mut self, id: u64) {
        self.id = id;
    }

    fn cancelled(id: u64) -> EchoMessage {
        EchoMessage::control(id, ProtosocketControlCode::Cancel)
    }

    fn ended(id: u64) -> EchoMessage {
        EchoMessage::control(id, ProtosocketControlCode::End)
    }
}

type Codec = (PooledEncoder<ProstSerializer<EchoMessage>>, ProstDecoder<EchoMessage>);

/// A socket that listens already.
struct Listener(TcpListener);

impl SocketListener for Listener {
    type Stream = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<SocketResult<TcpStream>> {
        self.0.poll_accept(cx).map(|accepted| {
            match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
                Ok(stream) => SocketResult::Stream(stream),
                Err(_) => SocketResult::Disconnect,
            }
        })
    }
}

struct Server;

impl SocketService for Server {
    type ConnectionService = Server;
    type SocketListener = Listener;

    fn codec(&mut self) -> Codec {
        Codec::default()
    }

    fn new_stream_service(&mut self, _stream: &TcpStream) -> Server {
        Server
    }
}

impl ConnectionService for Server {
    type Codec = Codec;
    type Request = EchoMessage;
    type Response = EchoMessage;
    type UnaryFutureType = Ready<EchoMessage>;
    type StreamType = Empty<EchoMessage>;

    fn new_rpc(&mut self, message: EchoMessage) -> RpcKind<Ready<EchoMessage>, Empty<EchoMessage>> {
        RpcKind::Unary(ready(message))
    }
}

fn run(run: &Run) -> Result<Meter, Error> {
    over_tcp(
        run.cpus,
        run.idle,
        async |listener| Ok(SocketRpcServer::new(Listener(listener), Server, BUFFER.0, BUFFER.1, QUEUE)?.await?),
        async |address| {
            let mut configuration = Configuration::new(TcpStreamConnector);
            configuration.max_queued_outbound_messages(QUEUE);
            let (client, connection) = connect::<Codec, _>(address, &configuration).await?;
            spawn_local(connection);
            // The ids are the client's to choose.
            let next = Rc::new(Cell::new(0));
            ask_all(run.load, run.span, async move |payload| {
                let id = next.replace(next.get() + 1);
                let message = EchoMessage { id, control: 0, payload: payload.as_bytes().to_vec() };
                let answer = client.send_unary(message)?.await?;
                Payload::from_slice(&answer.payload)
            })
            .await
        },
    )
}
