//! Where an env listens: one socket for each core, all at one address.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{Address, AddressError};
use crate::error::StartError;
use crate::ring::{SetupError, from_io};
use crate::shard::config::Config;
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

/// Listens at `bind`. Of a host name's addresses the first one that can be bound is taken. Waits for one that is taken,
/// up to `Config::port_wait` in all.
pub(crate) fn listen(bind: &str, cores: usize, config: &Config) -> Result<Listening, StartError> {
    let cannot = |cause: String| StartError::Bind { address: bind.into(), cause: cause.into() };
    let wished: Address = bind.parse().map_err(|error: AddressError| cannot(error.to_string()))?;
    let mut pauses = Pauses::new(config.port_wait);
    let (Some(host), Some(port)) = (wished.host(), wished.port()) else {
        let waited = config.port_wait;
        return pauses.retry(|| listen_unix(&wished, cores)).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => cannot(format!(
                "{error}, and that did not change within {waited:?} (Config::port_wait): stop the process that listens \
                 there, or choose another path"
            )),
            _ => cannot(told(&error)),
        });
    };
    let found = (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(|error| cannot(error.to_string()))?;
    listen_on_one_of(found, cores, config.port_retries, &mut pauses).map_err(|failure| match failure {
        None => cannot("the host has no address".into()),
        Some(Failure::Other(error)) => cannot(told(&error)),
        Some(Failure::Taken { last }) => {
            StartError::PortsTaken { host: host.into(), first: port, last, waited: config.port_wait }
        }
    })
}

/// What the system said; a lack of descriptors with its remedy.
fn told(error: &io::Error) -> String {
    match from_io("listen", error) {
        lack @ SetupError::FileLimit { .. } => lack.to_string(),
        _ => error.to_string(),
    }
}

/// The pauses between attempts to bind an address that is taken. The kernel ends the rings of a killed process after
/// the process itself, and closes their sockets only then: 5 to 27 ms later.
struct Pauses {
    next: Duration,
    left: Duration,
}

impl Pauses {
    /// The first pause; each further one is twice as long.
    const FIRST: Duration = Duration::from_millis(1);
    /// The longest one. At a Unix socket each attempt is a connection to whoever listens there.
    const LONGEST: Duration = Duration::from_millis(50);

    /// Pauses of this length in all.
    fn new(limit: Duration) -> Pauses {
        Pauses { next: Pauses::FIRST, left: limit }
    }

    /// Tries again while the address is taken, as long as pauses are left. Any other error is the result at once.
    fn retry<T>(&mut self, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match bind() {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && !self.left.is_zero() => {
                    let pause = self.next.min(self.left);
                    std::thread::sleep(pause);
                    self.left -= pause;
                    self.next = (self.next * 2).min(Pauses::LONGEST);
                }
                result => return result,
            }
        }
    }
}

/// Listens at the first of the addresses that can be bound; otherwise tells what was wrong with the first one.
fn listen_on_one_of(
    addresses: impl Iterator<Item = SocketAddr>,
    cores: usize,
    retries: u16,
    pauses: &mut Pauses,
) -> Result<Listening, Option<Failure>> {
    let mut first = None;
    for address in addresses {
        match listen_from(address, cores, retries, pauses) {
            Ok(listening) => {
                if let Some((taken, Failure::Taken { .. })) = first {
                    let bound = &listening.address;
                    tracing::warn!(target: "ringpost::env", %taken, %bound, "an address of the host is taken: listening at another one");
                }
                return Ok(listening);
            }
            Err(failure) => first = first.or(Some((address, failure))),
        }
    }
    Err(first.map(|(_, failure)| failure))
}

#[derive(Debug)]
enum Failure {
    /// All ports that may be tried are taken, up to this one.
    Taken {
        last: u16,
    },
    Other(io::Error),
}

/// Waits for the port of `address`, and then tries up to `retries` behind it if it is taken.
fn listen_from(mut address: SocketAddr, cores: usize, retries: u16, pauses: &mut Pauses) -> Result<Listening, Failure> {
    let first = address.port();
    let last = if first == 0 { 0 } else { first.saturating_add(retries) };
    for port in first..=last {
        address.set_port(port);
        match pauses.retry(|| listen_on(address, cores)) {
            Ok((sockets, bound)) => {
                if port != first {
                    tracing::warn!(target: "ringpost::env", wished = first, %bound, "the wished port is taken: listening at another one");
                }
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
fn listen_unix(address: &Address, cores: usize) -> io::Result<Listening> {
    let (socket, file) = SocketFile::listen(address.path().unwrap_or_default())?;
    let others = (1..cores).map(|_| socket.try_clone().map(OwnedFd::from)).collect::<io::Result<Vec<_>>>()?;
    let sockets = [OwnedFd::from(socket)].into_iter().chain(others).collect();
    Ok(Listening { sockets, address: address.clone(), unspecified: false, file: Some(file) })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpListener;

    use super::*;

    const TAKEN: io::ErrorKind = io::ErrorKind::AddrInUse;

    #[test]
    fn a_taken_address_is_tried_again_until_it_is_free_or_the_wait_is_over_and_other_errors_are_told_at_once() {
        let attempts = Cell::new(0);
        let bind = |free_at: u32, error: io::ErrorKind| {
            attempts.set(attempts.get() + 1);
            if attempts.get() < free_at { Err(io::Error::from(error)) } else { Ok(attempts.get()) }
        };
        let kind = |error: io::Error| error.kind();
        let mut pauses = Pauses::new(Duration::from_millis(10));
        assert_eq!(pauses.retry(|| bind(3, TAKEN)).map_err(kind), Ok(3));
        assert_eq!((pauses.left, pauses.next), (Duration::from_millis(7), Duration::from_millis(4)));
        attempts.set(0);
        assert_eq!(
            pauses.retry(|| bind(2, io::ErrorKind::AddrNotAvailable)).map_err(kind),
            Err(io::ErrorKind::AddrNotAvailable)
        );
        assert_eq!((attempts.get(), pauses.left), (1, Duration::from_millis(7)));
        attempts.set(0);
        assert_eq!(pauses.retry(|| bind(100, TAKEN)).map_err(kind), Err(TAKEN));
        assert_eq!((attempts.get(), pauses.left), (3, Duration::ZERO), "pauses of 4 and 3 ms were left");
        attempts.set(0);
        assert_eq!(pauses.retry(|| bind(2, TAKEN)).map_err(kind), Err(TAKEN));
        assert_eq!(attempts.get(), 1, "the next address gets no wait of its own");
    }

    #[test]
    fn of_several_addresses_the_first_that_can_be_bound_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap();
        let nobodys: SocketAddr = "192.0.2.1:0".parse().unwrap();
        for hopeless in [taken, nobodys] {
            let free = "127.0.0.1:0".parse().unwrap();
            let listening =
                listen_on_one_of([hopeless, free].into_iter(), 2, 0, &mut Pauses::new(Duration::ZERO)).unwrap();
            assert!(listening.address.host() == Some("127.0.0.1") && listening.sockets.len() == 2);
        }
        let failure =
            listen_on_one_of([taken, nobodys].into_iter(), 1, 0, &mut Pauses::new(Duration::ZERO)).unwrap_err();
        assert!(matches!(failure, Some(Failure::Taken { last }) if last == taken.port()), "{failure:?}");
        let failure =
            listen_on_one_of([nobodys, taken].into_iter(), 1, 0, &mut Pauses::new(Duration::ZERO)).unwrap_err();
        assert!(matches!(failure, Some(Failure::Other(_))), "{failure:?}");
    }
}
