//! The two doors into the kernel, and the queue in front of them.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::squeue;

use super::receive::Wish;
use super::ring::Ring;
use super::syscalls::{self, ENTER_GETEVENTS, ENTER_REGISTERED_RING};

impl Ring {
    /// Whether the next [`reap`](Ring::reap) finds something. Memory only.
    #[must_use]
    #[inline]
    pub fn has_completions(&self) -> bool {
        !self.status.is_empty()
    }

    /// Whether [`submit`](Ring::submit) has something to do: requests are queued, the kernel has completion work
    /// waiting for this thread, completions overflowed, or starved receives can be armed again. Memory only.
    #[must_use]
    #[inline]
    pub fn wants_enter(&self) -> bool {
        // SAFETY: this is the ring's only thread and no other view of the submission queue is alive: each lives within
        // one method of Ring.
        let queue = unsafe { self.io.io.submission_shared() };
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow() || !self.backlog.is_empty() || self.can_feed()
    }

    /// Whether the kernel has completed something that has not been reaped, be it that it did not fit the queue.
    #[inline]
    pub(super) fn has_unreaped(&self) -> bool {
        // SAFETY: as in `wants_enter`.
        self.has_completions() || unsafe { self.io.io.submission_shared() }.cq_overflow()
    }

    /// Hands all queued requests to the kernel and lets it post what has completed. Never blocks: one enter, or more if
    /// the requests do not fit the submission queue. However it returns, queued wakes have been issued.
    ///
    /// # Errors
    /// What the kernel says, other than "interrupted" and "busy", after which the requests stay queued.
    #[inline]
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter_all(0, None)
    }

    /// The same, then sleeps until there is a completion, the timeout is over or a signal arrives. Returns at once if
    /// completions are waiting to be reaped. `None` waits without end.
    ///
    /// # Errors
    /// As [`submit`](Ring::submit).
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let want = if timeout == Some(Duration::ZERO) { 0 } else { 1 };
        self.enter_all(want, timeout)
    }

    /// Queues a request. Never enters the kernel: what does not fit the submission queue waits in order in the backlog.
    ///
    /// # Safety
    /// Memory that the request names must stay valid, and unmoved, until its last completion has been reaped.
    #[inline]
    pub(super) unsafe fn push(&mut self, request: squeue::Entry) {
        // SAFETY: handed on to our caller.
        if !self.backlog.is_empty() || unsafe { self.io.io.submission().push(&request) }.is_err() {
            self.backlog.push_back(request);
        }
    }

    /// Starved receives wait and there are buffers for them.
    #[inline]
    fn can_feed(&self) -> bool {
        !self.starved.is_empty() && self.pool.free() >= self.pool.low_water()
    }

    /// Arms as many starved receives as there are buffers. Each such round needs buffers that were released since the
    /// last one or shortens the queue, so it cannot go in circles.
    fn feed_starved(&mut self) {
        if !self.can_feed() {
            return;
        }
        for _ in 0..self.pool.free().min(self.starved.len()) {
            let Some(id) = self.starved.pop_front() else { break };
            let Some(socket) = self.sockets.get(id) else { continue };
            socket.recv.starved = false;
            if socket.recv.wish == Wish::Armed && !socket.recv.armed && socket.leaving.is_none() {
                self.stats.rearms += 1;
                self.arm_recv(id);
            }
        }
    }

    fn enter_all(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.feed_starved();
        self.pool.publish();
        loop {
            let queued = self.fill_queue();
            let all = self.backlog.is_empty();
            // Sleep only if everything is on its way; receives still waiting for their turn may have data.
            let want = if all && !self.can_feed() { want } else { 0 };
            let taken = self.enter(queued, want, timeout);
            match taken {
                Ok(taken) if all && taken == queued => {
                    self.waking.clear();
                    return Ok(());
                }
                Ok(taken) if !all && taken > 0 => {}
                _ => {
                    self.wake_left_behind();
                    return taken.map(drop);
                }
            }
        }
    }

    /// Issues by a system call each the queued wakes that the kernel may not have taken: the owner may run code that
    /// blocks before its next enter, and nobody else wakes those rings. One that is woken twice has looked once in
    /// vain.
    #[cold]
    fn wake_left_behind(&mut self) {
        let failed = self.waking.iter().filter(|door| door.wake().is_err()).count();
        self.stats.failed_wakes += failed as u64;
    }

    /// Moves the backlog into the submission queue as far as it fits; gives the queue's length.
    #[inline]
    fn fill_queue(&mut self) -> u32 {
        let mut queue = self.io.io.submission();
        while let Some(request) = self.backlog.front() {
            // SAFETY: `push` took over the promise of its caller with the request.
            if unsafe { queue.push(request) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        queue.len() as u32
    }

    #[inline]
    fn enter(&mut self, submit: u32, want: u32, timeout: Option<Duration>) -> io::Result<u32> {
        let mut flags = ENTER_GETEVENTS;
        if want > 0 {
            flags |= self.io.wait_flags;
        }
        let fd = match self.io.registered {
            Some(index) => {
                flags |= ENTER_REGISTERED_RING;
                index as i32
            }
            None => self.io.io.as_raw_fd(),
        };
        let result = syscalls::enter(fd, submit, want, flags, timeout);
        self.stats.enters += 1;
        if self.io.io.submission().cq_overflow() {
            self.stats.cq_overflows += 1;
        }
        match result {
            Ok(taken) => {
                self.stats.sqes += u64::from(taken);
                Ok(taken)
            }
            Err(error) => match error.raw_os_error() {
                // Timeout, signal, or short of memory or of completion slots: the next turn goes on.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(0),
                _ => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ring::{Capabilities, Completion, Feature, Ring, RingConfig, RingWaker};

    #[test]
    fn a_wake_that_the_kernel_has_not_taken_is_issued_all_the_same() {
        let capabilities = Capabilities::probe().unwrap();
        for capabilities in [capabilities.clone(), capabilities.without(Feature::SyncMsgRing)] {
            let [mut ring, mut target] = [(); 2].map(|()| Ring::new(&RingConfig::default(), &capabilities).unwrap());
            target.submit().unwrap();
            ring.wake(&target.waker(), 0);
            ring.wake_left_behind();
            target.submit().unwrap();
            let mut woken = Vec::new();
            target.reap(&mut woken);
            assert!(matches!(woken[..], [Completion::Woken]), "{woken:?}");
        }
    }

    #[test]
    fn a_wake_that_fails_is_told_with_the_number_of_its_target_before_all_else() {
        let capabilities = Capabilities::probe().unwrap().without(Feature::SyncMsgRing);
        let [mut ring, target] = [(); 2].map(|()| Ring::new(&RingConfig::default(), &capabilities).unwrap());
        let mut found = vec![Completion::Woken];
        ring.wake(&RingWaker::without_messages(&target), 65_535);
        ring.submit().unwrap();
        ring.reap(&mut found);
        assert!(matches!(found[..], [Completion::WakeFailed { number: 65_535 }, Completion::Woken]), "{found:?}");
        assert_eq!(ring.stats().failed_wakes, 1);
    }
}
