//! The other end of a connection, byte by byte.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use ringpost::Message;
use ringpost::net::reader::{Incoming, Reader};
use ringpost::wire::codec;
use ringpost::wire::frame::{Draft, Frame, RequestHead, Route, Target};
use ringpost::wire::handshake::{Hello, VERSION};
use socket2::{Domain, Socket, Type};

use super::LIMIT;

/// The first bytes of a peer.
pub(crate) fn hello() -> Vec<u8> {
    hello_to(None)
}

/// What a peer says first.
pub(crate) fn introduction() -> Hello {
    Hello {
        versions: (VERSION, VERSION),
        max_frame: 16 << 20,
        cores: 1,
        wanted_core: None,
        incarnation: 77,
        name: "raw".into(),
        advertised: None,
        token: None,
        outbox: None,
        given: None,
    }
}

/// The first bytes of a peer that would like to talk to this core.
pub(crate) fn hello_to(wanted_core: Option<u16>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Hello { wanted_core, ..introduction() }.encode(&mut bytes);
    bytes
}

/// Appends a request by name; an ask if `request` is not 0.
pub(crate) fn request<M: Message>(out: &mut Vec<u8>, request: u64, name: &str, message: &M) {
    request_within(out, request, name, message, None);
}

/// Appends a request by name that is worth something for so many microseconds.
pub(crate) fn request_within<M: Message>(
    out: &mut Vec<u8>,
    request: u64,
    name: &str,
    message: &M,
    deadline_us: Option<u32>,
) {
    let head = RequestHead { request, target: Target::Name(name), route: Route::Here, message: M::ID, deadline_us };
    let mut draft = Draft::request(out, &head);
    codec::encode(message, draft.payload()).unwrap();
    draft.finish(u32::MAX).unwrap();
}

/// A connection to an env whose every read and write is bounded in time.
pub(crate) struct RawPeer {
    pub(crate) stream: TcpStream,
    reader: Reader,
    received: Vec<u8>,
}

impl RawPeer {
    pub(crate) fn over(stream: TcpStream) -> RawPeer {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        RawPeer { stream, reader: Reader::new(64 << 20, true), received: Vec::new() }
    }

    pub(crate) fn connect(to: SocketAddr) -> RawPeer {
        RawPeer::over(TcpStream::connect(to).unwrap())
    }

    /// Connects with a small receive buffer, so that it does not take much that nobody reads.
    pub(crate) fn connect_narrow(to: SocketAddr) -> RawPeer {
        RawPeer::connect_with(to, 16 << 10)
    }

    /// Connects with a receive buffer of this size. One below the largest segment of the loopback, 64 KiB, is slow on some
    /// kernels, which then send by timers.
    pub(crate) fn connect_with(to: SocketAddr, receive_buffer: usize) -> RawPeer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(receive_buffer).unwrap();
        socket.connect(&to.into()).unwrap();
        RawPeer::over(socket.into())
    }

    /// Connects and says hello.
    pub(crate) fn greet(to: SocketAddr) -> RawPeer {
        RawPeer::greet_core(to, None)
    }

    /// Connects and says hello to this core.
    pub(crate) fn greet_core(to: SocketAddr, wanted: Option<u16>) -> RawPeer {
        RawPeer::greet_as(to, &Hello { wanted_core: wanted, ..introduction() })
    }

    /// Connects and says this hello.
    pub(crate) fn greet_as(to: SocketAddr, hello: &Hello) -> RawPeer {
        let mut peer = RawPeer::connect(to);
        peer.say_hello(hello);
        peer
    }

    /// Says this hello and waits for the answer.
    pub(crate) fn say_hello(&mut self, hello: &Hello) {
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
        assert!(self.next(|incoming| matches!(incoming, Incoming::Hello(_))), "the first thing is a hello");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Asks `echo` under this id.
    pub(crate) fn ask(&mut self, id: u64, echo: &super::echo::Echo) {
        let mut bytes = Vec::new();
        request(&mut bytes, id, "echo", echo);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Waits for the next hello or frame and looks at it.
    pub(crate) fn next<T>(&mut self, look: impl FnOnce(Incoming<'_>) -> T) -> T {
        loop {
            let mut input = &self.received[..];
            // Whatever the reader takes in is gone from `received`, a half frame included.
            if let Some(incoming) = self.reader.next(&mut input).unwrap() {
                let (left, result) = (input.len(), look(incoming));
                self.received.drain(..self.received.len() - left);
                return result;
            }
            let mut buffer = [0; 16 << 10];
            let count = self.read(&mut buffer).unwrap();
            assert!(count > 0, "the env has closed the connection");
            self.received = buffer[..count].to_vec();
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    /// Waits for the end of the connection; nothing else may come.
    pub(crate) fn expect_end(&mut self) {
        match self.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a reply and checks it.
    pub(crate) fn expect_echo(&mut self, id: u64, payload: &[u8]) {
        self.next(|incoming| match incoming {
            Incoming::Frame(Frame::Reply { request, payload: bytes, .. }) => {
                assert_eq!(request, id);
                assert!(codec::decode::<bytes::Bytes>(bytes).unwrap() == payload, "answer {id} has other bytes");
            }
            other => panic!("{other:?}"),
        });
    }
}

/// A listener that is no env, and its address.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
