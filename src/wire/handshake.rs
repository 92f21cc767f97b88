//! The first bytes in each direction of a connection.
//!
//! The side that connected sends its [`Hello`], the other side answers with its own, and after that only frames
//! travel. The magic is checked byte by byte as it arrives, so that a foreign protocol is turned away at its first
//! wrong byte.

use std::fmt;

use super::frame::MAX_FAILURE;

/// The first eight bytes: a name that no text protocol begins with, and a control byte.
pub const MAGIC: [u8; 8] = *b"rngpost\x1a";
/// The only version so far.
pub const VERSION: u16 = 1;
/// Longest hello in bytes.
pub const MAX_HELLO: usize = 4096;
/// Type of the feature record with the dialler's [`Token`].
const TOKEN: u16 = 1;
/// Type of the feature record with the dialler's [`OutboxTag`].
const OUTBOX: u16 = 2;
/// Type of the feature record with the id that the acceptor has given to the dialler.
const GIVEN: u16 = 3;
/// The fixed part of a hello: magic, length, versions, limits, incarnation and string lengths.
const FIXED: usize = 40;

/// What proves that two connections come from the same run of a node: a random number that the node has drawn for this
/// address of an acceptor, and shows nobody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    // Logs are read by others than the two nodes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Which of the dialler's outboxes a connection serves. An outbox has one connection at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutboxTag {
    /// Unique in one run of the dialler.
    pub id: u64,
    /// Grows with each connection of the outbox.
    pub ordinal: u64,
}

/// What a node tells about itself when a connection opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version that the node speaks; in the answer both are the chosen one.
    pub versions: (u16, u16),
    /// Largest frame that the node accepts, in bytes.
    pub max_frame: u32,
    /// How many cores the node has.
    pub cores: u16,
    /// The core that the connecting side would like to talk to.
    pub wanted_core: Option<u16>,
    /// Differs between two runs of a node: ids resolved in one are worthless in the next.
    pub incarnation: u64,
    /// The node's name, for logs.
    pub name: String,
    /// Where the node listens, as `host:port` or `unix:/path`, if it does.
    pub advertised: Option<String>,
    /// The dialler's token for the acceptor; none in an answer.
    pub token: Option<Token>,
    /// The outbox that the dialler has opened the connection for; none in an answer.
    pub outbox: Option<OutboxTag>,
    /// The id that the acceptor has given to the dialler, since it is not the dialler's incarnation; none in a
    /// dialler's hello.
    pub given: Option<u64>,
}

/// Why bytes are no hello, or none that this node can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// Something else speaks on this port.
    #[error("the peer does not speak ringpost: {0}")]
    Foreign(Foreign),
    /// The two sides have no version in common.
    #[error("the peer speaks versions {theirs_low} to {theirs_high}, this node speaks {VERSION}")]
    Version {
        /// The peer's lowest version.
        theirs_low: u16,
        /// The peer's highest version.
        theirs_high: u16,
    },
    /// The hello is malformed.
    #[error("malformed hello: {0}")]
    Malformed(&'static str),
}

/// A guess at what a foreign protocol is, for the log line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// An HTTP request line, or HTTP/2's preface.
    Http,
    /// A TLS record with a ClientHello.
    Tls,
    /// Its first bytes.
    Other(Vec<u8>),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Http => f.write_str("this looks like HTTP"),
            Foreign::Tls => f.write_str("this looks like a TLS hello"),
            Foreign::Other(bytes) => write!(f, "it begins with \"{}\"", bytes.escape_ascii()),
        }
    }
}

impl Foreign {
    fn guess(bytes: &[u8]) -> Foreign {
        const METHODS: [&[u8]; 8] = [b"GE", b"PO", b"PU", b"HE", b"DE", b"OP", b"PR", b"CO"];
        if METHODS.iter().any(|method| bytes.starts_with(method)) {
            Foreign::Http
        } else if bytes.starts_with(&[0x16, 0x03]) {
            Foreign::Tls
        } else {
            Foreign::Other(bytes[..bytes.len().min(16)].to_vec())
        }
    }
}

impl Hello {
    /// Appends the hello to `out`. Name and address are cut where they are longer than 1,024 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let cut = |text: &str| text[..text.floor_char_boundary(1024)].to_owned();
        let (name, advertised) = (cut(&self.name), self.advertised.as_deref().map(cut).unwrap_or_default());
        let mut features = Vec::new();
        if let Some(Token(token)) = &self.token {
            write_feature(&mut features, TOKEN, token);
        }
        if let Some(outbox) = self.outbox {
            write_feature(&mut features, OUTBOX, &[outbox.id.to_le_bytes(), outbox.ordinal.to_le_bytes()].concat());
        }
        if let Some(given) = self.given {
            write_feature(&mut features, GIVEN, &given.to_le_bytes());
        }
        let length = FIXED + name.len() + advertised.len() + features.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&self.versions.0.to_le_bytes());
        out.extend_from_slice(&self.versions.1.to_le_bytes());
        out.extend_from_slice(&self.cores.to_le_bytes());
        out.extend_from_slice(&self.wanted_core.unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.max_frame.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(advertised.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(advertised.as_bytes());
        out.extend_from_slice(&features);
    }

    /// Reads the hello at the front of `bytes` and tells how many bytes it took; `None` while it is incomplete.
    ///
    /// Feature records may follow the two strings inside of the hello's length; unknown ones are skipped.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Hello, usize)>, HelloError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(HelloError::Foreign(Foreign::guess(bytes)));
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if bytes.len() < 10 {
            return Ok(None);
        }
        let length = u16_at(8) as usize;
        if !(FIXED..=MAX_HELLO).contains(&length) {
            return Err(HelloError::Malformed("its length is out of bounds"));
        }
        let Some(hello) = bytes.get(..length) else { return Ok(None) };
        let versions = (u16_at(10), u16_at(12));
        if versions.0 > VERSION || versions.1 < VERSION {
            return Err(HelloError::Version { theirs_low: versions.0, theirs_high: versions.1 });
        }
        let (name_length, advertised_length) = (u16_at(32) as usize, u16_at(34) as usize);
        let text = |from: usize, length: usize| {
            let bytes = hello.get(from..from + length).ok_or(HelloError::Malformed("a string leaves it"))?;
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| HelloError::Malformed("a string is no UTF-8"))
        };
        let advertised = text(FIXED + name_length, advertised_length)?;
        // It is written to logs as it is, as part of longer texts.
        if advertised.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(HelloError::Malformed("its address holds a control character or white space"));
        }
        let max_frame = u32::from_le_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
        if (max_frame as usize) < MAX_FAILURE {
            return Err(HelloError::Malformed("its largest frame is below 4096 bytes"));
        }
        let mut incarnation = [0; 8];
        incarnation.copy_from_slice(&bytes[24..32]);
        let features = read_features(&bytes[FIXED + name_length + advertised_length..length])?;
        let hello = Hello {
            versions,
            cores: u16_at(14),
            wanted_core: Some(u16_at(16)).filter(|&core| core != u16::MAX),
            max_frame,
            incarnation: u64::from_le_bytes(incarnation),
            name: text(FIXED, name_length)?,
            advertised: Some(advertised).filter(|address| !address.is_empty()),
            token: features.token,
            outbox: features.outbox,
            given: features.given,
        };
        Ok(Some((hello, length)))
    }
}

/// The feature records that are known.
#[derive(Default)]
struct Features {
    token: Option<Token>,
    outbox: Option<OutboxTag>,
    given: Option<u64>,
}

fn write_feature(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
}

/// Reads the feature records: type, length, value. The last one of a type counts.
fn read_features(mut records: &[u8]) -> Result<Features, HelloError> {
    let mut features = Features::default();
    while !records.is_empty() {
        let bad = HelloError::Malformed("a feature record leaves it");
        let (head, rest) = records.split_first_chunk::<4>().ok_or(bad.clone())?;
        let length = u16::from_le_bytes([head[2], head[3]]) as usize;
        let (value, rest) = rest.split_at_checked(length).ok_or(bad)?;
        match u16::from_le_bytes([head[0], head[1]]) {
            TOKEN => features.token = Some(Token(sized(value)?)),
            OUTBOX => {
                let both = u128::from_le_bytes(sized(value)?);
                features.outbox = Some(OutboxTag { id: both as u64, ordinal: (both >> 64) as u64 });
            }
            GIVEN => features.given = Some(u64::from_le_bytes(sized(value)?)),
            _ => {}
        }
        records = rest;
    }
    Ok(features)
}

fn sized<const SIZE: usize>(value: &[u8]) -> Result<[u8; SIZE], HelloError> {
    value.try_into().map_err(|_| HelloError::Malformed("a feature record has another length than its type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            versions: (1, 1),
            max_frame: 1 << 24,
            cores: 2,
            wanted_core: Some(1),
            incarnation: 0x0102_0304_0506_0708,
            name: "bank".into(),
            advertised: Some("127.0.0.1:7077".into()),
            token: Some(Token([7; 16])),
            outbox: Some(OutboxTag { id: 5, ordinal: 9 }),
            given: None,
        }
    }

    fn bytes(hello: &Hello) -> Vec<u8> {
        let mut out = Vec::new();
        hello.encode(&mut out);
        out
    }

    #[test]
    fn a_hello_survives_the_trip_whole_and_in_pieces() {
        let answer = Hello { token: None, outbox: None, given: Some(1 << 63 | 7), ..hello() };
        for hello in [hello(), answer, Hello { wanted_core: None, advertised: None, name: String::new(), ..hello() }] {
            let mut all = bytes(&hello);
            let length = all.len();
            for cut in 0..length {
                assert_eq!(Hello::decode(&all[..cut]), Ok(None), "cut at {cut}");
            }
            all.extend_from_slice(b"frames");
            assert_eq!(Hello::decode(&all), Ok(Some((hello, length))));
        }
    }

    #[test]
    fn foreign_protocols_are_named_at_their_first_wrong_byte() {
        assert_eq!(Hello::decode(b"GET / HTTP/1.1\r\n"), Err(HelloError::Foreign(Foreign::Http)));
        assert_eq!(Hello::decode(&[0x16, 3, 1, 2, 0]), Err(HelloError::Foreign(Foreign::Tls)));
        assert!(matches!(Hello::decode(b"q"), Err(HelloError::Foreign(Foreign::Other(_)))));
        assert!(matches!(Hello::decode(b"rngpoST"), Err(HelloError::Foreign(_))));
    }

    #[test]
    fn unknown_features_are_skipped_and_broken_ones_refused() {
        let mut all = bytes(&hello());
        let features = [7, 0, 2, 0, 9, 9, 8, 0, 0, 0];
        all.extend_from_slice(&features);
        let length = all.len() as u16;
        all[8..10].copy_from_slice(&length.to_le_bytes());
        assert_eq!(Hello::decode(&all), Ok(Some((hello(), length as usize))));
        all[length as usize - 2] = 1;
        assert!(matches!(Hello::decode(&all), Err(HelloError::Malformed(_))));
    }

    #[test]
    fn the_records_of_a_dialler_have_these_bytes_and_no_others() {
        let all = bytes(&Hello { name: String::new(), advertised: None, ..hello() });
        let mut records = vec![1, 0, 16, 0];
        records.extend([7; 16]);
        records.extend([2, 0, 16, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((all[8], &all[40..]), (80, &records[..]));
        for at in [42, 62] {
            let mut short = all.clone();
            short[at] = 15;
            assert!(matches!(Hello::decode(&short), Err(HelloError::Malformed(_))), "{at}");
        }
    }

    #[test]
    fn an_acceptor_gives_an_id_in_these_bytes_and_no_others() {
        let answer = Hello { given: Some(0x8877_6655_4433_2211), token: None, outbox: None, ..hello() };
        let mut all = bytes(&Hello { name: String::new(), advertised: None, ..answer });
        assert_eq!((all[8], &all[40..]), (52, &[3, 0, 8, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88][..]));
        all[42] = 7;
        assert!(matches!(Hello::decode(&all), Err(HelloError::Malformed(_))));
    }

    #[test]
    fn an_address_that_would_end_a_line_of_a_log_is_refused() {
        for address in
            ["h:1\n2026-01-01 ERROR", "h:1\r", "\u{1b}[31mh:1", "unix:/a\0", "h\u{85}:1", "h\u{2028}:1", "h :1"]
        {
            let hello = Hello { advertised: Some(address.into()), ..hello() };
            assert!(matches!(Hello::decode(&bytes(&hello)), Err(HelloError::Malformed(_))), "{address:?}");
        }
    }

    #[test]
    fn versions_must_overlap() {
        let newer = Hello { versions: (2, 3), ..hello() };
        let error = Hello::decode(&bytes(&newer));
        assert_eq!(error, Err(HelloError::Version { theirs_low: 2, theirs_high: 3 }));
    }

    #[test]
    fn a_flipped_byte_never_panics() {
        let whole = bytes(&hello());
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = Hello::decode(&bytes);
            }
        }
    }
}
