//! Whole cores driven by hand on one thread, for tests.
//!
//! Which core takes the next turn is the test's choice. A core that has parked goes on only when its ring has a
//! completion or its timer is due, as one that sleeps in the kernel, so a missing wake-up leaves it asleep for ever.

use std::cell::RefCell;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::core::{Core, Step};
use super::current;
use super::node::{Injected, Node, now};
use super::rest::Doze;
use super::shard::Shard;
use crate::dispatch::directory::Place;
use crate::executor::idle::Idle;
use crate::executor::tasks::Executor;
use crate::executor::waker::claim_core;
use crate::ring::{Capabilities, Ring, RingConfig, RingWaker};
use crate::{CallContext, Endpoint, EndpointContext, EndpointRef, HandleSync, HandlerError, Handlers, RpcEnv, message};

/// What a core did when it was given a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It wants another one.
    Awake,
    /// It sleeps.
    Asleep,
    /// Its env has shut down.
    Ended,
}

struct Staged {
    shard: Rc<Shard>,
    core: Core,
    /// The timer that ends its sleep, if it sleeps.
    sleeps: Option<Option<u64>>,
}

/// Cores that take turns on this thread. A core is out of the list while it has its turn, so that a handler can give
/// the others theirs.
pub(super) struct Stage {
    cores: RefCell<Vec<Option<Box<Staged>>>>,
    drive: Drive,
}

/// How cores are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drive {
    /// As on a thread of their own.
    Alone,
    /// As a task among others.
    Hosted,
}

/// A node whose cores sleep when they have nothing to do.
pub(super) fn node(name: &str, cores: u16) -> Arc<Node> {
    let config = Config { idle: Idle::Park, ..Config::default() };
    Node::new(name.into(), config, cores, Capabilities::probe().unwrap())
}

impl Stage {
    /// Nobody is on it.
    pub(super) fn new(drive: Drive) -> Stage {
        Stage { cores: RefCell::default(), drive }
    }

    /// One more core; its number on this stage is given back.
    pub(super) fn core(&self, node: &Arc<Node>, number: u16, listener: Option<TcpListener>) -> usize {
        self.core_woken_by(node, number, listener, Ring::waker)
    }

    /// The same with a waker of the test's choice.
    pub(super) fn core_woken_by(
        &self,
        node: &Arc<Node>,
        number: u16,
        listener: Option<TcpListener>,
        waker: impl FnOnce(&Ring) -> RingWaker,
    ) -> usize {
        let ring = Ring::new(&RingConfig { buffers: 64, ..RingConfig::default() }, &node.capabilities).unwrap();
        let index = claim_core(node.remote_wake(number)).unwrap();
        let _ = node.cores[usize::from(number)].waker.set(waker(&ring));
        let shard = Rc::new(Shard::new(node.clone(), number, Executor::new(&index, node.config.tasks)));
        if node.is_isolated(number) {
            assert!(node.isolated_runs(number));
        }
        let core = Core::new(ring, shard.clone(), listener.map(OwnedFd::from));
        self.cores.borrow_mut().push(Some(Box::new(Staged { shard, core, sleeps: None })));
        self.cores.borrow().len() - 1
    }

    /// The shard of a core that is not in its turn.
    pub(super) fn shard(&self, core: usize) -> Rc<Shard> {
        self.cores.borrow()[core].as_ref().unwrap().shard.clone()
    }

    /// Starts an actor on a core.
    pub(super) fn actor(&self, core: usize, act: impl Fn(u32, &RpcEnv) + 'static) -> EndpointRef {
        let shard = self.shard(core);
        let id = shard.node.directory.reserve("actor", Place::Core(shard.core), 1).unwrap();
        let myself = Rc::<RefCell<Option<EndpointRef>>>::default();
        let actor = Actor { myself: myself.clone(), act: Box::new(act) };
        shard.host(id, "actor".into(), move || actor, Box::new(|_| ()));
        while myself.borrow().is_none() {
            self.turn(core);
        }
        myself.take().unwrap()
    }

    /// Works with a core that is not in its turn, as the loop of its thread does.
    pub(super) fn with<T>(&self, core: usize, work: impl FnOnce(&mut Core) -> T) -> T {
        let mut staged = self.cores.borrow_mut()[core].take().unwrap();
        staged.sleeps = None;
        let result = {
            let _entered = current::enter(&staged.shard);
            work(&mut staged.core)
        };
        self.cores.borrow_mut()[core] = Some(staged);
        result
    }

    /// Runs something on a core that is not in its turn.
    pub(super) fn on<T>(&self, core: usize, run: impl FnOnce() -> T) -> T {
        let _entered = current::enter(&self.shard(core));
        run()
    }

    /// Wakes a core from another thread, as it were.
    pub(super) fn wake(&self, core: usize) {
        self.shard(core).door().inject_always(Injected::Job(Box::new(|_| ())));
    }

    /// Gives a core its turn, and lets it go to sleep if it has nothing to do.
    pub(super) fn turn(&self, core: usize) -> Turn {
        let Some(mut staged) = self.cores.borrow_mut()[core].take() else { return Turn::Ended };
        let turn = staged.turn(self.drive);
        if turn != Turn::Ended {
            self.cores.borrow_mut()[core] = Some(staged);
        }
        turn
    }

    /// Whether a core that is not in its turn has come to its end.
    pub(super) fn has_ended(&self, core: usize) -> bool {
        self.cores.borrow()[core].is_none()
    }

    /// Gives these cores turns in an order drawn by `seed`, until `done`. False if all of them sleep before.
    pub(super) fn turn_until(&self, cores: &[usize], seed: u64, done: impl Fn() -> bool) -> bool {
        const LOOKS: u32 = 20_000;
        let (mut state, mut asleep) = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, 0);
        while !done() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match self.turn(cores[(state >> 33) as usize % cores.len()]) {
                Turn::Awake => asleep = 0,
                // What travels through the kernel may take a moment.
                Turn::Asleep | Turn::Ended => asleep += 1,
            }
            if asleep == LOOKS {
                return false;
            }
        }
        true
    }
}

impl Staged {
    fn turn(&mut self, drive: Drive) -> Turn {
        if let Some(timer) = self.sleeps {
            self.core.ring.submit().unwrap();
            if !self.core.ring.has_completions() && timer.is_none_or(|due| now() < due) {
                return Turn::Asleep;
            }
            self.sleeps = None;
            self.core.rouse().unwrap();
        }
        let _entered = current::enter(&self.shard);
        match self.core.step().unwrap() {
            Step::Ended => Turn::Ended,
            Step::Busy => Turn::Awake,
            // A core with a thread of its own that has something to do rests without a wait.
            Step::Idle if drive == Drive::Alone && self.core.something_to_do() => {
                self.core.rest().unwrap();
                Turn::Awake
            }
            Step::Idle => match self.core.doze().unwrap() {
                Doze::Yield => Turn::Awake,
                Doze::Wait(timer) => {
                    self.sleeps = Some(timer);
                    Turn::Asleep
                }
            },
        }
    }
}

/// Has an actor act, and answers with the number.
#[derive(Serialize, Deserialize, Clone, Copy)]
pub(super) struct Act(pub(super) u32);
message!(Act as "stage.Act" => u32);

/// Has an actor act.
#[derive(Serialize, Deserialize, Clone, Copy)]
pub(super) struct Tell(pub(super) u32);
message!(Tell as "stage.Tell");

/// What an actor does with a number.
type Deed = dyn Fn(u32, &RpcEnv);

/// Does what the test says.
struct Actor {
    myself: Rc<RefCell<Option<EndpointRef>>>,
    act: Box<Deed>,
}

impl Endpoint for Actor {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Act>().send_sync::<Tell>();
    }

    async fn on_start(&mut self, context: &EndpointContext) -> Result<(), HandlerError> {
        self.myself.replace(Some(context.myself()));
        Ok(())
    }
}

impl HandleSync<Act> for Actor {
    fn handle(&mut self, act: Act, context: &mut CallContext) -> Result<u32, HandlerError> {
        (self.act)(act.0, &context.env());
        Ok(act.0)
    }
}

impl HandleSync<Tell> for Actor {
    fn handle(&mut self, tell: Tell, context: &mut CallContext) -> Result<(), HandlerError> {
        (self.act)(tell.0, &context.env());
        Ok(())
    }
}
