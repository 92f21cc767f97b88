//! What is sent: 64 bytes, answered with themselves.

use std::cell::RefCell;
use std::rc::Rc;

use ringpost::{
    CallContext, Endpoint, EndpointContext, EndpointRef, HandleSync, HandlerError, Handlers, RpcEnv, message,
};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 64 bytes that serde takes as bytes, not as 64 numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Words(pub(crate) [u8; 64]);

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
        let bytes = <&'de [u8]>::deserialize(deserializer)?;
        bytes.try_into().map(Words).map_err(|_| D::Error::invalid_length(bytes.len(), &"64 bytes"))
    }
}

message!(Words as "instructions.Words" => Words);

/// What an endpoint tells of itself as it starts.
pub(crate) type Told = Rc<RefCell<Option<(EndpointRef, RpcEnv)>>>;

/// Answers with what it gets.
pub(crate) struct Echo(pub(crate) Told);

impl Endpoint for Echo {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Words>();
    }

    async fn on_start(&mut self, context: &EndpointContext) -> Result<(), HandlerError> {
        self.0.replace(Some((context.myself(), context.env())));
        Ok(())
    }
}

impl HandleSync<Words> for Echo {
    fn handle(&mut self, words: Words, _: &mut CallContext) -> Result<Words, HandlerError> {
        Ok(words)
    }
}
