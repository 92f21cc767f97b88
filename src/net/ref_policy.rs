//! Which addresses a ref that a peer has told may lead to.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::remote::{DialTo, Remote, is_near};
use super::roster::Peer;

/// Which addresses this env connects to on the word of others: those in refs that are decoded, from messages, replies
/// and errors.
///
/// Whoever can send a message could otherwise make this node open a connection to any address that it can reach, and
/// say its hello there. Refs that [`RpcEnv::endpoint_ref`](crate::RpcEnv::endpoint_ref) and
/// [`lookup`](crate::RpcEnv::lookup) make are the user's own word and always good; so are refs to this env itself, and
/// to nodes that are asked over a connection of their own.
///
/// A ref that is not good is decoded all the same and may be passed on, but asks and sends to it fail with
/// [`AskError::ForbiddenAddress`](crate::AskError::ForbiddenAddress). It is counted (`refs_forbidden`), and warned of
/// once a second at most.
#[derive(Clone)]
pub struct RefPolicy(Rule);

/// Decides on an address, `host:port` or `unix:/path`; the peer that told it, if that is known.
type Decide = dyn Fn(&str, Option<&Peer>) -> bool + Send + Sync;

#[derive(Clone)]
enum Rule {
    Any,
    Outward,
    SameHost,
    Only(Arc<[String]>),
    By(Arc<Decide>),
}

/// What becomes of a ref that a peer has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not used.
    Forbidden,
    /// It is used.
    Allowed {
        /// Its host name may stand for an address that [`is_inward`].
        inward: bool,
    },
}

impl RefPolicy {
    /// Every address.
    pub fn any() -> RefPolicy {
        RefPolicy(Rule::Any)
    }

    /// The default: every address, but those of this machine alone from peers of this machine alone. That is loopback,
    /// the unspecified address, link-local addresses and Unix sockets, also behind a host name; and peers that are
    /// connected over loopback or a Unix socket. What listens there often trusts whoever can connect.
    pub fn outward() -> RefPolicy {
        RefPolicy(Rule::Outward)
    }

    /// Only the host from which the peer is connected, at any port: a node may hand out refs to itself and to other
    /// nodes of its machine, Unix sockets included if it is this machine. No host name is good, whatever it stands for.
    pub fn same_host() -> RefPolicy {
        RefPolicy(Rule::SameHost)
    }

    /// Only these: hosts (`10.0.0.7`, `db.example`), hosts with a port (`db.example:7077`) and Unix sockets
    /// (`unix:/run/db.sock`), as refs write them.
    pub fn only<T: Into<String>>(addresses: impl IntoIterator<Item = T>) -> RefPolicy {
        RefPolicy(Rule::Only(addresses.into_iter().map(Into::into).collect()))
    }

    /// Those for which this says true, of an address as refs write it and the peer that told it, if that is known: it
    /// is not of a ref in a typed error, nor once the peer has gone. It runs while a message is decoded, on the core's
    /// thread, and must not block.
    pub fn by(decide: impl Fn(&str, Option<&Peer>) -> bool + Send + Sync + 'static) -> RefPolicy {
        RefPolicy(Rule::By(Arc::new(decide)))
    }

    /// What becomes of a ref to `address` that `teller` has told; `near` says that somebody of this machine has, who
    /// may have gone.
    pub fn judge(&self, address: &str, teller: Option<&Peer>, near: bool) -> Verdict {
        let remote = teller.map(Peer::remote);
        let near = near || remote.is_some_and(is_near);
        let (allowed, inward) = match &self.0 {
            Rule::Any => (true, true),
            Rule::Outward => match DialTo::parse(address) {
                Some(DialTo::Tcp(to)) => (near || !is_inward(to.ip()), near),
                Some(DialTo::Unix(_)) => (near, near),
                None => (true, near),
            },
            Rule::SameHost => match (DialTo::parse(address), remote) {
                (Some(DialTo::Tcp(to)), Some(Remote::Tcp(from))) => {
                    let (to, from) = (to.ip().to_canonical(), from.ip().to_canonical());
                    (to == from || near && to.is_loopback(), true)
                }
                (Some(DialTo::Tcp(to)), _) => (near && to.ip().to_canonical().is_loopback(), true),
                (Some(DialTo::Unix(_)), _) => (near, true),
                _ => (false, false),
            },
            Rule::Only(all) => (all.iter().any(|good| good == address || is_host_of(good, address)), true),
            Rule::By(decide) => (decide(address, teller), true),
        };
        if allowed { Verdict::Allowed { inward } } else { Verdict::Forbidden }
    }

    /// How it is written, for errors.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Rule::Any => "RefPolicy::any",
            Rule::Outward => "RefPolicy::outward",
            Rule::SameHost => "RefPolicy::same_host",
            Rule::Only(_) => "RefPolicy::only",
            Rule::By(_) => "RefPolicy::by",
        }
    }
}

impl Default for RefPolicy {
    fn default() -> RefPolicy {
        RefPolicy::outward()
    }
}

impl fmt::Debug for RefPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Only(all) => write!(f, "{}({all:?})", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

/// Whether an address leads to this machine alone, or to a network that ends at its own cable.
pub fn is_inward(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
    }
}

fn is_host_of(host: &str, address: &str) -> bool {
    address.strip_prefix(host).and_then(|rest| rest.strip_prefix(':')).is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::connection_id::ConnectionId;
    use crate::net::roster::{Arrival, Memory, Roster};
    use crate::wire::handshake::Hello;

    fn peer(remote: &str) -> Peer {
        let hello = Hello {
            versions: (1, 1),
            max_frame: 4096,
            cores: 1,
            wanted_core: None,
            incarnation: 1,
            name: "n".into(),
            advertised: None,
            token: None,
            outbox: None,
            given: None,
        };
        let remote = remote.parse().map_or(Remote::Unix, Remote::Tcp);
        let connection = ConnectionId { slot: 0, generation: 0 };
        let arrival = Arrival { core: 0, connection, remote, hello: &hello, dialled: None, now: 0, fresh: 2 };
        Roster::new(1, 1, Memory { nodes: 1, time: Duration::ZERO }).enter(&arrival).unwrap().peer
    }

    #[track_caller]
    fn check(policy: &RefPolicy, teller: Option<&str>, good: &[&str], bad: &[&str]) {
        let teller = teller.map(peer);
        for (addresses, wanted) in [(good, true), (bad, false)] {
            for address in addresses {
                let verdict = policy.judge(address, teller.as_ref(), false);
                assert_eq!(verdict != Verdict::Forbidden, wanted, "{policy:?}: {address} by {teller:?}");
            }
        }
    }

    const LOCAL: [&str; 8] = [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "0.0.0.0:1",
        "169.254.169.254:80",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "[fe80::1]:1",
        "unix:/run/x.sock",
    ];

    #[test]
    fn only_a_peer_of_this_machine_tells_addresses_of_this_machine() {
        let policy = RefPolicy::default();
        let public = ["10.0.0.7:1", "[2001:db8::1]:1", "db.example:1", "localhost:1"];
        for far in [None, Some("10.0.0.1:9"), Some("[2001:db8::2]:9")] {
            check(&policy, far, &public, &LOCAL);
        }
        for near in ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9", "unix"] {
            check(&policy, Some(near), &[LOCAL.as_slice(), &public].concat(), &[]);
        }
        let name = |teller| policy.judge("localhost:1", Some(&peer(teller)), false);
        assert_eq!(name("10.0.0.1:9"), Verdict::Allowed { inward: false }, "what it stands for is judged later");
        assert_eq!(name("127.0.0.1:9"), Verdict::Allowed { inward: true });
    }

    #[test]
    fn a_peer_tells_addresses_of_its_own_host_alone_if_that_is_the_policy() {
        let policy = RefPolicy::same_host();
        check(&policy, Some("10.0.0.1:9"), &["10.0.0.1:1", "[::ffff:10.0.0.1]:1"], &["10.0.0.2:1", "db.example:1"]);
        check(&policy, Some("10.0.0.1:9"), &[], &LOCAL);
        check(&policy, Some("127.0.0.1:9"), &["127.0.0.1:1", "[::1]:1", "unix:/x"], &["10.0.0.1:1", "localhost:1"]);
        check(&policy, Some("unix"), &["127.0.0.1:1", "unix:/x"], &["10.0.0.1:1"]);
        check(&policy, None, &[], &["10.0.0.1:1", "127.0.0.1:1", "unix:/x"]);
    }

    #[test]
    fn a_process_of_this_machine_that_is_not_known_any_more_tells_addresses_of_this_machine() {
        let allowed = |policy: &RefPolicy, address| policy.judge(address, None, true) != Verdict::Forbidden;
        let (outward, same_host) = (RefPolicy::outward(), RefPolicy::same_host());
        assert!(LOCAL.iter().all(|address| allowed(&outward, address)));
        assert_eq!(outward.judge("localhost:1", None, true), Verdict::Allowed { inward: true });
        assert!(["127.0.0.1:1", "[::1]:1", "unix:/x"].iter().all(|address| allowed(&same_host, address)));
        assert!(!allowed(&same_host, "10.0.0.1:1") && !allowed(&same_host, "localhost:1"));
    }

    #[test]
    fn a_list_and_a_function_decide_alone() {
        let policy = RefPolicy::only(["10.0.0.7", "db.example:7077", "[::1]", "unix:/run/x.sock"]);
        let good = ["10.0.0.7:1", "10.0.0.7:2", "db.example:7077", "[::1]:5", "unix:/run/x.sock"];
        check(&policy, None, &good, &["10.0.0.77:1", "db.example:1", "db.example:70777", "unix:/run/x.sock2"]);
        let policy = RefPolicy::by(|address, teller| address == "h:1" && teller.is_some());
        check(&policy, Some("10.0.0.1:9"), &["h:1"], &["h:2"]);
        check(&policy, None, &[], &["h:1"]);
        check(&RefPolicy::any(), None, &LOCAL, &[]);
    }
}
