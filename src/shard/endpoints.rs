//! Endpoints coming to life and ending on a core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::shard::Shard;
use crate::dispatch::dispatcher::Started;
use crate::dispatch::endpoint::Endpoint;
use crate::dispatch::erased::Erased;
use crate::wire::failure::{HandlerError, panic_text};
use crate::wire::frame::EndpointId;

impl Shard {
    /// Makes an endpoint on this core and starts it; `started` is told the outcome once. If it does not come to life,
    /// its name is free again.
    pub fn host<E: Endpoint>(
        self: &Rc<Self>,
        id: EndpointId,
        name: Arc<str>,
        make: impl FnOnce() -> E,
        started: Started,
    ) {
        let made = if self.closing.get().is_some() {
            Err(HandlerError::new("the env is shutting down"))
        } else {
            catch_unwind(AssertUnwindSafe(make)).map_err(|panic| HandlerError::panicked(panic_text(&*panic)))
        };
        let erased = made.and_then(|endpoint| {
            Erased::new(endpoint).map_err(|clash| {
                let (a, b) = clash.names;
                HandlerError::new(format!("its messages {a:?} and {b:?} have the same id {:#010x}", clash.id.0))
            })
        });
        let directory = self.node.directory.clone();
        let started: Started = Box::new(move |outcome| {
            if outcome.is_err() {
                directory.unname(id);
            }
            started(outcome);
        });
        match erased {
            Ok(endpoint) => {
                if let Err((error, started)) = self.dispatcher.insert(id, name, Box::new(endpoint), started) {
                    self.node.directory.release(id);
                    started(Err(HandlerError::from(error)));
                }
            }
            Err(error) => {
                self.node.directory.release(id);
                started(Err(error));
            }
        }
    }

    /// Gives back the ids of endpoints that have ended.
    pub fn release_ended(&self) {
        while let Some(id) = self.dispatcher.take_ended() {
            self.node.directory.release(id);
            self.node.cores[usize::from(self.core)].placed.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
