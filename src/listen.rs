//! Where an env listens: one socket for each core, all at one address.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{Address, AddressError};
use crate::error::StartError;
use crate::shard::socket_file::SocketFile;

/// Connections that wait to be accepted, per core; the kernel lowers it to `net.core.somaxconn`, which is 4,096 unless
/// it was changed.
const BACKLOG: i32 = 4096;

/// The listening sockets of an env.
#[derive(Debug)]
pub(crate) struct Listening {
    /// One for each core.
    pub(crate) sockets: Vec<OwnedFd>,
    /// What was bound.
    pub(crate) address: Address,
    /// Whether that means every address of this machine, and to another machine nothing.
    pub(crate) unspecified: bool,
    /// The file of a Unix socket.
    pub(crate) file: Option<SocketFile>,
}

/// Listens at `bind`. Of a host name's addresses the first one that can be bound is taken.
pub(crate) fn listen(bind: &str, cores: usize, retries: u16) -> Result<Listening, StartError> {
    let cannot = |cause: String| StartError::Bind { address: bind.into(), cause: cause.into() };
    let wished: Address = bind.parse().map_err(|error: AddressError| cannot(error.to_string()))?;
    let (Some(host), Some(port)) = (wished.host(), wished.port()) else {
        return listen_unix(wished, cores).map_err(|error| cannot(error.to_string()));
    };
    let found = (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(|error| cannot(error.to_string()))?;
    listen_on_one_of(found, cores, retries).map_err(|failure| match failure {
        None => cannot("the host has no address".into()),
        Some(Failure::Other(error)) => cannot(error.to_string()),
        Some(Failure::Taken { last }) => StartError::PortsTaken { host: host.into(), first: port, last },
    })
}

/// Listens at the first of the addresses that can be bound; otherwise tells what was wrong with the first one.
fn listen_on_one_of(
    addresses: impl Iterator<Item = SocketAddr>,
    cores: usize,
    retries: u16,
) -> Result<Listening, Option<Failure>> {
    let mut first = None;
    for address in addresses {
        match listen_from(address, cores, retries) {
            Ok(listening) => return Ok(listening),
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first)
}

#[derive(Debug)]
enum Failure {
    /// All ports that may be tried are taken, up to this one.
    Taken {
        last: u16,
    },
    Other(io::Error),
}

/// Tries the port of `address`, and up to `retries` behind it if it is taken.
fn listen_from(mut address: SocketAddr, cores: usize, retries: u16) -> Result<Listening, Failure> {
    let first = address.port();
    let last = if first == 0 { 0 } else { first.saturating_add(retries) };
    for port in first..=last {
        address.set_port(port);
        match listen_on(address, cores) {
            Ok((sockets, bound)) => {
                let unspecified = bound.ip().is_unspecified();
                return Ok(Listening { sockets, address: bound.into(), unspecified, file: None });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(Failure::Other(error)),
        }
    }
    Err(Failure::Taken { last })
}

fn listen_on(mut address: SocketAddr, cores: usize) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let domain = Domain::for_address(address);
    let open = || Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
    // The first socket listens without SO_REUSEPORT: two envs must not share a port by accident. Only `listen` settles
    // who has it, since SO_REUSEADDR, which passes lingering connections of an earlier run, lets two sockets bind. The
    // first opens the port for the others while it holds it.
    let first = open()?;
    first.set_reuse_address(true)?;
    first.bind(&address.into())?;
    first.listen(BACKLOG)?;
    if address.port() == 0 {
        let bound = first.local_addr()?.as_socket();
        address.set_port(bound.map_or(0, |bound| bound.port()));
    }
    first.set_reuse_port(true)?;
    let listener = |_| {
        let socket = open()?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(OwnedFd::from(socket))
    };
    let others = (1..cores).map(listener);
    let listeners: io::Result<Vec<OwnedFd>> = [Ok(OwnedFd::from(first))].into_iter().chain(others).collect();
    Ok((listeners?, address))
}

/// A path has one socket, so the cores share it.
fn listen_unix(address: Address, cores: usize) -> io::Result<Listening> {
    let (socket, file) = SocketFile::listen(address.path().unwrap_or_default())?;
    let others = (1..cores).map(|_| socket.try_clone().map(OwnedFd::from)).collect::<io::Result<Vec<_>>>()?;
    let sockets = [OwnedFd::from(socket)].into_iter().chain(others).collect();
    Ok(Listening { sockets, address, unspecified: false, file: Some(file) })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn of_several_addresses_the_first_that_can_be_bound_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap();
        let nobodys: SocketAddr = "192.0.2.1:0".parse().unwrap();
        for hopeless in [taken, nobodys] {
            let free = "127.0.0.1:0".parse().unwrap();
            let listening = listen_on_one_of([hopeless, free].into_iter(), 2, 0).unwrap();
            assert!(listening.address.host() == Some("127.0.0.1") && listening.sockets.len() == 2);
        }
        let failure = listen_on_one_of([taken, nobodys].into_iter(), 1, 0).unwrap_err();
        assert!(matches!(failure, Some(Failure::Taken { last }) if last == taken.port()), "{failure:?}");
        let failure = listen_on_one_of([nobodys, taken].into_iter(), 1, 0).unwrap_err();
        assert!(matches!(failure, Some(Failure::Other(_))), "{failure:?}");
    }
}
