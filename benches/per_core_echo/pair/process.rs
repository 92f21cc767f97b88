//! The processes themselves: how they are started, what they are told and tell, and how they end.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, io, process, thread};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Task;
use crate::Error;

/// A process that takes so much longer than the time it measures has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process of this program. Dropping it kills the process and waits for its end.
pub(super) struct Process {
    child: Child,
    /// Open for as long as the process is wanted.
    _input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a process that does this.
    pub(super) fn start(task: &Task) -> Result<Process, Error> {
        let mut child =
            Command::new(env::current_exe()?).arg("--child").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or("a process without input and output")?;
        let mut process = Process { child, _input: input, output: BufReader::new(output) };
        serde_json::to_writer(&mut process._input, task)?;
        process._input.write_all(b"\n")?;
        Ok(process)
    }

    /// Waits for what the process has to tell.
    pub(super) fn told<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            return Err("one of the two processes has ended early".into());
        }
        let told: Result<T, String> = serde_json::from_str(&line)?;
        Ok(told?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program of a process: does what the first line of the input says.
///
/// It ends with its parent at the latest, whose end closes the input.
pub(super) fn child(work: impl FnOnce(Task) -> Result<(), Error>) -> ExitCode {
    let result = read_task().and_then(|task| {
        thread::spawn(|| {
            let _ = io::stdin().lock().read_to_end(&mut Vec::new());
            process::exit(1);
        });
        if let Some(measured) = task.measures() {
            thread::spawn(move || {
                thread::sleep(measured + PATIENCE);
                eprintln!("per_core_echo: a process of the measurement does not end");
                process::exit(1);
            });
        }
        work(task)
    });
    let told = result.or_else(|error| tell::<()>(&Err(error.to_string())));
    told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn read_task() -> Result<Task, Error> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Tells the parent something.
pub(super) fn tell<T: Serialize>(what: &Result<T, String>) -> Result<(), Error> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, what)?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}

/// Does nothing for as long as the parent wants the process.
pub(super) fn until_killed() -> ! {
    loop {
        thread::park();
    }
}
