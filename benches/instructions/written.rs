//! Asks over one connection, as users write them; each side has its turns in a function of its own.

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::rc::Rc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ringpost::dispatch::directory::Place;
use ringpost::shard::core::{Core, Step};
use ringpost::shard::current;
use ringpost::shard::shard::Shard;
use ringpost::{
    Ask, CallContext, Endpoint, EndpointContext, EndpointRef, HandleSync, HandlerError, Handlers, Message, message,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::cores::{PATIENCE, Stage, node};
use crate::message::{Told, Words};

/// A message that is answered with itself.
pub(crate) trait Question: Ask + Message<Reply = Self> + PartialEq {
    /// One to be asked, or its answer.
    fn new() -> Self;
}

impl Question for Words {
    #[inline]
    fn new() -> Words {
        Words([0x5a; 64])
    }
}

/// The same as [`Words`]. What one scenario has for itself, the compiler inlines as it does for those of `instructions`.
#[derive(PartialEq)]
pub(crate) struct Other(Words);

impl Serialize for Other {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Other {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Other, D::Error> {
        Words::deserialize(deserializer).map(Other)
    }
}

message!(Other as "instructions.Other" => Other);

impl Question for Other {
    #[inline]
    fn new() -> Other {
        Other(Words([0x5a; 64]))
    }
}

/// As many bytes in memory of their own, as serde derives it.
#[derive(PartialEq, Serialize, Deserialize)]
pub(crate) struct VecWords(Vec<u8>);

message!(VecWords as "instructions.VecWords" => VecWords);

impl Question for VecWords {
    #[inline]
    fn new() -> VecWords {
        VecWords(vec![0x5a; 64])
    }
}

/// Answers with what it gets.
struct Echo<M>(Told, PhantomData<M>);

impl<M: Question> Endpoint for Echo<M> {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<M>();
    }

    async fn on_start(&mut self, context: &EndpointContext) -> Result<(), HandlerError> {
        self.0.replace(Some((context.myself(), context.env())));
        Ok(())
    }
}

impl<M: Question> HandleSync<M> for Echo<M> {
    fn handle(&mut self, message: M, _: &mut CallContext) -> Result<M, HandlerError> {
        Ok(message)
    }
}

/// Asks by a task for each ask in flight.
pub(crate) fn in_tasks<M: Question>(count: u64, in_flight: u64) -> Result<(), Error> {
    let mut sides = Sides::start::<M>()?;
    let each = count.div_ceil(in_flight);
    sides.ask(each * in_flight, |echo, answered| {
        for _ in 0..in_flight {
            let (echo, answered) = (echo.clone(), answered.clone());
            drop(ringpost::spawn(async move {
                for _ in 0..each {
                    match echo.ask(M::new()).await {
                        Ok(answer) if answer == M::new() => answered.set(answered.get() + 1),
                        Ok(_) => panic!("another answer"),
                        Err(error) => panic!("{error}"),
                    }
                }
            }));
        }
    })
}

/// Asks by one task with a `FuturesUnordered`.
pub(crate) fn unordered<M: Question>(count: u64, in_flight: u64) -> Result<(), Error> {
    let mut sides = Sides::start::<M>()?;
    sides.ask(count, |echo, answered| {
        drop(ringpost::spawn(async move {
            let first = in_flight.min(count);
            let mut asks: FuturesUnordered<_> = (0..first).map(|_| echo.ask(M::new())).collect();
            let mut to_ask = count - first;
            while let Some(answer) = asks.next().await {
                match answer {
                    Ok(answer) if answer == M::new() => answered.set(answered.get() + 1),
                    Ok(_) => panic!("another answer"),
                    Err(error) => panic!("{error}"),
                }
                if to_ask > 0 {
                    to_ask -= 1;
                    asks.push(echo.ask(M::new()));
                }
            }
        }));
    })
}

/// The answering and the asking core, which take turns on this thread.
struct Sides {
    stage: Stage,
    echo: EndpointRef,
}

impl Sides {
    const SERVER: usize = 0;
    const ASKER: usize = 1;

    fn start<M: Question>() -> Result<Sides, Error> {
        let mut stage = Stage::default();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        stage.core(&node("server", 1)?, 0, Some(listener.into()))?;
        stage.core(&node("client", 1)?, 0, None)?;
        let mut told = Vec::new();
        for side in [Sides::SERVER, Sides::ASKER] {
            let shard = stage.0[side].0.clone();
            let id = shard.node.directory.reserve("echo", Place::Core(shard.core), 1)?;
            let tell = Told::default();
            let make = tell.clone();
            shard.host(id, "echo".into(), move || Echo::<M>(make, PhantomData), Box::new(|_| ()));
            turn_until(&mut stage, || tell.borrow().is_some())?;
            told.extend(tell.take());
        }
        let (_, client) = told.pop().ok_or("the echo told nothing")?;
        let echo = client.endpoint_ref(&format!("ringpost://echo@{address}"))?;
        Ok(Sides { stage, echo })
    }

    /// Lets the asking core do what `start` starts there, until so many answers came.
    fn ask(&mut self, count: u64, start: impl FnOnce(EndpointRef, Rc<Cell<u64>>)) -> Result<(), Error> {
        let answered = Rc::new(Cell::new(0));
        let entered = current::enter(&self.stage.0[Sides::ASKER].0);
        start(self.echo.clone(), answered.clone());
        drop(entered);
        let mut seen = 0;
        while seen < count {
            turn_until(&mut self.stage, || answered.get() > seen)?;
            seen = answered.get();
        }
        Ok(())
    }
}

/// Gives each core its turn, again and again.
fn turn_until(stage: &mut Stage, done: impl Fn() -> bool) -> Result<(), Error> {
    let [server, asker] = &mut stage.0[..] else { return Err("there are not two sides".into()) };
    for _ in 0..PATIENCE {
        if done() {
            return Ok(());
        }
        if server_turn(server)? == Step::Ended || asker_turn(asker)? == Step::Ended {
            return Err("a core has ended".into());
        }
    }
    Err("no answer came".into())
}

/// One turn of the answering core.
#[inline(never)]
pub(crate) fn server_turn((shard, core): &mut (Rc<Shard>, Core)) -> io::Result<Step> {
    // Without this the compiler might make one function of both.
    black_box("server");
    let _entered = current::enter(shard);
    core.rouse()?;
    core.step()
}

/// One turn of the asking core.
#[inline(never)]
pub(crate) fn asker_turn((shard, core): &mut (Rc<Shard>, Core)) -> io::Result<Step> {
    black_box("asker");
    let _entered = current::enter(shard);
    core.rouse()?;
    core.step()
}
