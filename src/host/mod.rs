//! Ways to run a core. So far: on a thread of its own.

pub(crate) mod thread;
