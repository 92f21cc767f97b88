//! Numbers sent through a tokio channel to a thread, each with a oneshot channel for the answer, which comes at once: what
//! users write who have a thread of their own behind a tokio runtime.

use std::hint;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::outside::Target;

/// A number and the way back.
pub(super) type Ask = (u64, oneshot::Sender<u64>);

/// A channel with room for all asks in flight, so that nobody waits for room.
pub(super) fn channel(in_flight: usize) -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(in_flight)
}

/// The asking end, for one ask in flight.
pub(super) struct Hop {
    pub(super) number: u64,
    pub(super) to: mpsc::Sender<Ask>,
}

const GONE: &str = "the answering thread of the floor is gone";

impl Hop {
    fn check(&self, answer: u64) -> Result<(), Error> {
        if answer == self.number { Ok(()) } else { Err("the floor answers with another number".into()) }
    }
}

impl Target for Hop {
    async fn ask(&self, _checks: bool) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.to.send((self.number, answer)).await.map_err(|_| GONE)?;
        self.check(answered.await?)
    }

    fn ask_blocking(&self, _checks: bool) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.to.blocking_send((self.number, answer)).map_err(|_| GONE)?;
        self.check(answered.blocking_recv()?)
    }
}

/// Answers until all asking ends are gone: spinning, or asleep while there is nothing to answer.
pub(super) fn answer(mut asks: mpsc::Receiver<Ask>, spin: bool) -> Result<(), Error> {
    loop {
        let ask = if spin { asks.try_recv() } else { asks.blocking_recv().ok_or(TryRecvError::Disconnected) };
        match ask {
            // One that has given up ends the measurement with its own error.
            Ok((number, answer)) => drop(answer.send(number)),
            Err(TryRecvError::Empty) => hint::spin_loop(),
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}
