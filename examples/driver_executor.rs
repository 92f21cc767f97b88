//! A driver and its executors, the story that this design comes from.
//!
//! ```sh
//! cargo run --release --example driver_executor                 # a driver, which starts 3 executor processes
//! cargo run --release --example driver_executor -- 5            # or 5
//! ```
//!
//! Executors listen nowhere. Each connects to the driver and hands it a ref to itself; the driver sends tasks back over
//! that connection. In the middle of the work the driver kills one executor: it sees the connection end, gives the
//! lost tasks to the others, and checks the result at the end.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io;
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringpost::{
    CallContext, Caller, CoreSet, Endpoint, EndpointContext, EndpointRef, HandleSync, HandlerError, Handlers, Idle,
    OneWay, Peer, RpcEnv, message, sleep, spawn,
};
use serde::{Deserialize, Serialize};

/// Tasks of one run, and how many numbers each looks at.
const TASKS: u32 = 120;
const SPAN: u32 = 20_000;
/// Tasks that an executor has at a time: one to work on and one to go on with.
const SLOTS: usize = 2;
/// Results after which the driver kills an executor.
const KILL_AFTER: u32 = 20;
const HEARTBEAT: Duration = Duration::from_millis(100);
/// An executor that was silent for so long is given up, even if its connection is still there.
const SILENCE: Duration = Duration::from_secs(5);

/// An executor offers itself.
#[derive(Serialize, Deserialize)]
struct Register {
    process: u32,
    executor: EndpointRef,
}
message!(Register as "driver.Register" => ());

/// What came of a task.
#[derive(Serialize, Deserialize)]
struct Done {
    task: u32,
    primes: u32,
}
message!(Done as "driver.Done");

/// An executor lives.
#[derive(Serialize, Deserialize)]
struct Heartbeat;
message!(Heartbeat as "driver.Heartbeat");

/// Look for executors that have fallen silent.
#[derive(Serialize, Deserialize)]
struct CheckHeartbeats;
message!(CheckHeartbeats as "driver.CheckHeartbeats");

/// Count the primes of a span of numbers.
#[derive(Serialize, Deserialize)]
struct Run {
    task: u32,
}
message!(Run as "executor.Run");

/// The work is done: end.
#[derive(Serialize, Deserialize)]
struct Stop;
message!(Stop as "executor.Stop");

/// What the driver's endpoint tells `main`.
enum News {
    /// This process is to be killed.
    Kill(u32),
    /// All tasks are done.
    Finished { primes: u32, lost: usize },
}

struct Executor {
    process: u32,
    to: EndpointRef,
    running: Vec<u32>,
    heard: Instant,
}

/// Knows the tasks and the executors. It handles one message at a time, so it needs no lock.
struct Driver {
    todo: Vec<u32>,
    results: BTreeMap<u32, u32>,
    /// By the id of their node.
    executors: HashMap<u64, Executor>,
    killed: bool,
    lost: usize,
    news: mpsc::Sender<News>,
}

impl Endpoint for Driver {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Register>().send_sync::<Done>().send_sync::<Heartbeat>();
        handlers.send_sync::<CheckHeartbeats>().events();
    }

    async fn on_start(&mut self, context: &EndpointContext) -> Result<(), HandlerError> {
        every(SILENCE / 4, context.myself(), || CheckHeartbeats);
        Ok(())
    }

    async fn on_disconnected(&mut self, peer: &Peer) {
        self.give_up(peer.node_id(), "its connection ended");
    }
}

impl HandleSync<Register> for Driver {
    fn handle(&mut self, new: Register, context: &mut CallContext) -> Result<(), HandlerError> {
        let node = node(context)?;
        println!("driver: process {} offers itself as {}", new.process, new.executor);
        let executor = Executor { process: new.process, to: new.executor, running: Vec::new(), heard: Instant::now() };
        self.executors.insert(node, executor);
        self.hand_out();
        Ok(())
    }
}

impl HandleSync<Done> for Driver {
    fn handle(&mut self, done: Done, context: &mut CallContext) -> Result<(), HandlerError> {
        // It may come twice, from an executor that was given up too early: then both are the same.
        self.results.insert(done.task, done.primes);
        if let Some(executor) = self.executors.get_mut(&node(context)?) {
            executor.running.retain(|task| *task != done.task);
            if self.results.len() as u32 >= KILL_AFTER && !std::mem::replace(&mut self.killed, true) {
                let _ = self.news.send(News::Kill(executor.process));
            }
        }
        self.hand_out();
        Ok(())
    }
}

impl HandleSync<Heartbeat> for Driver {
    fn handle(&mut self, _: Heartbeat, context: &mut CallContext) -> Result<(), HandlerError> {
        if let Some(executor) = self.executors.get_mut(&node(context)?) {
            executor.heard = Instant::now();
        }
        Ok(())
    }
}

impl HandleSync<CheckHeartbeats> for Driver {
    fn handle(&mut self, _: CheckHeartbeats, _: &mut CallContext) -> Result<(), HandlerError> {
        let silent = self.executors.iter().filter(|(_, executor)| executor.heard.elapsed() > SILENCE);
        let silent: Vec<u64> = silent.map(|(node, _)| *node).collect();
        silent.into_iter().for_each(|node| self.give_up(node, "it fell silent"));
        Ok(())
    }
}

impl Driver {
    /// Gives every executor as many tasks as it has slots, and ends the work when all results are there.
    fn hand_out(&mut self) {
        for executor in self.executors.values_mut() {
            while executor.running.len() < SLOTS
                && let Some(task) = self.todo.pop()
            {
                match executor.to.send(Run { task }) {
                    Ok(()) => executor.running.push(task),
                    Err(error) => {
                        // Its end is about to be reported.
                        println!("driver: task {task} goes to another executor: {error}");
                        self.todo.push(task);
                        break;
                    }
                }
            }
        }
        if self.results.len() as u32 == TASKS {
            self.executors.values().for_each(|executor| drop(executor.to.send(Stop)));
            let _ = self.news.send(News::Finished { primes: self.results.values().sum(), lost: self.lost });
        }
    }

    /// The tasks of an executor that is gone are for the others.
    fn give_up(&mut self, node: u64, cause: &str) {
        if let Some(executor) = self.executors.remove(&node) {
            println!("driver: process {} is gone ({cause}) with tasks {:?}", executor.process, executor.running);
            self.lost += executor.running.len();
            self.todo.extend(executor.running);
            self.hand_out();
        }
    }
}

/// The id of the node that sent a message.
fn node(context: &CallContext) -> Result<u64, HandlerError> {
    match context.caller() {
        Caller::Peer(peer) => Ok(peer.node_id()),
        other => Err(HandlerError::new(format!("executors are processes of their own, not {other:?}"))),
    }
}

/// Works for a driver.
struct Worker {
    driver: EndpointRef,
    stop: mpsc::Sender<()>,
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send_sync::<Run>().send_sync::<Stop>().events();
    }

    async fn on_start(&mut self, context: &EndpointContext) -> Result<(), HandlerError> {
        self.driver.ask(Register { process: std::process::id(), executor: context.myself() }).await?;
        every(HEARTBEAT, self.driver.clone(), || Heartbeat);
        Ok(())
    }

    async fn on_disconnected(&mut self, _: &Peer) {
        // The driver is gone, and nobody else would say so.
        let _ = self.stop.send(());
    }
}

impl HandleSync<Run> for Worker {
    fn handle(&mut self, run: Run, _: &mut CallContext) -> Result<(), HandlerError> {
        // A task is short, so it may run on the core; longer ones belong into an isolated endpoint.
        let primes = count_primes(run.task);
        Ok(self.driver.send(Done { task: run.task, primes })?)
    }
}

impl HandleSync<Stop> for Worker {
    fn handle(&mut self, _: Stop, _: &mut CallContext) -> Result<(), HandlerError> {
        let _ = self.stop.send(());
        Ok(())
    }
}

/// Sends a message again and again, until it cannot be sent or the core ends.
fn every<M: OneWay>(pause: Duration, to: EndpointRef, message: fn() -> M) {
    drop(spawn(async move { while to.send(message()).is_ok() && sleep(pause).await.is_ok() {} }));
}

fn count_primes(task: u32) -> u32 {
    let prime = |n: &u32| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (task * SPAN..(task + 1) * SPAN).filter(prime).count() as u32
}

/// The program of an executor process.
fn execute(driver: &str) -> Result<(), Box<dyn Error>> {
    let env = RpcEnv::builder("executor").cores(CoreSet::count(1)).idle(Idle::Park).start()?;
    let (stop, stopped) = mpsc::channel();
    let driver = env.endpoint_ref(driver)?;
    env.register("worker", move || Worker { driver, stop })?;
    let _ = stopped.recv();
    env.shutdown(Duration::from_secs(1));
    Ok(env.await_termination()?)
}

/// The program of the driver process; true if the result is right.
fn drive(executors: usize) -> Result<bool, Box<dyn Error>> {
    let env = RpcEnv::builder("driver").cores(CoreSet::count(1)).idle(Idle::Park).bind("127.0.0.1:0").start()?;
    let (tell, news) = mpsc::channel();
    let driver = env.register("driver", move || Driver {
        todo: (0..TASKS).rev().collect(),
        results: BTreeMap::new(),
        executors: HashMap::new(),
        killed: false,
        lost: 0,
        news: tell,
    })?;
    let mut children = (0..executors).map(|_| start_executor(&driver)).collect::<io::Result<Vec<Child>>>()?;
    let outcome = loop {
        match news.recv_timeout(Duration::from_secs(60)) {
            Ok(News::Kill(process)) => {
                println!("driver: kills process {process}");
                let victim = children.iter_mut().find(|child| child.id() == process);
                victim.into_iter().for_each(|child| drop(child.kill()));
            }
            Ok(News::Finished { primes, lost }) => break Some((primes, lost)),
            Err(_) => break None,
        }
    };
    env.shutdown(Duration::from_secs(1));
    env.await_termination()?;
    for child in &mut children {
        if outcome.is_none() {
            let _ = child.kill();
        }
        let _ = child.wait();
    }
    let expected: u32 = (0..TASKS).map(count_primes).sum();
    let Some((primes, lost)) = outcome else {
        println!("driver: no result in time");
        return Ok(false);
    };
    println!("driver: {primes} primes below {} ({expected} are right), {lost} tasks were done again", TASKS * SPAN);
    Ok(primes == expected && lost > 0)
}

/// This program once more, as an executor.
fn start_executor(driver: &EndpointRef) -> io::Result<Child> {
    Command::new(std::env::current_exe()?).args(["executor", &driver.uri()]).spawn()
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let executors = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["executor", driver] => return execute(driver).map(|()| ExitCode::SUCCESS),
        [] => Some(3),
        [count] => count.parse().ok().filter(|count| *count > 1),
        _ => None,
    };
    let Some(executors) = executors else {
        eprintln!("usage: driver_executor [executors, at least 2]");
        return Ok(ExitCode::FAILURE);
    };
    Ok(if drive(executors)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
