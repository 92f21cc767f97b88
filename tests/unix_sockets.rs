//! Envs that listen on a Unix socket, and the file that it has.

mod common;

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};

use common::echo::{echo_blocking, host, until, within};
use common::{LIMIT, bounded, builder, client, config, end, eventually, seen_from, unix_socket, uri};
use ringpost::{
    Address, AskError, CallContext, Caller, Config, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, Remote,
    RpcEnv, StartError, message,
};
use serde::{Deserialize, Serialize};

/// Who asks?
#[derive(Serialize, Deserialize)]
struct WhoAmI;
message!(WhoAmI as "unix.WhoAmI" => String);

/// Asks this ref who is asking.
#[derive(Serialize, Deserialize)]
struct Forward(EndpointRef);
message!(Forward as "unix.Forward" => String);

struct Porter;

impl Endpoint for Porter {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<WhoAmI>().ask::<Forward>();
    }
}

impl HandleSync<WhoAmI> for Porter {
    fn handle(&mut self, _: WhoAmI, context: &mut CallContext) -> Result<String, HandlerError> {
        match context.caller() {
            Caller::Peer(peer) => {
                assert_eq!(peer.remote(), Remote::Unix);
                Ok(peer.remote().to_string())
            }
            other => Ok(format!("{other:?}")),
        }
    }
}

impl ringpost::Handle<Forward> for Porter {
    async fn handle(&mut self, Forward(to): Forward, _: &mut CallContext) -> Result<String, HandlerError> {
        Ok(to.ask(WhoAmI).await?)
    }
}

fn serve(bind: &str, cores: usize) -> RpcEnv {
    let env = builder("server", cores, config()).bind(bind).start().unwrap();
    host(&env);
    env
}

fn path(address: &str) -> &str {
    address.strip_prefix("unix:").unwrap()
}

#[test]
fn asks_lookups_and_refs_in_messages_work_over_unix_sockets() {
    bounded(|| {
        let (address, second) = (unix_socket(), unix_socket());
        let (env, other, asking) = (serve(&address, 2), serve(&second, 1), client(2));
        assert_eq!(env.address(), Some(&Address::unix(path(&address)).unwrap()));
        let echo = asking.lookup_blocking(&uri(&env, "echo")).unwrap();
        assert_eq!(echo.uri(), format!("ringpost://echo@{address}"));
        for (seed, size) in (0..).zip([0, 10, 100_000, 3 << 20]) {
            echo_blocking(&echo, seed, size).unwrap();
        }
        let porters = [&env, &other].map(|env| env.register("porter", || Porter).unwrap());
        let far = seen_from(&asking, &porters[0]);
        assert_eq!(far.ask_blocking(WhoAmI).unwrap(), "a process behind a Unix socket");
        let third = seen_from(&asking, &porters[1]);
        assert_eq!(far.ask_blocking(Forward(third)).unwrap(), "a process behind a Unix socket");
        [&asking, &env, &other].into_iter().for_each(end);
    });
}

#[test]
fn a_lost_connection_over_a_unix_socket_is_told_and_made_again() {
    bounded(|| {
        let address = unix_socket();
        let asking = builder("client", 1, Config { backoff_first: LIMIT / 1000, ..config() }).start().unwrap();
        let env = serve(&address, 1);
        let (hang, echo) = (seen_from(&asking, &env.endpoint_ref(&uri(&env, "hang")).unwrap()), uri(&env, "echo"));
        let echo = asking.endpoint_ref(&echo).unwrap();
        echo_blocking(&echo, 1, 10).unwrap();
        let hanging = hang.ask(common::echo::Hang);
        eventually(&env, "it has arrived", |c| c.requests_in == 2);
        env.shutdown(std::time::Duration::ZERO);
        let lost = within(hanging);
        assert!(matches!(&lost, Err(AskError::Disconnected { peer, .. }) if **peer == *address), "{lost:?}");
        assert!(env.await_termination_within(LIMIT).unwrap());
        let gone = echo_blocking(&echo, 2, 10);
        assert!(matches!(&gone, Err(AskError::Unreachable { peer, .. }) if **peer == *address), "{gone:?}");
        let again = serve(&address, 1);
        until("it is reached again", || echo_blocking(&echo, 3, 10).is_ok());
        [&asking, &again].into_iter().for_each(end);
    });
}

#[test]
fn the_file_is_there_as_long_as_the_env_and_every_core_shares_its_socket() {
    bounded(|| {
        let address = unix_socket();
        let env = serve(&address, 2);
        let connections: Vec<_> = (0..16).map(|_| UnixStream::connect(path(&address)).unwrap()).collect();
        eventually(&env, "all are accepted", |c| (c.accepted, c.sockets) == (16, 18));
        drop(connections);
        end(&env);
        assert!(!fs::exists(path(&address)).unwrap());
    });
}

#[test]
fn a_file_that_a_crash_left_behind_is_replaced() {
    bounded(|| {
        let address = unix_socket();
        drop(UnixListener::bind(path(&address)).unwrap());
        assert!(fs::exists(path(&address)).unwrap());
        let (env, asking) = (serve(&address, 1), client(1));
        echo_blocking(&asking.endpoint_ref(&uri(&env, "echo")).unwrap(), 1, 10).unwrap();
        [&asking, &env].into_iter().for_each(end);
    });
}

#[test]
fn a_path_where_somebody_listens_is_refused_and_left_alone() {
    bounded(|| {
        let address = unix_socket();
        let (env, asking) = (serve(&address, 1), client(1));
        let refused = builder("second", 1, config()).bind(&address).start().unwrap_err();
        let StartError::Bind { address: named, cause } = &refused else { panic!("{refused:?}") };
        assert!(**named == *address && cause.contains("listens there already"), "{refused}");
        echo_blocking(&asking.endpoint_ref(&uri(&env, "echo")).unwrap(), 1, 10).unwrap();
        [&asking, &env].into_iter().for_each(end);
    });
}

#[test]
fn a_start_that_fails_leaves_no_file() {
    bounded(|| {
        let address = unix_socket();
        let refused = builder("server", 2, config()).bind(&address).advertise("host").start();
        assert!(matches!(&refused, Err(StartError::Config(text)) if text.contains("path")), "{refused:?}");
        assert!(!fs::exists(path(&address)).unwrap());
        for wrong in ["unix:relative", "unix:/no/such/directory/x", "unix:/a b"] {
            let refused = builder("server", 1, config()).bind(wrong).start();
            assert!(matches!(&refused, Err(StartError::Bind { address, .. }) if **address == *wrong), "{refused:?}");
        }
    });
}
