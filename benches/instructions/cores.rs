//! Whole cores with their rings, driven in turns on one thread: what happens is then the same each time.

use std::cell::Cell;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use ringpost::dispatch::directory::Place;
use ringpost::executor::tasks::Executor;
use ringpost::executor::waker::claim_core;
use ringpost::ring::{Capabilities, Ring, RingConfig};
use ringpost::shard::core::{Core, Step};
use ringpost::shard::current;
use ringpost::shard::node::Node;
use ringpost::shard::shard::Shard;
use ringpost::{Config, EndpointRef, Idle, RpcEnv};

use crate::Error;
use crate::message::{Echo, Told, Words};

/// Turns of all cores without an answer, after which something is wrong.
pub(crate) const PATIENCE: u32 = 100_000;

/// Asks on the core that answers.
pub(crate) fn local(count: u64, in_flight: u64) -> Result<(), Error> {
    let mut stage = Stage::default();
    let node = node("local", 1)?;
    let core = stage.core(&node, 0, None)?;
    let (echo, _) = stage.echo(core)?;
    stage.ask(core, echo, count, in_flight)
}

/// Asks from one core to another.
pub(crate) fn mesh(count: u64, in_flight: u64) -> Result<(), Error> {
    let mut stage = Stage::default();
    let node = node("mesh", 2)?;
    let (asking, answering) = (stage.core(&node, 0, None)?, stage.core(&node, 1, None)?);
    let (echo, _) = stage.echo(answering)?;
    stage.ask(asking, echo, count, in_flight)
}

/// Asks over one connection from one env to another.
pub(crate) fn tcp(count: u64, in_flight: u64) -> Result<(), Error> {
    let mut stage = Stage::default();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answering = stage.core(&node("server", 1)?, 0, Some(listener.into()))?;
    stage.echo(answering)?;
    let asking = stage.core(&node("client", 1)?, 0, None)?;
    let (_, client) = stage.echo(asking)?;
    let echo = client.endpoint_ref(&format!("ringpost://echo@{address}"))?;
    stage.ask(asking, echo, count, in_flight)
}

pub(crate) fn node(name: &str, cores: u16) -> Result<Arc<Node>, Error> {
    // Never asleep: a turn without work is not worth a wait in the kernel.
    let config = Config { idle: Idle::Spin, ..Config::default() };
    Ok(Node::new(name.into(), config, cores, Capabilities::probe()?))
}

/// Cores that take turns on this thread.
#[derive(Default)]
pub(crate) struct Stage(pub(crate) Vec<(Rc<Shard>, Core)>);

impl Stage {
    /// One more core; its number on this stage is given back.
    pub(crate) fn core(&mut self, node: &Arc<Node>, number: u16, listener: Option<OwnedFd>) -> Result<usize, Error> {
        let config = &node.config;
        let ring = RingConfig {
            cq_entries: config.completions,
            buffers: config.receive_buffers,
            buffer_size: config.receive_buffer_bytes,
            ..RingConfig::default()
        };
        let ring = Ring::new(&ring, &node.capabilities)?;
        let index = claim_core(node.remote_wake(number))?;
        // It is the only one to set it.
        let _ = node.cores[usize::from(number)].waker.set(ring.waker());
        let shard = Rc::new(Shard::new(node.clone(), number, Executor::new(&index, config.tasks)));
        let core = Core::new(ring, shard.clone(), listener);
        self.0.push((shard, core));
        Ok(self.0.len() - 1)
    }

    /// Starts an echo on a core.
    fn echo(&mut self, core: usize) -> Result<(EndpointRef, RpcEnv), Error> {
        let told = Told::default();
        let shard = self.0[core].0.clone();
        let id = shard.node.directory.reserve("echo", Place::Core(shard.core), 1)?;
        let make = told.clone();
        shard.host(id, "echo".into(), move || Echo(make), Box::new(|_| ()));
        self.turn_until(|| told.borrow().is_some())?;
        told.take().ok_or_else(|| "the echo told nothing".into())
    }

    /// Asks `count` times from a core, by as many tasks as there are asks in flight.
    fn ask(&mut self, core: usize, echo: EndpointRef, count: u64, in_flight: u64) -> Result<(), Error> {
        let answered = Rc::new(Cell::new(0));
        let each = count.div_ceil(in_flight);
        let entered = current::enter(&self.0[core].0);
        for _ in 0..in_flight {
            let (echo, answered) = (echo.clone(), answered.clone());
            drop(ringpost::spawn(async move {
                let words = Words([0x5a; 64]);
                for _ in 0..each {
                    match echo.ask(words).await {
                        Ok(answer) if answer == words => answered.set(answered.get() + 1),
                        Ok(_) => panic!("another answer"),
                        Err(error) => panic!("{error}"),
                    }
                }
            }));
        }
        drop(entered);
        let mut seen = 0;
        while seen < each * in_flight {
            self.turn_until(|| answered.get() > seen)?;
            seen = answered.get();
        }
        Ok(())
    }

    /// Gives each core its turn, again and again.
    fn turn_until(&mut self, done: impl Fn() -> bool) -> Result<(), Error> {
        for _ in 0..PATIENCE {
            if done() {
                return Ok(());
            }
            for (shard, core) in &mut self.0 {
                let _entered = current::enter(shard);
                core.rouse()?;
                if core.step()? == Step::Ended {
                    return Err("a core has ended".into());
                }
            }
        }
        Err("no answer came".into())
    }
}
