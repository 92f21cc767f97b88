//! The well-behaved client.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use ringpost::{CoreSet, EndpointRef, RpcEnv};

use crate::messages::{Echo, Free};

/// No ask waits longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks at a steady rate, from a thread that is no core.
pub(crate) struct Client {
    env: RpcEnv,
    echo: EndpointRef,
    slow: EndpointRef,
}

/// How long its asks took.
pub(crate) struct Latency {
    pub(crate) p99: Duration,
    pub(crate) served: usize,
    pub(crate) failed: usize,
}

impl Client {
    /// A client with its core on this CPU.
    pub(crate) fn of(server: &str, cpu: usize) -> Result<Client, Box<dyn Error>> {
        let env = RpcEnv::builder("client").cores(CoreSet::list([cpu])).start()?;
        let echo = env.endpoint_ref(format!("ringpost://plain@{server}").as_str())?;
        let slow = env.endpoint_ref(format!("ringpost://slow@{server}").as_str())?;
        Ok(Client { env, echo, slow })
    }

    /// Asks `rate` times a second for so long. A latency counts from the moment at which the ask was due, so that a server
    /// that stands still shows in each ask that it keeps from being made (no coordinated omission). Those that could not
    /// be made within as much time again have failed.
    pub(crate) fn measure(&self, rate: u32, span: Duration) -> Latency {
        let pause = Duration::from_secs(1) / rate;
        let (began, count) = (Instant::now(), (span.as_secs_f64() * f64::from(rate)) as u32);
        let mut latencies = Vec::with_capacity(count as usize);
        let mut failed = 0;
        for ask in 0..count {
            let due = began + pause * ask;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = began.elapsed() > span * 2 + PATIENCE;
            if late || self.echo.ask_blocking_within(Echo(vec![7; 64]), PATIENCE).is_err() {
                failed += 1;
            }
            latencies.push(due.elapsed());
        }
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
        Latency { p99, served: latencies.len() - failed, failed }
    }

    /// Whether the endpoint whose handler waits takes messages of others.
    pub(crate) fn finds_slow_free(&self) -> bool {
        self.slow.ask_blocking_within(Free, PATIENCE).is_ok()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.env.shutdown(Duration::ZERO);
    }
}
