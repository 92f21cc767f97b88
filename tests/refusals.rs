//! What forbids io_uring, or the resources that it takes: each refusal is an error that names its cause and its remedy.
//!
//! A process cannot take such restrictions back, so each case starts an env in a process of its own. A sysctl is for the
//! whole machine: `.ci/kernels` sets it in virtual ones and runs the test of it there.

mod common;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;

use common::echo::{echo_blocking, host};
use common::{bounded, builder, end, unix_socket, uri};
use ringpost::ring::Capabilities;
use ringpost::{Config, RpcEnv};

/// What the other process is to do without before it starts an env.
const WITHOUT: &str = "RINGPOST_TEST_WITHOUT";
/// What stands before the outcome in its output.
const OUTCOME: &str = "outcome: ";
const STARTED: &str = "started";

/// The outcome of a start under these restrictions: the error with its text, or [`STARTED`].
#[track_caller]
fn start_without(restrictions: &str) -> String {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "starts_under_restrictions"])
        .env(WITHOUT, restrictions)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let outcome = said.lines().find_map(|line| line.strip_prefix(OUTCOME)).map(str::to_owned);
    outcome.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&child.stderr)))
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn starts_under_restrictions() {
    bounded(|| {
        let (mut cores, mut bind) = (1, "127.0.0.1:0".to_owned());
        for restriction in std::env::var(WITHOUT).unwrap().split(", ") {
            match restriction.split(' ').collect::<Vec<_>>()[..] {
                ["filter", call, errno] => filter(call.parse().unwrap(), errno.parse().unwrap()),
                ["memlock", bytes] => limit(libc::RLIMIT_MEMLOCK, bytes.parse().unwrap()),
                ["descriptors", left] => limit(libc::RLIMIT_NOFILE, next_descriptor() + left.parse::<u64>().unwrap()),
                ["root", group] => leave_root(group.parse().unwrap()),
                ["cores", count] => cores = count.parse().unwrap(),
                ["unix"] => bind = unix_socket(),
                [""] => {}
                _ => panic!("{restriction}"),
            }
        }
        let outcome = match builder("restricted", cores, Config::default()).bind(bind).start() {
            Ok(env) => serve_once(&env),
            Err(error) => format!("{error:?}: {error}"),
        };
        println!("\n{OUTCOME}{outcome}");
    });
}

/// An env that has started works.
fn serve_once(env: &RpcEnv) -> String {
    host(env);
    echo_blocking(&env.endpoint_ref(&uri(env, "echo")).unwrap(), 1, 100).unwrap();
    end(env);
    STARTED.to_owned()
}

/// Has this thread and its children refused a system call with this errno, as the default filters of containers do.
fn filter(call: u32, errno: u32) {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, call),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: no memory is passed.
    done(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    // SAFETY: the kernel copies the live program during the call.
    done(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) });
}

/// Sets the soft limit, and the hard one, which root need not heed.
fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the kernel reads the live struct during the call.
    done(unsafe { libc::setrlimit(resource, &raw const limit) });
}

/// The number of the descriptor that would be opened next.
fn next_descriptor() -> u64 {
    File::open("/dev/null").unwrap().as_raw_fd() as u64
}

/// Becomes a user without privileges in this group, for good. A process that is not root is one already.
fn leave_root(group: libc::gid_t) {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    // SAFETY: no groups are read.
    done(unsafe { libc::setgroups(0, std::ptr::null()) });
    // SAFETY: no memory is passed.
    done(unsafe { libc::setgid(group) });
    // SAFETY: no memory is passed.
    done(unsafe { libc::setuid(NOBODY) });
}

#[track_caller]
fn done(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[test]
fn without_restrictions_an_env_starts() {
    assert_eq!(start_without(""), STARTED);
    assert_eq!(start_without("root 65534"), STARTED);
}

#[test]
fn a_system_call_filter_is_told_with_what_to_allow_and_where() {
    // Docker's default profile gives EPERM, Podman's ENOSYS.
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
        for errno in [libc::EPERM, libc::ENOSYS] {
            assert_eq!(
                start_without(&format!("filter {call} {errno}")),
                "Ring(Seccomp): the system calls of io_uring are refused though the kernel has them, most likely by a \
                 seccomp filter: in Docker or Podman allow io_uring_setup, io_uring_enter and io_uring_register in the \
                 seccomp profile (`--security-opt seccomp=profile.json`), under systemd see SystemCallFilter=",
                "call {call}, errno {errno}"
            );
        }
    }
}

/// Whether rings count as locked memory. The kernels before 6.14 do not charge them to the user.
fn rings_are_charged() -> bool {
    let capabilities = Capabilities::probe().unwrap();
    let numbers: Vec<u32> = capabilities.release().split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    numbers[..2] >= [6, 14][..]
}

#[test]
fn too_little_memory_to_lock_is_told_with_the_limit_and_how_to_raise_it() {
    // No memory at all, and enough for the rings of the probe but not for a core's.
    for bytes in [0, 65_536] {
        let outcome = start_without(&format!("memlock {bytes}, root 65534"));
        if rings_are_charged() {
            assert_eq!(
                outcome,
                format!(
                    "Ring(Memlock {{ limit: {bytes} }}): no memory for the ring (RLIMIT_MEMLOCK is {bytes} bytes): raise \
                     it (`ulimit -l`, LimitMEMLOCK= in systemd) or configure fewer or smaller buffers and queues"
                )
            );
        } else {
            assert_eq!(outcome, STARTED, "memlock {bytes}");
        }
    }
}

#[test]
fn too_few_descriptors_are_told_with_the_limit_and_how_to_raise_it_wherever_they_run_out() {
    // Two cores take two rings, two duplicates of them and two listeners.
    for more in ["cores 2", "cores 2, unix"] {
        let mut refused = 0;
        loop {
            let outcome = start_without(&format!("descriptors {refused}, {more}"));
            if outcome == STARTED {
                break;
            }
            let text = outcome.rsplit_once("no file descriptor left (RLIMIT_NOFILE is ").map_or("", |(_, text)| text);
            let remedy = text.trim_start_matches(|c: char| c.is_ascii_digit());
            assert_eq!(remedy, "): raise it (`ulimit -n`, LimitNOFILE=)", "{refused} left: {outcome}");
            refused += 1;
            assert!(refused < 50, "{outcome}");
        }
        assert!(refused >= 6, "{more}: {refused} were too few");
    }
}

#[test]
#[ignore = "run by .ci/kernels, in a virtual machine whose sysctl it sets"]
fn the_sysctl_that_forbids_io_uring_is_told_with_its_value_and_the_ways_out() {
    let set = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").expect("the kernel is 6.6 or newer");
    let group = std::fs::read_to_string("/proc/sys/kernel/io_uring_group").unwrap();
    let (value, group) = (set.trim(), group.trim());
    let refusal = format!(
        "Ring(DisabledBySysctl {{ value: {value} }}): the sysctl kernel.io_uring_disabled={value} forbids io_uring: set it \
         to 0 (`sysctl kernel.io_uring_disabled=0`), or with the value 1 run under the group of kernel.io_uring_group"
    );
    assert_eq!(start_without("root 65534"), refusal);
    match value {
        "1" => {
            assert_eq!(start_without(&format!("root {group}")), STARTED, "the remedy");
            assert_eq!(start_without(""), STARTED, "root may");
        }
        "2" => {
            assert_eq!(start_without(&format!("root {group}")), refusal);
            assert_eq!(start_without(""), refusal, "not even root may");
        }
        _ => panic!("kernel.io_uring_disabled is {value}: nothing is forbidden"),
    }
}
