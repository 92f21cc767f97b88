//! This program once more, as a server or as attackers. Both end with their standard input, so none outlives the report.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

struct Process {
    child: Child,
    _stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it, and waits for its first line.
    fn start(arguments: &[&str]) -> Result<(Process, String), Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().ok_or("it has no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        Ok((Process { child, _stdin: stdin, stdout }, line.trim().to_owned()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with one core.
pub(crate) struct Server {
    process: Process,
    address: String,
}

impl Server {
    /// Starts one on this CPU.
    pub(crate) fn start(cpu: usize) -> Result<Server, Box<dyn Error>> {
        let (process, address) = Process::start(&["--server", &cpu.to_string()])?;
        if address.is_empty() {
            return Err("a server did not start".into());
        }
        Ok(Server { process, address })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Threads now, and the most memory that it had, in bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        (field("Threads:").unwrap_or(0), field("VmHWM:").unwrap_or(0) << 10)
    }

    /// How it ended, if it has.
    pub(crate) fn died(&mut self) -> Option<String> {
        let status = self.process.child.try_wait().ok()??;
        Some(format!("THE SERVER DIED: {status}"))
    }

    pub(crate) fn end(self) {}
}

/// The attackers, at work.
pub(crate) struct Attackers(Process);

impl Attackers {
    /// Starts them; they are in position when this returns, and work for `span`.
    pub(crate) fn start(attack: &str, server: &str, span: Duration) -> Result<Attackers, Box<dyn Error>> {
        let span = span.as_millis().to_string();
        let (process, line) = Process::start(&["--attack", attack, server, &span])?;
        match line.as_str() {
            "ready" => Ok(Attackers(process)),
            _ => Err(format!("the attackers of {attack:?} are not ready").into()),
        }
    }

    /// Waits for their end; what they saw.
    pub(crate) fn end(mut self) -> Result<String, Box<dyn Error>> {
        let mut saw = String::new();
        self.0.stdout.read_to_string(&mut saw)?;
        Ok(saw.trim().to_owned())
    }
}
