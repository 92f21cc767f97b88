//! Where an ask went, and who set its limit.

use crate::wire::frame::EndpointId;

/// Where the limit of an ask with a timeout of its own can be changed.
pub const OWN_TIMEOUT: &str = "the timeout given to ask_within";

/// Where an ask went: for errors, and to find those that a lost connection took along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// An endpoint of this env.
    Env {
        /// The endpoint.
        id: EndpointId,
        /// The core that has it.
        core: u16,
    },
    /// An endpoint of a peer.
    Peer {
        /// Index of the peer.
        peer: u32,
        /// Number of the endpoint's name at the peer.
        name: u32,
        /// The key that chose the core, if one did.
        key: Option<u16>,
        /// Number of the ask by name that its address rests on.
        number: u32,
    },
    /// An endpoint of a peer that does not listen, through the core that has a connection with it.
    Relayed {
        /// That core.
        core: u16,
        /// Index of the peer.
        peer: u32,
        /// Number of the endpoint's name at the peer.
        name: u32,
    },
}

impl Via {
    /// Whether an ask that went this way waits for the answer of the peer with this index.
    pub(super) fn went_to(&self, index: u32) -> bool {
        matches!(self, Via::Peer { peer, .. } if *peer == index)
    }

    /// Whether it refers to that peer's outbox of this core, if only to be described.
    pub(super) fn refers_to(&self, index: u32) -> bool {
        self.went_to(index) || matches!(self, Via::Relayed { peer, .. } if *peer == index)
    }
}

/// Who set the limit of an ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitedBy {
    /// The configuration.
    Config,
    /// The caller.
    Caller,
    /// The call whose handler made the ask.
    HandledCall,
}

impl LimitedBy {
    /// Where it can be changed.
    pub fn setting(self) -> &'static str {
        match self {
            LimitedBy::Config => "Config::ask_timeout",
            LimitedBy::Caller => OWN_TIMEOUT,
            LimitedBy::HandledCall => "the deadline of the call that was being handled",
        }
    }
}
