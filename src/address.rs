//! Where a node listens, and how an endpoint is written down.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::dispatch::directory::is_valid_name;
use crate::ring::MAX_UNIX_PATH;

/// The scheme of an endpoint's URI.
pub(crate) const SCHEME: &str = "ringpost";
/// The scheme of the URI of an endpoint whose node does not listen.
const CLIENT_SCHEME: &str = "ringpost-client";

/// Begins the text form of a Unix socket's address.
const UNIX: &str = "unix:";

/// Where a node listens: a host and a port of TCP, or the path of a Unix socket.
///
/// Written `host:port` or `unix:/path`. IPv6 hosts are written in brackets, in their compressed form; a path is
/// absolute, so that it means the same to every process of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Tcp { host: Arc<str>, port: u16 },
    Unix(Arc<str>),
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
        Ok(Address(Kind::Tcp { host: host.into(), port }))
    }

    /// The address of a Unix socket: an absolute path of at most 107 bytes, without control characters, white space
    /// and `?#@`, and not that of a directory.
    pub fn unix(path: &str) -> Result<Address, AddressError> {
        let bad = |problem| Err(AddressError::new(path, problem));
        if !path.starts_with('/') {
            return bad("the path of a Unix socket begins with /");
        }
        if path.ends_with('/') {
            return bad("the path is that of a directory, not of a Unix socket");
        }
        if path.len() > MAX_UNIX_PATH {
            return bad("the path of a Unix socket has at most 107 bytes");
        }
        if path.contains(|c: char| c.is_control() || c.is_whitespace() || "?#@".contains(c)) {
            return bad("the path of a Unix socket holds a control character, white space or one of ?#@");
        }
        Ok(Address(Kind::Unix(path.into())))
    }

    /// The host, with its brackets if it is an IPv6 address; none of a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match &self.0 {
            Kind::Tcp { host, .. } => Some(host),
            Kind::Unix(_) => None,
        }
    }

    /// The port; none of a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Kind::Tcp { port, .. } => Some(*port),
            Kind::Unix(_) => None,
        }
    }

    /// The path of a Unix socket; none of a host and port.
    pub fn path(&self) -> Option<&str> {
        match &self.0 {
            Kind::Tcp { .. } => None,
            Kind::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Address(Kind::Tcp { host: host.into(), port: address.port() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp { host, port } => write!(f, "{host}:{port}"),
            Kind::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let with_text = |error| AddressError { text: text.into(), ..error };
        // A host may have the name `unix` too.
        if let Some(path) = text.strip_prefix(UNIX)
            && !(path.is_empty() || path.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Address::unix(path).map_err(with_text);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::new(text, "the port is missing"))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(AddressError::new(text, "an IPv6 address needs brackets before a port"));
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|_| digits);
        let port = port.ok_or_else(|| AddressError::new(text, "the port is no number from 0 to 65535"))?;
        Address::new(host, port).map_err(with_text)
    }
}

/// The URI of an endpoint: `ringpost://name@host:port` or `ringpost://name@unix:/path`, or, if its node does not listen,
/// `ringpost-client://name@id` with the 16 hexadecimal digits of the node's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointUri {
    /// The endpoint's name.
    pub(crate) name: Arc<str>,
    /// Its node.
    pub(crate) node: NodeAddress,
}

/// How a node is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NodeAddress {
    /// It listens there.
    Listening(Address),
    /// It listens nowhere, and has this id.
    Client(u64),
}

impl EndpointUri {
    /// The URI of the endpoint with this name at this address.
    pub(crate) fn new(address: Address, name: &str) -> Result<EndpointUri, AddressError> {
        let bad = |problem| Err(AddressError::new(&format!("{SCHEME}://{name}@{address}"), problem));
        if !is_valid_name(name) {
            return bad("the part before the @ is no endpoint name");
        }
        if address.port() == Some(0) {
            return bad("port 0 is no port to connect to");
        }
        Ok(EndpointUri { name: name.into(), node: NodeAddress::Listening(address) })
    }

    /// The URI of the endpoint with this name of a node that does not listen.
    pub(crate) fn of_client(node: u64, name: &str) -> EndpointUri {
        EndpointUri { name: name.into(), node: NodeAddress::Client(node) }
    }
}

impl fmt::Display for EndpointUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            NodeAddress::Listening(address) => write!(f, "{SCHEME}://{}@{address}", self.name),
            NodeAddress::Client(node) => write!(f, "{CLIENT_SCHEME}://{}@{node:016x}", self.name),
        }
    }
}

impl FromStr for EndpointUri {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<EndpointUri, AddressError> {
        let bad = |problem| AddressError::new(text, problem);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it does not begin with ringpost://"))?;
        if scheme != SCHEME && scheme != CLIENT_SCHEME {
            return Err(bad("its scheme is not ringpost"));
        }
        let (name, address) = rest.split_once('@').ok_or_else(|| bad("the endpoint's name and its @ are missing"))?;
        if !is_valid_name(name) {
            return Err(bad("the part before the @ is no endpoint name"));
        }
        if scheme == CLIENT_SCHEME {
            let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let id = Some(address).filter(|id| id.len() == 16 && id.bytes().all(digit));
            let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
            let id = id.ok_or_else(|| bad("a node's id has 16 hexadecimal digits, in lower case"))?;
            return Ok(EndpointUri::of_client(id, name));
        }
        if address.contains(['/', '?', '#']) && !address.starts_with(UNIX) {
            return Err(bad("it has a path, a query or a fragment"));
        }
        let address: Address = address.parse().map_err(|error: AddressError| bad(error.problem))?;
        EndpointUri::new(address, name).map_err(|error| bad(error.problem))
    }
}

/// A text is no address, or no URI of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot be used: {problem}; an address is written host:port or unix:/path, an endpoint ringpost://name@address"
)]
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
            ("ringpost://bank@unix:/run/Bank.sock", "ringpost://bank@unix:/run/Bank.sock"),
            ("ringpost://bank@unix:/run/a:7077", "ringpost://bank@unix:/run/a:7077"),
            ("ringpost://bank@unix:7077", "ringpost://bank@unix:7077"),
            ("ringpost-client://bank@00000000000000ff", "ringpost-client://bank@00000000000000ff"),
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
            ("ringpost-client://bank@h:1", "16 hexadecimal digits"),
            ("ringpost-client://bank@00000000000000FF", "lower case"),
            ("ringpost-client://bank@0000000000000001/", "16 hexadecimal digits"),
            ("ringpost-client://bank@000000000000001", "16 hexadecimal digits"),
            ("ringpost-client://@0000000000000001", "no endpoint name"),
            ("ringpost://bank@unix:", "no number"),
            ("ringpost://bank@unix:run/x", "begins with /"),
            ("ringpost://bank@unix:/run/", "directory"),
            ("ringpost://bank@unix:/run/a b", "white space"),
            ("ringpost://bank@unix:/run/a?b", "one of ?#@"),
            ("ringpost://bank@unix:/run/a#b", "one of ?#@"),
            ("ringpost://bank@unix:/run/a@b", "one of ?#@"),
        ] {
            let error = text.parse::<EndpointUri>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_path_fits_the_kernels_structure_or_is_refused() {
        let longest = format!("/{}", "x".repeat(MAX_UNIX_PATH - 1));
        assert_eq!(Address::unix(&longest).unwrap().path(), Some(&*longest));
        let error = format!("unix:{longest}x").parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("at most 107 bytes"), "{error}");
        assert!(Address::unix("/a\0b").is_err() && Address::unix("").is_err());
    }

    #[test]
    fn an_address_tells_its_parts() {
        let parts = |text: &str| {
            let address: Address = text.parse().unwrap();
            let text = |part: Option<&str>| part.map(str::to_owned);
            (text(address.host()), address.port(), text(address.path()))
        };
        assert_eq!(parts("H:1"), (Some("h".into()), Some(1), None));
        assert_eq!(parts("unix:/x"), (None, None, Some("/x".into())));
    }
}
