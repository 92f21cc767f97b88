//! Refs to clients that peers tell: whom they mean if several nodes say that they have one id.

mod common;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::echo::cut;
use common::gate::{Gate, pass};
use common::proxy::Proxy;
use common::raw::{RawPeer, introduction};
use common::{bounded, client, end, eventually, kind, seen_from, server};
use ringpost::wire::handshake::{Hello, OutboxTag, Token};
use ringpost::{
    CallContext, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RpcEnv, message, wire_error,
};
use serde::{Deserialize, Serialize};

/// Answered with the number of the guest.
#[derive(Serialize, Deserialize)]
struct Number;
message!(Number as "told_clients.Number" => u32);

/// Answered with a ref to the guest itself: in the reply, or in the typed error `Elsewhere`.
#[derive(Serialize, Deserialize)]
struct Myself {
    as_error: bool,
}
message!(Myself as "told_clients.Myself" => EndpointRef);

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("elsewhere")]
struct Elsewhere(EndpointRef);
wire_error!(Elsewhere as "told_clients.Elsewhere");

/// Lives at a client.
struct Guest(u32, Option<EndpointRef>);

impl Endpoint for Guest {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Number>().ask_sync::<Myself>().send_sync::<Keep>();
    }
}

impl HandleSync<Number> for Guest {
    fn handle(&mut self, _: Number, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(self.0)
    }
}

impl HandleSync<Keep> for Guest {
    fn handle(&mut self, keep: Keep, _: &mut CallContext) -> Result<(), HandlerError> {
        self.1 = Some(keep.0);
        Ok(())
    }
}

impl HandleSync<Myself> for Guest {
    fn handle(&mut self, how: Myself, _: &mut CallContext) -> Result<EndpointRef, HandlerError> {
        let myself = self.1.clone().unwrap();
        if how.as_error { Err(HandlerError::typed(Elsewhere(myself))) } else { Ok(myself) }
    }
}

/// A guest of this client that has a ref to itself.
fn guest(env: &RpcEnv, number: u32) -> EndpointRef {
    let guest = env.register("guest", move || Guest(number, None)).unwrap();
    guest.send(Keep(guest.clone())).unwrap();
    guest
}

/// The number of the ref's guest, or how the ask to it failed.
type Found = Result<u32, String>;

/// Kept.
#[derive(Serialize, Deserialize)]
struct Keep(EndpointRef);
message!(Keep as "told_clients.Keep");

/// Answered with what was kept last, and with its number.
#[derive(Serialize, Deserialize)]
struct Kept;
message!(Kept as "told_clients.Kept" => (EndpointRef, Found));

/// Answered with the ref itself, and with its number.
#[derive(Serialize, Deserialize)]
struct Ask(EndpointRef);
message!(Ask as "told_clients.Ask" => (EndpointRef, Found));

/// Answered with the numbers of the refs that the endpoint tells of itself, in a reply and in an error.
#[derive(Serialize, Deserialize)]
struct AskItself(EndpointRef);
message!(AskItself as "told_clients.AskItself" => [Found; 2]);

/// Waits at a gate.
#[derive(Serialize, Deserialize)]
struct Wait(u64);
message!(Wait as "told_clients.Wait");

/// Lives at a server.
#[derive(Default)]
struct Desk(Option<EndpointRef>);

impl Endpoint for Desk {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send_sync::<Keep>().ask::<Kept>().ask::<Ask>().ask::<AskItself>().send::<Wait>();
    }
}

async fn number_of(to: &EndpointRef) -> Found {
    to.ask_within(Number, Duration::from_secs(2)).await.map_err(|error| kind(&error))
}

impl HandleSync<Keep> for Desk {
    fn handle(&mut self, keep: Keep, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0 = Some(keep.0);
        Ok(())
    }
}

impl Handle<Kept> for Desk {
    async fn handle(&mut self, _: Kept, _: &mut CallContext) -> Result<(EndpointRef, Found), HandlerError> {
        let kept = self.0.clone().unwrap();
        let found = number_of(&kept).await;
        Ok((kept, found))
    }
}

impl Handle<Ask> for Desk {
    async fn handle(&mut self, to: Ask, _: &mut CallContext) -> Result<(EndpointRef, Found), HandlerError> {
        let found = number_of(&to.0).await;
        Ok((to.0, found))
    }
}

impl Handle<AskItself> for Desk {
    async fn handle(&mut self, to: AskItself, _: &mut CallContext) -> Result<[Found; 2], HandlerError> {
        let told = to.0.ask(Myself { as_error: false }).await?;
        let error = to.0.ask(Myself { as_error: true }).await.unwrap_err();
        let Elsewhere(in_error) = error.downcast().unwrap();
        Ok([number_of(&told).await, number_of(&in_error).await])
    }
}

impl Handle<Wait> for Desk {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(wait.0).await;
        Ok(())
    }
}

/// A server with a desk on each of its two cores, so that requests come to one of them from the other core.
fn desks() -> (RpcEnv, [EndpointRef; 2]) {
    let env = server(2);
    let desks = [0, 1].map(|core| env.register_on(core, &format!("desk{core}"), Desk::default).unwrap());
    (env, desks)
}

/// The id that refs to endpoints of a client carry.
fn id_in(endpoint: &EndpointRef) -> u64 {
    u64::from_str_radix(endpoint.uri().rsplit('@').next().unwrap(), 16).unwrap()
}

/// Somebody that says that it has this id.
fn claimant(env: &RpcEnv, incarnation: u64, token: Option<u8>) -> RawPeer {
    let address: SocketAddr = env.address().unwrap().to_string().parse().unwrap();
    static OUTBOX: AtomicU64 = AtomicU64::new(1);
    let outbox = Some(OutboxTag { id: OUTBOX.fetch_add(1, Ordering::Relaxed), ordinal: 1 });
    let token = token.map(|byte| Token([byte; 16]));
    RawPeer::greet_as(address, &Hello { incarnation, token, outbox, ..introduction() })
}

/// Nothing has come to this peer behind the hello.
#[track_caller]
fn has_nothing(peer: &mut RawPeer) {
    peer.stream.set_nonblocking(true).unwrap();
    let read = std::io::Read::read(&mut peer.stream, &mut [0; 64]);
    assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock), "{read:?}");
}

#[test]
fn what_a_client_tells_of_itself_leads_to_itself_though_others_have_claimed_its_id_before() {
    bounded(|| {
        for token in [None, Some(9)] {
            let ((env, desks), asking) = (desks(), client(1));
            let guest = guest(&asking, 7);
            let mut claimants = [(); 2].map(|()| claimant(&env, id_in(&guest), token));
            for desk in desks.iter().map(|desk| seen_from(&asking, desk)) {
                let (home, found) = desk.ask_blocking(Ask(guest.clone())).unwrap();
                assert_eq!((found, home), (Ok(7), guest.clone()), "in an ask, and home again");
                desk.send(Keep(guest.clone())).unwrap();
                assert_eq!(desk.ask_blocking(Kept).unwrap().1, Ok(7), "in a one-way message");
                let of_itself = desk.ask_blocking(AskItself(guest.clone())).unwrap();
                assert_eq!(of_itself, [Ok(7), Ok(7)], "in a reply and an error");
            }
            claimants.iter_mut().for_each(has_nothing);
            end(&asking);
            cut([env]);
        }
    });
}

#[test]
fn what_a_client_told_of_itself_before_it_went_leads_to_nobody_else() {
    bounded(|| {
        for core in [0, 1] {
            let ((env, desks), asking) = (desks(), client(1));
            let guest = guest(&asking, 7);
            let mut claimant = claimant(&env, id_in(&guest), Some(9));
            let desk = seen_from(&asking, &desks[core]);
            let mut gate = Gate::new();
            desk.send(Wait(gate.id)).unwrap();
            desk.send(Keep(guest)).unwrap();
            eventually(&env, "it waits", |now| now.inbox_messages == 1);
            cut([asking]);
            eventually(&env, "the client has gone", |now| now.connections == 1);
            gate.open();
            assert_eq!(desks[core].ask_blocking(Kept).unwrap().1, Err("Unreachable".into()), "at core {core}");
            has_nothing(&mut claimant);
            cut([env]);
        }
    });
}

#[test]
fn a_client_over_two_addresses_of_a_server_is_asked_over_the_one_over_which_it_told_of_itself() {
    bounded(|| {
        let ((env, _), asking) = (desks(), client(1));
        let proxy = Proxy::before(env.address().unwrap().to_string());
        let guest = guest(&asking, 7);
        let (one, other) = (proxy.address.to_string(), env.address().unwrap().to_string());
        let [first, second] = [one, other].map(|at| asking.endpoint_ref((at.as_str(), "desk0")).unwrap());
        let ask = |desk: &EndpointRef| desk.ask_blocking(Ask(guest.clone())).unwrap();
        for desk in [&first, &second, &first] {
            assert_eq!(ask(desk), (guest.clone(), Ok(7)));
        }
        first.send(Keep(guest.clone())).unwrap();
        assert_eq!(first.ask_blocking(Kept).unwrap().1, Ok(7));
        proxy.cut();
        eventually(&env, "the first has gone", |now| now.connections == 1);
        assert_eq!(ask(&second), (guest.clone(), Ok(7)));
        assert_eq!(second.ask_blocking(Kept).unwrap().1, Err("Unreachable".into()), "it was told over the first");
        end(&asking);
        cut([env]);
    });
}

#[test]
fn a_ref_to_a_client_that_somebody_else_tells_leads_to_the_node_that_has_this_id_here() {
    bounded(|| {
        let ((env, [desk, _]), [asking, other]) = (desks(), [client(1), client(1)]);
        let guest = guest(&asking, 7);
        let proxy = Proxy::before(env.address().unwrap().to_string());
        let there = asking.endpoint_ref((proxy.address.to_string().as_str(), "desk0")).unwrap();
        // It is the second one here that says that it has this id, so it gets another one.
        let first = claimant(&env, id_in(&guest), Some(9));
        there.send(Keep(guest.clone())).unwrap();
        assert_eq!(there.ask_blocking(Kept).unwrap().1, Ok(7));
        let from_other = seen_from(&other, &desk);
        let ask = |to: &EndpointRef| from_other.ask_blocking(Ask(to.clone())).unwrap().1;
        // What the server has told leads back to where the server has it from.
        let told = from_other.ask_blocking(Kept).unwrap().0;
        assert_ne!(id_in(&told), id_in(&guest));
        assert_eq!(ask(&told), Ok(7));
        // What comes from elsewhere means whoever has that id at the server: here the first one, and then nobody.
        let elsewhere = other.endpoint_ref(&guest.uri()).unwrap();
        assert_eq!(ask(&elsewhere), Err("Timeout".into()));
        drop(first);
        eventually(&env, "it has gone", |now| now.connections == 2);
        assert_eq!(ask(&elsewhere), Err("Unreachable".into()));
        // Nobody takes the id that the server gave, not even while its node is away, which has it again when it is back.
        let mut taker = claimant(&env, id_in(&told), Some(8));
        assert_eq!(ask(&told), Ok(7));
        proxy.cut();
        eventually(&env, "the client has gone", |now| now.connections == 2);
        let mut later = claimant(&env, id_in(&told), Some(7));
        assert_eq!(ask(&told), Err("Unreachable".into()));
        eventually(&asking, "it has noticed", |now| now.connections == 0);
        assert_eq!(there.ask_blocking(Kept).unwrap().1, Ok(7));
        assert_eq!(ask(&told), Ok(7));
        [&mut taker, &mut later].into_iter().for_each(has_nothing);
        [asking, other].iter().for_each(end);
        cut([env]);
    });
}
