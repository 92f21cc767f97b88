//! The floors: what the machine does when no runtime is in the way.
//!
//! Each is the shortest loop that does the work of a path, on two threads pinned to the CPUs that ringpost's cores get.
//! Both sides time the same part of the round trips and record it the same way, so that the cost of measuring cancels
//! out of the ratio as far as it can.

mod alone;
mod cache_line;
mod fetch;
mod hop;
mod ping_pong;
mod pipelined;
mod round_robin;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, ScopedJoinHandle};

use socket2::{Domain, Socket, Type};

use crate::Error;
use crate::cpus::Cpus;
use crate::message::Used;
use crate::outside;
use crate::pair::{self, System};
use crate::plan::{FloorKind, IdlePolicy, Path, Run};
use crate::sample::{Meter, Sample, Span};

/// Runs the floor that stands beside `run` for as long as `span` says, one pair of threads per pair of cores.
pub(crate) fn measure(kind: FloorKind, run: &Run, span: Span, cpus: &Cpus) -> Result<Sample, Error> {
    if kind == FloorKind::RoundRobin {
        return pair::measure(System::Floor, run, span);
    }
    if kind == FloorKind::Hop {
        return measure_hops(run, span, cpus);
    }
    thread::scope(|scope| {
        let pairs: Vec<_> =
            (0..run.pairs()).map(|pair| scope.spawn(move || measure_pair(kind, run, pair, span, cpus))).collect();
        let meters: Result<Vec<Meter>, Error> = pairs.into_iter().map(join).collect();
        Sample::of(meters?)
    })
}

fn measure_pair(kind: FloorKind, run: &Run, pair: usize, span: Span, cpus: &Cpus) -> Result<Meter, Error> {
    let at = Pair { cpus, asking: pair, answering: run.pairs() + pair };
    let (window, sampled) = (run.window().unwrap_or(1), run.sampled());
    match kind {
        FloorKind::NonBlocking => {
            let (near, far) = connect(run.path)?;
            near.set_nonblocking(true)?;
            far.set_nonblocking(true)?;
            at.run(|| ping_pong::ask(near, run.payload, sampled, span), || ping_pong::answer(far, run.payload))
        }
        FloorKind::Blocking => {
            let (near, far) = connect(run.path)?;
            at.run(|| ping_pong::ask(near, run.payload, sampled, span), || ping_pong::answer(far, run.payload))
        }
        FloorKind::Pipelined => {
            let pairs: Result<Vec<_>, Error> = (0..run.connections_of(pair)).map(|_| connect(run.path)).collect();
            let (near, far) = pairs?.into_iter().unzip();
            at.run(|| pipelined::ask(near, window, run.payload, sampled, span), || pipelined::answer(far))
        }
        FloorKind::Fetch => {
            let (near, far) = connect(run.path)?;
            let spin = run.idle != IdlePolicy::Park;
            near.set_nonblocking(spin)?;
            far.set_nonblocking(spin)?;
            at.run(|| fetch::ask(near, window, run.payload, sampled, span), || fetch::answer(far, run.payload))
        }
        FloorKind::Alone => {
            let (near, far) = connect(run.path)?;
            cpus.pinned(pair, || alone::echo(near, far, window, run.payload, sampled, span))
        }
        FloorKind::RoundRobin | FloorKind::Hop => Err("that floor takes more than two threads".into()),
        FloorKind::CacheLine => {
            let lines = cache_line::Lines::new(window);
            at.run(|| cache_line::ask(&lines, sampled, span), || cache_line::answer(&lines))
        }
    }
}

/// Asks threads on the CPUs of the answering cores through channels; as many asks are in flight as in `run`.
fn measure_hops(run: &Run, span: Span, cpus: &Cpus) -> Result<Sample, Error> {
    let (spin, window) = (run.idle != IdlePolicy::Park, run.window().unwrap_or(1));
    thread::scope(|scope| {
        let mut hops = Vec::new();
        let mut threads = Vec::new();
        for pair in 0..run.pairs() {
            let in_flight = window * run.connections.map_or(1, |_| run.connections_of(pair));
            let (to, asks) = hop::channel(in_flight);
            hops.extend((0..in_flight as u64).map(|number| hop::Hop { number, to: to.clone() }));
            let core = if run.path == Path::Local { pair } else { run.pairs() + pair };
            threads.push(scope.spawn(move || cpus.pinned(core, || hop::answer(asks, spin))));
        }
        let sample = outside::ask(run.variant.caller, hops, span, || Ok(Used::default()));
        threads.into_iter().try_for_each(join)?;
        sample.map(|sample| Sample { enters_per_op: None, ..sample })
    })
}

/// The answering process of [`FloorKind::RoundRobin`]: listens at `bind`, tells its port, answers on as many connections
/// as `run` has until one of them ends.
pub(crate) fn serve_round_robin(
    run: &Run,
    cpus: &Cpus,
    bind: &str,
    tell: impl FnOnce(Option<u16>) -> Result<(), Error>,
) -> Result<(), Error> {
    let listener = round_robin::listen(bind)?;
    tell(listener.local_addr()?.as_socket().map(|address| address.port()))?;
    let sockets = (0..run.connections.unwrap_or(1)).map(|_| prepared(listener.accept()?.0, run));
    let sockets = sockets.collect::<Result<Vec<_>, Error>>()?;
    cpus.pinned(1, || round_robin::answer(sockets, run.payload, run.idle != IdlePolicy::Park))
}

/// The asking process of [`FloorKind::RoundRobin`].
pub(crate) fn ask_round_robin(run: &Run, cpus: &Cpus, addresses: &[String], span: Span) -> Result<Sample, Error> {
    let sockets = addresses.iter().map(|address| prepared(round_robin::dial(address)?, run));
    let sockets = sockets.collect::<Result<Vec<_>, Error>>()?;
    Sample::of([cpus.pinned(0, || round_robin::ask(sockets, run.payload, run.sampled(), span))?])
}

/// A socket that sends at once, and waits as the policy says.
fn prepared(socket: Socket, run: &Run) -> Result<Socket, Error> {
    if run.path == Path::Tcp {
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_nonblocking(run.idle != IdlePolicy::Park)?;
    Ok(socket)
}

/// The two cores of one floor.
struct Pair<'a> {
    cpus: &'a Cpus,
    asking: usize,
    answering: usize,
}

impl Pair<'_> {
    /// Runs both sides to their end. When one side fails, what it drops ends the other.
    fn run(
        &self,
        ask: impl FnOnce() -> Result<Meter, Error> + Send,
        answer: impl FnOnce() -> Result<(), Error> + Send,
    ) -> Result<Meter, Error> {
        thread::scope(|scope| {
            let asking = scope.spawn(|| self.cpus.pinned(self.asking, ask));
            let answering = scope.spawn(|| self.cpus.pinned(self.answering, answer));
            let (asked, answered) = (join(asking), join(answering));
            let meter = asked?;
            answered?;
            Ok(meter)
        })
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err("a thread of the floor panicked".into()))
}

/// Both ends of a fresh connection; one of TCP goes over loopback, without Nagle's delay.
fn connect(path: Path) -> Result<(Socket, Socket), Error> {
    if path == Path::Unix {
        return Ok(Socket::pair(Domain::UNIX, Type::STREAM, None)?);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near.into(), far.into()))
}
