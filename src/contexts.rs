//! What the contexts of callbacks offer of the floor that users see: refs and envs.

use std::sync::Arc;

use crate::dispatch::directory::Place;
use crate::dispatch::endpoint_context::EndpointContext;
use crate::endpoint_ref::EndpointRef;
use crate::env::RpcEnv;
use crate::shard::node::Node;

impl EndpointContext {
    /// The endpoint's own ref: to be handed to others in messages, or used by tasks that the endpoint starts. For an
    /// endpoint with an instance on every core it is the ref that `register_per_core` returned, not this instance.
    ///
    /// It may be used from `on_start` on. An ask to oneself is answered by the same endpoint, after the callback that
    /// sent it: to await it in a serial handler is to wait for one's own timeout.
    pub fn myself(&self) -> EndpointRef {
        let node = self.shared();
        // An endpoint is in the directory as long as it has an instance, such as the one whose context this is.
        let gone = || (Arc::from("an endpoint that has ended"), Place::Core(self.core() as u16));
        let (name, place) = node.directory.instance(self.id()).unwrap_or_else(gone);
        EndpointRef::local(&node, self.id(), place, &name)
    }

    /// The endpoint's name.
    pub fn name(&self) -> Arc<str> {
        self.shared().directory.name(self.id()).unwrap_or_default()
    }

    /// The env. This handle does not keep the env running: it shuts down with the last of those that its
    /// [`start`](crate::Builder::start) returned, as if this one did not exist.
    pub fn env(&self) -> RpcEnv {
        RpcEnv::inside(self.shared())
    }

    fn shared(&self) -> Arc<Node> {
        match self.node().downcast() {
            Ok(node) => node,
            Err(_) => unreachable!("the cores of an env share a node: see `ReplyPath for Shard`"),
        }
    }
}
