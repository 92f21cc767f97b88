//! The two threads of a measurement: one asks, one answers, each pinned to a CPU of its own.
//!
//! Each thread runs a tokio runtime of one thread, the kind that suits a pinned thread best: no other thread steals
//! its tasks, and a wake within it is no system call.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{self, ScopedJoinHandle};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, Runtime};
use tokio::sync::oneshot;

use crate::Error;
use crate::asking::{Ask, ask_from_tokio};
use crate::cpus::Cpus;
use crate::plan::Idle;
use crate::sample::Meter;
use crate::systems::Run;

/// Which of the allowed CPUs asks, and which answers.
const ASKING: usize = 0;
const ANSWERING: usize = 1;

/// Runs `serve` with a listener and `ask` with its address, and ends `serve` once `ask` has ended.
pub(crate) fn over_tcp(
    cpus: &Cpus,
    idle: Idle,
    serve: impl AsyncFnOnce(TcpListener) -> Result<(), Error> + Send,
    ask: impl AsyncFnOnce(SocketAddr) -> Result<Meter, Error> + Send,
) -> Result<Meter, Error> {
    let (listener, address) = listen()?;
    let (running, stopped) = oneshot::channel::<()>();
    pair(
        cpus,
        || {
            let _running = running;
            on_tokio(idle, async { ask(address).await })
        },
        || on_tokio(idle, serve_until(stopped, listener, serve)),
    )
}

/// Runs `serve` with a listener, and lets tasks of a multi-threaded runtime ask what `connect` makes of its address.
///
/// The threads of that runtime are as many as tokio starts by itself and go where the kernel lets them, as users have
/// them.
pub(crate) fn over_tcp_from_tokio<A: Ask>(
    run: &Run,
    serve: impl AsyncFnOnce(TcpListener) -> Result<(), Error> + Send,
    connect: impl AsyncFnOnce(SocketAddr) -> Result<A, Error> + Send,
) -> Result<Meter, Error> {
    let (listener, address) = listen()?;
    let (running, stopped) = oneshot::channel::<()>();
    both(
        || {
            let _running = running;
            let runtime = multi_threaded()?;
            let ask = runtime.block_on(async { connect(address).await })?;
            ask_from_tokio(&runtime, run.load, run.span, &ask)
        },
        || run.cpus.pinned(ANSWERING, || on_tokio(run.idle, serve_until(stopped, listener, serve))),
    )
}

/// The runtime that users have if they ask for nothing else.
pub(crate) fn multi_threaded() -> Result<Runtime, Error> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

async fn serve_until(
    stopped: oneshot::Receiver<()>,
    listener: std::net::TcpListener,
    serve: impl AsyncFnOnce(TcpListener) -> Result<(), Error>,
) -> Result<(), Error> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tokio::select! {
        served = serve(listener) => served,
        _ = stopped => Ok(()),
    }
}

/// Runs `make` on the answering thread and `ask`, with what it made, on the asking thread.
pub(crate) fn across<R: Send>(
    cpus: &Cpus,
    idle: Idle,
    make: impl AsyncFnOnce() -> Result<R, Error> + Send,
    ask: impl AsyncFnOnce(R) -> Result<Meter, Error> + Send,
) -> Result<Meter, Error> {
    let (hand_over, made) = oneshot::channel::<R>();
    let (running, stopped) = oneshot::channel::<()>();
    pair(
        cpus,
        || {
            let _running = running;
            on_tokio(idle, async { ask(made.await?).await })
        },
        || {
            on_tokio(idle, async {
                // Fails only if the asking side has failed, and that is reported there.
                let _ = hand_over.send(make().await?);
                let _ = stopped.await;
                Ok(())
            })
        },
    )
}

/// Runs both on the asking thread alone.
pub(crate) fn on_one<R>(
    cpus: &Cpus,
    idle: Idle,
    make: impl AsyncFnOnce() -> Result<R, Error> + Send,
    ask: impl AsyncFnOnce(R) -> Result<Meter, Error> + Send,
) -> Result<Meter, Error> {
    thread::scope(|scope| {
        let both = || on_tokio(idle, async { ask(make().await?).await });
        join(scope.spawn(|| cpus.pinned(ASKING, both)))
    })
}

/// Runs both sides, each on its CPU, to their end. The asking side may leave with answers unread.
pub(crate) fn pair(
    cpus: &Cpus,
    ask: impl FnOnce() -> Result<Meter, Error> + Send,
    answer: impl FnOnce() -> Result<(), Error> + Send,
) -> Result<Meter, Error> {
    both(|| cpus.pinned(ASKING, ask), || cpus.pinned(ANSWERING, answer))
}

fn both(
    ask: impl FnOnce() -> Result<Meter, Error> + Send,
    answer: impl FnOnce() -> Result<(), Error> + Send,
) -> Result<Meter, Error> {
    thread::scope(|scope| {
        let answering = scope.spawn(answer);
        let asking = scope.spawn(ask);
        match (join(asking), join(answering).or_else(unless_left)) {
            (Ok(meter), Ok(())) => Ok(meter),
            (Err(asked), Err(answered)) => Err(format!("asking: {asked}; answering: {answered}").into()),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    })
}

/// Passes over what an answering side says whose asking side has left: answers that nobody read reset the connection.
fn unless_left(error: Error) -> Result<(), Error> {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let left = matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
    if left { Ok(()) } else { Err(error) }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))
}

/// Runs `work` on a fresh runtime of this thread.
fn on_tokio<T>(idle: Idle, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    if idle == Idle::Spin {
        // Always ready, so that the runtime looks for events without ever sleeping.
        runtime.spawn_local(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
    }
    runtime.block_on(work)
}

/// A fresh listener on loopback, and where it listens.
pub(crate) fn listen() -> Result<(std::net::TcpListener, SocketAddr), Error> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Connects without Nagle's delay.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Accepts one connection without Nagle's delay.
pub(crate) async fn accept(listener: &TcpListener) -> Result<TcpStream, Error> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asking_side_that_leaves_is_no_failure_of_the_answering_side() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
            assert!(unless_left(io::Error::from(kind).into()).is_ok(), "{kind}");
        }
        assert!(unless_left(io::Error::from(io::ErrorKind::TimedOut).into()).is_err());
        assert!(unless_left("cannot pin a thread to CPU 1".into()).is_err());
    }
}
