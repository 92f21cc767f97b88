//! Asks an echo server many times, with many asks in flight, and checks every byte of every answer.
//!
//! `cargo run --release --example echo_client -- ringpost://echo@127.0.0.1:7077 1000000 256`

use std::rc::Rc;
use std::time::Instant;
use std::{cell::Cell, process::ExitCode};

use bytes::Bytes;
use ringpost::{AskError, CoreSet, EndpointRef, RpcEnv, message};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Echo {
    payload: Bytes,
}
message!(Echo as "example.Echo" => Bytes);

/// From nothing to 1 MiB: mostly small, one in a thousand large.
fn size_of(ask: u64) -> usize {
    match ask % 1000 {
        0 => 1 << 20,
        1 => 0,
        n if n % 100 == 2 => 4096 + (ask % 60_000) as usize,
        n => (n % 257) as usize,
    }
}

/// No two asks have the same bytes, apart from those without any.
fn payload_of(ask: u64) -> Bytes {
    let mut bytes = ask.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(size_of(ask) / 8 + 1);
    bytes.truncate(size_of(ask));
    bytes.into()
}

/// Takes asks from the common counter until none is left; the first error ends it.
async fn worker(echo: EndpointRef, next: Rc<Cell<u64>>, count: u64, checked: Rc<Cell<u64>>) -> Result<(), AskError> {
    while next.get() < count {
        let ask = next.replace(next.get() + 1);
        let payload = payload_of(ask);
        let answer = echo.ask(Echo { payload: payload.clone() }).await?;
        assert!(answer == payload, "the answer to ask {ask} is not what was sent");
        checked.set(checked.get() + 1);
    }
    Ok(())
}

async fn run(echo: EndpointRef, count: u64, window: usize) -> (u64, Vec<AskError>) {
    let (next, checked) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let start = |_| ringpost::spawn(worker(echo.clone(), next.clone(), count, checked.clone()));
    let workers: Vec<_> = (0..window).map(start).collect();
    let mut errors = Vec::new();
    for worker in workers {
        errors.extend(worker.await.expect("every worker runs to its end").err());
    }
    (checked.get(), errors)
}

fn main() -> Result<ExitCode, ringpost::Error> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments.next().unwrap_or_else(|| "ringpost://echo@127.0.0.1:7077".to_owned());
    let count = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let window = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(256);

    let env = RpcEnv::builder("echo-client").cores(CoreSet::count(1)).start()?;
    let echo = env.lookup_blocking(&uri)?;
    let began = Instant::now();
    let (checked, errors) = env.spawn_on(0, move || run(echo, count, window))?.join()?;
    println!("{checked} of {count} asks answered and checked in {:.2?}", began.elapsed());
    errors.first().iter().for_each(|error| println!("{} workers ended by an error; the first: {error}", errors.len()));
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
