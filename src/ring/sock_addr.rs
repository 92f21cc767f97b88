//! A socket address in the form the kernel reads.

use std::net::SocketAddr;
use std::ptr;

/// `sockaddr_in` or `sockaddr_in6`.
///
/// The kernel gets a pointer to it, so it lives in a box beside its socket until the connect has completed.
#[derive(Clone, Copy, Debug)]
pub(super) enum SockAddr {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl SockAddr {
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        match self {
            SockAddr::V4(address) => ptr::from_ref(address).cast(),
            SockAddr::V6(address) => ptr::from_ref(address).cast(),
        }
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        let bytes = match self {
            SockAddr::V4(_) => size_of::<libc::sockaddr_in>(),
            SockAddr::V6(_) => size_of::<libc::sockaddr_in6>(),
        };
        bytes as libc::socklen_t
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> SockAddr {
        match address {
            SocketAddr::V4(v4) => SockAddr::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => SockAddr::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }
}
