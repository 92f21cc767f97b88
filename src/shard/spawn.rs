//! Tasks of a user on a core.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::current;
use super::shard::Shard;
use crate::executor::catch::catch;
use crate::net::handoff::Handoff;

/// Why a task did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The task panicked.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// The task's core ended first.
    #[error("the task's core ended before the task")]
    Stopped,
    /// The task did not start.
    #[error(transparent)]
    NotStarted(#[from] SpawnError),
    /// `join` was called on a core's own thread.
    #[error("join on a core's own thread would block everything on it: await the handle there")]
    BlockingOnCore,
}

/// Why a task could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The core has its full number of tasks, or too many jobs wait for it.
    #[error("core {core} takes no more tasks: raise Config::tasks or Config::injected")]
    Full {
        /// The core.
        core: usize,
    },
    /// The env is shutting down.
    #[error("the env is shutting down")]
    Stopped,
    /// The env has no core with this number.
    #[error("there is no core {core}; the env has {cores}")]
    NoSuchCore {
        /// The number that was given.
        core: usize,
        /// How many there are.
        cores: usize,
    },
    /// The thread is no core of any env.
    #[error("this thread is no core: use RpcEnv::spawn_on")]
    NotOnCore,
}

type Outcome<T> = Handoff<Result<T, JoinError>>;

/// The result of a task, to come. Await it, or block on it from a thread that is no core. Dropping it leaves the task
/// running.
#[must_use = "dropping it leaves the task running and its result unseen"]
pub struct JoinHandle<T>(Arc<Outcome<T>>);

impl<T> JoinHandle<T> {
    /// Blocks until the task has ended.
    pub fn join(self) -> Result<T, JoinError> {
        if current::on_core() { Err(JoinError::BlockingOnCore) } else { self.0.wait() }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinHandle")
    }
}

/// Tells the handle that the task ended without a result, unless it had one.
struct Promise<T>(Option<Arc<Outcome<T>>>);

impl<T> Promise<T> {
    fn keep(mut self, result: Result<T, JoinError>) {
        if let Some(outcome) = self.0.take() {
            outcome.put(result);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(outcome) = self.0.take() {
            outcome.put(Err(JoinError::Stopped));
        }
    }
}

fn promise<T>() -> (Promise<T>, JoinHandle<T>) {
    let outcome = Arc::<Outcome<T>>::default();
    (Promise(Some(outcome.clone())), JoinHandle(outcome))
}

impl Shard {
    fn start<F: Future + 'static>(&self, future: F, promise: Promise<F::Output>) {
        if !self.executor.has_room() {
            self.count(|counters| counters.tasks_refused += 1);
            return promise.keep(Err(SpawnError::Full { core: self.core.into() }.into()));
        }
        let task = async move { promise.keep(catch(future).await.map_err(JoinError::Panicked)) };
        // There is room; and a task that did not start tells its handle so when it is dropped.
        let _ = self.executor.spawn(task);
    }
}

/// A job that makes a future on a core and starts it as a task there.
pub fn job<F, Fut>(make: F) -> (super::node::Job, JoinHandle<Fut::Output>)
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send,
{
    let (promise, handle) = promise();
    let job = move |shard: &Rc<Shard>| shard.start(async move { make().await }, promise);
    (Box::new(job), handle)
}

/// Starts a task on this thread's core. The future may hold `Rc`s.
///
/// A panic of the task ends the task alone and comes out of its handle; so does the error if the task cannot start, as
/// on a thread that is no core.
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    let (promise, handle) = promise();
    match current::get() {
        Some(shard) => shard.start(future, promise),
        None => promise.keep(Err(SpawnError::NotOnCore.into())),
    }
    handle
}
