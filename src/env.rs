//! One node: its cores, its endpoints, its address.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::address::{Address, EndpointUri};
use crate::dispatch::verifier::{Found, Lookup, VERIFIER};
use crate::endpoint_ref::EndpointRef;
use crate::error::{AskError, Error, LookupError, SpawnError};
use crate::locator::Locator;
use crate::net::asked::OWN_TIMEOUT;
use crate::ring::Capabilities;
use crate::shard::counters::Snapshot;
use crate::shard::current;
use crate::shard::destination::Destination;
use crate::shard::node::Node;
use crate::shard::spawn::{JoinHandle, job};

/// One node: cores, endpoints on them, and an address if it listens.
///
/// A handle; clones mean the same env. When the last one of those that came from [`start`](crate::Builder::start) is
/// dropped the env begins to shut down, as with [`shutdown`](RpcEnv::shutdown) and `Config::drain`, and nobody waits for
/// it. Handles that an endpoint got from its [context](crate::EndpointContext::env) do not hold it up.
#[derive(Clone)]
pub struct RpcEnv(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    address: Option<Address>,
    /// Whether the env ends with this.
    owner: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.owner {
            self.node.shutdown(self.node.config.drain);
        }
    }
}

impl RpcEnv {
    /// The handle for whoever started the env.
    pub(crate) fn started(node: Arc<Node>, address: Option<Address>) -> RpcEnv {
        RpcEnv(Arc::new(Inner { node, address, owner: true }))
    }

    /// A handle for the env's own endpoints, which do not keep it running.
    pub(crate) fn inside(node: Arc<Node>) -> RpcEnv {
        let address = node.advertised.get().and_then(|address| address.parse().ok());
        RpcEnv(Arc::new(Inner { node, address, owner: false }))
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    /// The env's name.
    pub fn name(&self) -> &str {
        &self.0.node.name
    }

    /// Where peers reach this env: the advertised host and the bound port. None in client mode.
    pub fn address(&self) -> Option<&Address> {
        self.0.address.as_ref()
    }

    /// How many cores the env has; they are numbered from 0.
    pub fn core_count(&self) -> usize {
        self.0.node.core_count().into()
    }

    /// What the kernel offers, less what [`Builder::without`](crate::Builder::without) left out.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.node.capabilities
    }

    /// The counters of all cores, at most one turn old each.
    pub fn snapshot(&self) -> Snapshot {
        self.0.node.snapshot()
    }

    /// Stops an endpoint of this env: its name is free at once, messages that are queued are handled, then `on_stop`
    /// runs. Its core refuses messages as soon as it learns of this: at once if this is called there, otherwise what other
    /// cores send meanwhile may still be handled. The endpoint is meant, not its name: a ref to an earlier holder stops
    /// nobody else. False if it is not of this env or has been stopped before, by the shutdown of the env too.
    pub fn stop(&self, endpoint: &EndpointRef) -> bool {
        match endpoint.destination() {
            Destination::Env { id, .. } if endpoint.belongs_to(&self.0.node) => self.0.node.stop(*id),
            _ => false,
        }
    }

    /// A ref to the endpoint with this URI, `ringpost://name@host:port` or `ringpost://name@unix:/path`, or with this
    /// address and name. Nothing is sent: whether the endpoint exists shows with the first ask. Only an endpoint of
    /// this env itself is looked up, since that costs nothing.
    pub fn endpoint_ref(&self, endpoint: impl Locator) -> Result<EndpointRef, LookupError> {
        EndpointRef::resolve(&self.0.node, &endpoint.locate()?)
    }

    /// A ref to this endpoint, as for [`endpoint_ref`](Self::endpoint_ref), after its node has said that it exists. It
    /// may be gone again by the time of the first ask. Waits at most `Config::lookup_timeout`. A node that shuts down
    /// says so: [`LookupError::Ask`] with [`AskError::Stopped`].
    ///
    /// The node also says on which of its cores the endpoint is, and if it places connections by
    /// [`Placement::Steered`](crate::Placement::Steered), the ref's messages go over connections to that core, or with
    /// [`by_key`](EndpointRef::by_key) to the core that owns the key. That saves the way through another core of the
    /// node, and costs a connection of each core here to each core there that is used. An endpoint that has moved since
    /// is still reached. What `lookup` learnt does not travel with the ref: a ref that is decoded from a message goes
    /// over the connection that refs without a look-up share.
    pub async fn lookup(&self, endpoint: impl Locator) -> Result<EndpointRef, LookupError> {
        let uri = endpoint.locate()?;
        let (endpoint, verifier) = self.with_verifier(&uri)?;
        let question = Lookup { name: endpoint.name().to_owned() };
        let found = verifier.ask_within(question, self.0.node.config.lookup_timeout).await;
        found_or_not(endpoint, &uri, found)
    }

    /// [`lookup`](Self::lookup), blocking. Not for a core's own thread.
    pub fn lookup_blocking(&self, endpoint: impl Locator) -> Result<EndpointRef, LookupError> {
        if current::on_core() {
            return Err(LookupError::BlockingOnCore);
        }
        let uri = endpoint.locate()?;
        let (endpoint, verifier) = self.with_verifier(&uri)?;
        let question = Lookup { name: endpoint.name().to_owned() };
        let found = verifier.ask_blocking_within(question, self.0.node.config.lookup_timeout);
        found_or_not(endpoint, &uri, found)
    }

    fn with_verifier(&self, uri: &EndpointUri) -> Result<(EndpointRef, EndpointRef), LookupError> {
        let endpoint = EndpointRef::resolve(&self.0.node, uri)?;
        let verifier = EndpointUri { name: VERIFIER.into(), ..uri.clone() };
        Ok((endpoint, EndpointRef::resolve(&self.0.node, &verifier)?))
    }

    /// Runs a future on this core. `make` runs there too, so the future may hold `Rc`s; only its result travels.
    pub fn spawn_on<F, Fut>(&self, core: usize, make: F) -> Result<JoinHandle<Fut::Output>, SpawnError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send,
    {
        let cores = self.core_count();
        let door = self.0.node.cores[..cores].get(core).ok_or(SpawnError::NoSuchCore { core, cores })?;
        let (job, handle) = job(make);
        door.inject(job).map_err(|_| match self.0.node.closing.load(Ordering::Relaxed) {
            true => SpawnError::Stopped,
            false => SpawnError::Full { core },
        })?;
        Ok(handle)
    }

    /// Begins to shut the env down and returns at once: no connection, endpoint or ask is taken any more, endpoints
    /// handle what is queued and run their `on_stop`, what is to be sent is sent; whatever has not ended after
    /// `deadline` is dropped, endpoints without `on_stop`, and named in a warning. Callable from anywhere, a handler
    /// included; a second call changes nothing.
    pub fn shutdown(&self, deadline: Duration) {
        self.0.node.shutdown(deadline);
    }

    /// Completes when all cores have ended, under any executor. A task of this env's own cores does not live to see it;
    /// an isolated endpoint that still blocks is not waited for, nor is the last moment of its thread.
    pub async fn terminated(&self) {
        poll_fn(|cx| self.0.node.ended.poll(cx)).await;
    }

    /// Blocks until the env has shut down. Not for a core's own thread, which would wait for itself. An isolated endpoint
    /// that still blocks a moment after the shutdown's deadline is not waited for: a warning tells, and its thread ends
    /// when it returns.
    pub fn await_termination(&self) -> Result<(), Error> {
        self.await_end(None).map(|_| ())
    }

    /// Like [`await_termination`](Self::await_termination), for at most `limit`; true if the env has shut down.
    pub fn await_termination_within(&self, limit: Duration) -> Result<bool, Error> {
        self.await_end(Some(limit))
    }

    fn await_end(&self, limit: Option<Duration>) -> Result<bool, Error> {
        let node = &self.0.node;
        // An isolated endpoint may block, but it is part of what it would wait for.
        if current::on_core() || current::get().is_some_and(|shard| shard.node.id == node.id) {
            return Err(Error::AwaitOnCore);
        }
        let began = Instant::now();
        if !node.ended.wait(limit) {
            return Ok(false);
        }
        node.isolated.await_end(limit.map(|limit| limit.saturating_sub(began.elapsed())));
        Ok(true)
    }
}

impl fmt::Debug for RpcEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpcEnv({:?}, {} cores", self.name(), self.core_count())?;
        self.address().iter().try_for_each(|address| write!(f, ", {address}"))?;
        f.write_str(")")
    }
}

fn found_or_not(
    endpoint: EndpointRef,
    uri: &EndpointUri,
    found: Result<Option<Found>, AskError>,
) -> Result<EndpointRef, LookupError> {
    match found {
        Ok(Some(found)) => Ok(endpoint.steered(&found)),
        Ok(None) => Err(LookupError::NotFound { uri: uri.to_string().into() }),
        Err(error) => Err(LookupError::Ask { uri: uri.to_string().into(), error: of_lookup(error) }),
    }
}

/// A look-up's error in the words of who looks up: about the env that was asked, and the setting of look-ups.
fn of_lookup(error: AskError) -> AskError {
    let env = |target: Arc<str>| match target.strip_prefix(VERIFIER).and_then(|at| at.strip_prefix('@')) {
        Some(address) => format!("the env at {address}").into(),
        None => target,
    };
    match error {
        AskError::Stopped { target } => AskError::Stopped { target: env(target) },
        AskError::Timeout { target, after, setting } => {
            let setting = if setting == OWN_TIMEOUT { "Config::lookup_timeout" } else { setting };
            AskError::Timeout { target: env(target), after, setting }
        }
        error => error,
    }
}
