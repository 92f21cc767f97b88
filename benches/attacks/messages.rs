//! What the server handles.

use ringpost::{EndpointRef, message};
use serde::{Deserialize, Serialize};

/// Answered with its bytes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Echo(pub(crate) Vec<u8>);
message!(Echo as "attacks.Echo" => Vec<u8>);

/// Nests as deeply as its sender likes. Answered with nothing.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tree(pub(crate) Vec<Tree>);
message!(Tree as "attacks.Tree" => ());

/// 512 bytes decoded for one byte on the wire. Answered with the number of blocks.
#[derive(Serialize, Deserialize)]
pub(crate) struct Blocks(pub(crate) Vec<Option<[[u8; 32]; 16]>>);
message!(Blocks as "attacks.Blocks" => u64);

/// Elements that take nothing on the wire and in memory. Answered with their number.
#[derive(Serialize, Deserialize)]
pub(crate) struct Units(pub(crate) Vec<()>);
message!(Units as "attacks.Units" => u64);

/// Its handler never returns.
#[derive(Serialize, Deserialize)]
pub(crate) struct Wait;
message!(Wait as "attacks.Wait" => ());

/// Asks the endpoint that handles [`Wait`] whether it is free.
#[derive(Serialize, Deserialize)]
pub(crate) struct Free;
message!(Free as "attacks.Free" => ());

/// Its answer is deferred and never comes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Later;
message!(Later as "attacks.Later" => ());

/// Has the server ask `to` so many times.
#[derive(Serialize, Deserialize)]
pub(crate) struct Follow {
    pub(crate) to: EndpointRef,
    pub(crate) asks: u32,
}
message!(Follow as "attacks.Follow" => ());

/// What the server asks when it follows a ref.
#[derive(Serialize, Deserialize)]
pub(crate) struct Knock;
message!(Knock as "attacks.Knock" => ());
