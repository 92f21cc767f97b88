//! How endpoints come into an env.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::dispatch::directory::Place;
use crate::dispatch::endpoint::Endpoint;
use crate::endpoint_ref::EndpointRef;
use crate::env::RpcEnv;
use crate::error::RegisterError;
use crate::host::isolated;
use crate::host::life::StartFailure;
use crate::net::handoff::Handoff;
use crate::shard::current;
use crate::shard::node::{Job, Node};
use crate::wire::failure::HandlerError;
use crate::wire::frame::EndpointId;

/// Each form comes twice: one that blocks until the endpoint has started, for threads that are no core, and one that
/// returns a future, for anywhere: handlers and tasks on a core too.
impl RpcEnv {
    /// Registers an endpoint on the core with the fewest endpoints. `make` runs on that core; see
    /// [`register_on`](Self::register_on).
    pub fn register<E: Endpoint>(
        &self,
        name: &str,
        make: impl FnOnce() -> E + Send + 'static,
    ) -> Result<EndpointRef, RegisterError> {
        blocking(|| self.register_async(name, make))
    }

    /// [`register`](Self::register), awaited.
    pub fn register_async<E: Endpoint>(&self, name: &str, make: impl FnOnce() -> E + Send + 'static) -> Registering {
        let doors = self.node().cores.iter().take(self.core_count()).map(|door| door.placed.load(Ordering::Relaxed));
        let (core, _) = doors.enumerate().min_by_key(|(_, placed)| *placed).unwrap_or((0, 0));
        self.register_on_async(core, name, make)
    }

    /// Registers an endpoint on this core. Blocks until `make` and `on_start` have run there; if either fails, the
    /// endpoint is not registered and its name is free again.
    ///
    /// A name is 1 to 255 bytes without spaces, control characters and `@/?#`. Not for a core's own thread.
    pub fn register_on<E: Endpoint>(
        &self,
        core: usize,
        name: &str,
        make: impl FnOnce() -> E + Send + 'static,
    ) -> Result<EndpointRef, RegisterError> {
        blocking(|| self.register_on_async(core, name, make))
    }

    /// [`register_on`](Self::register_on), awaited.
    pub fn register_on_async<E: Endpoint>(
        &self,
        core: usize,
        name: &str,
        make: impl FnOnce() -> E + Send + 'static,
    ) -> Registering {
        let cores = self.core_count();
        let Some(number) = u16::try_from(core).ok().filter(|_| core < cores) else {
            return Registering(State::Refused(RegisterError::NoSuchCore { core, cores }));
        };
        self.begin(name, Place::Core(number), |registration| registration.place(number, make))
    }

    /// Registers one endpoint on every core, all under one name; `make` is given the number of its core. Messages go
    /// to the sender's own core, to the core that owns the connection, or to the owner of a key: see
    /// [`EndpointRef::by_key`]. If one instance fails to start, all are stopped. Not for a core's own thread.
    pub fn register_per_core<E: Endpoint>(
        &self,
        name: &str,
        make: impl Fn(usize) -> E + Send + Sync + 'static,
    ) -> Result<EndpointRef, RegisterError> {
        blocking(|| self.register_per_core_async(name, make))
    }

    /// [`register_per_core`](Self::register_per_core), awaited.
    pub fn register_per_core_async<E: Endpoint>(
        &self,
        name: &str,
        make: impl Fn(usize) -> E + Send + Sync + 'static,
    ) -> Registering {
        let cores = self.node().core_count();
        self.begin(name, Place::EveryCore, |registration| {
            let make = Arc::new(make);
            for core in 0..cores {
                let make = make.clone();
                registration.place(core, move || make(core.into()));
            }
        })
    }

    /// Registers an endpoint on a thread of its own, where it may block: in its handlers and other callbacks, and in the
    /// tasks that it starts. There [`ask_blocking`](EndpointRef::ask_blocking), [`lookup_blocking`](RpcEnv::lookup_blocking),
    /// [`join`](crate::JoinHandle::join) and the blocking forms of `register` work, as does all that blocks in the
    /// standard library, such as `std::fs`. In every other respect it is like any endpoint.
    ///
    /// While it blocks nobody else stands still. Messages wait for it, in its inbox and in the lanes to its thread, and
    /// are refused with [`AskError::Overloaded`](crate::AskError::Overloaded) when those are full; an ask that times out
    /// meanwhile ends at once for its asker. A handler that blocks cannot be given up, though: it goes on when its asker
    /// has gone, and beyond the deadline of a shutdown.
    ///
    /// The thread is pinned to no CPU, belongs to none of the cores that [`core_count`](RpcEnv::core_count) counts, and
    /// is kept for the next isolated endpoint when this one has ended. There may be `Config::isolated` at one time.
    ///
    /// ```
    /// # use ringpost::*;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Read(String);
    /// # message!(Read as "doc.Read" => String);
    /// struct Files;
    /// # impl Endpoint for Files { fn handlers(h: &mut Handlers<Self>) { h.ask_sync::<Read>(); } }
    /// impl HandleSync<Read> for Files {
    ///     fn handle(&mut self, read: Read, _: &mut CallContext) -> Result<String, HandlerError> {
    ///         Ok(std::fs::read_to_string(read.0)?)
    ///     }
    /// }
    /// # fn main() -> Result<(), ringpost::Error> {
    /// let env = RpcEnv::builder("bank").cores(CoreSet::count(1)).start()?;
    /// let files = env.register_isolated("files", || Files)?;
    /// let hosts = files.ask_blocking(Read("/etc/hosts".into()))?;
    /// # Ok(()) }
    /// ```
    pub fn register_isolated<E: Endpoint>(
        &self,
        name: &str,
        make: impl FnOnce() -> E + Send + 'static,
    ) -> Result<EndpointRef, RegisterError> {
        blocking(|| self.register_isolated_async(name, make))
    }

    /// [`register_isolated`](Self::register_isolated), awaited.
    pub fn register_isolated_async<E: Endpoint>(
        &self,
        name: &str,
        make: impl FnOnce() -> E + Send + 'static,
    ) -> Registering {
        let node = self.node();
        let Some(core) = node.claim_isolated() else {
            let (env, max) = (node.name.as_str().into(), node.config.isolated);
            return Registering(State::Refused(RegisterError::TooManyIsolated { env, max }));
        };
        let begun = self.begin(name, Place::Core(core), |registration| registration.isolate(core, make));
        if let State::Refused(_) = begun.0 {
            node.unplace(core);
        }
        begun
    }

    fn begin(&self, name: &str, place: Place, host: impl FnOnce(&Arc<Registration>)) -> Registering {
        match Registration::begin(self.node(), name, place) {
            Ok(registration) => {
                host(&registration);
                Registering(State::UnderWay(registration))
            }
            Err(error) => Registering(State::Refused(error)),
        }
    }
}

fn blocking(begin: impl FnOnce() -> Registering) -> Result<EndpointRef, RegisterError> {
    if current::on_core() { Err(RegisterError::BlockingOnCore) } else { begin().wait() }
}

/// The ref of an endpoint that is being registered, to come once its `on_start` has ended.
///
/// It may be awaited on any thread and by any executor. The registration is under way already; if this is dropped
/// before it has told how that went, the endpoint is stopped again, as nobody would know of it.
#[must_use = "the endpoint is stopped again when this is dropped: await it"]
pub struct Registering(State);

enum State {
    /// It did not begin.
    Refused(RegisterError),
    /// Its outcome comes.
    UnderWay(Arc<Registration>),
    /// Its outcome was taken.
    Done,
}

impl Registering {
    /// Blocks until the outcome is there.
    fn wait(mut self) -> Result<EndpointRef, RegisterError> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Refused(error) => Err(error),
            State::UnderWay(registration) => registration.outcome.wait(),
            State::Done => unreachable!("it is taken here only, by value"),
        }
    }
}

impl Future for Registering {
    type Output = Result<EndpointRef, RegisterError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::UnderWay(registration) = &self.0 {
            let Poll::Ready(outcome) = registration.outcome.poll(cx) else { return Poll::Pending };
            self.0 = State::Done;
            return Poll::Ready(outcome);
        }
        match std::mem::replace(&mut self.0, State::Done) {
            State::Refused(error) => Poll::Ready(Err(error)),
            // A future is not polled again after it has ended; whoever does it all the same waits forever.
            _ => Poll::Pending,
        }
    }
}

impl Drop for Registering {
    fn drop(&mut self) {
        if let State::UnderWay(registration) = &self.0 {
            registration.abandon();
        }
    }
}

impl fmt::Debug for Registering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registering")
    }
}

/// A registration under way: who waits for it, and how many instances have not told how their start went.
struct Registration {
    node: Arc<Node>,
    id: EndpointId,
    place: Place,
    name: Arc<str>,
    progress: Mutex<Progress>,
    outcome: Handoff<Result<EndpointRef, RegisterError>>,
}

struct Progress {
    /// Instances that have not told.
    left: u16,
    /// The first failure.
    failure: Option<RegisterError>,
    /// Nobody waits any more.
    unwanted: bool,
}

impl Registration {
    /// Takes the name.
    fn begin(node: &Arc<Node>, name: &str, place: Place) -> Result<Arc<Registration>, RegisterError> {
        if node.closing.load(Ordering::Relaxed) {
            return Err(RegisterError::Stopped { env: node.name.as_str().into() });
        }
        let left = if place == Place::EveryCore { node.core_count() } else { 1 };
        let id = node.directory.reserve(name, place, left.into())?;
        Ok(Arc::new(Registration {
            node: node.clone(),
            id,
            place,
            name: name.into(),
            progress: Mutex::new(Progress { left, failure: None, unwanted: false }),
            outcome: Handoff::default(),
        }))
    }

    /// Has a core make an instance.
    fn place<E: Endpoint>(self: &Arc<Self>, core: u16, make: impl FnOnce() -> E + Send + 'static) {
        self.node.cores[usize::from(core)].placed.fetch_add(1, Ordering::Relaxed);
        self.host(core, make);
    }

    /// Has an isolated core, which was claimed, make the instance; starts the core if it does not run.
    fn isolate<E: Endpoint>(self: &Arc<Self>, core: u16, make: impl FnOnce() -> E + Send + 'static) {
        if self.node.has_core(core) {
            return self.host(core, make);
        }
        let registration = self.clone();
        let then = move |started| match started {
            Ok(()) => registration.host(core, make),
            Err(failure) => registration.not_isolated(core, &failure),
        };
        isolated::start(&self.node, core, Box::new(then));
    }

    fn not_isolated(&self, core: u16, failure: &StartFailure) {
        self.told(Some(match self.node.closing.load(Ordering::Relaxed) {
            true => RegisterError::Stopped { env: self.node.name.as_str().into() },
            false => RegisterError::NoThread { name: self.name.clone(), cause: failure.to_string().into() },
        }));
        self.node.directory.release(self.id);
        self.node.unplace(core);
    }

    /// Has a core make an instance and tell how that went.
    fn host<E: Endpoint>(self: &Arc<Self>, core: u16, make: impl FnOnce() -> E + Send + 'static) {
        let (id, name, report) = (self.id, self.name.clone(), Report(Some(self.clone())));
        let door = &self.node.cores[usize::from(core)];
        let job: Job = Box::new(move |shard| {
            shard.host(id, name, make, Box::new(move |outcome| report.tell(outcome)));
        });
        // A job that is refused is dropped, and its report tells; the name is free again by then.
        if door.inject(job).is_err() {
            self.node.directory.release(id);
            self.node.unplace(core);
        }
    }

    /// One more instance has started, or has not.
    fn told(&self, failure: Option<RegisterError>) {
        let mut progress = self.progress();
        progress.left -= 1;
        progress.failure = progress.failure.take().or(failure);
        if progress.failure.is_some() {
            self.node.directory.unname(self.id);
        }
        if progress.left > 0 {
            return;
        }
        let outcome = match progress.failure.take() {
            Some(error) => Err(error),
            None => Ok(EndpointRef::local(&self.node, self.id, self.place, &self.name)),
        };
        let unwanted = progress.unwanted;
        drop(progress);
        if unwanted || outcome.is_err() {
            self.stop();
        }
        self.outcome.put(outcome);
    }

    /// Nobody waits any more: what has started, or still starts, is stopped.
    fn abandon(&self) {
        self.progress().unwanted = true;
        self.stop();
    }

    fn stop(&self) {
        // A failed instance has taken the name away already; the others still run.
        self.node.directory.unname(self.id);
        self.node.stop_instances(self.id);
    }

    // The numbers are whole after every step, so a panic of another holder does not spoil them.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to tell how an instance's start went. Dropped with the job that was to start it, it tells that too.
struct Report(Option<Arc<Registration>>);

impl Report {
    fn tell(mut self, outcome: Result<(), HandlerError>) {
        if let Some(registration) = self.0.take() {
            let failed = |error| RegisterError::Failed { name: registration.name.clone(), error };
            registration.told(outcome.err().map(failed));
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(registration) = self.0.take() {
            let env: Arc<str> = registration.node.name.as_str().into();
            registration.told(Some(match registration.node.closing.load(Ordering::Relaxed) {
                true => RegisterError::Stopped { env },
                false => RegisterError::Overloaded { env },
            }));
        }
    }
}

/// A registration goes anywhere; a change that broke this would break users.
const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Registering>();
};
