//! A counter that is spread over all cores: each key lives on one of them, and needs no lock.
//!
//! `cargo run --release --example per_core`

use std::collections::{BTreeSet, HashMap};

use ringpost::{CallContext, CoreSet, Endpoint, Error, HandleSync, HandlerError, Handlers, RpcEnv, message};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Add {
    key: u64,
    amount: u64,
}
message!(Add as "example.Add" => Total);

#[derive(Serialize, Deserialize)]
struct Total {
    total: u64,
    core: usize,
}

/// One core's share of the counters.
#[derive(Default)]
struct Counters {
    totals: HashMap<u64, u64>,
}

impl Endpoint for Counters {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Add>();
    }
}

impl HandleSync<Add> for Counters {
    fn handle(&mut self, add: Add, context: &mut CallContext) -> Result<Total, HandlerError> {
        let total = self.totals.entry(add.key).or_default();
        *total = total.checked_add(add.amount).ok_or_else(|| HandlerError::new("the counter is full"))?;
        Ok(Total { total: *total, core: context.core() })
    }
}

fn main() -> Result<(), Error> {
    let env = RpcEnv::builder("counters").cores(CoreSet::count(2)).start()?;
    let counters = env.register_per_core("counters", |_core| Counters::default())?;

    let mut cores = BTreeSet::new();
    for key in 0..100 {
        let counter = counters.by_key(key);
        counter.ask_blocking(Add { key, amount: 1 })?;
        let Total { total, core } = counter.ask_blocking(Add { key, amount: key })?;
        assert_eq!(total, key + 1, "both amounts reached the same core");
        cores.insert(core);
    }
    println!("100 counters are spread over cores {cores:?}");

    let overflow = counters.by_key(7).ask_blocking(Add { key: 7, amount: u64::MAX });
    println!("an error of a handler: {}", overflow.err().map(|error| error.to_string()).unwrap_or_default());
    env.shutdown(std::time::Duration::from_secs(1));
    env.await_termination()
}
