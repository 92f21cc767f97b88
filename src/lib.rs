#![doc = include_str!("../README.md")]
//!
//! # The guide
//!
//! **An env** ([`RpcEnv`]) is one node: a number of cores, each a thread pinned to a CPU with its own io_uring, its
//! own endpoints and its own connections. Cores share nothing that a message touches; they pass values to each other
//! through queues with one sender and one receiver.
//!
//! **An endpoint** ([`Endpoint`]) is your object. It is made on the core that owns it and stays there, so it needs no
//! lock and may hold `Rc`s. It handles one message at a time. Say which messages in [`Endpoint::handlers`], and how in
//! [`Handle`] (may await) or [`HandleSync`] (may not). [`HandleShared`] is for handlers of which several may be in flight
//! at once, [`HandleDeferred`] for answers that come later, from wherever a [`Replier`] was taken.
//!
//! **A context** comes with each message ([`CallContext`]): who asks and until when, the endpoint's own ref, its env, and
//! a way for the endpoint to stop itself.
//!
//! **A message** ([`Message`]) is a serde type with a name on the wire. [`message!`] makes one; with a reply type it is
//! for [`ask`](EndpointRef::ask), without for [`send`](EndpointRef::send).
//!
//! **A ref** ([`EndpointRef`]) reaches an endpoint on the same core, another core or another node in the same way. It
//! may be cloned, used on any thread, and sent inside messages. [`RpcEnv::endpoint_ref`] makes one without asking anybody;
//! one that [`RpcEnv::lookup`] found goes straight to the endpoint's core. A [`TypedRef`] takes the messages of one
//! [`protocol!`] alone. Nodes that listen nowhere are reached too, over the connections that they opened.
//!
//! **Events** of connections come to the endpoints that ask for them with [`Handlers::events`], in order with the
//! messages of that connection: see [`Endpoint::on_connected`].
//!
//! # Where code runs, and what it must not do
//!
//! Handlers, tasks started with [`spawn`] or [`RpcEnv::spawn_on`], and the factories given to `register` run on a
//! core's thread. Whatever blocks there blocks all of that core: use `ask(..).await`, never
//! [`ask_blocking`](EndpointRef::ask_blocking), which answers with an error there. On other threads both work, under
//! any executor. [`sleep`] waits for a time without blocking the core. An endpoint that must block gets a thread of
//! its own from [`RpcEnv::register_isolated`].
//!
//! # Beside tokio
//!
//! Callers may be tasks of any runtime. With the feature `tokio-uring`, which is no default, cores can live in one too:
//! [`Host::TokioUring`] gives each core's thread a `tokio_uring` runtime, so that handlers can await files, tokio's
//! timers and channels; [`Builder::start_local`] puts an env of one core into a runtime that is there. Both wait in the
//! runtime, not in the core's own ring, which takes longer: leave the default where latency decides.
//!
//! ```
//! # #[cfg(feature = "tokio-uring")]
//! # fn host() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::time::Duration;
//! # use ringpost::{CallContext, CoreSet, Endpoint, Handle, HandlerError, Handlers, Host, RpcEnv, message};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct Read { path: String }
//! # message!(Read as "guide.Read" => Vec<u8>);
//! # struct Files;
//! # impl Endpoint for Files {
//! #     fn handlers(handlers: &mut Handlers<Self>) { handlers.ask::<Read>(); }
//! # }
//! impl Handle<Read> for Files {
//!     async fn handle(&mut self, read: Read, _: &mut CallContext) -> Result<Vec<u8>, HandlerError> {
//!         let file = tokio_uring::fs::File::open(read.path).await?;
//!         let (length, mut bytes) = file.read_at(vec![0; 4096], 0).await;
//!         bytes.truncate(length?);
//!         file.close().await?;
//!         Ok(bytes)
//!     }
//! }
//!
//! let env = RpcEnv::builder("files").cores(CoreSet::count(1)).host(Host::TokioUring).start()?;
//! let files = env.register("files", || Files)?;
//! let name = files.ask_blocking(Read { path: "/proc/sys/kernel/ostype".into() })?;
//! assert_eq!(name, b"Linux\n");
//! # env.shutdown(Duration::from_secs(10));
//! # env.await_termination()?;
//! # Ok(())
//! # }
//! # #[cfg(feature = "tokio-uring")]
//! # host().unwrap();
//! ```
//!
//! # What is promised
//!
//! * Each ask has exactly one outcome: the reply, or an [`AskError`] that says what happened and where. Messages are
//!   delivered at most once; nothing is sent again after its bytes may have left.
//! * Messages from one core (or one other thread) to one ref arrive in the order in which they were sent.
//! * A handler's error or panic goes to the asker, then to [`Endpoint::on_error`]; the endpoint lives on. An error whose
//!   type both sides know arrives as it was: see [`HandlerError::typed`].
//! * What a handler asks for is wanted no longer than its own answer: its asks end at its caller's deadline at the latest.
//! * Everything that queues is bounded by [`Config`]; at the bound the sender gets an error, at once, or waits for room
//!   ([`EndpointRef::patient`]).
//! * A connection that ends takes its asks along: all of them fail at once, with the peer's address. The next ask or
//!   send connects again.
//!
//! `docs/CONTRACT.md` in the repository has all of it, with the tests, the limits and their counters; `docs/SPARK.md` says
//! what is meant to differ from Spark.
//!
//! # The log
//!
//! Lines are events of [`tracing`](https://docs.rs/tracing). Filter them by their targets, which stay as they are:
//!
//! * `ringpost::env`: an env starts, where it listens, what its settings mean on this machine, what its end leaves undone
//! * `ringpost::core`: threads, rings and wakes of its cores, and how many warnings had no line
//! * `ringpost::connection`: peers, connections and what is lost with them
//! * `ringpost::endpoint`: endpoints, their handlers, and messages that go wrong; errors of handlers at DEBUG
//! * `ringpost::rpc`: each ask and each one-way message, at TRACE
//!
//! The rate of warnings that others can cause is limited; those without a line are counted in the field `untold` of the next
//! one, or of a line about them alone once their second is over.
//!
//! # Waiting costs more than working
//!
//! What decides latency is how a core waits ([`Idle`]): a core that sleeps needs tens of microseconds to wake up, a
//! core that spins burns its CPU. The default spins for a while after the last event, for as long as that pays.

#![deny(unsafe_code, missing_docs)]
#![cfg_attr(
    not(feature = "tokio-uring"),
    allow(rustdoc::broken_intra_doc_links, reason = "the guide links what only that feature has")
)]

#[cfg(not(target_os = "linux"))]
compile_error!("ringpost needs Linux and its io_uring: see LINUX-ONLY.md");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("ringpost needs a 64-bit target: see LINUX-ONLY.md");

mod address;
mod asking;
mod builder;
mod config;
mod contexts;
mod endpoint_ref;
mod env;
mod error;
mod host;
mod listen;
mod locator;
mod patient;
mod ref_identity;
mod registration;
mod steering;
mod typed_patient;
mod typed_ref;

// The floors below are open to this crate's own tests and benchmarks; their interfaces change at will.
#[doc(hidden)]
pub mod dispatch;
#[doc(hidden)]
#[expect(unsafe_code, reason = "a room for unsafe code: tasks, wakers and the memory of suspended handlers")]
pub mod executor;
#[doc(hidden)]
#[expect(unsafe_code, reason = "a room for unsafe code: type-erased messages and the models of the lanes")]
pub mod mesh;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
#[expect(unsafe_code, reason = "a room for unsafe code: system calls and memory that the kernel writes")]
pub mod ring;
#[doc(hidden)]
pub mod shard;
#[doc(hidden)]
pub mod wire;

pub use address::{Address, AddressError};
pub use asking::Asking;
pub use builder::Builder;
pub use config::{Config, CoreSet};
pub use dispatch::context::{CallContext, Caller};
pub use dispatch::endpoint::{Endpoint, Handle, HandleDeferred, HandleShared, HandleSync, Handlers};
pub use dispatch::endpoint_context::EndpointContext;
pub use dispatch::protocol::{Accepted, Accepts, Protocol};
pub use dispatch::replier::Replier;
pub use endpoint_ref::EndpointRef;
pub use env::RpcEnv;
pub use error::{
    AskError, Error, HandlerError, JoinError, LookupError, NameError, RegisterError, SendError, SetupError, SpawnError,
    StartError,
};
pub use executor::idle::Idle;
pub use host::Host;
pub use locator::Locator;
pub use net::ref_policy::RefPolicy;
pub use net::remote::Remote;
pub use net::roster::Peer;
pub use patient::PatientRef;
pub use registration::Registering;
pub use ring::{Capabilities, Feature};
pub use shard::counters::{CoreSnapshot, Snapshot};
pub use shard::placement::Placement;
pub use shard::sleep::{NotOnCore, Sleep, sleep};
pub use shard::spawn::{JoinHandle, spawn};
pub use typed_patient::TypedPatientRef;
pub use typed_ref::TypedRef;
pub use wire::failure::WireError;
pub use wire::message::{Ask, Message, MessageId, OneWay};
