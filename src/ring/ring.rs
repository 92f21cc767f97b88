//! The ring itself: what it owns and how it is made.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{Builder, CompletionStatus, IoUring, squeue};

use super::buffers::{Chunk, Pool};
use super::capabilities::{Capabilities, Feature};
use super::config::RingConfig;
use super::setup_error::{SetupError, from_io};
use super::sockets::{SocketId, Sockets};
use super::stats::RingStats;
use super::syscalls;
use super::waker::{Door, RingWaker};

/// One thread's io_uring and the sockets it works for.
///
/// Made, driven and dropped on one thread (`!Send`): the kernel is told that only this thread submits
/// (`SINGLE_ISSUER`) and runs completion work only when this thread enters (`DEFER_TASKRUN`). So nothing completes
/// behind the owner's back, and nothing completes at all unless [`submit`](Ring::submit) or [`wait`](Ring::wait) is
/// called; [`wants_enter`](Ring::wants_enter) says from memory whether a call is worth it.
///
/// A turn of its owner is: `reap`, react, `submit` (or `wait` when there is nothing else to do). All other methods only
/// queue requests; they may be called with an id whose socket is closed, and do nothing then.
#[derive(Debug)]
pub struct Ring {
    /// Points into `io`'s memory; declared before it only to say that it never outlives it.
    pub(super) status: CompletionStatus,
    pub(super) io: Uring,
    pub(super) pool: Pool,
    pub(super) sockets: Sockets,
    /// Requests that found the submission queue full, in order.
    pub(super) backlog: VecDeque<squeue::Entry>,
    /// Receives that wait for a free buffer, longest waiting first.
    pub(super) starved: VecDeque<SocketId>,
    /// Rings with a wake queued here; their descriptors must stay open until the kernel has taken the request.
    pub(super) waking: Vec<Arc<Door>>,
    pub(super) waker: RingWaker,
    /// The waker's eventfd, polled where `SyncMsgRing` is missing.
    pub(super) door: Arc<Door>,
    pub(super) capabilities: Capabilities,
    /// Requests whose last completion is to come.
    pub(super) in_flight: usize,
    pub(super) dropping: bool,
    pub(super) stats: RingStats,
}

/// The kernel's ring together with the number by which this thread enters it.
pub(super) struct Uring {
    pub(super) io: IoUring,
    /// Index of the registered descriptor, if the kernel took it.
    pub(super) registered: Option<u32>,
    pub(super) wait_flags: u32,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("fd", &self.io.as_raw_fd()).finish_non_exhaustive()
    }
}

/// The flags every ring has, known to Linux 6.1.
pub(super) fn builder() -> Builder {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .dontfork();
    builder
}

impl Ring {
    /// Makes a ring that belongs to the calling thread. Logs nothing; [`capabilities`](Ring::capabilities) tells what
    /// it got.
    ///
    /// # Errors
    /// When the kernel refuses; the message names cause and remedy.
    pub fn new(config: &RingConfig, capabilities: &Capabilities) -> Result<Ring, SetupError> {
        let config = config.normalised();
        let mut capabilities = capabilities.clone();
        let mut builder = builder();
        if capabilities.has(Feature::NoSqArray) {
            builder.setup_no_sqarray();
        }
        let built = builder.setup_cqsize(config.cq_entries).build(config.sq_entries);
        let mut io = built.map_err(|error| from_io("io_uring_setup", &error))?;
        let pool = Pool::new(config.buffers, config.buffer_size).map_err(|error| from_io("mmap of buffers", &error))?;
        pool.register(&io.submitter()).map_err(|error| from_io("registering a buffer ring", &error))?;
        // SAFETY: the status is kept beside `io` and used through `&self` only, so it never outlives it.
        let status = unsafe { io.completion().status() };

        let event = match capabilities.has(Feature::SyncMsgRing) {
            true => None,
            false => Some(syscalls::eventfd().map_err(|error| from_io("eventfd", &error))?),
        };
        // SAFETY: `io` is open for the whole statement.
        let borrowed = unsafe { BorrowedFd::borrow_raw(io.as_raw_fd()) };
        let duplicate = borrowed.try_clone_to_owned().map_err(|error| from_io("dup of the ring", &error))?;
        let waker = RingWaker::new(Door { ring: duplicate, event });
        let Some(door) = waker.door() else {
            return Err(SetupError::Os { call: "dup of the ring", errno: libc::EBADF });
        };

        let io = Uring::new(io, &mut capabilities);
        let mut ring = Ring {
            status,
            io,
            pool,
            sockets: Sockets::default(),
            backlog: VecDeque::new(),
            starved: VecDeque::new(),
            waking: Vec::with_capacity(16),
            waker,
            door,
            capabilities,
            in_flight: 0,
            dropping: false,
            stats: RingStats::default(),
        };
        ring.poll_event();
        Ok(ring)
    }

    /// What this ring uses: the capabilities it was made with, less what the kernel refused to this ring (a thread may
    /// register 16 ring descriptors).
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// A handle by which any thread can wake this ring.
    #[must_use]
    pub fn waker(&self) -> RingWaker {
        self.waker.clone()
    }

    /// The received bytes of a chunk of this ring; nothing for a chunk of another.
    #[must_use]
    #[inline]
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.pool.bytes(chunk)
    }

    /// Gives a chunk's buffer back. The kernel may use it from the next `submit` or `wait` on, which is also when
    /// receives that wait for buffers are armed again.
    #[inline]
    pub fn release(&mut self, chunk: Chunk) {
        self.pool.release(chunk);
    }

    /// Counters since the ring was made.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        self.stats
    }

    /// Sockets adopted and not yet reported as closed.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Receive buffers that hold no reaped bytes.
    #[must_use]
    pub fn free_buffers(&self) -> usize {
        self.pool.free()
    }
}

impl Uring {
    fn new(io: IoUring, capabilities: &mut Capabilities) -> Uring {
        let mut registered = None;
        if capabilities.has(Feature::RegisteredRingFd) {
            match syscalls::register_ring_fd(io.as_raw_fd()) {
                Ok(index) => registered = Some(index),
                Err(_) => *capabilities = capabilities.clone().without(Feature::RegisteredRingFd),
            }
        }
        let wait_flags = if capabilities.has(Feature::NoIowait) { syscalls::ENTER_NO_IOWAIT } else { 0 };
        Uring { io, registered, wait_flags }
    }
}
