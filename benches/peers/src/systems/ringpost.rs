//! ringpost: over TCP, to another core of the same env, on the same core.
//!
//! - The default configuration; one core per side, pinned as everybody's threads are. Its timeouts and limits stay on.
//! - The handler is `HandleSync`, as for anything that never waits.
//! - Asked from tokio tasks, its client still has a core, through which all asks go.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ::ringpost::{
    CallContext, CoreSet, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, Idle as RingpostIdle, RpcEnv,
    message,
};

use super::{Run, System};
use crate::Error;
use crate::asking::{Ask, Watch, ask_from_tokio, ask_when_due};
use crate::open_loop::{OpenLoop, WORKERS, yield_now};
use crate::payload::Payload;
use crate::plan::{Idle, Load, Path};
use crate::sample::{Meter, Span};
use crate::threads::multi_threaded;
use crate::variant::{Caller, PayloadKind, Shape};

pub(super) const SYSTEM: System = System {
    name: "ringpost",
    paths: &Path::ALL,
    idles: &Idle::ALL,
    callers: &[Caller::Core, Caller::Tokio],
    shape: Some(Shape::Task),
    payload_kind: Some(PayloadKind::Array),
    run,
};

/// How long an env may take to finish what is queued; then it is stopped.
const SHUTDOWN: Duration = Duration::from_secs(2);

message!(Payload as "bench.Echo64" => Payload);

struct Echo;

impl Endpoint for Echo {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Payload>();
    }
}

impl HandleSync<Payload> for Echo {
    fn handle(&mut self, payload: Payload, _context: &mut CallContext) -> Result<Payload, HandlerError> {
        Ok(payload)
    }
}

fn run(run: &Run) -> Result<Meter, Error> {
    let idle = match run.idle {
        Idle::Adaptive => RingpostIdle::default(),
        Idle::Spin => RingpostIdle::Spin,
        Idle::Park => RingpostIdle::Park,
    };
    let env = |name: &str, cores: &[usize]| {
        let cores = CoreSet::list(cores.iter().map(|&core| run.cpus.id(core)));
        RpcEnv::builder(name).cores(cores).idle(idle)
    };
    // Core 0 asks in every case, and has the CPU that asks for everybody else.
    match run.path {
        Path::Tcp => {
            let server = env("bench-server", &[1]).bind("127.0.0.1:0").start()?;
            server.register("echo", || Echo)?;
            let address = server.address().ok_or("the server has no address")?;
            let client = env("bench-client", &[0]).start()?;
            let echo = client.endpoint_ref(&format!("ringpost://echo@{address}"))?;
            ask(&client, echo, run).and_then(|meter| stop(&[client, server]).map(|()| meter))
        }
        Path::Mesh => {
            let env = env("bench", &[0, 1]).start()?;
            let echo = env.register_on(1, "echo", || Echo)?;
            ask(&env, echo, run).and_then(|meter| stop(&[env]).map(|()| meter))
        }
        Path::Local => {
            let env = env("bench", &[0]).start()?;
            let echo = env.register_on(0, "echo", || Echo)?;
            ask(&env, echo, run).and_then(|meter| stop(&[env]).map(|()| meter))
        }
    }
}

impl Ask for EndpointRef {
    async fn ask(&self, payload: Payload) -> Result<Payload, Error> {
        Ok(EndpointRef::ask(self, payload).await?)
    }
}

fn ask(env: &RpcEnv, echo: EndpointRef, run: &Run) -> Result<Meter, Error> {
    let span = run.span;
    if run.caller == Caller::Tokio {
        return ask_from_tokio(&multi_threaded()?, run.load, span, &echo);
    }
    let asking = match run.load {
        Load::Window(window) => env.spawn_on(0, move || ask_in_flight(echo, window, span))?,
        Load::Rate { per_second, .. } => env.spawn_on(0, move || ask_at_rate(echo, per_second, span))?,
    };
    asking.join()?
}

/// The same as in `asking`, with ringpost's tasks instead of tokio's.
async fn ask_in_flight(echo: EndpointRef, window: usize, span: Span) -> Result<Meter, Error> {
    let watch = Rc::new(Watch::start(span)?);
    let tasks: Vec<_> = (0..window)
        .map(|lane| {
            let (watch, echo) = (Rc::clone(&watch), echo.clone());
            ::ringpost::spawn(async move { watch.ask_again(lane, async |payload| Ok(echo.ask(payload).await?)).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    watch.into_meter()
}

/// The same as in `asking`, with ringpost's tasks instead of tokio's.
async fn ask_at_rate(echo: EndpointRef, per_second: f64, span: Span) -> Result<Meter, Error> {
    let open_loop = Rc::new(OpenLoop::new(Instant::now(), span, per_second)?);
    let workers: Vec<_> = (0..WORKERS)
        .map(|lane| {
            let (open_loop, echo) = (Rc::clone(&open_loop), echo.clone());
            ::ringpost::spawn(async move {
                ask_when_due(&open_loop, lane, async |payload| Ok(echo.ask(payload).await?)).await
            })
        })
        .collect();
    open_loop.pace(|| (), yield_now).await?;
    for worker in workers {
        worker.await??;
    }
    Ok(Rc::try_unwrap(open_loop).map_err(|_| "a task outlived its result")?.into_meter())
}

/// Waits until all cores have ended: one that still runs would take its CPU from the next measurement.
fn stop(envs: &[RpcEnv]) -> Result<(), Error> {
    for env in envs {
        env.shutdown(SHUTDOWN);
    }
    for env in envs {
        if !env.await_termination_within(2 * SHUTDOWN)? {
            return Err(format!("env {} has not stopped within {:?}", env.name(), 2 * SHUTDOWN).into());
        }
    }
    Ok(())
}
