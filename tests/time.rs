//! Time: sleeping on a core.

mod common;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::{bounded, client, end, eventually};
use futures::channel::oneshot;
use futures::future::join_all;
use ringpost::{NotOnCore, sleep, spawn};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn sleepers_wake_in_the_order_of_their_times_and_never_early() {
    bounded(|| {
        let env = client(1);
        let order = Arc::<Mutex<Vec<u64>>>::default();
        let log = order.clone();
        let task = env.spawn_on(0, move || async move {
            let sleepers = [60, 20, 100, 0, 40, 80].map(|time| {
                let log = log.clone();
                spawn(async move {
                    let began = Instant::now();
                    sleep(ms(time)).await.unwrap();
                    assert!(began.elapsed() >= ms(time), "{time} ms took {:?}", began.elapsed());
                    log.lock().unwrap().push(time);
                })
            });
            for sleeper in sleepers {
                sleeper.await.unwrap();
            }
        });
        task.unwrap().join().unwrap();
        assert_eq!(*order.lock().unwrap(), [0, 20, 40, 60, 80, 100]);
        end(&env);
    });
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    bounded(|| {
        let env = client(1);
        let before = eventually(&env, "the start", |_| true).timers;
        let (drop_it, told) = oneshot::channel::<()>();
        let (end_it, ended) = oneshot::channel::<()>();
        let task = env.spawn_on(0, || async move {
            let mut hour = Box::pin(sleep(ms(3_600_000)));
            let polled = std::future::poll_fn(|cx| Poll::Ready(hour.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
            told.await.unwrap();
            drop(hour);
            ended.await.unwrap();
        });
        let task = task.unwrap();
        eventually(&env, "the sleep", |now| now.timers == before + 1);
        drop_it.send(()).unwrap();
        eventually(&env, "its end", |now| now.timers == before);
        end_it.send(()).unwrap();
        task.join().unwrap();
        end(&env);
    });
}

#[test]
fn ten_thousand_sleepers_of_one_task_all_wake() {
    const COUNT: usize = 10_000;
    bounded(|| {
        let env = client(1);
        let awake = Arc::<AtomicUsize>::default();
        let count = awake.clone();
        let task = env.spawn_on(0, move || async move {
            let sleeper = |number| {
                let count = count.clone();
                async move {
                    sleep(ms(number as u64 % 50)).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            };
            join_all((0..COUNT).map(sleeper)).await;
        });
        task.unwrap().join().unwrap();
        assert_eq!(awake.load(Ordering::Relaxed), COUNT);
        end(&env);
    });
}

#[test]
fn a_sleep_on_a_thread_that_is_no_core_is_an_error_at_once() {
    let mut context = Context::from_waker(Waker::noop());
    let mut sleep = pin!(sleep(ms(1)));
    let polled = Pin::new(&mut sleep).poll(&mut context);
    let Poll::Ready(Err(NotOnCore { .. })) = polled else { panic!("{polled:?}") };
}
