//! The server that is attacked: endpoints that any service might have, on one core, at the default configuration.

use std::error::Error;
use std::io::{Read, stdin};

use futures::future::join_all;
use ringpost::{
    CallContext, CoreSet, Endpoint, Handle, HandleDeferred, HandleShared, HandleSync, HandlerError, Handlers, Replier,
    RpcEnv,
};

use crate::messages::{Blocks, Echo, Follow, Free, Knock, Later, Tree, Units, Wait};

/// Serves at a free port on the CPU that the first argument names, tells the port on the standard output, and ends with
/// its standard input.
pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let cpu = arguments.first().ok_or("on which CPU?")?.parse()?;
    let env = RpcEnv::builder("server").bind("127.0.0.1:0").cores(CoreSet::list([cpu])).start()?;
    env.register("plain", || Plain)?;
    env.register("slow", || Slow)?;
    env.register("later", || Keeper(Vec::new()))?;
    env.register("guide", || Guide)?;
    println!("{}", env.address().ok_or("it listens nowhere")?);
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

struct Plain;

impl Endpoint for Plain {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Echo>().ask_sync::<Tree>().ask_sync::<Blocks>().ask_sync::<Units>();
    }

    // A server under attack keeps its log short.
    fn on_error(&mut self, _: &HandlerError) {}
}

impl HandleSync<Echo> for Plain {
    fn handle(&mut self, echo: Echo, _: &mut CallContext) -> Result<Vec<u8>, HandlerError> {
        Ok(echo.0)
    }
}

impl HandleSync<Tree> for Plain {
    fn handle(&mut self, _: Tree, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl HandleSync<Blocks> for Plain {
    fn handle(&mut self, blocks: Blocks, _: &mut CallContext) -> Result<u64, HandlerError> {
        Ok(blocks.0.len() as u64)
    }
}

impl HandleSync<Units> for Plain {
    fn handle(&mut self, units: Units, _: &mut CallContext) -> Result<u64, HandlerError> {
        Ok(units.0.len() as u64)
    }
}

struct Slow;

impl Endpoint for Slow {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Free>();
    }

    fn on_error(&mut self, _: &HandlerError) {}
}

impl Handle<Wait> for Slow {
    async fn handle(&mut self, _: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

impl HandleSync<Free> for Slow {
    fn handle(&mut self, _: Free, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Keeps what it owes.
struct Keeper(Vec<Replier<()>>);

impl Endpoint for Keeper {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_deferred::<Later>();
    }
}

impl HandleDeferred<Later> for Keeper {
    fn handle(&mut self, _: Later, replier: Replier<()>, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.push(replier);
        if self.0.len() > 10_000 {
            self.0.retain(|replier| !replier.is_cancelled());
        }
        Ok(())
    }
}

/// Follows refs that others send.
struct Guide;

impl Endpoint for Guide {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.concurrency(100_000).ask_shared::<Follow>();
    }

    fn on_error(&mut self, _: &HandlerError) {}
}

impl HandleShared<Follow> for Guide {
    async fn handle(&self, follow: Follow, _: &mut CallContext) -> Result<(), HandlerError> {
        join_all((0..follow.asks).map(|_| follow.to.ask(Knock))).await;
        Ok(())
    }
}
