//! Where a node listens, and how an endpoint is written down.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::dispatch::directory::is_valid_name;

/// The scheme of an endpoint's URI.
pub(crate) const SCHEME: &str = "ringpost";

/// A host and a port. IPv6 hosts are written in brackets, in their compressed form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: Arc<str>,
    port: u16,
}

impl Address {
    /// The address of this host and port. An IPv6 host may come with or without its brackets.
    pub fn new(host: &str, port: u16) -> Result<Address, AddressError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare.unwrap_or(host).parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) if bare.is_some() => return Err(AddressError::new(host, "no IPv6 address is in the brackets")),
            Err(_) => host.to_ascii_lowercase(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() {
            return Err(AddressError::new("", "the host is missing"));
        }
        if !host.ends_with(']') && !host.chars().all(plain) {
            return Err(AddressError::new(&host, "the host holds characters that no host name has"));
        }
        Ok(Address { host: host.into(), port })
    }

    /// The host; with its brackets if it is an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Address { host: host.into(), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::new(text, "the port is missing"))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(AddressError::new(text, "an IPv6 address needs brackets before a port"));
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|_| digits);
        let port = port.ok_or_else(|| AddressError::new(text, "the port is no number from 0 to 65535"))?;
        Address::new(host, port).map_err(|error| AddressError { text: text.into(), ..error })
    }
}

/// The URI of an endpoint: `ringpost://name@host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointUri {
    /// The endpoint's name.
    pub(crate) name: Arc<str>,
    /// Its node's address.
    pub(crate) address: Address,
}

impl fmt::Display for EndpointUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}://{}@{}", self.name, self.address)
    }
}

impl FromStr for EndpointUri {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<EndpointUri, AddressError> {
        let bad = |problem| AddressError::new(text, problem);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it does not begin with ringpost://"))?;
        if scheme != SCHEME {
            return Err(bad("its scheme is not ringpost"));
        }
        let (name, address) = rest.split_once('@').ok_or_else(|| bad("the endpoint's name and its @ are missing"))?;
        if !is_valid_name(name) {
            return Err(bad("the part before the @ is no endpoint name"));
        }
        if address.contains(['/', '?', '#']) {
            return Err(bad("it has a path, a query or a fragment"));
        }
        let address: Address = address.parse().map_err(|error: AddressError| bad(error.problem))?;
        if address.port == 0 {
            return Err(bad("port 0 is no port to connect to"));
        }
        Ok(EndpointUri { name: name.into(), address })
    }
}

/// A text is no address, or no URI of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be used: {problem}; an endpoint is written ringpost://name@host:port, an address host:port")]
pub struct AddressError {
    text: Arc<str>,
    problem: &'static str,
}

impl AddressError {
    fn new(text: &str, problem: &'static str) -> AddressError {
        AddressError { text: text.into(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_survive_the_trip_and_ipv6_is_written_one_way() {
        for (text, written) in [
            ("ringpost://bank@127.0.0.1:7077", "ringpost://bank@127.0.0.1:7077"),
            ("ringpost://bank@Host-1.example:1", "ringpost://bank@host-1.example:1"),
            ("ringpost://bank@[0:0:0:0:0:0:0:1]:65535", "ringpost://bank@[::1]:65535"),
        ] {
            assert_eq!(text.parse::<EndpointUri>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_wrong_with_a_uri_is_said() {
        for (text, problem) in [
            ("bank@h:1", "does not begin"),
            ("spark://bank@h:1", "scheme"),
            ("ringpost://h:1", "name"),
            ("ringpost://@h:1", "no endpoint name"),
            ("ringpost://a b@h:1", "no endpoint name"),
            ("ringpost://bank@h", "port is missing"),
            ("ringpost://bank@h:", "no number"),
            ("ringpost://bank@h:+1", "no number"),
            ("ringpost://bank@h:65536", "no number"),
            ("ringpost://bank@h:0", "port 0"),
            ("ringpost://bank@:1", "host is missing"),
            ("ringpost://bank@::1:1", "brackets"),
            ("ringpost://bank@[x]:1", "brackets"),
            ("ringpost://bank@h:1/x", "path"),
            ("ringpost://bank@h_ü:1", "characters"),
        ] {
            let error = text.parse::<EndpointUri>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(text), "{text}: {error}");
        }
    }
}
