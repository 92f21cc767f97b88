//! Answers every message with its own payload, on every core.
//!
//! `cargo run --release --example echo_server -- 127.0.0.1:7077`; end it with Ctrl-C.

use bytes::Bytes;
use ringpost::{CallContext, Endpoint, Error, HandleSync, HandlerError, Handlers, RpcEnv, message};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Echo {
    payload: Bytes,
}
message!(Echo as "example.Echo" => Bytes);

struct Server;

impl Endpoint for Server {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Echo>();
    }
}

impl HandleSync<Echo> for Server {
    fn handle(&mut self, echo: Echo, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        Ok(echo.payload)
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7077".to_owned());
    let env = RpcEnv::builder("echo-server").bind(address).start()?;
    let echo = env.register_per_core("echo", |_core| Server)?;
    // The first line of output tells a client where to go, which matters if the port was 0 or taken.
    println!("{echo}");
    env.await_termination()
}
