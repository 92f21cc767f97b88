//! This test program once more, as another process: it is killed, stopped and continued.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use ringpost::RpcEnv;

use super::LIMIT;
use super::echo::until;

/// What a process prints before the line that tells where it listens.
const LISTENS: &str = "listens at ";

/// A process that runs one test of this program: a test that is ignored otherwise, starts an env and calls
/// [`serve_until_told`].
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Where its env listens.
    pub(crate) address: String,
    _stdin: ChildStdin,
}

/// Tells the parent where `env` listens and waits until it wants the end. The process does not outlive its parent, whose
/// end closes the standard input.
pub(crate) fn serve_until_told(env: &RpcEnv) {
    println!("\n{LISTENS}{}", env.address().unwrap());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

impl Process {
    /// Starts the process and waits until it listens.
    pub(crate) fn start(test: &str, variables: &[(&str, &str)]) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", test])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // It reads on after the address, so that the process never waits for room in the pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix(LISTENS) {
                    let _ = tell.send(address.to_owned());
                }
            }
        });
        let address = told.recv_timeout(LIMIT).expect("the process tells its address");
        Process { child, address, _stdin: stdin }
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        format!("ringpost://{name}@{}", self.address)
    }

    fn id(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).unwrap()
    }

    /// Ends it at once, without a word to its peers.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it, and waits until none of its threads runs.
    pub(crate) fn freeze(&self) {
        // SAFETY: the call takes no memory; the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.id(), libc::SIGSTOP) }, 0);
        until("the process is stopped", || {
            let mut status = 0;
            // SAFETY: as above; `status` is ours and outlives the call. A stopped child stays to be waited for.
            let id = unsafe { libc::waitpid(self.id(), &mut status, libc::WNOHANG | libc::WUNTRACED) };
            id == self.id() && libc::WIFSTOPPED(status)
        });
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        // SAFETY: as in `freeze`.
        assert_eq!(unsafe { libc::kill(self.id(), libc::SIGCONT) }, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already if the test killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
