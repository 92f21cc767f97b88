//! Ways to run a core: on a thread of its own.

pub(crate) mod life;
pub(crate) mod thread;
