//! The built-in endpoint that tells whether a name exists.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::context::CallContext;
use super::directory::Directory;
use super::endpoint::{Endpoint, HandleSync, Handlers};
use crate::wire::failure::HandlerError;

/// The name under which every env answers [`Lookup`]s.
pub const VERIFIER: &str = "endpoint-verifier";

/// Asks whether an endpoint with this name exists.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lookup {
    /// The name.
    pub name: String,
}

/// Where the endpoint lives, at the moment of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its id.
    pub endpoint: u64,
    /// Its core; none if every core has one.
    pub core: Option<u16>,
    /// How many cores the node has.
    pub cores: u16,
    /// Whether the node takes a connection to the core that its peer wants.
    pub steers: bool,
}

crate::message!(Lookup as "ringpost.Lookup" => Option<Found>);

/// Answers whether a name exists, with which id, on which core. One lives on every core of every env.
#[derive(Debug)]
pub struct EndpointVerifier {
    directory: Arc<Directory>,
    cores: u16,
    steers: bool,
}

impl EndpointVerifier {
    /// A verifier of these names, in a node with this many cores. `steers` says whether it takes a connection to the core
    /// that its peer wants.
    pub fn new(directory: Arc<Directory>, cores: u16, steers: bool) -> EndpointVerifier {
        EndpointVerifier { directory, cores, steers }
    }
}

impl Endpoint for EndpointVerifier {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Lookup>();
    }
}

impl HandleSync<Lookup> for EndpointVerifier {
    fn handle(&mut self, lookup: Lookup, _: &mut CallContext) -> Result<Option<Found>, HandlerError> {
        let found = self.directory.resolve(&lookup.name);
        let (cores, steers) = (self.cores, self.steers);
        Ok(found.map(|at| Found { endpoint: at.endpoint.0, core: at.core, cores, steers }))
    }
}
