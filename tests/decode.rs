//! Bytes that stand for far more than they are: the message that they came as is undecodable, and nobody else notices.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::thread;

use common::echo::{Echo, Echoing, Random, alone, cut, echo_blocking, payload, refer, within};
use common::memory::{Counting, Watch};
use common::raw::{self, RawPeer};
use common::{bounded, client, eventually, server};
use ringpost::net::reader::Incoming;
use ringpost::ring::stack_floor;
use ringpost::wire::codec::{self, CodecError};
use ringpost::wire::failure::{Failure, FailureCode, Typed};
use ringpost::wire::frame::{Draft, Frame, RequestHead, Route, Target, write_failure};
use ringpost::wire::limits::DecodeLimits;
use ringpost::wire::told::Told;
use ringpost::{
    AskError, CallContext, Endpoint, HandleSync, HandlerError, Handlers, Message, RpcEnv, WireError, message,
    wire_error,
};
use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

#[global_allocator]
static MEMORY: Counting = Counting;

/// Each byte 1 is a level.
#[derive(Serialize, Deserialize, Debug)]
struct Chain(Option<Box<Chain>>);
message!(Chain as "decode.Chain" => ());

/// Each byte 1 is a level.
#[derive(Serialize, Deserialize, Debug)]
struct Tree(Vec<Tree>);
message!(Tree as "decode.Tree" => ());

/// Each byte 1 is a level.
#[derive(Serialize, Deserialize, Debug)]
enum Term {
    Leaf,
    Not(Box<Term>),
    Both(Box<Term>, Box<Term>),
}
message!(Term as "decode.Term" => ());

/// Each byte pair 1, 0 is a level.
#[derive(Serialize, Deserialize, Debug)]
struct Dictionary(BTreeMap<u8, Dictionary>);
message!(Dictionary as "decode.Dictionary" => ());

/// A level takes much stack.
#[derive(Serialize, Deserialize, Debug)]
struct Heavy {
    next: Option<Box<Heavy>>,
    padding: [[[u64; 32]; 32]; 2],
}
message!(Heavy as "decode.Heavy" => ());

/// Each byte 1 is a level, of a tuple that nothing but its `Deserialize` implementation ends.
#[derive(Serialize, Debug)]
struct ByHand(Option<Box<ByHand>>);
message!(ByHand as "decode.ByHand" => ());

impl<'de> Deserialize<'de> for ByHand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByHand, D::Error> {
        struct Fields(PhantomData<ByHand>);
        impl<'de> Visitor<'de> for Fields {
            type Value = ByHand;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a flag, and more behind it")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<ByHand, A::Error> {
                let more: bool = fields.next_element()?.ok_or_else(|| A::Error::custom("no flag"))?;
                if more { Ok(ByHand(fields.next_element()?)) } else { Ok(ByHand(None)) }
            }
        }
        deserializer.deserialize_tuple(2, Fields(PhantomData))
    }
}

/// 512 bytes.
type Large = [[u64; 32]; 2];

/// An element without a value has one byte on the wire.
#[derive(Serialize, Deserialize, Debug)]
struct Gaps(Vec<Option<Large>>);
message!(Gaps as "decode.Gaps" => ());

/// The same behind pointers: 32 KiB for 1,024 bytes.
#[derive(Serialize, Deserialize, Debug)]
struct Pointers(Vec<Box<[[Option<u128>; 32]; 32]>>);
message!(Pointers as "decode.Pointers" => ());

/// An element has no byte on the wire.
#[derive(Serialize, Deserialize, Debug)]
struct Nothings(Vec<()>);
message!(Nothings as "decode.Nothings" => ());

/// Sets of one element each.
#[derive(Serialize, Deserialize, Debug)]
struct Sets(Vec<BTreeSet<Option<[u128; 16]>>>);
message!(Sets as "decode.Sets" => ());

/// A bit of everything.
#[derive(Serialize, Deserialize, Debug)]
enum Mixed {
    Text(String, HashMap<u8, String>),
    Bytes { bytes: bytes::Bytes, numbers: Vec<u64> },
    Nested(Vec<Mixed>),
    Tables(HashMap<u16, Option<[u64; 32]>>, BTreeMap<u8, Vec<Mixed>>),
    Pair(Box<(Mixed, Option<Mixed>)>),
    Units(Vec<()>, Vec<u8>, Vec<Vec<u8>>),
}

/// Has a handler for each.
struct Bombed;

macro_rules! handlers {
    ($($message:ident)*) => {
        impl Endpoint for Bombed {
            fn handlers(handlers: &mut Handlers<Self>) {
                handlers$(.ask_sync::<$message>())*;
            }
        }
        $(impl HandleSync<$message> for Bombed {
            fn handle(&mut self, _: $message, _: &mut CallContext) -> Result<(), HandlerError> {
                Ok(())
            }
        })*
    };
}

handlers! { Chain Tree Term Dictionary Heavy ByHand Gaps Pointers Nothings Sets }

struct Bomb {
    name: &'static str,
    id: ringpost::MessageId,
    bytes: Vec<u8>,
    setting: &'static str,
}

fn bomb<M: Message>(bytes: Vec<u8>, setting: &'static str) -> Bomb {
    Bomb { name: M::NAME, id: M::ID, bytes, setting }
}

fn bombs() -> Vec<Bomb> {
    // 2,048 padding bytes would follow each level of `Heavy`; none is reached.
    vec![
        bomb::<Chain>(vec![1; 43_924], "Config::decode_depth"),
        bomb::<Tree>(vec![1; 43_924], "Config::decode_depth"),
        bomb::<Term>(vec![1; 43_924], "Config::decode_depth"),
        bomb::<Dictionary>([1, 0].repeat(20_000), "Config::decode_depth"),
        bomb::<Heavy>(vec![1; 43_924], "Config::decode_depth"),
        bomb::<ByHand>(vec![1; 43_924], "Config::decode_depth"),
        bomb::<Gaps>([&[0x80, 0x80, 0x80, 0x04][..], &vec![0; 8 << 20]].concat(), "Config::decode_bytes"),
        bomb::<Pointers>([&[0x80, 0x40][..], &vec![0; 8 << 20]].concat(), "Config::decode_bytes"),
        bomb::<Nothings>([[0x80; 9].as_slice(), &[0x01]].concat(), "Config::decode_elements"),
        bomb::<Sets>([&[0x80, 0x80, 0x80, 0x01][..], &[1, 0].repeat(2 << 20)].concat(), "Config::decode_bytes"),
    ]
}

/// Asks by name with this message id and these bytes.
fn ask_with(peer: &mut RawPeer, request: u64, bomb: &Bomb) {
    let target = Target::Name("target");
    let head = RequestHead { request, target, route: Route::Here, message: bomb.id, deadline_us: None };
    let mut frame = Vec::new();
    let mut draft = Draft::request(&mut frame, &head);
    draft.payload().extend_from_slice(&bomb.bytes);
    draft.finish(u32::MAX).unwrap();
    peer.stream.write_all(&frame).unwrap();
}

/// Sends each bomb to the endpoint `target`, over one connection, while another client is served.
fn hit(server: &RpcEnv) {
    let before = eventually(server, "the start", |now| now.connections == 0);
    let good = client(1);
    let echo = refer(&good, "echo", server);
    let address: SocketAddr = server.address().unwrap().to_string().parse().unwrap();
    let mut peer = RawPeer::greet(address);
    for (number, bomb) in (1..).zip(bombs()) {
        let watch = Watch::begin();
        ask_with(&mut peer, number, &bomb);
        let text = peer.next(|incoming| match incoming {
            Incoming::Frame(Frame::Failure { request, failure, .. }) => {
                assert_eq!((request, failure.code), (number, FailureCode::Undecodable), "{}", bomb.name);
                failure.text.to_owned()
            }
            other => panic!("{}: {other:?}", bomb.name),
        });
        let deep = bomb.setting == "Config::decode_depth" && text.contains("the stack of the decoding thread");
        assert!(text.contains(bomb.setting) || deep, "{}: {text:?} does not name {}", bomb.name, bomb.setting);
        assert!(watch.growth() < PEAK, "{}: {} bytes were in use", bomb.name, watch.growth());
        eventually(server, bomb.name, |now| now.decode_refused == before.decode_refused + number);
        echo_blocking(&echo, number, 100).unwrap();
    }
    peer.ask(100, &Echo { payload: payload(1, 10) });
    peer.expect_echo(100, &payload(1, 10));
    let after = server.snapshot().total();
    assert_eq!((after.protocol_errors, after.accepted - before.accepted), (0, 2), "nobody had to connect again");
    cut([good]);
}

/// Bytes that a message may take up by default: four times `decode_bytes`, 8 MiB that are reserved ahead, and the frame
/// itself, twice or three times while it is put together.
const PEAK: usize = (4 * 128 + 8 + 3 * 16) << 20;

#[test]
fn a_message_that_decodes_to_far_more_than_its_bytes_is_undecodable_and_nobody_else_notices() {
    let _alone = alone();
    bounded(|| {
        let server = server(2);
        server.register("echo", || Echoing).unwrap();
        for core in 0..2 {
            let target = server.register_on(core, "target", || Bombed).unwrap();
            hit(&server);
            assert!(server.stop(&target));
            eventually(&server, "the target has stopped", |now| now.endpoints == 3);
        }
        cut([server]);
    });
}

#[test]
fn an_isolated_endpoint_refuses_them_too() {
    let _alone = alone();
    bounded(|| {
        let server = server(1);
        server.register("echo", || Echoing).unwrap();
        server.register_isolated("target", || Bombed).unwrap();
        hit(&server);
        cut([server]);
    });
}

/// Answered with a chain.
#[derive(Serialize, Deserialize)]
struct GetChain;
message!(GetChain as "decode.GetChain" => Chain);

/// Answered with gaps.
#[derive(Serialize, Deserialize)]
struct GetGaps;
message!(GetGaps as "decode.GetGaps" => Gaps);

/// An error that nests.
#[derive(Serialize, Deserialize, Debug, thiserror::Error)]
#[error("{0:?}")]
struct ChainError(Chain);
wire_error!(ChainError as "decode.ChainError");

/// Answers asks in the order in which they come: with a chain, with gaps, with a typed error that is a chain, and then
/// with an empty chain. Ends with the connection.
fn answer_with_bombs(peer: &mut RawPeer) {
    peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
    peer.stream.write_all(&raw::hello()).unwrap();
    let gaps = [&[0x80, 0x80, 0x80, 0x04][..], &vec![0; 8 << 20]].concat();
    for number in 0..4 {
        let id = peer.next(|incoming| match incoming {
            Incoming::Frame(Frame::Request { head, .. }) => head.request,
            other => panic!("{other:?}"),
        });
        let mut out = Vec::new();
        if number == 2 {
            let typed = Some(Typed {
                id: ChainError::ID,
                bytes: &[1u8; 2048][..],
                way_back: false,
                told: Told::Unknown,
                alias: None,
            });
            write_failure(&mut out, id, None, &Failure { code: FailureCode::Handler, text: "deep", typed });
        } else {
            let mut draft = Draft::reply(&mut out, id, None);
            let reply = [&[1u8; 43_924][..], &gaps, &[], &[0]][number];
            draft.payload().extend_from_slice(reply);
            draft.finish(u32::MAX).unwrap();
        }
        peer.stream.write_all(&out).unwrap();
    }
    peer.expect_end();
}

#[test]
fn a_reply_or_a_typed_error_that_decodes_to_far_more_than_its_bytes_fails_its_ask_alone() {
    let _alone = alone();
    bounded(|| {
        let (listener, address) = raw::listener();
        let hostile = thread::spawn(move || answer_with_bombs(&mut RawPeer::over(listener.accept().unwrap().0)));
        let env = client(1);
        let to = env.endpoint_ref((address.to_string().as_str(), "hostile")).unwrap();

        let watch = Watch::begin();
        let deep = within(to.ask(GetChain)).unwrap_err();
        let large = within(to.ask(GetGaps)).unwrap_err();
        let typed = within(to.ask(GetChain)).unwrap_err();

        for (error, setting) in [(&deep, "Config::decode_depth"), (&large, "Config::decode_bytes")] {
            assert!(matches!(error, AskError::UndecodableReply { .. }), "{error:?}");
            assert!(error.to_string().contains(setting), "{error}");
        }
        assert!(matches!(&typed, AskError::Handler { error, .. } if error.text() == "deep"), "{typed:?}");
        // On any thread, however small its stack is.
        let small = thread::Builder::new().stack_size(64 << 10).spawn(move || typed.downcast::<ChainError>().is_none());
        assert!(small.unwrap().join().unwrap());
        assert!(watch.growth() < PEAK, "{} bytes were in use", watch.growth());
        assert!(within(to.ask(GetChain)).unwrap().0.is_none(), "the connection lives on");
        eventually(&env, "both were counted", |now| (now.decode_refused, now.dialled) == (2, 1));
        cut([env]);
        hostile.join().unwrap();
    });
}

/// Decodes on a thread with a stack of this size, as deep as that allows.
fn deep_on<T: DeserializeOwned>(stack: usize, bytes: Vec<u8>) -> Option<CodecError> {
    let decode = move || {
        let limits = DecodeLimits { depth: u32::MAX, ..DecodeLimits::DEFAULT.on_stack(stack_floor()) };
        codec::decode_within::<T>(&bytes, &limits).map(drop).err()
    };
    thread::Builder::new().stack_size(stack).spawn(decode).unwrap().join().unwrap()
}

#[test]
fn no_nesting_overruns_the_stack_of_the_thread_that_decodes_whatever_depth_is_allowed() {
    const DEEP: usize = 1 << 20;
    for stack in [64 << 10, 256 << 10, 2 << 20] {
        let outcomes = [
            deep_on::<Chain>(stack, vec![1; DEEP]),
            deep_on::<Tree>(stack, vec![1; DEEP]),
            deep_on::<Term>(stack, vec![1; DEEP]),
            deep_on::<Dictionary>(stack, [1, 0].repeat(DEEP)),
            deep_on::<ByHand>(stack, vec![1; DEEP]),
        ];
        for (outcome, number) in outcomes.iter().zip(0..) {
            let text = outcome.as_ref().unwrap().to_string();
            assert!(text.contains("the stack of the decoding thread"), "type {number} on {stack} bytes: {text}");
        }
    }
    let heavy = deep_on::<Heavy>(2 << 20, vec![1; DEEP]).unwrap().to_string();
    assert!(heavy.contains("the stack of the decoding thread"), "{heavy}");
}

/// Bytes as an attacker writes them: mostly small numbers, some lengths that are far too large.
fn hostile_bytes(random: &mut Random) -> Vec<u8> {
    let count = 1 << random.below(17);
    let fill = [0, 1, 2, 0x80][random.below(4)];
    let odds = 1 + random.below(64);
    let byte = |random: &mut Random| match random.below(odds) {
        0 => random.next() as u8,
        1 => random.below(8) as u8,
        2 => 0x7f,
        3 => 0xff,
        _ => fill,
    };
    (0..count).map(|_| byte(random)).collect()
}

/// How a type decodes.
type Decode = fn(&[u8], &DecodeLimits) -> Result<(), CodecError>;

fn decode_any<T: DeserializeOwned>(bytes: &[u8], limits: &DecodeLimits) -> Result<(), CodecError> {
    codec::decode_within::<T>(bytes, limits).map(drop)
}

#[test]
fn whatever_bytes_come_the_memory_in_use_stays_below_four_times_the_limit() {
    const LIMITED: usize = 4 << 20;
    const ELEMENTS: usize = 1000;
    let _alone = alone();
    let limits = DecodeLimits { depth: 40, bytes: LIMITED, elements: ELEMENTS, stack_floor: stack_floor() };
    let types: [Decode; 9] = [
        decode_any::<Mixed>,
        decode_any::<Vec<Mixed>>,
        decode_any::<Gaps>,
        decode_any::<Pointers>,
        decode_any::<Sets>,
        decode_any::<Dictionary>,
        decode_any::<Nothings>,
        decode_any::<HashMap<u8, Vec<Option<Large>>>>,
        decode_any::<Vec<Vec<Vec<Vec<Vec<Vec<Vec<Vec<Vec<Vec<[u64; 8]>>>>>>>>>>>,
    ];
    let mut random = Random(0xb0b);
    let (mut decoded, mut refused) = (0, 0);
    for round in 0..4000 {
        let bytes = hostile_bytes(&mut random);
        let watch = Watch::begin();
        let outcome = types[round % types.len()](&bytes, &limits);
        let bound = 4 * LIMITED + (8 << 20) + 3 * (bytes.len() + ELEMENTS);
        assert!(watch.growth() <= bound, "round {round}: {} bytes for {}", watch.growth(), bytes.len());
        decoded += u32::from(outcome.is_ok());
        refused += u32::from(matches!(outcome, Err(CodecError::Beyond(_))));
    }
    assert!(decoded > 50 && refused > 50, "both happen: {decoded}, {refused}");
}

#[test]
fn what_is_within_the_limits_decodes_as_it_was_encoded() {
    let numbers: Vec<u64> = (0..100_000).collect();
    let text = "text".repeat(10_000);
    let mixed = Mixed::Nested(vec![
        Mixed::Text(text.clone(), HashMap::from([(1, text)])),
        Mixed::Bytes { bytes: payload(1, 1000), numbers },
        Mixed::Tables(HashMap::from([(7, Some([9; 32]))]), BTreeMap::from([(1, vec![])])),
        Mixed::Pair(Box::new((Mixed::Nested(vec![]), None))),
        Mixed::Units(vec![(); 65_000], vec![7; 500_000], vec![vec![], vec![1, 2]]),
    ]);
    let mut bytes = Vec::new();
    codec::encode(&mixed, &mut bytes).unwrap();

    let decoded: Mixed = codec::decode(&bytes).unwrap();

    assert_eq!(format!("{decoded:?}"), format!("{mixed:?}"));
}
