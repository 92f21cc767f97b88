//! The threads of isolated endpoints: how they are made, and where they run.

mod common;

use common::scene::at_every_distance;
use common::worker::{Number, unseen, when_free};
use common::{bounded, client, config, end};
use ringpost::{CallContext, Endpoint, Handle, HandlerError, Handlers, RegisterError, message};
use serde::{Deserialize, Serialize};

/// Registers an isolated endpoint from a handler on a core, and tells how many CPUs its thread may use.
struct Registrar;

#[derive(Serialize, Deserialize, Clone)]
struct CountCpus;
message!(CountCpus as "isolated.CountCpus" => usize);

impl Endpoint for Registrar {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<CountCpus>();
    }
}

impl Handle<CountCpus> for Registrar {
    async fn handle(&mut self, count: CountCpus, context: &mut CallContext) -> Result<usize, HandlerError> {
        let env = context.env();
        if context.core() >= env.core_count() {
            return Ok(core_affinity::get_core_ids().unwrap_or_default().len());
        }
        let isolated = env.register_isolated_async("isolated", || Registrar).await?;
        Ok(isolated.ask(count).await?)
    }
}

#[test]
fn a_handler_registers_one_and_its_thread_is_pinned_to_no_cpu() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let registrar = scene.place("registrar", || Registrar);
            let all = core_affinity::get_core_ids().unwrap().len();
            assert_eq!(registrar.ask_blocking(CountCpus), Ok(all));
        });
    });
}

#[test]
fn a_thread_that_cannot_be_had_is_an_error_that_says_why_and_the_next_try_may_do() {
    bounded(|| {
        // It uses up what its whole process has.
        let mut child = std::process::Command::new("sh");
        child.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        child.args(["--ignored", "--exact", "--nocapture", "without_descriptors"]);
        assert!(child.status().unwrap().success());
    });
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn without_descriptors() {
    bounded(|| {
        let env = client(1);
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        let refused = env.register_isolated("worker", unseen);
        assert!(matches!(refused, Err(RegisterError::NoThread { .. })), "{refused:?}");
        drop(files);
        let worker = when_free(&env, unseen).unwrap();
        assert_eq!(worker.ask_blocking(Number(1)), Ok(1));
        end(&env);
    });
}
