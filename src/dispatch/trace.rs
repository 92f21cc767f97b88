//! A trace of each ask and each one-way message, for whoever listens to events of level TRACE.

use std::fmt;

use tracing::level_filters::LevelFilter;

use super::call::Origin;
use crate::wire::message::MessageId;

/// The target of these events.
const TARGET: &str = "ringpost::rpc";

/// Whether anybody may listen: a load and a comparison for each message.
#[inline]
pub fn is_on() -> bool {
    LevelFilter::current() >= LevelFilter::TRACE
}

/// An ask leaves this core.
#[cold]
pub fn asked(message: &'static str, to: &str, core: u16) {
    tracing::trace!(target: TARGET, message_type = message, to, core, "asked");
}

/// A one-way message leaves this core.
#[cold]
pub fn sent(message: &'static str, to: &str, core: u16) {
    tracing::trace!(target: TARGET, message_type = message, to, core, "sent");
}

/// The handler of a message is about to run.
#[cold]
pub fn handled(message: Option<&'static str>, id: MessageId, endpoint: &str, from: Origin, core: u16) {
    let message: &dyn fmt::Display = match &message {
        Some(name) => name,
        None => &format_args!("{:#010x}", id.0),
    };
    tracing::trace!(target: TARGET, message_type = %message, endpoint, ?from, core, "handled");
}
