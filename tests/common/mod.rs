//! What the tests of whole envs share. Every wait is bounded by [`LIMIT`].

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod echo;
pub(crate) mod gate;
pub(crate) mod guest;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod scene;
pub(crate) mod worker;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringpost::{AskError, Builder, Config, CoreSet, CoreSnapshot, EndpointRef, Host, Idle, RpcEnv};

/// No test waits longer than this for anything. What is expected takes milliseconds, or with much data on an emulated
/// machine (`.ci/kernels`) half a minute.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on a thread of its own and fails it if it has not ended after twice [`LIMIT`], so that no wait in it
/// can hang the run.
pub(crate) fn bounded(test: impl FnOnce() + Send + 'static) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    let (done, ended) = mpsc::channel::<()>();
    let runner = thread::Builder::new().name(name).spawn(move || {
        let _done = done;
        test();
    });
    let runner = runner.unwrap();
    match ended.recv_timeout(LIMIT * 2) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        _ => runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// The configuration of tests: cores sleep when idle, since several envs share two CPUs.
pub(crate) fn config() -> Config {
    Config { idle: Idle::Park, ask_timeout: LIMIT, drain: LIMIT, ..Config::default() }
}

/// An env that listens on a free port.
pub(crate) fn server(cores: usize) -> RpcEnv {
    serving(cores, config())
}

/// An env with these limits that listens on a free port.
pub(crate) fn serving(cores: usize, config: Config) -> RpcEnv {
    builder("server", cores, config).bind("127.0.0.1:0").start().unwrap()
}

/// The address of a Unix socket that nobody else has.
pub(crate) fn unix_socket() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("ringpost-test-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("unix:{}", std::env::temp_dir().join(name).display())
}

/// An env that listens nowhere.
pub(crate) fn client(cores: usize) -> RpcEnv {
    builder("client", cores, config()).start().unwrap()
}

/// An env to be, with these limits and the usual host.
pub(crate) fn builder(name: &str, cores: usize, config: Config) -> Builder {
    RpcEnv::builder(name).cores(CoreSet::count(cores)).config(config).host(host())
}

/// What hosts the cores of tests. With `RINGPOST_TEST_HOST=tokio-uring` they live in tokio-uring runtimes: each test
/// keeps its promise there too.
pub(crate) fn host() -> Host {
    match std::env::var("RINGPOST_TEST_HOST").as_deref() {
        Err(_) | Ok("thread") => Host::Thread,
        #[cfg(feature = "tokio-uring")]
        Ok("tokio-uring") => Host::TokioUring,
        Ok(other) => panic!("{other} is no host that this build has"),
    }
}

/// The URI of an endpoint of a listening env.
pub(crate) fn uri(env: &RpcEnv, name: &str) -> String {
    format!("ringpost://{name}@{}", env.address().unwrap())
}

/// The ref that another env has to an endpoint of this one.
pub(crate) fn seen_from(other: &RpcEnv, endpoint: &EndpointRef) -> EndpointRef {
    other.endpoint_ref(&endpoint.uri()).unwrap()
}

/// Shuts an env down and waits for its end.
pub(crate) fn end(env: &RpcEnv) {
    env.shutdown(LIMIT);
    assert!(env.await_termination_within(LIMIT).unwrap(), "{env:?} does not end");
}

/// Waits until the sums of the counters of all cores are as `wanted`. A core publishes at the end of a turn, so each
/// look takes every core through two: the second begins after the first was published.
pub(crate) fn eventually(env: &RpcEnv, what: &str, wanted: impl Fn(&CoreSnapshot) -> bool) -> CoreSnapshot {
    let end = Instant::now() + LIMIT;
    loop {
        turn(env);
        turn(env);
        let total = env.snapshot().total();
        if wanted(&total) {
            return total;
        }
        assert!(Instant::now() < end, "{what} did not happen: {total:?}");
    }
}

/// Takes every core through a turn.
pub(crate) fn turn(env: &RpcEnv) {
    for core in 0..env.core_count() {
        env.spawn_on(core, || async {}).unwrap().join().unwrap();
    }
}

/// The name of an error's variant, to compare errors whose texts differ.
pub(crate) fn kind(error: &AskError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}
