//! Endpoints that echo and that hang, and payloads that tell answers apart.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RpcEnv, message,
};
use serde::{Deserialize, Serialize};

use super::{LIMIT, builder, uri};

/// Answered with its payload.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Echo {
    pub(crate) payload: Bytes,
}
message!(Echo as "test.Echo" => Bytes);

/// One-way.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Note {
    pub(crate) payload: Bytes,
}
message!(Note as "test.Note");

/// Never answered.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Hang;
message!(Hang as "test.Hang" => ());

/// Answers [`Echo`], takes [`Note`].
pub(crate) struct Echoing;

impl Endpoint for Echoing {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Echo>().send_sync::<Note>();
    }
}

impl HandleSync<Echo> for Echoing {
    fn handle(&mut self, echo: Echo, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        Ok(echo.payload)
    }
}

impl HandleSync<Note> for Echoing {
    fn handle(&mut self, _: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Takes [`Hang`] and never answers.
pub(crate) struct Hanging;

impl Endpoint for Hanging {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Hang>();
    }
}

impl Handle<Hang> for Hanging {
    async fn handle(&mut self, _: Hang, _: &mut CallContext) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

/// A server with one core and the endpoints `echo` and `hang`.
pub(crate) fn serve(bind: &str, config: Config) -> RpcEnv {
    let env = builder("server", 1, config).bind(bind).start().unwrap();
    host(&env);
    env
}

/// Registers the endpoints `echo` and `hang`.
pub(crate) fn host(env: &RpcEnv) {
    env.register("echo", || Echoing).unwrap();
    env.register("hang", || Hanging).unwrap();
}

/// A node with one core that listens nowhere.
pub(crate) fn dialler(config: Config) -> RpcEnv {
    builder("client", 1, config).start().unwrap()
}

/// A ref of `client` to the endpoint with this name at `server`.
pub(crate) fn refer(client: &RpcEnv, name: &str, server: &RpcEnv) -> EndpointRef {
    client.endpoint_ref(&uri(server, name)).unwrap()
}

/// Ends envs without waiting for what still hangs in them.
pub(crate) fn cut<const N: usize>(envs: [RpcEnv; N]) {
    for env in envs {
        env.shutdown(Duration::ZERO);
        assert!(env.await_termination_within(LIMIT).unwrap(), "{env:?} does not end");
    }
}

/// Lets one test of a program run at a time: for tests that count what belongs to the whole process. To be taken
/// outside of [`bounded`](super::bounded), which would count the wait.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` holds, for at most [`LIMIT`].
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread; fails the test if it takes longer than [`LIMIT`].
#[track_caller]
pub(crate) fn within<F: Future>(future: F) -> F::Output {
    let end = Instant::now() + LIMIT;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "a future is not ready after {LIMIT:?}");
        thread::park_timeout(left);
    }
}

/// Runs a future on core 0 of `env` and waits for its outcome.
#[track_caller]
pub(crate) fn on_core<F, Fut>(env: &RpcEnv, make: F) -> Fut::Output
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send,
{
    within(env.spawn_on(0, make).unwrap()).unwrap()
}

/// Random numbers that are the same in each run: xorshift64* by Vigna.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// `count` bytes that are others for each seed.
pub(crate) fn payload(seed: u64, count: usize) -> Bytes {
    Random(seed.wrapping_mul(2) + 1).bytes(count).into()
}

/// Asks once and checks every byte of the answer.
pub(crate) async fn echo_once(echo: EndpointRef, seed: u64, size: usize) -> Result<(), AskError> {
    let sent = payload(seed, size);
    let answer = echo.ask(Echo { payload: sent.clone() }).await?;
    assert!(answer == sent, "the answer to ask {seed} of {size} bytes is another");
    Ok(())
}

/// [`echo_once`] from a thread that is no core.
pub(crate) fn echo_blocking(echo: &EndpointRef, seed: u64, size: usize) -> Result<(), AskError> {
    let sent = payload(seed, size);
    let answer = echo.ask_blocking(Echo { payload: sent.clone() })?;
    assert!(answer == sent, "the answer to ask {seed} of {size} bytes is another");
    Ok(())
}

/// Descriptors that this process has open.
pub(crate) fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
