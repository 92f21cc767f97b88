//! How an env begins: where it listens, and why it does not.

mod common;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::worker::{Number, unseen};
use common::{bounded, builder, config, end, eventually, seen_from, server};
use ringpost::{Config, CoreSet, RpcEnv, StartError};

/// Ports below the range that the system gives out by itself, other ones for each test and each run.
fn free_ports(from: u16, count: u16) -> u16 {
    let start = from + (std::process::id() % 300) as u16 * 10;
    let free = |first: &u16| (*first..*first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    (start..start + 1000).step_by(usize::from(count)).find(free).unwrap()
}

/// Takes a port that was free. A process that another test is just starting may hold the try of it for a moment.
fn take(port: u16) -> TcpListener {
    let since = std::time::Instant::now();
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => return listener,
            Err(error) => assert!(since.elapsed() < common::LIMIT / 2, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn if_the_port_is_taken_the_next_one_is_used_and_refs_carry_it() {
    bounded(|| {
        let port = free_ports(10_000, 4);
        let bind = |retries: u16| {
            builder("server", 2, Config { port_retries: retries, ..config() }).bind(format!("127.0.0.1:{port}")).start()
        };
        let foreign = take(port);
        let first = bind(3).unwrap();
        let second = bind(3).unwrap();
        let ports = [&first, &second].map(|env| env.address().unwrap().port().unwrap());
        assert_eq!(ports, [port + 1, port + 2], "another listener and another env are passed over");
        let full = bind(2).unwrap_err();
        let StartError::PortsTaken { first: from, last, .. } = &full else { panic!("{full:?}") };
        assert_eq!((*from, *last), (port, port + 2));
        assert!(full.to_string().contains("Config::port_retries"), "{full}");
        let worker = second.register("worker", unseen).unwrap();
        assert_eq!(worker.uri(), format!("ringpost://worker@127.0.0.1:{}", port + 2));
        assert_eq!(seen_from(&first, &worker).ask_blocking(Number(3)).unwrap(), 3);
        drop(foreign);
        end(&first);
        end(&second);
        let again = bind(0).unwrap();
        assert_eq!(again.address().unwrap().port(), Some(port));
        end(&again);
    });
}

#[test]
fn a_taken_port_is_an_error_by_default_and_a_move_to_another_one_is_warned_of() {
    bounded(|| {
        common::log::keep();
        let port = free_ports(25_000, 2);
        let address = format!("127.0.0.1:{port}");
        let foreign = take(port);
        let refused = builder("server", 1, config()).bind(&address).start();
        let refused = refused.map(|env| env.address().unwrap().to_string()).unwrap_err();
        assert!(
            matches!(&refused, StartError::PortsTaken { first, last, .. } if [*first, *last] == [port; 2]),
            "{refused}"
        );
        let moved = builder("server", 1, Config { port_retries: 1, ..config() }).bind(&address).start().unwrap();
        let bound = format!("127.0.0.1:{}", port + 1);
        assert_eq!(moved.address().unwrap().to_string(), bound);
        let warned = common::log::take().into_iter().filter(|(level, line)| {
            *level == tracing::Level::WARN && line.contains(&format!("wished={port} ")) && line.contains(&bound)
        });
        assert_eq!(warned.count(), 1);
        drop(foreign);
        end(&moved);
    });
}

#[test]
fn two_envs_that_start_at_the_same_moment_never_share_a_port() {
    bounded(|| {
        let port = free_ports(15_000, 17);
        for round in 0..150 {
            let together = std::sync::Arc::new(std::sync::Barrier::new(2));
            let starting = [(); 2].map(|()| {
                let together = together.clone();
                std::thread::spawn(move || {
                    // Who comes second goes on at once. The kernel may still hold the ports of the round before.
                    let config = Config { port_wait: Duration::ZERO, port_retries: 16, ..config() };
                    let builder = builder("server", 1, config).bind(format!("127.0.0.1:{port}"));
                    together.wait();
                    builder.start().unwrap()
                })
            });
            let envs = starting.map(|thread| thread.join().unwrap());
            let [one, two] = envs.each_ref().map(|env| env.address().unwrap().port().unwrap());
            assert_ne!(one, two, "round {round}");
            envs.iter().for_each(end);
        }
    });
}

#[test]
fn every_core_listens() {
    bounded(|| {
        let env = server(2);
        let (host, port) = (env.address().unwrap().host().unwrap(), env.address().unwrap().port().unwrap());
        let connections: Vec<_> = (0..64).map(|_| TcpStream::connect((host, port)).unwrap()).collect();
        eventually(&env, "all connections", |now| now.accepted == 64);
        let accepted: Vec<_> = env.snapshot().cores.iter().map(|core| core.accepted).collect();
        assert!(accepted.iter().all(|count| *count >= 10), "{accepted:?}");
        drop(connections);
        eventually(&env, "their end", |now| now.connections == 0);
        end(&env);
    });
}

#[test]
fn an_env_that_cannot_start_says_why() {
    bounded(|| {
        let with = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            builder("wrong", 1, config).start().unwrap_err().to_string()
        };
        for (name, error) in [
            ("inbox_messages", with(|config| config.inbox_messages = 0)),
            ("pending_asks", with(|config| config.pending_asks = 0)),
            ("max_frame", with(|config| config.max_frame = 4095)),
            ("receive_buffers", with(|config| config.receive_buffers = 3)),
            ("lane_messages", with(|config| config.lane_messages = usize::MAX)),
            ("tasks", with(|config| config.tasks = usize::MAX)),
        ] {
            assert!(error.contains(name), "{name}: {error}");
        }
        for cores in [CoreSet::count(0), CoreSet::list([1 << 20])] {
            let refused = RpcEnv::builder("wrong").cores(cores).start();
            assert!(matches!(refused, Err(StartError::Config(_))), "{refused:?}");
        }
        for address in ["127.0.0.1", "127.0.0.1:x", "[::1:80", "192.0.2.1:0", "no.such.host.invalid:0"] {
            let refused = builder("wrong", 1, config()).bind(address).start().unwrap_err();
            let StartError::Bind { address: named, cause } = &refused else { panic!("{refused:?}") };
            assert!(&**named == address && !cause.is_empty(), "{refused}");
        }
        let refused = builder("wrong", 1, config()).bind("127.0.0.1:0").advertise("a b").start();
        assert!(matches!(refused, Err(StartError::Config(_))), "{refused:?}");
        let refused = builder("wrong", 1, config()).advertise("localhost").start().unwrap_err().to_string();
        assert!(refused.contains("advertise") && refused.contains("set bind"), "{refused}");
    });
}

#[test]
fn a_start_that_fails_half_way_leaves_nothing_behind() {
    bounded(|| {
        // It uses up what its whole process has.
        let mut child = std::process::Command::new("sh");
        child.args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        child.args(["--ignored", "--exact", "--nocapture", "starts_with_few_descriptors"]);
        assert!(child.status().unwrap().success());
    });
}

/// Starts an env again and again, each time with one more descriptor left.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn starts_with_few_descriptors() {
    bounded(|| {
        let held = || {
            let count = |directory| std::fs::read_dir(directory).unwrap().count();
            (count("/proc/self/fd"), count("/proc/self/task"))
        };
        let (port, before) = (free_ports(20_000, 1), held());
        let mut causes = std::collections::BTreeSet::new();
        for spare in 0..64 {
            let mut files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            files.truncate(files.len() - spare);
            let limits = config();
            // Not inside a runtime: tokio-uring 0.5 itself leaks descriptors if it gets no ring.
            let server = builder("server", 2, limits).host(ringpost::Host::Thread);
            let started = server.bind(format!("127.0.0.1:{port}")).start();
            drop(files);
            match started {
                Ok(env) => {
                    assert!(causes.len() > 1, "it failed at {causes:?} alone: the test is too easy");
                    return end(&env);
                }
                Err(error) => causes.insert(error.to_string()),
            };
            common::echo::until("its threads and descriptors are gone", || held() == before);
            drop(TcpListener::bind(("127.0.0.1", port)).unwrap());
        }
        panic!("it never starts: {causes:?}");
    });
}
