//! The same hand-written echo on tokio-uring: its reads and writes are io_uring's, its runtime is tokio's.
//!
//! - The ring with IORING_SETUP_COOP_TASKRUN and SINGLE_ISSUER, which suit a ring that one pinned thread uses. Not
//!   DEFER_TASKRUN: tokio-uring waits for the ring's file descriptor, which never wakes for such a ring.
//! - The same buffers as the echo on tokio, owned by the kernel while it works on them.
//! - It submits when tokio is about to sleep. What never rests asks the kernel for nothing (a NOP) again and again, so
//!   that it is about to sleep all the time and never does.

use std::cell::RefCell;
use std::net::TcpListener;

use ::tokio_uring::buf::BoundedBuf;
use ::tokio_uring::net::TcpStream;
use ::tokio_uring::no_op;
use bytes::BytesMut;

use super::frames::{Answering, Asking, AskingAtRate, CLOSED, READ};
use super::{Run, System};
use crate::Error;
use crate::plan::{Idle, Load, Path};
use crate::sample::{Meter, Span};
use crate::threads::{listen, pair};
use crate::variant::{Caller, PayloadKind};

pub(super) const SYSTEM: System = System {
    name: "tokio-uring",
    paths: &[Path::Tcp],
    idles: &[Idle::Spin, Idle::Park],
    callers: &[Caller::Core],
    shape: None,
    payload_kind: Some(PayloadKind::Array),
    run,
};

fn run(run: &Run) -> Result<Meter, Error> {
    let (listener, address) = listen()?;
    let ask = async || {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let stream = TcpStream::from_std(stream);
        match run.load {
            Load::Window(window) => ask_in_flight(stream, window, run.span).await,
            Load::Rate { per_second, .. } => ask_at_rate(stream, per_second, run.span).await,
        }
    };
    pair(run.cpus, || on_uring(run.idle, ask()), || on_uring(run.idle, serve(listener)))
}

fn on_uring<T>(idle: Idle, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut ring = ::tokio_uring::uring_builder();
    ring.setup_coop_taskrun().setup_single_issuer();
    ::tokio_uring::Runtime::new(::tokio_uring::builder().uring_builder(&ring))?.block_on(async {
        if idle == Idle::Spin {
            ::tokio_uring::spawn(async { while no_op().await.is_ok() {} });
        }
        work.await
    })
}

async fn ask_in_flight(stream: TcpStream, window: usize, span: Span) -> Result<Meter, Error> {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut asking = Asking::start(window, span, &mut output)?;
    while asking.take(&mut input, &mut output)? {
        output = write(&stream, output).await?;
        input = read(&stream, input).await?.ok_or(CLOSED)?;
    }
    Ok(asking.into_meter())
}

/// Writes what is due, and reads beside that.
async fn ask_at_rate(stream: TcpStream, per_second: f64, span: Span) -> Result<Meter, Error> {
    let asking = RefCell::new(AskingAtRate::start(per_second, span)?);
    let reading = async {
        let mut input = BytesMut::new();
        loop {
            input = read(&stream, input).await?.ok_or(CLOSED)?;
            asking.borrow_mut().take(&mut input)?;
        }
    };
    let writing = async {
        let mut output = BytesMut::new();
        while asking.borrow_mut().put_due(&mut output)? {
            output = write(&stream, output).await?;
            no_op().await?;
        }
        Ok(())
    };
    ::tokio::select! {
        result = reading => result,
        result = writing => result,
    }
    .map(|()| asking.into_inner().into_meter())
}

async fn serve(listener: TcpListener) -> Result<(), Error> {
    // A plain blocking accept: there is nothing else to do yet.
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let stream = TcpStream::from_std(stream);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut answering = Answering::new();
    loop {
        let Some(more) = read(&stream, input).await? else { return Ok(()) };
        input = more;
        answering.take(&mut input, &mut output)?;
        output = write(&stream, output).await?;
    }
}

/// Appends what a read brings; none if the other side closed.
async fn read(stream: &TcpStream, mut input: BytesMut) -> Result<Option<BytesMut>, Error> {
    input.reserve(READ);
    let filled = input.len();
    let (count, input) = stream.read(input.slice(filled..)).await;
    let closed = count? == 0;
    Ok((!closed).then(|| input.into_inner()))
}

/// Writes all and gives the buffer back empty.
async fn write(stream: &TcpStream, output: BytesMut) -> Result<BytesMut, Error> {
    if output.is_empty() {
        return Ok(output);
    }
    let (written, mut output) = stream.write_all(output).await;
    written?;
    output.clear();
    Ok(output)
}
