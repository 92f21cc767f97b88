//! Each way to wait, and each way around a kernel feature that is missing, serves and wakes alike.

mod common;

use std::future::poll_fn;
use std::mem;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::echo::{cut, echo_blocking, echo_once, host, on_core, refer};
use common::{LIMIT, bounded, builder, client, config, end, eventually, turn};
use ringpost::{Config, CoreSet, Feature, Host, Idle, RpcEnv};

/// A server and a client, each with one core, on two CPUs if there are two.
fn pair(config: &Config, without: &[Feature]) -> (RpcEnv, RpcEnv) {
    let cpus: Vec<usize> = core_affinity::get_core_ids().unwrap().iter().map(|cpu| cpu.id).collect();
    let build = |name, cpu: usize| {
        let builder = builder(name, 1, config.clone()).cores(CoreSet::list([cpu]));
        without.iter().fold(builder, |builder, feature| builder.without(*feature))
    };
    let server = build("server", cpus[cpus.len() - 1]).bind("127.0.0.1:0").start().unwrap();
    host(&server);
    (build("client", cpus[0]).start().unwrap(), server)
}

/// Asks from a core, in a row and at once, and from a thread that is no core.
fn rounds(client: &RpcEnv, server: &RpcEnv) {
    let echo = refer(client, "echo", server);
    let remote = echo.clone();
    on_core(client, move || async move {
        for round in 0..100 {
            echo_once(remote.clone(), round, round as usize * 10).await.unwrap();
        }
        let all: Vec<_> = (0..100).map(|i| ringpost::spawn(echo_once(remote.clone(), i, 1000))).collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
    });
    for round in 0..20 {
        echo_blocking(&echo, round, 100).unwrap();
    }
}

#[test]
fn every_idle_policy_serves() {
    bounded(|| {
        let spin_max = Duration::from_micros(50);
        for idle in [Idle::Park, Idle::Spin, Idle::Adaptive { spin_max }] {
            let (client, server) = pair(&Config { idle, ..config() }, &[]);
            rounds(&client, &server);
            let parks = server.snapshot().total().parks;
            assert_eq!(parks == 0, idle == Idle::Spin, "{parks} parks with {idle:?}");
            cut([client, server]);
        }
    });
}

#[test]
fn a_spinning_core_probes_a_busy_connection_and_leaves_a_silent_one_to_the_kernel() {
    bounded(|| {
        let (client, server) = pair(&Config { idle: Idle::Spin, ..config() }, &[]);
        rounds(&client, &server);
        if !matches!(common::host(), Host::Thread) {
            // The thread is not the core's alone: the time of a look belongs to others.
            assert_eq!(server.snapshot().total().probes, 0);
            return cut([client, server]);
        }
        assert!(server.snapshot().total().probes > 0, "{:?}", server.snapshot().total());
        // Nothing that it looks at means nothing that is counted.
        let end = Instant::now() + LIMIT;
        let mut before = server.snapshot().total().probes;
        loop {
            common::turn(&server);
            std::thread::park_timeout(Duration::from_millis(20));
            common::turn(&server);
            let after = server.snapshot().total().probes;
            if after == before {
                break;
            }
            before = after;
            assert!(Instant::now() < end, "it goes on looking: {:?}", server.snapshot().total());
        }
        rounds(&client, &server);
        assert!(server.snapshot().total().probes > before, "{:?}", server.snapshot().total());
        cut([client, server]);
    });
}

#[test]
fn a_core_that_sleeps_at_once_probes_nothing() {
    bounded(|| {
        let (client, server) = pair(&Config { idle: Idle::Park, ..config() }, &[]);
        rounds(&client, &server);
        assert_eq!((server.snapshot().total().probes, client.snapshot().total().probes), (0, 0));
        cut([client, server]);
    });
}

#[test]
fn a_turn_sends_to_one_connection_at_once_and_to_several_with_one_enter() {
    bounded(|| {
        let (client, server) = pair(&config(), &[]);
        let other = builder("server", 1, config()).bind("127.0.0.1:0").start().unwrap();
        host(&other);
        let [one, two] = [&server, &other].map(|server| refer(&client, "echo", server));
        // They connect, each in its own time.
        for echo in [&one, &two] {
            echo_blocking(echo, 0, 10).unwrap();
        }
        let sends = || {
            turn(&client);
            client.snapshot().total().direct_sends
        };
        let before = sends();
        let alone = one.clone();
        on_core(&client, move || async move {
            for round in 0..20 {
                echo_once(alone.clone(), round, 10).await.unwrap();
            }
        });
        let between = sends();
        assert!(between >= before + 15, "{before} to {between}");
        on_core(&client, move || async move {
            for round in 0..20 {
                let both = [&one, &two].map(|echo| ringpost::spawn(echo_once(echo.clone(), round, 10)));
                for echoed in both {
                    echoed.await.unwrap().unwrap();
                }
            }
        });
        assert_eq!(sends(), between);
        cut([client, server, other]);
    });
}

#[test]
fn an_adaptive_core_goes_to_sleep_when_nothing_comes() {
    bounded(|| {
        let spin_max = Duration::from_micros(50);
        let (client, server) = pair(&Config { idle: Idle::Adaptive { spin_max }, ..config() }, &[]);
        rounds(&client, &server);
        // Asleep it enters the kernel once and stays there: nothing is counted any more.
        let end = Instant::now() + LIMIT;
        let mut before = server.snapshot();
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < Duration::from_millis(200) {
            let after = server.snapshot();
            if after != before {
                (before, quiet_since) = (after, Instant::now());
            }
            assert!(Instant::now() < end, "the core does not come to rest");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        echo_blocking(&refer(&client, "echo", &server), 1, 100).unwrap();
        cut([client, server]);
    });
}

#[test]
fn every_feature_can_be_missing() {
    bounded(|| {
        let alone = Feature::ALL.map(|feature| vec![feature]);
        for without in alone.into_iter().chain([Feature::ALL.to_vec()]) {
            let (client, server) = pair(&config(), &without);
            assert!(without.iter().all(|feature| !server.capabilities().has(*feature)), "{without:?}");
            rounds(&client, &server);
            // The cores sleep by now, and each of these has to wake one.
            let before = eventually(&client, "it sleeps", |c| c.pending_asks == 0).parks;
            for _ in 0..20 {
                common::turn(&client);
            }
            eventually(&client, "it was woken from sleep", |c| c.parks > before);
            cut([client, server]);
        }
    });
}

#[test]
fn cores_wake_each_other_without_any_feature() {
    bounded(|| {
        for without in [vec![], Feature::ALL.to_vec()] {
            let builder = without.iter().fold(builder("two", 2, config()), |b, feature| b.without(*feature));
            let env = builder.start().unwrap();
            let echo = env.register_on(1, "echo", || common::echo::Echoing).unwrap();
            on_core(&env, move || async move {
                for round in 0..200 {
                    echo_once(echo.clone(), round, 100).await.unwrap();
                }
            });
            let total = eventually(&env, "they are counted", |c| c.asks_lane == 200);
            assert!(total.wakes_sent > 0 && total.wakes_failed == 0, "{total:?}");
            cut([env]);
        }
    });
}

#[test]
fn a_task_that_wakes_itself_gives_its_core_a_turn() {
    bounded(|| {
        const YIELDS: u64 = 100;
        let env = client(1);
        let yields = || async {
            for _ in 0..YIELDS {
                let mut yielded = false;
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        };
        on_core(&env, yields);
        turn(&env);
        turn(&env);
        let turns = env.snapshot().total().turns;
        assert!(turns >= YIELDS, "{turns}");
        end(&env);
    });
}
