//! One scenario, played at every distance between asker and endpoint.

use std::future::Future;

use ringpost::{
    Ask, AskError, CallContext, Config, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, Host, RpcEnv,
    message,
};
use serde::{Deserialize, Serialize};

use super::{builder, end, host, seen_from, unix_socket};

/// How far an endpoint is from who asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distance {
    /// On the same core.
    Local,
    /// On another core of the same env.
    Lane,
    /// In another env, on the core that owns the connection.
    Peer,
    /// In another env, on another core than the one that owns the connection.
    PeerLane,
    /// As [`Peer`](Distance::Peer), over a Unix socket.
    Unix,
}

pub(crate) const DISTANCES: [Distance; 5] =
    [Distance::Local, Distance::Lane, Distance::Peer, Distance::PeerLane, Distance::Unix];

impl Distance {
    /// Whether messages travel as bytes.
    pub(crate) fn is_remote(self) -> bool {
        matches!(self, Distance::Peer | Distance::PeerLane | Distance::Unix)
    }
}

/// An asker, always core 0 of `asking`, and an env for endpoints at some distance from it.
pub(crate) struct Scene {
    pub(crate) distance: Distance,
    /// The env that asks.
    pub(crate) asking: RpcEnv,
    /// The env that answers; the same one unless messages travel as bytes.
    pub(crate) answering: RpcEnv,
    /// The core that endpoints are placed on.
    pub(crate) core: usize,
    /// Keeps the connection: it closes with the last ref to its peer, and the next one may go to another core.
    _connection: Option<EndpointRef>,
}

/// Plays a scenario at every distance, each time with new envs, which must end cleanly.
pub(crate) fn at_every_distance(config: Config, play: impl Fn(&Scene)) {
    for distance in DISTANCES {
        at(distance, config.clone(), &play);
    }
}

/// Plays a scenario at one distance. The asking env has these limits too.
pub(crate) fn at(distance: Distance, config: Config, play: impl Fn(&Scene)) {
    at_hosted(distance, config, [host(); 2], play);
}

/// The same with these hosts of the asking and the answering env, if there are two.
pub(crate) fn at_hosted(distance: Distance, config: Config, hosts: [Host; 2], play: impl Fn(&Scene)) {
    // What a failed test prints says where it failed.
    println!("at distance {distance:?}, hosted by {hosts:?}");
    let scene = Scene::new(distance, config, hosts);
    play(&scene);
    end(&scene.asking);
    end(&scene.answering);
}

impl Scene {
    fn new(distance: Distance, config: Config, [asking, answering]: [Host; 2]) -> Scene {
        if !distance.is_remote() {
            let env = builder("both", 2, config).host(answering).start().unwrap();
            let core = usize::from(distance == Distance::Lane);
            return Scene { distance, asking: env.clone(), answering: env, core, _connection: None };
        }
        let bind = if distance == Distance::Unix { unix_socket() } else { "127.0.0.1:0".into() };
        let answering = builder("server", 2, config.clone()).host(answering).bind(bind).start().unwrap();
        let asking = builder("asker", 1, config).host(asking).start().unwrap();
        let probe = answering.register_per_core("where", |_| Where).unwrap();
        let connection = seen_from(&asking, &probe);
        let owner = connection.ask_blocking(AskWhere).unwrap();
        let core = if distance == Distance::PeerLane { 1 - owner } else { owner };
        Scene { distance, asking, answering, core, _connection: Some(connection) }
    }

    /// Registers an endpoint at the scene's distance, and gives the asker's ref to it.
    pub(crate) fn place<E: Endpoint>(&self, name: &str, make: impl FnOnce() -> E + Send + 'static) -> EndpointRef {
        let own = self.answering.register_on(self.core, name, make).unwrap();
        if self.distance.is_remote() { seen_from(&self.asking, &own) } else { own }
    }

    /// Runs a future on the asking core.
    pub(crate) fn run<F, Fut>(&self, make: F) -> Fut::Output
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send,
    {
        self.asking.spawn_on(0, make).unwrap().join().unwrap()
    }

    /// The outcome of the same ask from the asking core, from a thread that blocks, and from a thread that awaits.
    pub(crate) fn outcomes<M>(&self, to: &EndpointRef, message: M) -> [Result<M::Reply, AskError>; 3]
    where
        M: Ask + Clone,
    {
        let (there, first) = (to.clone(), message.clone());
        let on_core = self.run(move || async move { there.ask(first).await });
        let blocking = to.ask_blocking(message.clone());
        let awaiting = futures::executor::block_on(to.ask(message));
        [on_core, blocking, awaiting]
    }
}

#[derive(Serialize, Deserialize)]
struct AskWhere;
message!(AskWhere as "scene.Where" => usize);

/// Tells which core it is on.
struct Where;

impl Endpoint for Where {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<AskWhere>();
    }
}

impl HandleSync<AskWhere> for Where {
    fn handle(&mut self, _: AskWhere, context: &mut CallContext) -> Result<usize, HandlerError> {
        Ok(context.core())
    }
}
