//! A peer that says the incarnation of somebody else, so as to get what is meant for that node.

use std::error::Error;
use std::io::{self, Read, copy};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ringpost::{CallContext, CoreSet, Endpoint, HandleSync, HandlerError, Handlers, RpcEnv};

use crate::frames::ASK;
use crate::messages::{Follow, Knock};
use crate::peer::{greet, split_frame};
use crate::process::Server;

/// How many asks the server makes.
const ASKS: u32 = 10;

/// A node that listens nowhere leaves a ref to itself at a server, and loses its connection; before it is back, a stranger
/// says the node's incarnation. Then the server asks the node. Tells who got how much, if it was not the node alone.
pub(crate) fn stolen() -> Result<Option<String>, Box<dyn Error>> {
    let server = Server::start(0)?;
    let wire = Wire::to(server.address())?;
    let knocks = Arc::new(AtomicU32::new(0));
    let env = RpcEnv::builder("client-mode").cores(CoreSet::count(1)).start()?;
    let own = env.register("knock", {
        let knocks = knocks.clone();
        move || Door(knocks)
    })?;
    let guide = env.endpoint_ref(format!("ringpost://guide@{}", wire.address).as_str())?;
    guide.ask_blocking(Follow { to: own.clone(), asks: 1 })?;

    let uri = own.uri();
    let incarnation = uri.rsplit('@').next().ok_or("its ref names no incarnation")?;
    let (mut stranger, _) = greet(server.address(), u64::from_str_radix(incarnation, 16)?)?;
    wire.cut();
    let mut asked = false;
    for _ in 0..20 {
        // The first ask may meet the connection that was cut.
        asked = guide.ask_blocking(Follow { to: own.clone(), asks: ASKS }).is_ok();
        if asked {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    stranger.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (taken, got) = (asks_in(&mut stranger), knocks.load(Ordering::Relaxed) - 1);
    env.shutdown(Duration::ZERO);
    let well = asked && taken == 0 && got >= ASKS;
    Ok((!well).then(|| format!("the stranger {taken}, the node {got} of {ASKS}")))
}

/// Counts who knocks.
struct Door(Arc<AtomicU32>);

impl Endpoint for Door {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Knock>();
    }
}

impl HandleSync<Knock> for Door {
    fn handle(&mut self, _: Knock, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// How many asks have come over a connection.
fn asks_in(stream: &mut TcpStream) -> usize {
    let mut received = Vec::new();
    // Ends with the time limit.
    let _ = stream.read_to_end(&mut received);
    let (mut rest, mut asks) = (&received[..], 0);
    while let Some((frame, behind)) = split_frame(rest) {
        asks += usize::from(frame[4] == ASK);
        rest = behind;
    }
    asks
}

/// Passes bytes on in both directions until it is cut; new connections go through again.
struct Wire {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(server: &str) -> io::Result<Wire> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, server) = (listener.local_addr()?, server.to_owned());
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let all = streams.clone();
        thread::spawn(move || -> io::Result<()> {
            loop {
                let (near, _) = listener.accept()?;
                let far = TcpStream::connect(&server)?;
                for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far.try_clone()?, near.try_clone()?)]
                {
                    thread::spawn(move || copy(&mut from, &mut to));
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).extend([near, far]);
            }
        });
        Ok(Wire { address, streams })
    }

    /// Ends all connections.
    fn cut(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
