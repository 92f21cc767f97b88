//! Which refs are the same, and how they travel.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::address::EndpointUri;
use crate::endpoint_ref::EndpointRef;
use crate::shard::current;
use crate::shard::destination::Destination;
use crate::wire::codec;
use crate::wire::told;

impl EndpointRef {
    /// Whether it may be used without reserve: it is not forbidden, and its host name may stand for any address.
    fn is_trusted(&self) -> bool {
        match self.destination() {
            Destination::Env { .. } => true,
            Destination::Peer { peer, .. } => peer.client().is_some() || peer.standing().may_go_inward(),
            Destination::Forbidden { .. } => false,
        }
    }

    /// Whether the endpoint is in this env, under an address that means every machine to itself.
    fn is_unspecified(&self) -> bool {
        let address = self.node().advertised.get().and_then(|address| address.parse::<SocketAddr>().ok());
        matches!(self.destination(), Destination::Env { .. })
            && address.is_some_and(|address| address.ip().is_unspecified())
    }
}

/// Two refs of one env are equal if messages to them reach the same endpoint, or whoever has that name at the same
/// peer, and by the same key.
impl PartialEq for EndpointRef {
    fn eq(&self, other: &EndpointRef) -> bool {
        let same = match (self.destination(), other.destination()) {
            (Destination::Env { id: a, .. }, Destination::Env { id: b, .. }) => a == b,
            // Over which connections they go does not matter.
            (Destination::Peer { peer: a, name: m, .. }, Destination::Peer { peer: b, name: n, .. }) => {
                a.address() == b.address() && m == n
            }
            (
                Destination::Forbidden { address: a, name: m, .. },
                Destination::Forbidden { address: b, name: n, .. },
            ) => a == b && m == n,
            _ => false,
        };
        same && self.node().id == other.node().id && self.key() == other.key()
    }
}

impl Eq for EndpointRef {}

impl Hash for EndpointRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.node().id, self.key(), self.name()).hash(state);
    }
}

/// A ref travels as its URI and key.
///
/// One to an endpoint of an env that does not listen works where that env is connected: asks go back over the
/// connection that it has opened, which from then on stays open although its own refs to that peer may be gone.
/// Elsewhere, and after the connection has ended, they fail with [`AskError::Unreachable`](crate::AskError::Unreachable).
impl Serialize for EndpointRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_unspecified() {
            let problem = "its env listens on every address and advertises none: use Builder::advertise";
            return Err(ser::Error::custom(format_args!("{self} cannot travel: {problem}")));
        }
        if let (Destination::Env { .. }, None) = (self.destination(), self.node().advertised.get())
            && current::get().is_some_and(|shard| shard.node.id == self.node().id)
        {
            codec::note_way_back(&serializer);
        }
        if !self.is_trusted() {
            told::note_reserve();
        }
        serializer.serialize_newtype_struct(told::REF, &(self.uri(), self.key()))
    }
}

/// A ref takes the env of the core that decodes it; elsewhere it cannot be decoded. Whether it leads anywhere is up to
/// [`RefPolicy`](crate::RefPolicy): what a user's own code decodes counts as told by somebody unknown.
impl<'de> Deserialize<'de> for EndpointRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EndpointRef, D::Error> {
        deserializer.deserialize_newtype_struct(told::REF, Arriving)
    }
}

/// Reads a ref while the codec says who told it.
struct Arriving;

impl<'de> de::Visitor<'de> for Arriving {
    type Value = EndpointRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a ref")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<EndpointRef, D::Error> {
        let (uri, key) = <(String, Option<u16>)>::deserialize(deserializer)?;
        let uri: EndpointUri = uri.parse().map_err(de::Error::custom)?;
        let shard = current::get().ok_or_else(|| de::Error::custom("a ref can be decoded on a core's thread only"))?;
        let endpoint = EndpointRef::told(&shard, &uri).map_err(de::Error::custom)?;
        Ok(endpoint.with_key(key))
    }
}
