//! A hand-written echo on tokio: what people write who want speed and no RPC library.
//!
//! - One task per side and no channels: read what is there, handle all whole frames, one write for all of them.
//! - 256 KiB of room for a read, so that one read takes all that is ready.
//! - No timeouts, no errors per call, no dispatch: less than any RPC library has to do.

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::net::TcpListener;
use bytes::BytesMut;

use super::frames::{Answering, Asking, READ};
use super::{Run, System};
use crate::Error;
use crate::plan::{Idle, Path};
use crate::sample::Meter;
use crate::threads::{accept, connect, over_tcp};

pub(super) const SYSTEM: System = System { name: "tokio", paths: &[Path::Tcp], idles: &[Idle::Spin, Idle::Park], run };

fn run(run: &Run) -> Result<Meter, Error> {
    over_tcp(run.cpus, run.idle, serve, async |address| {
        let mut stream = connect(address).await?;
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut asking = Asking::start(run, &mut output)?;
        while asking.take(&mut input, &mut output)? {
            stream.write_all(&output).await?;
            output.clear();
            input.reserve(READ);
            if stream.read_buf(&mut input).await? == 0 {
                return Err("the answering side closed".into());
            }
        }
        Ok(asking.into_meter())
    })
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
