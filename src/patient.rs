//! Asks and sends that wait for room.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::endpoint_ref::EndpointRef;
use crate::net::asked::OWN_TIMEOUT;
use crate::net::errors::{AskError, SendError};
use crate::shard::current;
use crate::shard::node::now;
use crate::shard::room::{Pauses, Seat};
use crate::shard::spawn::{JoinError, JoinHandle};
use crate::wire::message::{Ask, OneWay};

/// A ref that waits: where an ask or a send of an [`EndpointRef`] fails with `Overloaded` at once, one of this ref waits
/// until there is room, whichever queue on the way was full, here or at a peer.
///
/// It waits by trying again, after pauses from 1 ms, doubled up to 50 ms, each shortened by chance. Only what was refused
/// is tried again, and what was refused was not handled: so each message still arrives at most once. Messages that wait
/// may be overtaken by later ones. The message is cloned for each attempt.
///
/// The time limit of an ask covers everything, waiting included: when it ends, so does the ask, by `Timeout`, whose text
/// names the queue that was full last and its setting. `Config::waiting` bounds how many wait.
///
/// ```no_run
/// # async fn f(accounts: ringpost::EndpointRef) -> Result<(), ringpost::Error> {
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)] struct Deposit { account: u64, cents: i64 }
/// # ringpost::message!(Deposit as "doc.Deposit" => i64);
/// let balance = accounts.patient().ask(Deposit { account: 7, cents: 500 }).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PatientRef(EndpointRef);

impl EndpointRef {
    /// This ref, waiting for room where it would fail with `Overloaded`.
    pub fn patient(&self) -> PatientRef {
        PatientRef(self.clone())
    }
}

impl PatientRef {
    /// The ref that does not wait.
    pub fn endpoint(&self) -> &EndpointRef {
        &self.0
    }

    /// As [`EndpointRef::by_key`].
    pub fn by_key(&self, key: u64) -> PatientRef {
        self.0.by_key(key).patient()
    }

    /// Like [`EndpointRef::ask`], waiting for room; both together take at most `Config::ask_timeout`. The first attempt
    /// is made at once. Dropping the future gives the ask up.
    pub fn ask<M: Ask + Clone>(&self, message: M) -> impl Future<Output = Result<M::Reply, AskError>> + Send + use<M> {
        self.start(message, None)
    }

    /// Like [`ask`](Self::ask), with a limit of its own.
    pub fn ask_within<M: Ask + Clone>(
        &self,
        message: M,
        timeout: Duration,
    ) -> impl Future<Output = Result<M::Reply, AskError>> + Send + use<M> {
        self.start(message, Some(timeout))
    }

    /// Like [`EndpointRef::ask_blocking`], waiting for room.
    pub fn ask_blocking<M: Ask + Clone>(&self, message: M) -> Result<M::Reply, AskError> {
        self.block_on(message, None)
    }

    /// Like [`ask_blocking`](Self::ask_blocking), with a limit of its own.
    pub fn ask_blocking_within<M: Ask + Clone>(&self, message: M, timeout: Duration) -> Result<M::Reply, AskError> {
        self.block_on(message, Some(timeout))
    }

    /// Like [`EndpointRef::send`], waiting for room in the queues of this env, for at most `Config::ask_timeout`; after
    /// that the last refusal is the error. `Ok` says that the message has left this core, or is in its endpoint's inbox or
    /// in the lane to its core. What happens to it then is not told: a full queue further on drops it.
    ///
    /// The first attempt is made at once. If the future is dropped, the message may have been sent or not.
    pub fn send<M: OneWay + Clone>(&self, message: M) -> impl Future<Output = Result<(), SendError>> + Send + use<M> {
        self.start_send(message, None)
    }

    /// Like [`send`](Self::send), with a limit of its own.
    pub fn send_within<M: OneWay + Clone>(
        &self,
        message: M,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<M> {
        self.start_send(message, Some(timeout))
    }

    /// Like [`send`](Self::send), blocking this thread. On a core's own thread this is an error at once.
    pub fn send_blocking<M: OneWay + Clone>(&self, message: M) -> Result<(), SendError> {
        self.block_on_send(message, None)
    }

    /// Like [`send_blocking`](Self::send_blocking), with a limit of its own.
    pub fn send_blocking_within<M: OneWay + Clone>(&self, message: M, timeout: Duration) -> Result<(), SendError> {
        self.block_on_send(message, Some(timeout))
    }

    fn start<M: Ask + Clone>(
        &self,
        message: M,
        own: Option<Duration>,
    ) -> impl Future<Output = Result<M::Reply, AskError>> + Send + use<M> {
        let to = self.0.clone();
        let mut waiting = Waiting::new(&to, own);
        let mut attempt = match own {
            Some(timeout) => to.ask_within(message.clone(), timeout),
            None => to.ask(message.clone()),
        };
        async move {
            loop {
                match attempt.await {
                    Err(AskError::Overloaded { queue, remedy }) => waiting.full = Some(Full { queue, remedy }),
                    outcome => return waiting.judge(outcome),
                }
                waiting.pause(&to).await.map_err(|ended| waiting.ask_error(&to, ended))?;
                attempt = to.ask_within(message.clone(), waiting.left());
            }
        }
    }

    fn block_on<M: Ask + Clone>(&self, message: M, own: Option<Duration>) -> Result<M::Reply, AskError> {
        let to = &self.0;
        let mut waiting = Waiting::new(to, own);
        let mut outcome = match own {
            Some(timeout) => to.ask_blocking_within(message.clone(), timeout),
            None => to.ask_blocking(message.clone()),
        };
        loop {
            match outcome {
                Err(AskError::Overloaded { queue, remedy }) => waiting.full = Some(Full { queue, remedy }),
                outcome => return waiting.judge(outcome),
            }
            // This thread waits by itself, so no core has anything to keep for it.
            if let Some(pause) = waiting.next_pause() {
                thread::sleep(pause);
            }
            if waiting.left().is_zero() {
                return Err(waiting.ask_error(to, Ended::NoRoom));
            }
            outcome = to.ask_blocking_within(message.clone(), waiting.left());
        }
    }

    fn block_on_send<M: OneWay + Clone>(&self, message: M, own: Option<Duration>) -> Result<(), SendError> {
        if current::on_core() {
            return Err(SendError::BlockingOnCore);
        }
        let to = &self.0;
        let mut waiting = Waiting::new(to, own);
        loop {
            let refusal = match Sending::begin(to, message.clone()).wait(to) {
                Err(refusal @ SendError::Overloaded { .. }) => refusal,
                outcome => return outcome,
            };
            if let Some(pause) = waiting.next_pause() {
                thread::sleep(pause);
            }
            if waiting.left().is_zero() {
                return Err(refusal);
            }
        }
    }

    fn start_send<M: OneWay + Clone>(
        &self,
        message: M,
        own: Option<Duration>,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<M> {
        let to = self.0.clone();
        let mut waiting = Waiting::new(&to, own);
        let mut attempt = Sending::begin(&to, message.clone());
        async move {
            loop {
                let refusal = match attempt.outcome(&to).await {
                    Err(refusal @ SendError::Overloaded { .. }) => refusal,
                    outcome => return outcome,
                };
                match waiting.pause(&to).await {
                    Ok(()) => {}
                    Err(Ended::NoRoom) => return Err(refusal),
                    Err(Ended::Refused(Full { queue, remedy })) => return Err(SendError::Overloaded { queue, remedy }),
                    Err(Ended::Stopped) => return Err(stopped(&to)),
                }
                attempt = Sending::begin(&to, message.clone());
            }
        }
    }
}

impl fmt::Display for PatientRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A queue that had no room.
struct Full {
    queue: Arc<str>,
    remedy: &'static str,
}

/// Why nobody waits any longer.
enum Ended {
    /// The time is up.
    NoRoom,
    /// There is no room for those who wait.
    Refused(Full),
    /// The env is shutting down.
    Stopped,
}

/// The time that is left, and the next pause.
struct Waiting {
    began: u64,
    limit: Duration,
    own: bool,
    pauses: Pauses,
    seat: Option<Seat>,
    /// What was full last.
    full: Option<Full>,
}

impl Waiting {
    fn new(to: &EndpointRef, own: Option<Duration>) -> Waiting {
        let limit = own.unwrap_or(to.node().config.ask_timeout);
        Waiting { began: now(), limit, own: own.is_some(), pauses: Pauses::default(), seat: None, full: None }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(Duration::from_nanos(now() - self.began))
    }

    /// None if the time is up.
    fn next_pause(&mut self) -> Option<Duration> {
        let left = self.left();
        (!left.is_zero()).then(|| self.pauses.step().min(left))
    }

    async fn pause(&mut self, to: &EndpointRef) -> Result<(), Ended> {
        let Some(pause) = self.next_pause() else { return Err(Ended::NoRoom) };
        if self.seat.is_none() {
            self.seat = Seat::take(to.node(), to.near_core());
        }
        let Some(seat) = &self.seat else { return Err(Ended::Refused(crowded(to.near_core(), "Config::waiting"))) };
        match seat.pause(pause).await {
            Ok(_) if self.left().is_zero() => Err(Ended::NoRoom),
            Ok(_) => Ok(()),
            Err(JoinError::NotStarted(_)) => Err(Ended::Refused(crowded(seat.core(), "Config::tasks"))),
            Err(_) => Err(Ended::Stopped),
        }
    }

    /// A timeout is the whole ask's, not that of its last attempt.
    fn judge<R>(&self, outcome: Result<R, AskError>) -> Result<R, AskError> {
        match outcome {
            Err(AskError::Timeout { target, setting: OWN_TIMEOUT, .. }) => Err(self.timeout(target)),
            outcome => outcome,
        }
    }

    /// The time is up; if there was no room at any time, that is worth knowing.
    fn timeout(&self, target: Arc<str>) -> AskError {
        let target = match &self.full {
            Some(Full { queue, remedy }) => format!("{target}, after there was no room in {queue} ({remedy}),").into(),
            None => target,
        };
        let setting = if self.own { OWN_TIMEOUT } else { "Config::ask_timeout" };
        AskError::Timeout { target, after: self.limit, setting }
    }

    fn ask_error(&self, to: &EndpointRef, ended: Ended) -> AskError {
        match ended {
            Ended::NoRoom => self.timeout(to.to_string().into()),
            Ended::Refused(Full { queue, remedy }) => AskError::Overloaded { queue, remedy },
            Ended::Stopped => AskError::Stopped { target: to.node().name.as_str().into() },
        }
    }
}

fn stopped(to: &EndpointRef) -> SendError {
    SendError::Stopped { target: to.node().name.as_str().into() }
}

fn crowded(core: u16, setting: &str) -> Full {
    let queue = format!("the list of those who wait for room at core {core} ({setting})").into();
    Full { queue, remedy: "await answers first, or raise that setting" }
}

/// One attempt to send.
enum Sending {
    /// Its outcome is known.
    Ended(Result<(), SendError>),
    /// A core makes it, and tells.
    Elsewhere(JoinHandle<Result<(), SendError>>),
}

impl Sending {
    fn begin<M: OneWay>(to: &EndpointRef, message: M) -> Sending {
        if to.is_near() {
            return Sending::Ended(to.send(message));
        }
        let there = to.clone();
        match to.run_near(move || async move { there.send(message) }) {
            Ok(told) => Sending::Elsewhere(told),
            Err(refused) => Sending::Ended(Err(refused)),
        }
    }

    async fn outcome(self, to: &EndpointRef) -> Result<(), SendError> {
        match self {
            Sending::Ended(outcome) => outcome,
            Sending::Elsewhere(told) => Sending::told(told.await, to),
        }
    }

    fn wait(self, to: &EndpointRef) -> Result<(), SendError> {
        match self {
            Sending::Ended(outcome) => outcome,
            Sending::Elsewhere(told) => Sending::told(told.join(), to),
        }
    }

    fn told(told: Result<Result<(), SendError>, JoinError>, to: &EndpointRef) -> Result<(), SendError> {
        match told {
            Ok(outcome) => outcome,
            Err(JoinError::NotStarted(_)) => {
                let Full { queue, remedy } = crowded(to.near_core(), "Config::tasks");
                Err(SendError::Overloaded { queue, remedy })
            }
            Err(JoinError::Panicked(text)) => {
                Err(SendError::Unsendable { target: to.to_string().into(), reason: text.into() })
            }
            Err(_) => Err(stopped(to)),
        }
    }
}
