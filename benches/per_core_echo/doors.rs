//! Where a server listens, and the many addresses it is reached under.
//!
//! An env has one connection to an address, so as many connections take as many addresses: 127.0.x.y for a server that
//! listens on all of them, symbolic links for the one file of a Unix socket.

use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use ringpost::{Address, RpcEnv};

use crate::Error;
use crate::plan::Path;

/// The doors of one server.
///
/// Dropping it removes what it made in the file system.
pub(crate) enum Doors {
    /// Every loopback address, one port.
    Tcp { connections: usize },
    /// A folder with the socket and its links.
    Unix { connections: usize, folder: PathBuf },
}

impl Doors {
    /// Doors for so many connections.
    pub(crate) fn new(path: Path, connections: usize) -> Result<Doors, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if path != Path::Unix {
            return Ok(Doors::Tcp { connections });
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("per_core_echo-{}-{number}", process::id()));
        fs::create_dir(&folder)?;
        let doors = Doors::Unix { connections, folder };
        doors.link()?;
        Ok(doors)
    }

    fn link(&self) -> Result<(), Error> {
        if let Doors::Unix { connections, folder } = self {
            (0..*connections).try_for_each(|index| symlink("socket", folder.join(index.to_string())))?;
        }
        Ok(())
    }

    /// What the server binds to.
    pub(crate) fn bind(&self) -> String {
        match self {
            Doors::Tcp { .. } => "0.0.0.0:0".into(),
            Doors::Unix { folder, .. } => unix(&folder.join("socket")),
        }
    }

    /// An address for each connection to the server, which got this port if it has one.
    pub(crate) fn addresses(&self, port: Option<u16>) -> Result<Vec<String>, Error> {
        match self {
            Doors::Tcp { connections } => {
                let port = port.ok_or("the server has no port")?;
                Ok((0..*connections).map(|index| format!("{}:{port}", loopback(index))).collect())
            }
            Doors::Unix { connections, folder } => {
                Ok((0..*connections).map(|index| unix(&folder.join(index.to_string()))).collect())
            }
        }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        if let Doors::Unix { folder, .. } = self {
            // A folder that stays behind in the temporary files does no harm.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The port that a server got.
pub(crate) fn port(server: &RpcEnv) -> Option<u16> {
    server.address().and_then(Address::port)
}

fn unix(path: &FilePath) -> String {
    format!("unix:{}", path.display())
}

/// 127.0.0.1, 127.0.0.2 and so on, without the last bytes 0 and 255.
fn loopback(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, (index / 254) as u8, (index % 254 + 1) as u8)
}
