use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;

/// No test waits longer than this.
const LIMIT: Duration = Duration::from_secs(20);

/// A resolver whose names are resolved by the test, one after the other.
struct Scene {
    resolver: Resolver,
    /// Names that threads have taken up, each with the way to answer it.
    begun: Receiver<(String, Sender<io::Result<Vec<SocketAddr>>>)>,
    told: Receiver<(NameWaiter, Found)>,
}

fn scene(config: Config, clock: fn() -> u64) -> Scene {
    let (begin, begun) = channel();
    let (tell, told) = channel();
    let begin = Mutex::new(begin);
    let lookup = move |host: &str| {
        let (answer, answered) = channel();
        let _ = begin.lock().unwrap().send((host.to_owned(), answer));
        answered.recv().unwrap_or_else(|_| Err(io::Error::other("the test has ended")))
    };
    let tell = Mutex::new(tell);
    let tell = move |waiter, found| {
        let _ = tell.lock().unwrap().send((waiter, found));
    };
    Scene { resolver: Resolver::new(&config, Arc::new(lookup), clock, tell), begun, told }
}

fn waiter(peer: u32) -> NameWaiter {
    NameWaiter { core: 0, peer, serial: 0, port: 7077 }
}

fn one(address: &str) -> Found {
    Found::Addresses(vec![address.parse().unwrap()])
}

#[test]
fn a_name_that_many_ask_for_is_resolved_once_and_each_gets_its_own_port() {
    let scene = scene(Config::default(), || 0);
    for peer in 0..100 {
        let waiter = NameWaiter { port: 1000 + peer as u16, ..waiter(peer) };
        assert_eq!(scene.resolver.resolve("h", waiter), None);
    }
    let (host, answer) = scene.begun.recv_timeout(LIMIT).unwrap();
    assert_eq!(host, "h");
    answer.send(Ok(vec!["10.0.0.1:0".parse().unwrap()])).unwrap();
    for peer in 0..100 {
        let (waiter, found) = scene.told.recv_timeout(LIMIT).unwrap();
        assert_eq!((waiter.peer, found), (peer, one(&format!("10.0.0.1:{}", 1000 + peer))));
    }
    assert!(scene.begun.try_recv().is_err());
}

#[test]
fn as_many_threads_as_the_limit_are_started_and_as_many_wait_as_the_limit() {
    let config = Config { resolver_threads: 2, resolver_queue: 5, ..Config::default() };
    let scene = scene(config, || 0);
    for peer in 0..5 {
        assert_eq!(scene.resolver.resolve(&format!("h{peer}"), waiter(peer)), None);
    }
    assert_eq!(scene.resolver.resolve("h0", waiter(5)), Some(Found::Full), "who shares an answer waits too");
    let first = [(); 2].map(|()| scene.begun.recv_timeout(LIMIT).unwrap());
    assert_eq!(scene.resolver.0.lock().threads, 2);
    assert!(scene.begun.try_recv().is_err(), "the third name waits for a thread");
    first[0].1.send(Err(io::Error::other("no such host"))).unwrap();
    let (freed, found) = scene.told.recv_timeout(LIMIT).unwrap();
    assert_eq!((format!("h{}", freed.peer), found), (first[0].0.clone(), Found::Nothing("no such host".into())));
    assert_eq!(scene.begun.recv_timeout(LIMIT).unwrap().0, "h2");
    assert_eq!(scene.resolver.resolve("h6", waiter(6)), None, "there is room again");
    assert_eq!(scene.resolver.0.lock().threads, 2);
}

#[test]
fn what_was_found_is_kept_for_a_while_and_what_was_not_for_a_shorter_while() {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    let seconds = |seconds: u64| CLOCK.store(seconds * 1_000_000_000, Ordering::SeqCst);
    let scene = scene(Config::default(), || CLOCK.load(Ordering::SeqCst));
    let answer = |host: &str, answer: io::Result<Vec<SocketAddr>>| {
        assert_eq!(scene.resolver.resolve(host, waiter(0)), None);
        let (begun, tell) = scene.begun.recv_timeout(LIMIT).unwrap();
        assert_eq!(begun, host);
        tell.send(answer).unwrap();
        scene.told.recv_timeout(LIMIT).unwrap().1
    };
    let found = answer("good", Ok(vec!["10.0.0.1:0".parse().unwrap()]));
    assert_eq!(found, one("10.0.0.1:7077"));
    let nothing = answer("bad", Ok(Vec::new()));
    assert_eq!(nothing, Found::Nothing("it has no address".into()));
    assert_eq!(scene.resolver.resolve("good", waiter(0)), Some(found.clone()));
    assert_eq!(scene.resolver.resolve("bad", waiter(0)), Some(nothing));
    seconds(1);
    assert_eq!(answer("bad", Err(io::Error::other("still not"))), Found::Nothing("still not".into()));
    seconds(4);
    assert_eq!(scene.resolver.resolve("good", waiter(0)), Some(found));
    seconds(5);
    assert_eq!(answer("good", Ok(vec!["10.0.0.2:0".parse().unwrap()])), one("10.0.0.2:7077"));
}

#[test]
fn as_many_names_are_kept_as_the_limit_and_the_oldest_goes_first() {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    let scene = scene(Config { resolver_cache: 2, ..Config::default() }, || CLOCK.fetch_add(1, Ordering::SeqCst));
    for host in ["a", "b", "c"] {
        assert_eq!(scene.resolver.resolve(host, waiter(0)), None);
        let (_, tell) = scene.begun.recv_timeout(LIMIT).unwrap();
        tell.send(Ok(vec!["10.0.0.1:0".parse().unwrap()])).unwrap();
        scene.told.recv_timeout(LIMIT).unwrap();
    }
    let mut kept: Vec<_> = scene.resolver.0.lock().cache.keys().map(|host| host.to_string()).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["b", "c"]);
    let long = "x".repeat(254);
    assert!(matches!(scene.resolver.resolve(&long, waiter(0)), Some(Found::Nothing(why)) if why.contains("253")));
}

#[test]
fn the_threads_end_with_the_env_and_nobody_is_told_after_it() {
    let scene = scene(Config::default(), || 0);
    assert_eq!(scene.resolver.resolve("hangs", waiter(0)), None);
    let (_, hanging) = scene.begun.recv_timeout(LIMIT).unwrap();
    let weak = Arc::downgrade(&scene.resolver.0);
    scene.resolver.close();
    assert_eq!(scene.resolver.resolve("late", waiter(1)), Some(Found::Nothing("the env has shut down".into())));
    drop(scene.resolver);
    hanging.send(Ok(vec!["10.0.0.1:0".parse().unwrap()])).unwrap();
    // The last thread lets go of what they share, the sender of this channel included.
    assert!(scene.told.recv_timeout(LIMIT).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Disconnected));
    assert!(weak.upgrade().is_none());
}
