//! The shapes in which a core keeps asks in flight with one task.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use ringpost::{AskError, Asking, EndpointRef};

use crate::Error;
use crate::message::Question;
use crate::ringpost_paths::{Asks, compare};
use crate::sample::{Begun, Meter};

/// A `FuturesUnordered` that holds all asks in flight; the answer to one is followed by the next ask of its target.
pub(crate) struct Unordered<M: Question> {
    targets: Vec<EndpointRef>,
    message: M,
    meter: Rc<RefCell<Meter>>,
    in_flight: FuturesUnordered<Timed<M::Reply>>,
}

/// An ask in flight: whom it asks, and since when.
struct Timed<R> {
    target: usize,
    begun: Begun,
    asking: Asking<R>,
}

impl<R: 'static> Future for Timed<R> {
    type Output = (usize, Begun, Result<R, AskError>);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = Pin::new(&mut self.asking).poll(cx);
        reply.map(|reply| (self.target, self.begun, reply))
    }
}

impl<M: Question> Unordered<M> {
    /// Makes the first ask of each of `targets`.
    pub(crate) fn start(targets: Vec<EndpointRef>, message: M, meter: Rc<RefCell<Meter>>) -> Unordered<M> {
        let unordered = Unordered { targets, message, meter, in_flight: FuturesUnordered::new() };
        for target in 0..unordered.targets.len() {
            let begun = unordered.meter.borrow_mut().begin();
            unordered.ask(target, begun);
        }
        unordered
    }

    #[inline]
    fn ask(&self, target: usize, begun: Begun) {
        let asking = self.targets[target].ask(self.message.clone());
        self.in_flight.push(Timed { target, begun, asking });
    }

    /// Awaits what is still in flight.
    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        while let Some((_, _, reply)) = self.in_flight.next().await {
            reply?;
        }
        Ok(())
    }
}

impl<M: Question> Asks for Unordered<M> {
    async fn ask_while(&mut self, more: impl Fn(&Meter) -> bool) -> Result<(), Error> {
        while let Some((target, begun, reply)) = self.in_flight.next().await {
            let mut meter = self.meter.borrow_mut();
            compare(&meter, &self.message, &reply?)?;
            let begun = meter.next(begun);
            let more = more(&meter);
            drop(meter);
            self.ask(target, begun);
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Batches: one ask of each target, then `join_all`. Each ask ends with its batch.
pub(crate) struct Batches<M> {
    targets: Vec<EndpointRef>,
    message: M,
    meter: Rc<RefCell<Meter>>,
    /// Since when each ask of a batch is in flight.
    begun: Vec<Begun>,
}

impl<M: Question> Batches<M> {
    pub(crate) fn new(targets: Vec<EndpointRef>, message: M, meter: Rc<RefCell<Meter>>) -> Batches<M> {
        let begun = Vec::with_capacity(targets.len());
        Batches { targets, message, meter, begun }
    }
}

impl<M: Question> Asks for Batches<M> {
    async fn ask_while(&mut self, more: impl Fn(&Meter) -> bool) -> Result<(), Error> {
        loop {
            self.begun.clear();
            let asks = self.targets.iter().map(|target| {
                self.begun.push(self.meter.borrow_mut().begin());
                target.ask(self.message.clone())
            });
            let replies = join_all(asks).await;
            let mut meter = self.meter.borrow_mut();
            for (&begun, reply) in self.begun.iter().zip(replies) {
                compare(&meter, &self.message, &reply?)?;
                meter.end(begun);
            }
            if !more(&meter) {
                return Ok(());
            }
        }
    }
}
