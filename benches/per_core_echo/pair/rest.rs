//! What the two processes hold while their connections are idle.

use std::{fs, io};

use ringpost::RpcEnv;

use crate::Error;
use crate::alloc::thread_held;
use crate::cpus::Cpus;
use crate::footprint::{Held, Memory};
use crate::message::{Fetch, Hold};
use crate::plan::Run;
use crate::ringpost_paths::open;
use crate::stage::{Stage, reference};

/// Opens a connection to each of the addresses, asks over each once, and asks both sides what they hold then.
pub(super) fn weigh(run: &Run, cpus: &Cpus, addresses: Vec<String>) -> Result<Memory, Error> {
    let client = Stage::client(run, cpus)?;
    let env = client.clone();
    // The refs are made on the core, so that it is the core that allocates them.
    client.spawn_on(0, move || rest(env, addresses))?.join()?
}

async fn rest(client: RpcEnv, addresses: Vec<String>) -> Result<Memory, Error> {
    let targets = addresses.iter().map(|address| reference(&client, "echo", address));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    open::<Fetch>(&targets, 16).await?;
    let counter = reference(&client, "counter-0", &addresses[0])?;
    Ok(Memory { server: counter.ask(Hold).await?, client: held()? })
}

/// What the core of the calling thread holds, and its process.
pub(crate) fn held() -> io::Result<Held> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let resident = rollup.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse().ok());
    let kilobytes: i64 = resident.ok_or(io::ErrorKind::InvalidData)?;
    drop(rollup);
    Ok(Held { heap: thread_held(), resident: kilobytes << 10 })
}
