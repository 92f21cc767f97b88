//! Asking the kernel.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode, types};

use super::buffers::{GROUP, Pool};
use super::facts::Facts;
use super::syscalls;

/// Every operation the ring uses, with the name its absence is reported by.
const OPERATIONS: [(u8, &str); 7] = [
    (opcode::AcceptMulti::CODE, "the io_uring operation ACCEPT"),
    (opcode::Connect::CODE, "the io_uring operation CONNECT"),
    (opcode::RecvMulti::CODE, "the io_uring operation RECV"),
    (opcode::Send::CODE, "the io_uring operation SEND"),
    (opcode::AsyncCancel::CODE, "the io_uring operation ASYNC_CANCEL"),
    (opcode::PollAdd::CODE, "the io_uring operation POLL_ADD"),
    (opcode::MsgRingData::CODE, "the io_uring operation MSG_RING"),
];

impl Facts {
    /// Makes two small rings and asks them. Costs a few system calls, leaves nothing behind.
    pub(super) fn gather() -> Facts {
        let mut facts = Facts {
            release: syscalls::kernel_release(),
            setup: 0,
            register: 0,
            enter: 0,
            buffer_ring: 0,
            base_features: false,
            missing_operation: None,
            no_sqarray: build(true).is_ok(),
            ring_fd: false,
            sync_msg_ring: false,
            no_iowait: false,
            disabled: disabled_by_sysctl(),
            memlock: syscalls::soft_limit(libc::RLIMIT_MEMLOCK),
            nofile: syscalls::soft_limit(libc::RLIMIT_NOFILE),
        };
        let built = build(false);
        if let Ok(ring) = &built {
            facts.ask(ring);
        }
        facts.setup = errno_of(built);
        facts
    }

    fn ask(&mut self, ring: &IoUring) {
        let params = ring.params();
        self.base_features = params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_fast_poll();
        self.no_iowait = params.is_feature_no_iowait();
        let mut probe = Probe::new();
        self.register = errno_of(ring.submitter().register_probe(&mut probe));
        self.missing_operation = OPERATIONS.iter().find(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name);
        self.enter = errno_of(syscalls::enter(ring.as_raw_fd(), 0, 0, syscalls::ENTER_GETEVENTS, None));
        self.buffer_ring = errno_of(try_buffer_ring(ring));
        if let Ok(index) = syscalls::register_ring_fd(ring.as_raw_fd()) {
            self.ring_fd = true;
            syscalls::unregister_ring_fd(ring.as_raw_fd(), index);
        }
        let message = opcode::MsgRingData::new(types::Fd(ring.as_raw_fd()), 0, 0, None).build();
        self.sync_msg_ring = syscalls::send_msg_ring(&message).is_ok();
    }
}

/// 0 for success.
fn errno_of<T>(result: io::Result<T>) -> i32 {
    result.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO))
}

fn build(no_sqarray: bool) -> io::Result<IoUring> {
    let mut builder = super::ring::builder();
    if no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.setup_cqsize(8).build(4)
}

fn try_buffer_ring(ring: &IoUring) -> io::Result<()> {
    let pool = Pool::new(1, 64)?;
    pool.register(&ring.submitter())?;
    ring.submitter().unregister_buf_ring(GROUP)
}

fn disabled_by_sysctl() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
