//! The system calls the `io-uring` crate does not offer in the form needed here.
//!
//! The crate keeps a registered ring descriptor in a value that every `submit` makes anew, so the registration would be
//! lost; hence an `enter` of our own. Registering the ring's descriptor and sending a ring message without a ring have
//! no public door in the crate at all.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::squeue;

pub(super) const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
pub(super) const ENTER_REGISTERED_RING: u32 = 1 << 4;
pub(super) const ENTER_NO_IOWAIT: u32 = 1 << 7;

const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const REGISTER_SEND_MSG_RING: u32 = 31;

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GeteventsArg {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    timeout: u64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

fn check(result: libc::c_long) -> io::Result<u32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
}

/// `io_uring_enter`. Gives the number of requests the kernel took. `fd` is an index if `ENTER_REGISTERED_RING` is set.
#[inline]
pub(super) fn enter(fd: RawFd, submit: u32, want: u32, flags: u32, timeout: Option<Duration>) -> io::Result<u32> {
    let timespec;
    let argument;
    let mut flags = flags;
    let (pointer, size) = match timeout {
        Some(timeout) if want > 0 => {
            timespec = Timespec {
                seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                nanoseconds: i64::from(timeout.subsec_nanos()),
            };
            let timeout = ptr::from_ref(&timespec) as u64;
            argument = GeteventsArg { sigmask: 0, sigmask_size: 0, min_wait_usec: 0, timeout };
            flags |= ENTER_EXT_ARG;
            (ptr::from_ref(&argument).cast::<libc::c_void>(), size_of::<GeteventsArg>())
        }
        _ => (ptr::null(), 0),
    };
    // SAFETY: `pointer` is null or names `argument`, which with `timespec` outlives the call. The memory that the
    // submitted requests name is kept alive by the ring until their completions (contract of `Ring::push`).
    check(unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, submit, want, flags, pointer, size) })
}

/// Gives the calling thread a short cut to its ring. At most 16 per thread; `EBUSY` beyond that.
pub(super) fn register_ring_fd(ring: RawFd) -> io::Result<u32> {
    let mut update = RsrcUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
    let argument = ptr::from_mut(&mut update);
    // SAFETY: `argument` names a live RsrcUpdate, which the kernel reads and fills during the call only.
    check(unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_RING_FDS, argument, 1) })?;
    Ok(update.offset)
}

/// Gives the thread's slot back. A ring that is dropped without this keeps its slot for the thread's life.
pub(super) fn unregister_ring_fd(ring: RawFd, index: u32) {
    let mut update = RsrcUpdate { offset: index, reserved: 0, data: 0 };
    let argument = ptr::from_mut(&mut update);
    // SAFETY: as in `register_ring_fd`. A failure leaves the slot taken, which is all that could be done about it.
    unsafe { libc::syscall(libc::SYS_io_uring_register, ring, UNREGISTER_RING_FDS, argument, 1) };
}

/// Posts the `MSG_RING` request `message` without a ring of one's own. Any thread.
pub(super) fn send_msg_ring(message: &squeue::Entry) -> io::Result<()> {
    let argument = ptr::from_ref(message);
    // SAFETY: `Entry` is the kernel's 64-byte request; it is only read, during the call.
    check(unsafe { libc::syscall(libc::SYS_io_uring_register, -1, REGISTER_SEND_MSG_RING, argument, 1) }).map(drop)
}

/// A non-blocking, close-on-exec eventfd.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(libc::c_long::from(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) }))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Adds one to an eventfd. A full counter (`EAGAIN`) means that a wake is pending anyway.
pub(super) fn eventfd_signal(event: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1_u64;
    // SAFETY: eight readable bytes.
    let written = unsafe { libc::write(event.as_raw_fd(), ptr::from_ref(&one).cast(), 8) };
    match check(written as libc::c_long) {
        Err(error) if error.raw_os_error() != Some(libc::EAGAIN) => Err(error),
        _ => Ok(()),
    }
}

/// Sets an eventfd back to zero.
pub(super) fn eventfd_clear(event: BorrowedFd<'_>) {
    let mut count = 0_u64;
    // SAFETY: eight writable bytes. `EAGAIN` (already zero) is fine.
    unsafe { libc::read(event.as_raw_fd(), ptr::from_mut(&mut count).cast(), 8) };
}

/// Receives what is there, up to the size of `space`: a byte count, 0 at the end of the stream, or a negative errno,
/// which is `EAGAIN` where nothing is there.
///
/// Not by the C library's `recv`: that is a cancellation point, whose bookkeeping takes some 80 instructions for a call
/// that never blocks (`.ci/instructions`, `tcp-ask`).
#[inline]
pub(super) fn recv(socket: BorrowedFd<'_>, space: &mut [u8]) -> i32 {
    let (at, size, nobody) = (space.as_mut_ptr(), space.len(), ptr::null_mut::<libc::c_void>());
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: `space` is ours to write to during the call, and no address is asked for.
    let received = unsafe { libc::syscall(libc::SYS_recvfrom, socket.as_raw_fd(), at, size, flags, nobody, nobody) };
    if received < 0 { -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { received as i32 }
}

/// Sends as much of `bytes` as there is room for: a byte count, or a negative errno, which is `EAGAIN` where there is
/// none. Not by the C library's `send`, as with [`recv`].
#[inline]
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> i32 {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (at, size, nobody) = (bytes.as_ptr(), bytes.len(), ptr::null::<libc::c_void>());
    // SAFETY: `bytes` is only read, during the call, and no address is given.
    let sent = unsafe { libc::syscall(libc::SYS_sendto, socket.as_raw_fd(), at, size, flags, nobody, 0usize) };
    if sent < 0 { -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { sent as i32 }
}

/// Stops both directions. Errors (not connected, peer gone) do not matter to a socket that is being closed.
pub(super) fn shutdown(socket: BorrowedFd<'_>) {
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// A soft resource limit; `u64::MAX` is unlimited or unknown.
pub(super) fn soft_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: u64::MAX, rlim_max: u64::MAX };
    // SAFETY: the kernel fills the live struct during the call.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit.rlim_cur
}

/// The running kernel's release, as `uname -r` prints it.
pub(super) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}
