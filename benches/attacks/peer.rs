//! A connection of an attacker.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::frames::{REPLY, failure_code, hello};

/// What came back.
#[derive(Default)]
pub(crate) struct Tally {
    replies: u64,
    failures: BTreeMap<u16, u64>,
}

impl Tally {
    fn add(&mut self, frame: &[u8]) {
        if let Some(code) = failure_code(frame) {
            *self.failures.entry(code).or_default() += 1;
        } else if frame[4] == REPLY {
            self.replies += 1;
        }
    }

    /// Answers that show an endpoint: everything but failure 1.
    pub(crate) fn hits(&self) -> u64 {
        self.replies + self.failures.iter().filter(|(code, _)| **code != 1).map(|(_, count)| count).sum::<u64>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replies", self.replies)?;
        self.failures.iter().try_for_each(|(code, count)| write!(f, ", {count} x failure {code}"))
    }
}

/// A connection that has said its hello. A thread takes whatever comes back, so that the server never waits for us.
pub(crate) struct Peer {
    stream: TcpStream,
    reader: JoinHandle<Tally>,
}

impl Peer {
    pub(crate) fn greet(server: &str, incarnation: u64) -> io::Result<Peer> {
        let (stream, rest) = greet(server, incarnation)?;
        let reading = stream.try_clone()?;
        Ok(Peer { stream, reader: thread::spawn(move || count_frames(reading, rest)) })
    }

    /// Sends; an error when the server has closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits a moment for the last answers, and closes.
    pub(crate) fn end(self) -> Tally {
        thread::sleep(Duration::from_millis(50));
        // The server may have been quicker.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.reader.join().unwrap_or_default()
    }
}

/// Connects, says hello and waits for the answer; what has come behind it comes back too.
pub(crate) fn greet(server: &str, incarnation: u64) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&hello(incarnation))?;
    let mut received = Vec::new();
    loop {
        if received.len() >= 10 {
            let length = usize::from(u16::from_le_bytes([received[8], received[9]]));
            if received.len() >= length {
                received.drain(..length);
                return Ok((stream, received));
            }
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend(&buffer[..count]);
    }
}

fn count_frames(mut stream: TcpStream, mut received: Vec<u8>) -> Tally {
    let mut tally = Tally::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut rest = &received[..];
        while let Some((frame, behind)) = split_frame(rest) {
            tally.add(frame);
            rest = behind;
        }
        received = rest.to_vec();
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => received.extend(&buffer[..count]),
            _ => return tally,
        }
    }
}

/// The first whole frame, and what is behind it.
pub(crate) fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    if length < 16 { None } else { bytes.split_at_checked(length) }
}
