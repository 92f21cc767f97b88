//! Who is at the other end of a socket.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The other end of a connection, as its socket tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remote {
    /// This socket address. An accepted connection has the port of the connecting socket, not one that anybody listens
    /// on.
    Tcp(SocketAddr),
    /// A process of this machine. A socket that connects to a Unix socket has no name of its own.
    Unix,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remote::Tcp(address) => address.fmt(f),
            Remote::Unix => f.write_str("a process behind a Unix socket"),
        }
    }
}

/// Whether a peer is a process of this machine, as far as its socket tells.
pub fn is_near(remote: Remote) -> bool {
    match remote {
        Remote::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Remote::Unix => true,
    }
}

/// What a socket can connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialTo {
    /// An address of TCP.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<str>),
}

impl DialTo {
    /// What an address in its text form stands for; none if that is a host name, to be resolved first.
    pub fn parse(address: &str) -> Option<DialTo> {
        match address.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Some(DialTo::Unix(path.into())),
            _ => address.parse().ok().map(DialTo::Tcp),
        }
    }

    /// The other end of a connection to it.
    pub fn remote(&self) -> Remote {
        match self {
            DialTo::Tcp(address) => Remote::Tcp(*address),
            DialTo::Unix(_) => Remote::Unix,
        }
    }
}
