//! Client and server as two processes: they are killed, stopped and started again.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::echo::{Echo, Hang, cut, dialler, echo_blocking, echo_once, host, on_core, payload, within};
use common::process::{Process, serve_until_told};
use common::{LIMIT, bounded, builder, config, eventually, kind, unix_socket};
use ringpost::{AskError, Config, RpcEnv, StartError};

const BIND: &str = "RINGPOST_TEST_SERVER_BIND";
/// How many endpoints are registered before the others, so that two runs of a server give them different ids.
const DECOYS: &str = "RINGPOST_TEST_SERVER_DECOYS";

/// Not a test: it is the program of the server processes that the tests below start.
#[test]
#[ignore = "the server process of the other tests"]
fn server_process() {
    let bind = std::env::var(BIND).unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let decoys = std::env::var(DECOYS).map_or(0, |count| count.parse().unwrap());
    let env = builder("server", 1, config()).bind(bind).start().unwrap();
    for number in 0..decoys {
        env.register(&format!("decoy{number}"), || common::echo::Hanging).unwrap();
    }
    host(&env);
    serve_until_told(&env);
    cut([env]);
}

/// A server process.
fn started(bind: &str, decoys: usize) -> Process {
    Process::start("server_process", &[(BIND, bind), (DECOYS, &decoys.to_string())])
}

/// From nothing to 1 MiB: mostly small, one in five hundred large.
fn size(ask: u64) -> usize {
    match ask % 500 {
        0 => 1 << 20,
        1 => 0,
        n if n % 50 == 2 => 4096 + (ask * 7 % 60_000) as usize,
        n => n as usize,
    }
}

/// Asks `count` times with `window` asks in flight; how many were answered, and how the others ended.
async fn asks(uri: String, env: RpcEnv, count: u64, window: usize, tell: mpsc::Sender<()>) -> (u64, Vec<AskError>) {
    let echo = env.endpoint_ref(&uri).unwrap();
    drop(env);
    let (next, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let worker = |_| {
        let (echo, next, answered, tell) = (echo.clone(), next.clone(), answered.clone(), tell.clone());
        ringpost::spawn(async move {
            while next.get() < count {
                let ask = next.replace(next.get() + 1);
                echo_once(echo.clone(), ask, size(ask)).await?;
                answered.set(answered.get() + 1);
                if answered.get() == count / 10 {
                    let _ = tell.send(());
                }
            }
            Ok(())
        })
    };
    let workers: Vec<_> = (0..window).map(worker).collect();
    let mut errors = Vec::new();
    for worker in workers {
        errors.extend(worker.await.unwrap().err());
    }
    (answered.get(), errors)
}

#[test]
fn every_answer_of_another_process_is_the_right_one() {
    const COUNT: u64 = 20_000;
    bounded(|| {
        let server = started("127.0.0.1:0", 0);
        let client = dialler(config());
        let (env, uri) = (client.clone(), server.uri("echo"));
        let (answered, errors) = on_core(&client, move || asks(uri, env, COUNT, 256, mpsc::channel().0));
        assert_eq!((answered, errors), (COUNT, Vec::new()));
        let end = eventually(&client, "nothing is left", |c| c.pending_asks == 0);
        assert_eq!((end.replies_in, end.replies_late, end.dialled), (COUNT, 0, 1));
        cut([client]);
    });
}

#[test]
fn a_server_that_is_killed_ends_every_ask_promptly_by_name() {
    const WINDOW: usize = 256;
    bounded(|| {
        let mut server = started("127.0.0.1:0", 0);
        let client = dialler(Config { ask_timeout: LIMIT * 10, ..config() });
        let hang = client.endpoint_ref(&server.uri("hang")).unwrap();
        let hanging: Vec<_> = (0..100).map(|_| hang.ask(Hang)).collect();
        let (env, uri) = (client.clone(), server.uri("echo"));
        let (tell, told) = mpsc::channel();
        // More than can be answered before the server is gone.
        let load = client.spawn_on(0, move || asks(uri, env, 100_000, WINDOW, tell)).unwrap();
        told.recv_timeout(LIMIT).expect("a tenth is answered");
        server.child.kill().unwrap();
        let killed = Instant::now();
        let (answered, errors) = within(load).unwrap();
        let ended: Vec<_> = hanging.into_iter().map(within).collect();
        assert!(killed.elapsed() < LIMIT / 4, "they ended after {:?}", killed.elapsed());
        server.child.wait().unwrap();

        assert!((10_000..100_000).contains(&answered), "{answered}");
        assert_eq!(errors.len(), WINDOW, "each worker ends by an error");
        for error in errors.into_iter().chain(ended.into_iter().map(Result::unwrap_err)) {
            match error {
                // The second is for workers whose ask was answered just before the end, and who asked again.
                AskError::Disconnected { peer, .. } | AskError::Unreachable { peer, .. } => {
                    assert_eq!(*peer, *server.address);
                }
                other => panic!("{other:?}"),
            }
        }
        let error = hang.ask_blocking(Hang).unwrap_err();
        assert_eq!(kind(&error), "Unreachable");
        assert!(error.to_string().contains(&server.address), "{error}");
        eventually(&client, "nothing is left", |c| (c.pending_asks, c.connections) == (0, 0));
        cut([client]);
    });
}

#[test]
fn asks_to_a_stopped_server_end_by_their_timeout_and_later_ones_are_answered() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    bounded(|| {
        let server = started("127.0.0.1:0", 0);
        let client = dialler(config());
        let echo = client.endpoint_ref(&server.uri("echo")).unwrap();
        echo_blocking(&echo, 1, 100).unwrap();
        server.freeze();
        let asked = Instant::now();
        let asks: Vec<_> = (0..200).map(|i| echo.ask_within(Echo { payload: payload(i, 1000) }, TIMEOUT)).collect();
        for ask in asks {
            match within(ask) {
                Err(AskError::Timeout { target, after, .. }) => {
                    assert_eq!(after, TIMEOUT);
                    assert!(target.contains(&server.address), "{target}");
                }
                other => panic!("{other:?}"),
            }
        }
        let took = asked.elapsed();
        assert!(took >= TIMEOUT && took < LIMIT / 4, "they ended after {took:?}");
        eventually(&client, "their slots are free", |c| c.pending_asks == 0 && c.timeouts == 200);
        server.thaw();
        echo_blocking(&echo, 2, 100_000).unwrap();
        assert_eq!(client.snapshot().total().dialled, 1, "it is the same connection");
        cut([client]);
    });
}

#[test]
fn a_stopped_server_is_found_by_the_keepalive_and_a_new_connection_serves_later_asks() {
    let keepalive = Duration::from_millis(100);
    bounded(move || {
        let server = started("127.0.0.1:0", 0);
        let client = dialler(Config { keepalive, keepalive_misses: 2, ask_timeout: LIMIT * 10, ..config() });
        let [hang, echo] = ["hang", "echo"].map(|name| client.endpoint_ref(&server.uri(name)).unwrap());
        echo_blocking(&echo, 1, 100).unwrap();
        server.freeze();
        let frozen = Instant::now();
        match within(hang.ask(Hang)) {
            Err(AskError::Disconnected { peer, cause }) => {
                assert_eq!(*peer, *server.address);
                assert!(cause.contains("Config::keepalive"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
        assert!(frozen.elapsed() < LIMIT / 4, "it was found after {:?}", frozen.elapsed());
        let end = eventually(&client, "it is closed", |c| c.connections == 0);
        assert_eq!((end.keepalive_closed, end.protocol_errors), (1, 0));
        server.thaw();
        echo_blocking(&echo, 2, 100).unwrap();
        cut([client]);
    });
}

#[test]
fn a_ref_works_again_after_its_server_was_started_again() {
    bounded(|| {
        let mut server = started("127.0.0.1:0", 0);
        let pause = Duration::from_millis(20);
        let client = dialler(Config { backoff_first: pause, backoff_last: pause, ..config() });
        let echo = client.endpoint_ref(&server.uri("echo")).unwrap();
        echo_blocking(&echo, 1, 100).unwrap();
        for decoys in 1..=3 {
            server.kill();
            match echo_blocking(&echo, 2, 100) {
                Err(AskError::Disconnected { peer, .. } | AskError::Unreachable { peer, .. }) => {
                    assert_eq!(*peer, *server.address);
                }
                other => panic!("nobody is there: {other:?}"),
            }
            server = started(&server.address, decoys);
            // Its endpoints have other ids this time, which the ref has to find out by itself. The first ask may still
            // be told that an attempt failed which was made before the server was there.
            let end = Instant::now() + LIMIT;
            while let Err(error) = echo_blocking(&echo, 3, 5000) {
                assert_eq!(kind(&error), "Unreachable", "{error}");
                assert!(Instant::now() < end, "{error}");
            }
        }
        eventually(&client, "one connection a run", |c| (c.dialled, c.connections) == (4, 1));
        cut([client]);
    });
}

/// Kills a server and listens where it did as soon as it was reaped, several times. The kernel ends the rings of a killed
/// process in the background, and the listening socket with them.
fn a_killed_server_leaves_its_address_to_the_next(bind: impl Fn() -> String) {
    for _ in 0..10 {
        let mut server = started(&bind(), 0);
        let client = dialler(config());
        echo_blocking(&client.endpoint_ref(&server.uri("echo")).unwrap(), 1, 100).unwrap();
        server.kill();
        let next = builder("next", 1, config()).bind(&server.address).start();
        let next = next.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(next.address().unwrap().to_string(), server.address);
        cut([client, next]);
    }
}

#[test]
fn a_server_starts_again_at_its_port_right_after_it_was_killed() {
    bounded(|| a_killed_server_leaves_its_address_to_the_next(|| "127.0.0.1:0".to_owned()));
}

#[test]
fn a_port_that_another_process_keeps_is_named_with_the_wait_and_the_remedy() {
    bounded(|| {
        let server = started("127.0.0.1:0", 0);
        let refused = builder("next", 1, config()).bind(&server.address).start().unwrap_err();
        assert!(matches!(refused, StartError::PortsTaken { waited, .. } if waited == Duration::from_millis(250)));
        for part in [&*server.address, "250ms", "Config::port_wait", "choose another port", "Config::port_retries"] {
            assert!(refused.to_string().contains(part), "{part}: {refused}");
        }
        let client = dialler(config());
        echo_blocking(&client.endpoint_ref(&server.uri("echo")).unwrap(), 1, 100).unwrap();
        cut([client]);
    });
}

#[test]
fn a_unix_socket_that_another_process_keeps_is_named_with_the_wait_and_the_remedy() {
    bounded(|| {
        let server = started(&unix_socket(), 0);
        let refused = builder("next", 1, config()).bind(&server.address).start().unwrap_err();
        assert!(matches!(refused, StartError::Bind { .. }), "{refused:?}");
        for part in [&*server.address, "250ms", "Config::port_wait", "choose another path"] {
            assert!(refused.to_string().contains(part), "{part}: {refused}");
        }
        let client = dialler(config());
        echo_blocking(&client.endpoint_ref(&server.uri("echo")).unwrap(), 1, 100).unwrap();
        cut([client]);
    });
}

#[test]
fn a_server_starts_again_at_its_unix_socket_right_after_it_was_killed() {
    bounded(|| a_killed_server_leaves_its_address_to_the_next(unix_socket));
}
