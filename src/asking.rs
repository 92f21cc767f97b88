//! An ask whose answer is to come.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::mesh::parcel::Parcel;
use crate::net::ask_cell::AskCell;
use crate::net::ask_key::AskKey;
use crate::net::errors::AskError;
use crate::net::pending::Unread;
use crate::shard::current;
use crate::shard::early::Handled;
use crate::shard::node::{Injected, Node};
use crate::shard::shard::Shard;

/// Answers an ask from outside whose job was dropped with its core, or did not come to its end.
pub(crate) struct Promise {
    pub(crate) cell: Arc<AskCell>,
    node: Arc<Node>,
    open: bool,
}

impl Promise {
    pub(crate) fn new(cell: &Arc<AskCell>, node: &Arc<Node>) -> Promise {
        Promise { cell: cell.clone(), node: node.clone(), open: true }
    }

    /// The answer will come through the core's table; false if nobody waits for it any longer.
    pub(crate) fn hand_on(&mut self, key: AskKey) -> bool {
        self.open = false;
        self.cell.made(key)
    }

    pub(crate) fn keep(&mut self, answer: Result<Parcel, AskError>) {
        self.open = false;
        self.cell.answer.put(answer);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.open {
            self.cell.answer.put(Err(AskError::Stopped { target: self.node.name.as_str().into() }));
        }
    }
}

/// The answer to an ask, to come. The message is on its way already; dropping this gives the ask up.
#[must_use = "the ask is given up when this is dropped: await it, or use `send` for a message without an answer"]
pub struct Asking<R> {
    /// The answer comes to a core's table.
    on_core: Option<OnCore>,
    /// Or it comes another way, which is not as short: boxed, so that the future is small.
    elsewhere: Option<Box<Elsewhere>>,
    reply: PhantomData<fn() -> R>,
}

/// An ask in the table of the core that made it.
#[derive(Clone, Copy)]
struct OnCore {
    node: u64,
    core: u16,
    key: AskKey,
}

/// An ask that is in no table of the thread that made it.
pub(crate) enum Elsewhere {
    /// The ask was refused before it left.
    Failed(AskError),
    /// The answer comes to a cell that any thread may look at.
    Outside { node: Arc<Node>, core: u16, cell: Arc<AskCell> },
}

impl OnCore {
    /// The shard of the core, if this is its thread and its turn.
    #[inline]
    fn here(self) -> Option<Rc<Shard>> {
        current::get().filter(|shard| shard.node.id == self.node && shard.core == self.core)
    }
}

impl<R> Asking<R> {
    #[inline]
    pub(crate) fn on_core(shard: &Shard, key: AskKey) -> Asking<R> {
        let on_core = Some(OnCore { node: shard.node.id, core: shard.core, key });
        Asking { on_core, elsewhere: None, reply: PhantomData }
    }

    pub(crate) fn elsewhere(elsewhere: Elsewhere) -> Asking<R> {
        Asking { on_core: None, elsewhere: Some(Box::new(elsewhere)), reply: PhantomData }
    }
}

impl Elsewhere {
    /// Blocks until the answer to an ask from outside is there.
    pub(crate) fn wait<R: 'static>(self) -> Result<R, AskError> {
        match self {
            Elsewhere::Outside { cell, .. } => open(cell.answer.wait()),
            Elsewhere::Failed(error) => Err(error),
        }
    }
}

impl<R: 'static> Future for Asking<R> {
    type Output = Result<R, AskError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(on_core) = self.on_core else { return self.poll_elsewhere(cx) };
        let Some(shard) = on_core.here() else {
            self.on_core = None;
            self.elsewhere = Some(Box::new(move_outside(on_core)));
            return self.poll_elsewhere(cx);
        };
        let key = on_core.key;
        match shard.handle_early(key, cx) {
            Handled::Replied(early) => {
                self.on_core = None;
                Poll::Ready(match shard.early_reply(early) {
                    Some(reply) => Ok(reply),
                    None => Err(wrong_type::<R>("something else")),
                })
            }
            Handled::Later => Poll::Pending,
            Handled::ByTable => {
                // A waker's code may be anybody's, its clone and its drop too: none of it runs under the borrow.
                let mut waker = Some(cx.waker().clone());
                let polled = shard.pending.borrow_mut().poll(key, &mut waker);
                let Poll::Ready(reply) = polled else { return Poll::Pending };
                self.on_core = None;
                Poll::Ready(reply.map_err(|unread| match *unread {
                    Unread::Failed(error) => error,
                    Unread::Other(other) => wrong_type::<R>(other.type_name()),
                }))
            }
        }
    }
}

impl<R: 'static> Asking<R> {
    fn poll_elsewhere(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, AskError>> {
        match self.elsewhere.as_deref() {
            Some(Elsewhere::Outside { cell, .. }) => {
                let Poll::Ready(answer) = cell.answer.poll(cx) else { return Poll::Pending };
                self.elsewhere = None;
                Poll::Ready(open(answer))
            }
            Some(Elsewhere::Failed(error)) => {
                let error = error.clone();
                self.elsewhere = None;
                Poll::Ready(Err(error))
            }
            // A future is not polled again after it has ended; whoever does it all the same waits forever.
            None => Poll::Pending,
        }
    }
}

/// The future of an ask that a core's thread made is awaited on another thread: the answer follows it there.
#[cold]
fn move_outside(OnCore { node, core, key }: OnCore) -> Elsewhere {
    let Some(node) = Node::by_id(node) else {
        return Elsewhere::Failed(AskError::Stopped { target: "the env".into() });
    };
    let cell = Arc::<AskCell>::default();
    let mut promise = Promise::new(&cell, &node);
    let job = move |shard: &Rc<Shard>| {
        if promise.hand_on(key) {
            shard.hand_over_ask(key, promise.cell.clone());
        } else {
            shard.abandon_ask(key);
        }
    };
    node.cores[usize::from(core)].inject_always(Injected::Job(Box::new(job)));
    Elsewhere::Outside { node, core, cell }
}

/// The reply out of its parcel.
#[inline]
fn open<R: 'static>(answer: Result<Parcel, AskError>) -> Result<R, AskError> {
    answer?.take::<R>().map_err(|other| wrong_type::<R>(other.type_name()))
}

#[cold]
fn wrong_type<R>(other: &str) -> AskError {
    AskError::UndecodableReply {
        target: "a handler of this env".into(),
        reason: format!("it replied {other}, not {}", std::any::type_name::<R>()).into(),
    }
}

impl<R> Drop for Asking<R> {
    #[inline]
    fn drop(&mut self) {
        if let Some(on_core) = self.on_core {
            abandon(on_core);
        } else if let Some(elsewhere) = &self.elsewhere {
            abandon_elsewhere(elsewhere);
        }
    }
}

#[cold]
fn abandon(on_core: OnCore) {
    match on_core.here() {
        Some(shard) => shard.abandon_ask(on_core.key),
        None => {
            if let Some(node) = Node::by_id(on_core.node) {
                abandon_outside(&node, on_core.core, on_core.key);
            }
        }
    }
}

#[cold]
fn abandon_elsewhere(elsewhere: &Elsewhere) {
    if let Elsewhere::Outside { node, core, cell } = elsewhere
        // Without a key it is still with the jobs of its core, and will not be made. With an answer it is over.
        && let Some(key) = cell.give_up()
    {
        abandon_outside(node, *core, key);
    }
}

fn abandon_outside(node: &Node, core: u16, key: AskKey) {
    let job = move |shard: &Rc<Shard>| shard.abandon_ask(key);
    node.cores[usize::from(core)].inject_always(Injected::Job(Box::new(job)));
}

impl<R> fmt::Debug for Asking<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking")
    }
}
