//! Host names are resolved on a few threads beside the cores, since the system's resolver blocks.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::ask::nanoseconds;
use super::config::Config;

/// No host name of DNS is longer.
const MAX_HOST: usize = 253;

/// Finds the addresses of a host, and blocks meanwhile. The ports do not matter.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The system's resolver.
pub fn system() -> Lookup {
    Arc::new(|host| Ok((host, 0).to_socket_addrs()?.collect()))
}

/// Who waits for a name to be resolved: an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameWaiter {
    /// Its core.
    pub core: u16,
    /// Its peer's index.
    pub peer: u32,
    /// Its peer's serial.
    pub serial: u64,
    /// The port beside the name.
    pub port: u16,
}

/// What became of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its addresses, at least one.
    Addresses(Vec<SocketAddr>),
    /// It has none; why.
    Nothing(Arc<str>),
    /// Too much waits for the resolver (`Config::resolver_queue`).
    Full,
}

impl Found {
    fn of(result: io::Result<Vec<SocketAddr>>) -> Found {
        match result {
            Ok(addresses) if addresses.is_empty() => Found::Nothing("it has no address".into()),
            Ok(addresses) => Found::Addresses(addresses),
            Err(error) => Found::Nothing(error.to_string().into()),
        }
    }

    fn at(mut self, port: u16) -> Found {
        if let Found::Addresses(addresses) = &mut self {
            addresses.iter_mut().for_each(|address| address.set_port(port));
        }
        self
    }
}

/// A few threads that resolve names, those who wait for them, and what was found a moment ago.
///
/// An env has two: one for the names that its own user gives, one for those in refs that others have told. The system's
/// resolver may block for tens of seconds on a single name and cannot be stopped; names of strangers hold up only each
/// other.
///
/// A name that is being resolved is not resolved a second time: whoever asks meanwhile waits for the same answer.
pub struct Resolver(Arc<Shared>);

struct Shared {
    limits: Limits,
    lookup: Lookup,
    clock: fn() -> u64,
    tell: Box<dyn Fn(NameWaiter, Found) + Send + Sync>,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    threads: usize,
    queue: usize,
    cache: usize,
    ttl: u64,
    failed_ttl: u64,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Names that no thread has taken up.
    queue: VecDeque<Arc<str>>,
    /// Who waits for each name that is queued or being resolved.
    waiters: HashMap<Arc<str>, Vec<NameWaiter>>,
    /// How many those are.
    waiting: usize,
    cache: HashMap<Arc<str>, Cached>,
    threads: usize,
    idle: usize,
}

struct Cached {
    found: Found,
    until: u64,
}

impl Resolver {
    /// Without a thread yet. `tell` is called on a thread of the resolver, for each who waits.
    pub fn new(
        config: &Config,
        lookup: Lookup,
        clock: fn() -> u64,
        tell: impl Fn(NameWaiter, Found) + Send + Sync + 'static,
    ) -> Resolver {
        let limits = Limits {
            threads: config.resolver_threads.into(),
            queue: config.resolver_queue,
            cache: config.resolver_cache,
            ttl: nanoseconds(config.resolver_ttl),
            failed_ttl: nanoseconds(config.resolver_failed_ttl),
        };
        let (state, work) = (Mutex::default(), Condvar::new());
        Resolver(Arc::new(Shared { limits, lookup, clock, tell: Box::new(tell), state, work }))
    }

    /// What is known about a host; if nothing is, the waiter is told later.
    pub fn resolve(&self, host: &str, waiter: NameWaiter) -> Option<Found> {
        if host.len() > MAX_HOST {
            return Some(Found::Nothing("a host name has at most 253 bytes".into()));
        }
        let limits = &self.0.limits;
        let mut state = self.0.lock();
        let state = &mut *state;
        let now = (self.0.clock)();
        if let Some(cached) = state.cache.get(host).filter(|cached| now < cached.until) {
            return Some(cached.found.clone().at(waiter.port));
        }
        if state.closed {
            return Some(Found::Nothing("the env has shut down".into()));
        }
        if state.waiting >= limits.queue {
            return Some(Found::Full);
        }
        let host: Arc<str> = host.into();
        match state.waiters.entry(host.clone()) {
            Entry::Occupied(mut waiters) => waiters.get_mut().push(waiter),
            Entry::Vacant(place) => {
                if state.idle <= state.queue.len()
                    && state.threads < limits.threads
                    && let Err(error) = self.0.start_thread(&mut state.threads)
                    && state.threads == 0
                {
                    return Some(Found::Nothing(format!("no thread can be started for that: {error}").into()));
                }
                place.insert(vec![waiter]);
                state.queue.push_back(host);
                self.0.work.notify_one();
            }
        }
        state.waiting += 1;
        None
    }

    /// Ends the threads; one that the system's resolver holds up ends when that returns. Nobody is told any more.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.queue.clear();
        state.waiters.clear();
        state.cache.clear();
        state.waiting = 0;
        self.0.work.notify_all();
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn start_thread(self: &Arc<Shared>, threads: &mut usize) -> io::Result<()> {
        let shared = self.clone();
        std::thread::Builder::new().name("ringpost-resolver".into()).spawn(move || shared.run())?;
        *threads += 1;
        Ok(())
    }

    fn run(&self) {
        while let Some(host) = self.next() {
            let found = Found::of((self.lookup)(&host));
            let waiters = self.keep(host, &found);
            waiters.into_iter().for_each(|waiter| (self.tell)(waiter, found.clone().at(waiter.port)));
        }
    }

    /// The next name to be resolved; none at the end.
    fn next(&self) -> Option<Arc<str>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(host) = state.queue.pop_front() {
                return Some(host);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Keeps what was found for a while, and gives those who waited for it.
    fn keep(&self, host: Arc<str>, found: &Found) -> Vec<NameWaiter> {
        let mut state = self.lock();
        let waiters = state.waiters.remove(&host).unwrap_or_default();
        state.waiting -= waiters.len();
        let now = (self.clock)();
        let ttl = if matches!(found, Found::Addresses(_)) { self.limits.ttl } else { self.limits.failed_ttl };
        if state.closed || ttl == 0 || self.limits.cache == 0 {
            return waiters;
        }
        if state.cache.len() >= self.limits.cache && !state.cache.contains_key(&host) {
            state.cache.retain(|_, cached| now < cached.until);
            let first = state.cache.iter().min_by_key(|(_, cached)| cached.until).map(|(host, _)| host.clone());
            if let Some(first) = first.filter(|_| state.cache.len() >= self.limits.cache) {
                state.cache.remove(&first);
            }
        }
        state.cache.insert(host, Cached { found: found.clone(), until: now.saturating_add(ttl) });
        waiters
    }

    /// The tables are whole after every step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
