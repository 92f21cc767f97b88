//! What an endpoint knows about itself.

use std::fmt;
use std::rc::Rc;

use super::reply_path::ReplyPath;
use crate::wire::frame::EndpointId;

/// An endpoint's view of itself: its own ref, its env, its core.
///
/// `on_start` gets one, and a handler has one inside its [`CallContext`](crate::CallContext). It stays on the core of the
/// endpoint; what travels is the ref that [`myself`](EndpointContext::myself) gives.
pub struct EndpointContext {
    id: EndpointId,
    path: Rc<dyn ReplyPath>,
}

impl EndpointContext {
    /// Of the endpoint with this id, on the core that `path` leads through.
    #[inline]
    pub(super) fn new(id: EndpointId, path: Rc<dyn ReplyPath>) -> EndpointContext {
        EndpointContext { id, path }
    }

    #[inline]
    pub(super) fn path(&self) -> &dyn ReplyPath {
        &*self.path
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    /// What all cores of the env share.
    pub(crate) fn node(&self) -> std::sync::Arc<dyn std::any::Any + Send + Sync> {
        self.path.node()
    }

    /// Number of the core that this runs on.
    pub fn core(&self) -> usize {
        self.path.core().into()
    }

    /// Stops this endpoint, on every core that has an instance: its name is free at once, messages that are queued are
    /// handled, later ones are refused, then `on_stop` runs. The callback that calls this goes on; a second call changes
    /// nothing.
    pub fn stop(&self) {
        self.path.stop(self.id);
    }
}

impl fmt::Debug for EndpointContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointContext").field("id", &self.id).field("core", &self.core()).finish()
    }
}
