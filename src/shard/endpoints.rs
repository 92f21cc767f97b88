//! Endpoints coming to life and ending on a core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::shard::Shard;
use crate::dispatch::dispatcher::Started;
use crate::dispatch::endpoint::Endpoint;
use crate::dispatch::erased::{AnyEndpoint, Erased};
use crate::wire::failure::{HandlerError, panicked_with};
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
        let erased = if self.closing.get().is_some() {
            Err(HandlerError::new("the env is shutting down"))
        } else {
            // Both the factory and the list of handlers are user code.
            catch_unwind(AssertUnwindSafe(|| Erased::new(make(), name.clone())))
                .map_err(|panic| HandlerError::panicked(panicked_with(panic)))
                .and_then(|made| made.map_err(|error| HandlerError::new(error.to_string())))
        };
        let directory = self.node.directory.clone();
        let started: Started = Box::new(move |outcome| {
            if outcome.is_err() {
                directory.unname(id);
            }
            started(outcome);
        });
        match erased {
            Ok(endpoint) => {
                let listens = endpoint.wants_events();
                if let Err((error, started)) = self.dispatcher.insert(id, name, Box::new(endpoint), started) {
                    self.count(|counters| counters.tasks_refused += 1);
                    started(Err(HandlerError::from(error)));
                    self.release(id);
                } else if listens {
                    self.listen(id);
                }
            }
            Err(error) => {
                // The name first: once the id is released it may mean another endpoint.
                started(Err(error));
                self.release(id);
            }
        }
    }

    /// Gives back the ids of endpoints that have ended.
    pub fn release_ended(&self) {
        while let Some(id) = self.dispatcher.take_ended() {
            self.release(id);
        }
    }

    /// One instance of an endpoint has ended, or never began.
    fn release(&self, id: EndpointId) {
        self.unlisten(id);
        self.node.directory.release(id);
        self.node.unplace(self.core);
    }
}
