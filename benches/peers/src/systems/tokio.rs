//! A hand-written echo on tokio: what people write who want speed and no RPC library.
//!
//! - One task per side and no channels: read what is there, handle all whole frames, one write for all of them.
//! - 256 KiB of room for a read, so that one read takes all that is ready.
//! - No timeouts, no errors per call, no dispatch: less than any RPC library has to do.

use std::cell::RefCell;
use std::net::SocketAddr;

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::net::TcpListener;
use ::tokio::task::yield_now;
use bytes::BytesMut;

use super::frames::{Answering, Asking, AskingAtRate, CLOSED, READ};
use super::{Run, System};
use crate::Error;
use crate::plan::{Idle, Load, Path};
use crate::sample::{Meter, Span};
use crate::threads::{accept, connect, over_tcp};
use crate::variant::{Caller, PayloadKind};

pub(super) const SYSTEM: System = System {
    name: "tokio",
    paths: &[Path::Tcp],
    idles: &[Idle::Spin, Idle::Park],
    callers: &[Caller::Core],
    shape: None,
    payload_kind: Some(PayloadKind::Array),
    run,
};

fn run(run: &Run) -> Result<Meter, Error> {
    over_tcp(run.cpus, run.idle, serve, async |address| match run.load {
        Load::Window(window) => ask_in_flight(address, window, run.span).await,
        Load::Rate { per_second, .. } => ask_at_rate(address, per_second, run.span).await,
    })
}

async fn ask_in_flight(address: SocketAddr, window: usize, span: Span) -> Result<Meter, Error> {
    let mut stream = connect(address).await?;
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut asking = Asking::start(window, span, &mut output)?;
    while asking.take(&mut input, &mut output)? {
        stream.write_all(&output).await?;
        output.clear();
        input.reserve(READ);
        if stream.read_buf(&mut input).await? == 0 {
            return Err(CLOSED.into());
        }
    }
    Ok(asking.into_meter())
}

/// Writes what is due, and reads beside that.
async fn ask_at_rate(address: SocketAddr, per_second: f64, span: Span) -> Result<Meter, Error> {
    let mut stream = connect(address).await?;
    let (mut reader, mut writer) = stream.split();
    let asking = RefCell::new(AskingAtRate::start(per_second, span)?);
    let read = async {
        let mut input = BytesMut::new();
        loop {
            input.reserve(READ);
            if reader.read_buf(&mut input).await? == 0 {
                return Err(CLOSED.into());
            }
            asking.borrow_mut().take(&mut input)?;
        }
    };
    let write = async {
        let mut output = BytesMut::new();
        while asking.borrow_mut().put_due(&mut output)? {
            writer.write_all(&output).await?;
            output.clear();
            yield_now().await;
        }
        Ok(())
    };
    ::tokio::select! {
        result = read => result,
        result = write => result,
    }
    .map(|()| asking.into_inner().into_meter())
}

async fn serve(listener: TcpListener) -> Result<(), Error> {
    let mut stream = accept(&listener).await?;
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut answering = Answering::new();
    loop {
        input.reserve(READ);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        answering.take(&mut input, &mut output)?;
        stream.write_all(&output).await?;
        output.clear();
    }
}
