//! The file of a Unix socket that an env listens on.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The file of a Unix socket, which goes when this is dropped, unless another env has put its own in its place.
///
/// A crash leaves the file behind with nobody who accepts: the next env that binds the path replaces it. Two that do so
/// at the same moment take turns, by a lock on the directory, so that neither takes the file of the other away.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Holds the file's number, so that no other file gets it. It cannot be read or written through.
    identity: File,
}

impl SocketFile {
    /// Listens on this path.
    ///
    /// # Errors
    /// `AddrInUse` if somebody accepts there, `AlreadyExists` if the file is no socket; whatever the system says
    /// otherwise.
    pub fn listen(path: &str) -> io::Result<(Socket, SocketFile)> {
        let path = PathBuf::from(path);
        let _turn = lock_directory_of(&path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = SockAddr::unix(&path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                check_stale(&path, &address)?;
                fs::remove_file(&path)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let identity = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(&path)?;
        let file = SocketFile { path, identity };
        socket.listen(BACKLOG)?;
        Ok((socket, file))
    }

    fn remove(&self) -> io::Result<()> {
        let _turn = lock_directory_of(&self.path)?;
        let (there, ours) = (fs::symlink_metadata(&self.path)?, self.identity.metadata()?);
        if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        match self.remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(target: "ringpost::env", path = %self.path.display(), %error, "the file of a socket stays behind");
            }
            _ => {}
        }
    }
}

/// Makes others that bind or remove a socket in the same directory wait, as long as the result lives.
fn lock_directory_of(path: &Path) -> io::Result<File> {
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    directory.lock()?;
    Ok(directory)
}

/// Whether the file at `path` is a socket that nobody listens on.
fn check_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let cause = "a file that is no socket is there: choose another path, or remove it";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, cause));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener with a full queue would have it wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A socket of another type, a full queue, a lack of permission: somebody has it.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of this test alone, with nothing there.
    fn path(test: &str) -> String {
        let path = std::env::temp_dir().join(format!("ringpost-{}-{test}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_file_goes_with_its_listener_unless_another_has_replaced_it() {
        let path = path("goes");
        let (_first, file) = SocketFile::listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (_second, replacement) = SocketFile::listen(&path).unwrap();
        drop(file);
        assert!(fs::exists(&path).unwrap(), "the first takes away its own file only");
        drop(replacement);
        assert!(!fs::exists(&path).unwrap());
    }

    #[test]
    fn a_stale_file_is_replaced_and_what_is_in_use_is_not() {
        let path = path("stale");
        let (socket, file) = SocketFile::listen(&path).unwrap();
        let taken = SocketFile::listen(&path).unwrap_err();
        assert!(taken.kind() == io::ErrorKind::AddrInUse && taken.to_string().contains("listens"), "{taken}");
        std::mem::forget(file);
        drop(socket);
        drop(SocketFile::listen(&path).unwrap());
        fs::write(&path, "letters").unwrap();
        let taken = SocketFile::listen(&path).unwrap_err();
        assert!(taken.kind() == io::ErrorKind::AlreadyExists && taken.to_string().contains("no socket"), "{taken}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "letters");
        fs::remove_file(&path).unwrap();
    }
}
