//! Bytes on their way out and in, without a core.

use ringpost::net::reader::Reader;
use ringpost::wire::codec;
use ringpost::wire::frame::{Draft, EndpointId, Frame, RequestHead, Route, Target};
use ringpost::wire::message::Message;

use crate::Error;
use crate::message::Words;

/// Limit of a frame, in bytes.
const LIMIT: u32 = 1 << 20;
/// Frames that are written before they are read.
const BATCH: u64 = 64;
const WORDS: Words = Words([0x5a; 64]);

/// Writes requests, and reads them where they lie.
pub(crate) fn requests(count: u64) -> Result<(), Error> {
    exchange(count, usize::MAX, write_request)
}

/// Writes replies, and reads them where they lie.
pub(crate) fn replies(count: u64) -> Result<(), Error> {
    exchange(count, usize::MAX, write_reply)
}

/// Writes requests, and reads them from pieces that end in the middle of most.
pub(crate) fn cut_frames(count: u64) -> Result<(), Error> {
    exchange(count, 100, write_request)
}

fn write_request(out: &mut Vec<u8>, request: u64) -> Result<(), Error> {
    let head = RequestHead {
        request,
        target: Target::Id(EndpointId(7)),
        route: Route::Here,
        message: Words::ID,
        deadline_us: Some(20_000_000),
    };
    let mut draft = Draft::request(out, &head);
    codec::encode(&WORDS, draft.payload())?;
    Ok(draft.finish(LIMIT)?)
}

fn write_reply(out: &mut Vec<u8>, request: u64) -> Result<(), Error> {
    let mut draft = Draft::reply(out, request, None);
    codec::encode(&WORDS, draft.payload())?;
    Ok(draft.finish(LIMIT)?)
}

fn exchange(count: u64, piece: usize, write: fn(&mut Vec<u8>, u64) -> Result<(), Error>) -> Result<(), Error> {
    let mut reader = Reader::after_hello(LIMIT, false);
    let mut bytes = Vec::new();
    let mut read = 0;
    while read < count {
        bytes.clear();
        for request in 1..=BATCH {
            write(&mut bytes, request)?;
        }
        for mut input in bytes.chunks(piece.min(bytes.len())) {
            while let Some(frame) = reader.next_frame(&mut input)? {
                let (Frame::Request { payload, .. } | Frame::Reply { payload, .. }) = Frame::parse(frame)? else {
                    return Err("another frame than was written".into());
                };
                if codec::decode::<Words>(payload)? != WORDS {
                    return Err("other words than were written".into());
                }
                read += 1;
            }
        }
    }
    Ok(())
}
