//! A service that keeps files in one directory, with `tokio_uring::fs` inside its handlers.
//!
//! As two processes:
//! ```text
//! cargo run --release --features tokio-uring --example file_service -- serve /srv/files 127.0.0.1:7077
//! cargo run --release --features tokio-uring --example file_service -- put ringpost://files@127.0.0.1:7077 notes.txt < notes.txt
//! cargo run --release --features tokio-uring --example file_service -- get ringpost://files@127.0.0.1:7077 notes.txt > copy.txt
//! cargo run --release --features tokio-uring --example file_service -- list ringpost://files@127.0.0.1:7077
//! cargo run --release --features tokio-uring --example file_service -- remove ringpost://files@127.0.0.1:7077 notes.txt
//! ```
//! Without arguments it plays both sides in one process, in a new directory, and checks what comes back.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use ringpost::{
    AskError, CallContext, CoreSet, Endpoint, EndpointRef, HandleShared, HandlerError, Handlers, Host, RpcEnv, message,
    wire_error,
};
use serde::{Deserialize, Serialize};
use tokio_uring::fs::{File, OpenOptions};

/// The most that travels in one message, and the most that the service holds of a file: far below `Config::max_frame`.
const CHUNK: usize = 1 << 20;
/// Names in one answer to [`List`].
const PAGE: usize = 1000;

/// Writes a piece of a file. A piece at 0 makes the file, or replaces it.
#[derive(Serialize, Deserialize)]
struct Put {
    name: String,
    at: u64,
    chunk: Bytes,
}
message!(Put as "files.Put" => ());

/// Reads a piece of a file: a [`CHUNK`], or less at its end, or nothing behind it.
#[derive(Serialize, Deserialize)]
struct Get {
    name: String,
    at: u64,
}
message!(Get as "files.Get" => Bytes);

/// The names that come after this one, at most a [`PAGE`] of them.
#[derive(Serialize, Deserialize)]
struct List {
    after: String,
}
message!(List as "files.List" => Vec<String>);

#[derive(Serialize, Deserialize)]
struct Remove {
    name: String,
}
message!(Remove as "files.Remove" => ());

/// What the service refuses; it reaches the client as it is.
#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
enum Refused {
    #[error("{0:?} is no name of a file here: it must be one plain name, without slashes")]
    Name(String),
    #[error("there is no file {0:?}")]
    Missing(String),
    #[error("{0:?} is a link or a device, and only files are served")]
    NoFile(String),
    #[error("a chunk of {0} bytes is too long: {CHUNK} at most")]
    TooLong(usize),
}
wire_error!(Refused as "files.Refused");

/// Serves the files that lie directly in one directory.
struct Files {
    directory: PathBuf,
}

impl Files {
    /// Where the file with this name lies. One plain name cannot lead out of the directory: no slash, no `..`.
    fn path(&self, name: &str) -> Result<PathBuf, HandlerError> {
        let plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']) && name.len() <= 255;
        if plain { Ok(self.directory.join(name)) } else { Err(HandlerError::typed(Refused::Name(name.into()))) }
    }

    /// Opens a file, but nothing that a link points to, nor anything that is no file.
    async fn open(&self, name: &str, options: &mut OpenOptions) -> Result<File, HandlerError> {
        // O_NONBLOCK: a named pipe would wait for its other end.
        let opened = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(self.path(name)?).await;
        let file = opened.map_err(|error| refusal(name, error))?;
        let regular = u32::from(file.statx().await?.stx_mode) & libc::S_IFMT == libc::S_IFREG;
        if regular { Ok(file) } else { Err(HandlerError::typed(Refused::NoFile(name.into()))) }
    }
}

fn refusal(name: &str, error: io::Error) -> HandlerError {
    match error.raw_os_error() {
        Some(libc::ENOENT) => HandlerError::typed(Refused::Missing(name.into())),
        Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => HandlerError::typed(Refused::NoFile(name.into())),
        _ => error.into(),
    }
}

impl Endpoint for Files {
    fn handlers(handlers: &mut Handlers<Self>) {
        // While one handler waits for the disk, others go on.
        handlers.concurrency(64).ask_shared::<Put>().ask_shared::<Get>().ask_shared::<List>().ask_shared::<Remove>();
    }
}

impl HandleShared<Put> for Files {
    async fn handle(&self, Put { name, at, chunk }: Put, _: &mut CallContext) -> Result<(), HandlerError> {
        if chunk.len() > CHUNK {
            return Err(HandlerError::typed(Refused::TooLong(chunk.len())));
        }
        let first = at == 0;
        let file = self.open(&name, OpenOptions::new().write(true).create(first).truncate(first)).await?;
        file.write_all_at(chunk, at).await.0?;
        Ok(file.close().await?)
    }
}

impl HandleShared<Get> for Files {
    async fn handle(&self, Get { name, at }: Get, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        let file = self.open(&name, OpenOptions::new().read(true)).await?;
        let left = file.statx().await?.stx_size.saturating_sub(at).min(CHUNK as u64);
        let (read, mut chunk) = file.read_at(Vec::with_capacity(left as usize), at).await;
        chunk.truncate(read?);
        file.close().await?;
        Ok(chunk.into())
    }
}

impl HandleShared<List> for Files {
    async fn handle(&self, List { after }: List, _: &mut CallContext) -> Result<Vec<String>, HandlerError> {
        let directory = self.directory.clone();
        // The ring cannot list directories, so a thread of tokio's pool does.
        let names = tokio::task::spawn_blocking(move || names(&directory, &after));
        Ok(names.await??)
    }
}

fn names(directory: &Path, after: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string().ok().filter(|name| name.as_str() > after));
        }
    }
    names.sort_unstable();
    names.truncate(PAGE);
    Ok(names)
}

impl HandleShared<Remove> for Files {
    async fn handle(&self, Remove { name }: Remove, _: &mut CallContext) -> Result<(), HandlerError> {
        // Of a link this removes the link.
        tokio_uring::fs::remove_file(self.path(&name)?).await.map_err(|error| refusal(&name, error))
    }
}

/// Serves a directory, with an instance on each core.
fn serve(directory: &Path, address: &str) -> Result<(RpcEnv, EndpointRef), Box<dyn Error>> {
    let directory = directory.canonicalize()?;
    let env = RpcEnv::builder("file-service").host(Host::TokioUring).bind(address).start()?;
    let files = env.register_per_core("files", move |_core| Files { directory: directory.clone() })?;
    Ok((env, files))
}

fn put(files: &EndpointRef, name: &str, mut from: impl Read) -> Result<u64, Box<dyn Error>> {
    let mut at = 0;
    loop {
        let mut chunk = Vec::new();
        from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        let length = chunk.len() as u64;
        if length == 0 && at > 0 {
            return Ok(at);
        }
        files.ask_blocking(Put { name: name.into(), at, chunk: chunk.into() })?;
        at += length;
        if length < CHUNK as u64 {
            return Ok(at);
        }
    }
}

fn get(files: &EndpointRef, name: &str, mut to: impl Write) -> Result<u64, Box<dyn Error>> {
    let mut at = 0;
    loop {
        let chunk = files.ask_blocking(Get { name: name.into(), at })?;
        if chunk.is_empty() {
            to.flush()?;
            return Ok(at);
        }
        to.write_all(&chunk)?;
        at += chunk.len() as u64;
    }
}

fn list(files: &EndpointRef) -> Result<Vec<String>, AskError> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let page = files.ask_blocking(List { after: names.last().cloned().unwrap_or_default() })?;
        if page.is_empty() {
            return Ok(names);
        }
        names.extend(page);
    }
}

/// Both sides in one process, over a real connection.
fn check() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("ringpost-files-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    std::os::unix::fs::symlink("/etc/hostname", directory.join("link"))?;
    let (service, own) = serve(&directory, "127.0.0.1:0")?;
    let client = RpcEnv::builder("file-client").cores(CoreSet::count(1)).start()?;
    let files = client.lookup_blocking(&own.to_string())?;

    for length in [0, 1, CHUNK, 3 * CHUNK + 17] {
        let sent: Vec<u8> = (0..length).map(|at| (at ^ (at >> 8)) as u8).collect();
        assert_eq!(put(&files, "stored", &sent[..])?, length as u64);
        let mut read = Vec::new();
        get(&files, "stored", &mut read)?;
        assert!(read == sent, "what comes back is what was stored: {length} bytes");
    }
    assert_eq!(list(&files)?, ["stored"]);
    for (name, refused) in [
        ("../escape", Refused::Name("../escape".into())),
        ("/etc/hostname", Refused::Name("/etc/hostname".into())),
        ("..", Refused::Name("..".into())),
        ("link", Refused::NoFile("link".into())),
        ("nothing", Refused::Missing("nothing".into())),
    ] {
        let error = files.ask_blocking(Get { name: name.into(), at: 0 }).expect_err("it is refused");
        println!("{error}");
        assert_eq!(error.downcast::<Refused>(), Some(refused));
    }
    let through = files.ask_blocking(Put { name: "link".into(), at: 0, chunk: Bytes::from_static(b"!") });
    assert_eq!(through.expect_err("it is refused").downcast::<Refused>(), Some(Refused::NoFile("link".into())));
    files.ask_blocking(Remove { name: "stored".into() })?;
    assert!(list(&files)?.is_empty());

    for env in [client, service] {
        env.shutdown(Duration::from_secs(10));
        env.await_termination()?;
    }
    std::fs::remove_dir_all(&directory)?;
    println!("stored, read back, compared and removed");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["serve", directory, address] = arguments[..] {
        let (env, files) = serve(Path::new(directory), address)?;
        println!("{files}");
        return Ok(env.await_termination()?);
    }
    let [command, uri, ref rest @ ..] = arguments[..] else { return check() };
    let client = RpcEnv::builder("file-client").cores(CoreSet::count(1)).start()?;
    let files = client.lookup_blocking(uri)?;
    match (command, rest) {
        ("put", [name]) => eprintln!("{} bytes stored", put(&files, name, io::stdin().lock())?),
        ("get", [name]) => eprintln!("{} bytes read", get(&files, name, io::stdout().lock())?),
        ("list", []) => list(&files)?.iter().for_each(|name| println!("{name}")),
        ("remove", [name]) => files.ask_blocking(Remove { name: (*name).into() })?,
        _ => return Err("put, get, list or remove, the URI of the service, and a name".into()),
    }
    Ok(())
}
