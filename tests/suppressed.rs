//! Warnings that others can cause have a rate, and what exceeds it is told by its number: soon, and at the end of the env.

mod common;

use std::time::Instant;

use common::echo::{alone, within};
use common::log::{self, Line};
use common::{bounded, client, end, eventually, server, uri};
use ringpost::{CallContext, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, message};
use serde::{Deserialize, Serialize};

/// Nobody handles it.
#[derive(Serialize, Deserialize, Clone)]
struct Stranger;
message!(Stranger as "suppressed.Stranger");

/// Panics.
#[derive(Serialize, Deserialize, Clone)]
struct Fail;
message!(Fail as "suppressed.Fail" => ());

struct Subject;

impl Endpoint for Subject {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Fail>();
    }
}

impl HandleSync<Fail> for Subject {
    fn handle(&mut self, _: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        // Without the message that each panic prints.
        std::panic::resume_unwind(Box::new("as asked"))
    }
}

/// Sends from one turn, so that the rate allows one line.
fn send_strangers(env: &ringpost::RpcEnv, to: &EndpointRef, count: usize) {
    let to = to.clone();
    let sends = move || async move { (0..count).for_each(|_| to.send(Stranger).unwrap()) };
    env.spawn_on(0, sends).unwrap().join().unwrap();
}

/// What a line says of the number of those without one.
fn untold(line: &Line) -> u64 {
    let (_, number) = line.text.split_once("untold=").expect("it has a number");
    number.split_whitespace().next().unwrap().parse().unwrap()
}

fn is_summary(line: &Line) -> bool {
    line.text.contains("warnings were suppressed") && line.text.contains("endpoint=\"subject\"")
}

#[test]
fn what_has_no_line_is_told_by_its_number_when_the_second_is_over() {
    let _alone = alone();
    bounded(|| {
        let env = client(1);
        let subject = env.register_on(0, "subject", || Subject).unwrap();
        log::keep();
        send_strangers(&env, &subject, 20);
        // Nothing else happens in the env: its core wakes by itself.
        let told = log::wait_for(1, is_summary);
        assert_eq!(untold(&told[0]), 19, "{told:?}");
        assert!(told[0].text.contains("warning=\"nobody handles a message\""), "{told:?}");
        end(&env);
        assert!(!log::take_lines().iter().any(is_summary), "nothing is left to tell");
    });
}

#[test]
fn what_has_no_line_is_told_by_its_number_at_the_end_of_the_env_at_the_latest() {
    let _alone = alone();
    bounded(|| {
        let env = client(1);
        let subject = env.register_on(0, "subject", || Subject).unwrap();
        log::keep();
        send_strangers(&env, &subject, 20);
        end(&env);
        let told: u64 = log::take_lines().iter().filter(|line| is_summary(line)).map(untold).sum();
        assert_eq!(told, 19);
    });
}

#[test]
fn an_env_without_warnings_that_wait_has_no_timer_for_them() {
    let _alone = alone();
    bounded(|| {
        let env = client(1);
        let subject = env.register_on(0, "subject", || Subject).unwrap();
        send_strangers(&env, &subject, 1);
        let idle = eventually(&env, "it is warned of", |now| now.unknown_messages == 1);
        assert_eq!(idle.timers, 0);
        send_strangers(&env, &subject, 1);
        let waits = eventually(&env, "one has no line", |now| now.unknown_messages == 2);
        assert!(waits.timers <= 1, "{waits:?}");
        eventually(&env, "its number is told", |now| now.timers == 0);
        end(&env);
    });
}

#[test]
fn handlers_that_panic_without_end_are_told_in_few_lines_and_by_their_number() {
    const PANICS: u64 = 1000;
    let _alone = alone();
    bounded(|| {
        let (env, other) = (server(1), client(1));
        env.register_on(0, "subject", || Subject).unwrap();
        let subject = other.endpoint_ref(&uri(&env, "subject")).unwrap();
        log::keep();
        let began = Instant::now();
        for _ in 0..PANICS {
            assert!(within(subject.ask(Fail)).is_err());
        }
        end(&env);
        let lines: Vec<_> =
            log::take_lines().into_iter().filter(|line| line.text.contains("a handler panicked")).collect();
        let seconds = 1 + began.elapsed().as_secs();
        assert!(lines.len() as u64 <= 64 * seconds + 1, "{} lines in {seconds} s", lines.len());
        let single = lines.iter().filter(|line| line.text.contains("as asked")).count() as u64;
        assert_eq!(single + lines.iter().map(untold).sum::<u64>(), PANICS);
        end(&other);
    });
}
