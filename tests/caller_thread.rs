//! What a thread that uses an env keeps for itself.

mod common;

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{bounded, builder, config, end};
use ringpost::{Capabilities, RpcEnv};

/// The kernel cleans up behind a closed ring within this time: it took 19 to 32 ms.
const CLEANED_UP: Duration = Duration::from_millis(200);

/// Blocks in a read that is not taken up again by itself when the thread is interrupted.
fn read_in_vain() -> ErrorKind {
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(CLEANED_UP)).unwrap();
    ours.read(&mut [0]).unwrap_err().kind()
}

#[test]
fn a_blocking_read_is_not_interrupted_by_what_the_calls_before_it_have_left() {
    bounded(|| {
        let started = || builder("env", 2, config()).start().unwrap();
        let calls: [(&str, &dyn Fn() -> Option<RpcEnv>); 4] = [
            ("a probe", &|| Capabilities::probe().map(|_| None).unwrap()),
            ("a start", &|| Some(started())),
            ("a start that fails", &|| {
                let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let failed = builder("env", 1, config()).bind(taken.local_addr().unwrap().to_string()).start();
                failed.err().map(|_| None).unwrap()
            }),
            ("a shutdown", &|| {
                end(&started());
                None
            }),
        ];
        for (what, call) in calls {
            for _ in 0..3 {
                let env = call();
                assert_eq!(read_in_vain(), ErrorKind::WouldBlock, "after {what}");
                env.iter().for_each(end);
            }
        }
    });
}
