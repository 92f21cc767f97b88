//! Waiting for a time, on a core.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::current;
use super::node::now;
use super::shard::Shard;
use super::timeouts::Timer;
use crate::executor::catch::wake;
use crate::executor::timers::TimerKey;

/// Which sleeper of a core: place and serial number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepKey {
    /// Place in the table.
    pub slot: u32,
    /// New for each sleep, so that the timer of one never wakes the next in its place.
    pub serial: u32,
}

/// The sleeps of a core that have not ended. There is one entry for each future, so whoever holds the futures bounds it.
#[derive(Debug, Default)]
pub struct Sleepers {
    slots: Slab<Sleeper>,
    serial: u32,
}

#[derive(Debug)]
struct Sleeper {
    serial: u32,
    timer: TimerKey,
    waker: Waker,
}

impl Sleepers {
    /// The key that the next insertion will have.
    fn next_key(&mut self) -> SleepKey {
        self.serial = self.serial.wrapping_add(1);
        SleepKey { slot: self.slots.vacant_key() as u32, serial: self.serial }
    }

    fn get(&mut self, key: SleepKey) -> Option<&mut Sleeper> {
        self.slots.get_mut(key.slot as usize).filter(|sleeper| sleeper.serial == key.serial)
    }

    fn remove(&mut self, key: SleepKey) -> Option<Sleeper> {
        self.get(key)?;
        Some(self.slots.remove(key.slot as usize))
    }
}

impl Shard {
    /// A sleep is over. Its waker may be anybody's, so nothing is borrowed when it is used.
    pub(super) fn on_slept(&self, key: SleepKey) {
        let sleeper = self.sleepers.borrow_mut().remove(key);
        if let Some(sleeper) = sleeper {
            wake(sleeper.waker);
        }
    }
}

/// This thread is no core, so it has no clock to sleep by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ringpost::sleep works in handlers and tasks of a core: use your own runtime's timer on this thread")]
#[non_exhaustive]
pub struct NotOnCore;

/// Sleeps on this thread's core; see [`sleep`].
#[must_use = "nobody sleeps before it is awaited"]
pub struct Sleep(State);

enum State {
    /// Until then; the timer is armed by the first poll.
    New(u64),
    /// The core's timer is armed.
    Armed(Rc<Shard>, SleepKey),
    Done,
}

/// Waits for `duration`, in a handler or a task of a core, and lets the core work meanwhile. The time counts from this
/// call. It never ends early; the clock ticks in steps of about a millisecond, and a busy core may be late.
///
/// Dropping the future disarms its timer.
///
/// # Errors
/// [`NotOnCore`] on a thread that is no core: there the thread's own runtime has a timer.
///
/// ```
/// # use std::time::Duration;
/// # use ringpost::{CallContext, Endpoint, Handle, HandlerError, Handlers, message};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Ring;
/// # message!(Ring as "doc.Ring" => ());
/// # struct Bell;
/// # impl Endpoint for Bell { fn handlers(h: &mut Handlers<Self>) { h.ask::<Ring>(); } }
/// impl Handle<Ring> for Bell {
///     async fn handle(&mut self, _: Ring, _: &mut CallContext) -> Result<(), HandlerError> {
///         ringpost::sleep(Duration::from_millis(10)).await?;
///         Ok(())
///     }
/// }
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    let duration = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Sleep(State::New(now().saturating_add(duration)))
}

impl Future for Sleep {
    type Output = Result<(), NotOnCore>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &self.0 {
            State::New(until) => {
                let Some(shard) = current::get() else { return Poll::Ready(Err(NotOnCore)) };
                // Cloned out here: a waker's code may be anybody's.
                let waker = cx.waker().clone();
                let key = {
                    let mut sleepers = shard.sleepers.borrow_mut();
                    let key = sleepers.next_key();
                    let timer = shard.timers.borrow_mut().arm(*until, Timer::Sleep(key).pack());
                    sleepers.slots.insert(Sleeper { serial: key.serial, timer, waker });
                    key
                };
                self.0 = State::Armed(shard, key);
                Poll::Pending
            }
            State::Armed(shard, key) => {
                // A waker's code may be anybody's, its clone and its drop too: none of it runs under the borrow.
                let mut waker = cx.waker().clone();
                if let Some(sleeper) = shard.sleepers.borrow_mut().get(*key) {
                    std::mem::swap(&mut sleeper.waker, &mut waker);
                    return Poll::Pending;
                }
                self.0 = State::Done;
                Poll::Ready(Ok(()))
            }
            State::Done => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let State::Armed(shard, key) = &self.0 {
            let sleeper = shard.sleepers.borrow_mut().remove(*key);
            if let Some(sleeper) = sleeper {
                shard.disarm(sleeper.timer);
            }
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}
