//! Asks of the own core allocate nothing in the steady state, however deep they are nested.

mod common;

#[path = "../benches/per_core_echo/alloc.rs"]
#[expect(dead_code, reason = "bytes are not counted here")]
mod alloc;

use common::{bounded, client, end};
use futures::future::join;
use ringpost::{CallContext, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RpcEnv, message};
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Asks after which every buffer has its size.
const WARM_UP: u32 = 500;
const ASKS: u32 = 1000;

/// How many endpoints take part in the answer.
#[derive(Serialize, Deserialize)]
struct Count;
message!(Count as "allocations.Count" => u32);

/// The end of a chain.
struct Last;

impl Endpoint for Last {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Count>();
    }
}

impl HandleSync<Count> for Last {
    fn handle(&mut self, _: Count, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(1)
    }
}

/// Asks one other endpoint.
struct Link(EndpointRef);

impl Endpoint for Link {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Count>();
    }
}

impl Handle<Count> for Link {
    async fn handle(&mut self, _: Count, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(self.0.ask(Count).await? + 1)
    }
}

/// Asks two others at once.
struct Fork(EndpointRef, EndpointRef);

impl Endpoint for Fork {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Count>();
    }
}

impl Handle<Count> for Fork {
    async fn handle(&mut self, _: Count, _: &mut CallContext) -> Result<u32, HandlerError> {
        let (left, right) = join(self.0.ask(Count), self.1.ask(Count)).await;
        Ok(left? + right? + 1)
    }
}

/// A chain of so many endpoints, each of which asks the next one.
fn chain(env: &RpcEnv, name: &str, links: u32) -> EndpointRef {
    let last = env.register_on(0, &format!("{name}-1"), || Last).unwrap();
    (2..=links).fold(last, |next, link| env.register_on(0, &format!("{name}-{link}"), || Link(next)).unwrap())
}

/// What the core allocates for many asks of `first`, of which each takes `endpoints`.
fn allocations(env: &RpcEnv, first: EndpointRef, endpoints: u32) -> u64 {
    let measure = move || async move {
        for _ in 0..WARM_UP {
            assert_eq!(first.ask(Count).await, Ok(endpoints));
        }
        let before = alloc::thread_allocs();
        for _ in 0..ASKS {
            assert_eq!(first.ask(Count).await, Ok(endpoints));
        }
        alloc::thread_allocs() - before
    };
    env.spawn_on(0, measure).unwrap().join().unwrap()
}

#[test]
fn nested_asks_of_one_core_allocate_nothing_at_any_depth() {
    bounded(|| {
        let env = client(1);
        // Below, at and above the depth to which handlers are called on the stack of their askers.
        for links in [1, 2, 3, 8, 9, 10, 20] {
            let first = chain(&env, &format!("chain-of-{links}"), links);
            assert_eq!(allocations(&env, first, links), 0, "{ASKS} asks through {links} endpoints");
        }
        end(&env);
    });
}

#[test]
fn asks_that_one_handler_makes_at_once_allocate_nothing() {
    bounded(|| {
        let env = client(1);
        let (left, right) = (chain(&env, "left", 3), chain(&env, "right", 4));
        let fork = env.register_on(0, "fork", || Fork(left, right)).unwrap();
        assert_eq!(allocations(&env, fork, 8), 0, "{ASKS} asks through eight endpoints");
        end(&env);
    });
}
