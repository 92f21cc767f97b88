//! How an env ends.

mod common;

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use common::gate::{Event, Gate, pass};
use common::{LIMIT, bounded, builder, client, config, end, eventually, seen_from, server};
use futures::executor::block_on;
use ringpost::{
    AskError, CallContext, Config, CoreSet, Endpoint, Handle, HandleSync, HandlerError, Handlers, JoinError,
    RegisterError, RpcEnv, SendError, message,
};
use serde::{Deserialize, Serialize};

/// Waits at a gate.
#[derive(Serialize, Deserialize)]
struct Wait(u64);
message!(Wait as "shutdown.Wait" => ());

/// Answers with the number.
#[derive(Serialize, Deserialize)]
struct Plain(u32);
message!(Plain as "shutdown.Plain" => u32);

/// Shuts the env down, and answers nevertheless.
#[derive(Serialize, Deserialize)]
struct Over;
message!(Over as "shutdown.Over" => String);

/// A one-way message.
#[derive(Serialize, Deserialize)]
struct Note;
message!(Note as "shutdown.Note");

/// Counts what it handles, and tells the count and that it stopped.
struct Worker {
    env: Option<RpcEnv>,
    handled: u32,
    tell: Sender<(u32, &'static str)>,
    stop_at: Option<u64>,
}

impl Worker {
    fn new(tell: &Sender<(u32, &'static str)>) -> Worker {
        Worker { env: None, handled: 0, tell: tell.clone(), stop_at: None }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.tell.send((self.handled, "dropped"));
    }
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Plain>().ask_sync::<Over>().send_sync::<Note>();
    }

    async fn on_stop(&mut self) {
        if let Some(gate) = self.stop_at {
            pass(gate).await;
        }
        let _ = self.tell.send((self.handled, "stopped"));
    }
}

impl Handle<Wait> for Worker {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(wait.0).await;
        self.handled += 1;
        Ok(())
    }
}

impl HandleSync<Plain> for Worker {
    fn handle(&mut self, plain: Plain, _: &mut CallContext) -> Result<u32, HandlerError> {
        self.handled += 1;
        Ok(plain.0)
    }
}

impl HandleSync<Over> for Worker {
    fn handle(&mut self, _: Over, _: &mut CallContext) -> Result<String, HandlerError> {
        self.env.take().unwrap().shutdown(LIMIT);
        Ok("goodbye".into())
    }
}

impl HandleSync<Note> for Worker {
    fn handle(&mut self, _: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.handled += 1;
        Ok(())
    }
}

#[test]
fn a_shutdown_handles_and_answers_what_is_queued_and_refuses_what_comes_later() {
    bounded(|| {
        let (env, other) = (server(2), client(1));
        let (tell, told) = channel();
        let there = tell.clone();
        let near = env.register_on(0, "worker", move || Worker::new(&there)).unwrap();
        let far = seen_from(&other, &near);
        assert_eq!(far.ask_blocking(Plain(7)).unwrap(), 7);
        let mut gate = Gate::new();
        let running = far.ask(Wait(gate.id));
        gate.expect(Event::Entered);
        let mut queued: Vec<_> = (0..50).map(|number| far.ask(Plain(number))).collect();
        queued.extend((50..100).map(|number| near.ask(Plain(number))));
        near.send(Note).unwrap();
        eventually(&env, "the queue", |now| now.requests_in == 52 && now.inbox_messages == 101);
        env.shutdown(LIMIT);
        env.shutdown(Duration::ZERO);
        assert!(!env.await_termination_within(Duration::from_millis(1)).unwrap(), "it waits for what is queued");
        let late = near.ask_blocking(Plain(0));
        assert!(matches!(late, Err(AskError::Stopped { .. })), "{late:?}");
        let late = far.ask_blocking(Plain(0));
        assert!(matches!(late, Err(AskError::Stopped { .. } | AskError::NoEndpoint { .. })), "{late:?}");
        let late = env.register("late", || -> Worker { unreachable!("nobody calls it") });
        assert!(matches!(late, Err(RegisterError::Stopped { .. })), "{late:?}");
        gate.open();
        block_on(running).unwrap();
        for (number, ask) in queued.into_iter().enumerate() {
            assert_eq!(block_on(ask).unwrap(), number as u32);
        }
        assert!(env.await_termination_within(LIMIT).unwrap());
        env.await_termination().unwrap();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [(103, "stopped"), (103, "dropped")]);
        for late in [near.ask_blocking(Plain(0)), block_on(near.ask(Plain(0)))] {
            assert!(matches!(late, Err(AskError::Stopped { .. })), "{late:?}");
        }
        assert!(matches!(near.send(Note), Err(SendError::Stopped { .. })));
        end(&other);
    });
}

#[test]
fn a_handler_can_shut_its_own_env_down_and_its_answer_still_arrives() {
    bounded(|| {
        for from_peer in [false, true] {
            let (env, other) = (server(2), client(1));
            let (tell, told) = channel();
            let (inside, there) = (env.clone(), tell.clone());
            let make = move || {
                let mut worker = Worker::new(&there);
                worker.env = Some(inside);
                worker
            };
            let near = env.register_on(1, "worker", make).unwrap();
            let endpoint = if from_peer { seen_from(&other, &near) } else { near };
            assert_eq!(endpoint.ask_blocking(Over).unwrap(), "goodbye");
            assert!(env.await_termination_within(LIMIT).unwrap());
            assert_eq!(told.try_iter().collect::<Vec<_>>(), [(0, "stopped"), (0, "dropped")]);
            end(&other);
        }
    });
}

#[test]
fn what_has_not_ended_by_the_deadline_is_dropped_and_every_asker_is_told() {
    bounded(|| {
        let (env, other) = (server(2), client(1));
        let (tell, told) = channel();
        let there = tell.clone();
        let near = env.register_on(0, "worker", move || Worker::new(&there)).unwrap();
        let far = seen_from(&other, &near);
        let gate = Gate::new();
        let running = near.ask(Wait(gate.id));
        gate.expect(Event::Entered);
        let queued = [far.ask(Plain(1)), near.ask(Plain(2))];
        let (lane, to) = channel();
        let endpoint = near.clone();
        let from_core = env.spawn_on(1, move || async move {
            let ask = endpoint.ask(Plain(3));
            lane.send(()).unwrap();
            ask.await
        });
        to.recv_timeout(LIMIT).unwrap();
        eventually(&env, "the queue", |now| now.inbox_messages == 3);
        let (busy, hangs) = (env.clone(), channel::<()>());
        let hanging = env.spawn_on(1, move || async move {
            let _dropped_at_the_end = hangs.0;
            std::future::pending::<()>().await;
        });
        let began = Instant::now();
        busy.shutdown(Duration::from_millis(50));
        assert!(env.await_termination_within(LIMIT).unwrap());
        assert!(began.elapsed() >= Duration::from_millis(50));
        gate.expect(Event::Dropped);
        let [by_peer, by_thread] = queued.map(block_on);
        assert!(matches!(by_peer, Err(AskError::Disconnected { .. })), "{by_peer:?}");
        assert!(matches!(by_thread, Err(AskError::Stopped { .. })), "{by_thread:?}");
        let running = block_on(running);
        assert!(matches!(running, Err(AskError::Stopped { .. })), "{running:?}");
        assert!(hangs.1.try_recv().is_err());
        assert_eq!(hanging.unwrap().join(), Err(JoinError::Stopped));
        let from_core = from_core.unwrap().join();
        assert!(matches!(from_core, Err(JoinError::Stopped) | Ok(Err(AskError::Stopped { .. }))), "{from_core:?}");
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [(0, "dropped")], "no on_stop for what hangs");
        end(&other);
    });
}

#[test]
fn an_on_stop_that_waits_is_waited_for() {
    bounded(|| {
        let env = client(2);
        let (tell, told) = channel();
        let mut gate = Gate::new();
        let id = gate.id;
        let make = move || {
            let mut worker = Worker::new(&tell);
            worker.stop_at = Some(id);
            worker
        };
        env.register_on(1, "worker", make).unwrap();
        env.shutdown(LIMIT);
        gate.expect(Event::Entered);
        assert!(!env.await_termination_within(Duration::from_millis(1)).unwrap());
        gate.open();
        assert!(env.await_termination_within(LIMIT).unwrap());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [(0, "stopped"), (0, "dropped")]);
    });
}

#[test]
fn dropping_the_last_handle_ends_the_env_and_refs_do_not_keep_it() {
    bounded(|| {
        let env = client(2);
        let (tell, told) = channel();
        let worker = env.register("worker", move || Worker::new(&tell)).unwrap();
        let clone = env.clone();
        drop(env);
        assert_eq!(worker.ask_blocking(Plain(1)).unwrap(), 1);
        drop(clone);
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), (1, "stopped"));
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), (1, "dropped"));
        let late = worker.ask_blocking(Plain(1));
        assert!(matches!(late, Err(AskError::Stopped { .. })), "{late:?}");
    });
}

#[test]
fn an_env_whose_last_handle_was_dropped_ends_hard_when_its_drain_is_over() {
    bounded(|| {
        let drain = Duration::from_millis(50);
        let env = builder("client", 1, Config { drain, ..config() }).start().unwrap();
        let (tell, told) = channel();
        let worker = env.register("worker", move || Worker::new(&tell)).unwrap();
        let gate = Gate::new();
        let running = worker.ask(Wait(gate.id));
        gate.expect(Event::Entered);
        let began = Instant::now();
        drop(env);
        gate.expect(Event::Dropped);
        assert!(began.elapsed() >= drain, "after {:?}", began.elapsed());
        let ended = block_on(running);
        assert!(matches!(ended, Err(AskError::Stopped { .. })), "{ended:?}");
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), (0, "dropped"), "no on_stop for what hangs");
    });
}

#[test]
fn an_env_without_work_ends_at_once_every_time() {
    bounded(|| {
        for round in 0..100 {
            let env = client(2);
            let began = Instant::now();
            env.shutdown(LIMIT);
            assert!(env.await_termination_within(LIMIT).unwrap(), "round {round}");
            assert!(began.elapsed() < LIMIT / 2, "round {round}: it ended by its deadline");
        }
    });
}

/// Far below every deadline: an env that takes longer has slept until that.
const PROMPT: Duration = Duration::from_secs(5);

#[test]
fn an_env_with_default_limits_ends_as_soon_as_its_last_answer_has_left() {
    bounded(|| {
        for round in 0..48 {
            let new = |name: &str, cores| RpcEnv::builder(name).cores(CoreSet::count(cores)).host(common::host());
            let env = new("server", 2).bind("127.0.0.1:0").start().unwrap();
            let other = new("client", 1).start().unwrap();
            let (tell, inside) = (channel().0, env.clone());
            let make = move || {
                let mut worker = Worker::new(&tell);
                worker.env = Some(inside);
                worker
            };
            let near = match round % 3 {
                2 => env.register_isolated("worker", make),
                core => env.register_on(core, "worker", make),
            };
            let far = seen_from(&other, &near.unwrap());
            if round % 2 == 0 {
                assert_eq!(far.ask_blocking(Over).unwrap(), "goodbye");
            } else {
                let mut gate = Gate::new();
                let running = far.ask(Wait(gate.id));
                gate.expect(Event::Entered);
                env.shutdown(LIMIT);
                gate.open();
                block_on(running).unwrap();
            }
            assert!(env.await_termination_within(PROMPT).unwrap(), "round {round}: it sleeps until its deadline");
            end(&other);
        }
    });
}

#[test]
fn several_envs_of_one_process_do_not_get_in_each_others_way() {
    bounded(|| {
        let envs: Vec<_> = (0..4).map(|_| server(1)).collect();
        let (tell, told) = channel();
        let workers: Vec<_> = envs
            .iter()
            .map(|env| {
                let tell = tell.clone();
                env.register("worker", move || Worker::new(&tell)).unwrap()
            })
            .collect();
        for asking in &envs {
            for (number, worker) in workers.iter().enumerate() {
                let there = seen_from(asking, worker);
                let answer = asking.spawn_on(0, move || async move { there.ask(Plain(number as u32)).await });
                assert_eq!(answer.unwrap().join().unwrap().unwrap(), number as u32);
                // A ref of one env, used on a core of another.
                let foreign = worker.clone();
                let answer = asking.spawn_on(0, move || async move { foreign.ask(Plain(9)).await });
                assert_eq!(answer.unwrap().join().unwrap().unwrap(), 9);
            }
        }
        end(&envs[0]);
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), (8, "stopped"));
        assert_eq!(workers[1].ask_blocking(Plain(5)).unwrap(), 5);
        envs[1..].iter().for_each(end);
    });
}

struct Nothing;

impl Endpoint for Nothing {
    fn handlers(_: &mut Handlers<Self>) {}
}

#[test]
fn an_env_ends_however_its_cores_race() {
    bounded(|| {
        for _ in 0..300 {
            let env = builder("racing", 2, config()).start().unwrap();
            let there = env.register_on(1, "there", || Nothing).unwrap();
            drop(env.spawn_on(0, move || async move { drop(there) }).unwrap());
            end(&env);
        }
    });
}
