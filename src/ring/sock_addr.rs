//! A socket address in the form the kernel reads.

use std::fmt;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::ptr;

/// Bytes that the path of a Unix socket has at most: the kernel's 108, less the zero at the end.
pub const MAX_UNIX_PATH: usize = 107;

/// Where to connect to: an address of IPv4 or IPv6 (`From<SocketAddr>`), or the path of a Unix socket.
///
/// The kernel gets a pointer to it, so it lives in a box beside its socket until the connect has completed.
#[derive(Clone, Copy)]
pub struct SockAddr(Form);

#[derive(Clone, Copy)]
enum Form {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
    /// With the length of the path.
    Unix(libc::sockaddr_un, usize),
}

impl SockAddr {
    /// The address of the Unix socket with this path. None if the path is empty, longer than [`MAX_UNIX_PATH`], or
    /// holds a zero byte.
    #[must_use]
    pub fn unix(path: &str) -> Option<SockAddr> {
        if path.is_empty() || path.len() > MAX_UNIX_PATH || path.contains('\0') {
            return None;
        }
        let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
        for (to, byte) in address.sun_path.iter_mut().zip(path.bytes()) {
            *to = byte as libc::c_char;
        }
        Some(SockAddr(Form::Unix(address, path.len())))
    }

    /// The family of sockets that can connect to it: `AF_INET`, `AF_INET6` or `AF_UNIX`.
    #[must_use]
    pub fn family(&self) -> i32 {
        match self.0 {
            Form::V4(_) => libc::AF_INET,
            Form::V6(_) => libc::AF_INET6,
            Form::Unix(..) => libc::AF_UNIX,
        }
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        match &self.0 {
            Form::V4(address) => ptr::from_ref(address).cast(),
            Form::V6(address) => ptr::from_ref(address).cast(),
            Form::Unix(address, _) => ptr::from_ref(address).cast(),
        }
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        let bytes = match self.0 {
            Form::V4(_) => size_of::<libc::sockaddr_in>(),
            Form::V6(_) => size_of::<libc::sockaddr_in6>(),
            Form::Unix(_, path) => offset_of!(libc::sockaddr_un, sun_path) + path + 1,
        };
        bytes as libc::socklen_t
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> SockAddr {
        match address {
            SocketAddr::V4(v4) => SockAddr(Form::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            })),
            SocketAddr::V6(v6) => SockAddr(Form::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            })),
        }
    }
}

impl fmt::Debug for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SockAddr(family {}, {} bytes)", self.family(), self.len())
    }
}
