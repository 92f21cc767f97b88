//! The same hand-written echo on tokio-uring: its reads and writes are io_uring's, its runtime is tokio's.
//!
//! - The ring with IORING_SETUP_COOP_TASKRUN and SINGLE_ISSUER, which suit a ring that one pinned thread uses. Not
//!   DEFER_TASKRUN: tokio-uring waits for the ring's file descriptor, which never wakes for such a ring.
//! - The same buffers as the echo on tokio, owned by the kernel while it works on them.
//! - It cannot spin: it submits when tokio is about to sleep.

use std::net::TcpListener;

use ::tokio_uring::buf::BoundedBuf;
use ::tokio_uring::net::TcpStream;
use bytes::BytesMut;

use super::frames::{Answering, Asking, READ};
use super::{Run, System};
use crate::Error;
use crate::plan::{Idle, Path};
use crate::sample::Meter;
use crate::threads::{listen, pair};

pub(super) const SYSTEM: System = System { name: "tokio-uring", paths: &[Path::Tcp], idles: &[Idle::Park], run };

fn run(run: &Run) -> Result<Meter, Error> {
    let (listener, address) = listen()?;
    pair(
        run.cpus,
        || on_uring(async { ask(std::net::TcpStream::connect(address)?, run).await }),
        || on_uring(serve(listener)),
    )
}

fn on_uring<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut ring = ::tokio_uring::uring_builder();
    ring.setup_coop_taskrun().setup_single_issuer();
    ::tokio_uring::Runtime::new(::tokio_uring::builder().uring_builder(&ring))?.block_on(work)
}

async fn ask(stream: std::net::TcpStream, run: &Run<'_>) -> Result<Meter, Error> {
    stream.set_nodelay(true)?;
    let stream = TcpStream::from_std(stream);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut asking = Asking::start(run, &mut output)?;
    while asking.take(&mut input, &mut output)? {
        output = write(&stream, output).await?;
        input = read(&stream, input).await?.ok_or("the answering side closed")?;
    }
    Ok(asking.into_meter())
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
