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
    state: State,
    reply: PhantomData<fn() -> R>,
}

/// How far an ask is.
pub(crate) enum State {
    /// The ask was refused before it left. Boxed, so that the others are small.
    Failed(Box<AskError>),
    /// The answer comes to a core's table.
    OnCore { node: u64, core: u16, key: AskKey },
    /// The answer comes to a cell that any thread may look at.
    Outside { node: Arc<Node>, core: u16, cell: Arc<AskCell> },
    /// The answer was taken.
    Done,
}

impl<R> Asking<R> {
    #[inline]
    pub(crate) fn new(state: State) -> Asking<R> {
        Asking { state, reply: PhantomData }
    }
}

impl State {
    /// Blocks until the answer to an ask from outside is there.
    pub(crate) fn wait<R: 'static>(self) -> Result<R, AskError> {
        match self {
            State::Outside { cell, .. } => open(cell.answer.wait()),
            State::Failed(error) => Err(*error),
            State::OnCore { .. } | State::Done => unreachable!("an ask from outside has one of the other two states"),
        }
    }
}

impl<R: 'static> Future for Asking<R> {
    type Output = Result<R, AskError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::OnCore { node, core, key } = self.state {
            match current::get() {
                Some(shard) if shard.node.id == node && shard.core == core => {
                    shard.handle_early(key);
                    let Poll::Ready(reply) = shard.pending.borrow_mut().poll(key, cx) else { return Poll::Pending };
                    self.state = State::Done;
                    return Poll::Ready(reply.map_err(|unread| match unread {
                        Unread::Failed(error) => error,
                        Unread::Other(other) => wrong_type::<R>(&other),
                    }));
                }
                _ => self.state = move_outside(node, core, key),
            }
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Outside { node, core, cell } => match cell.answer.poll(cx) {
                Poll::Ready(answer) => Poll::Ready(open(answer)),
                Poll::Pending => {
                    self.state = State::Outside { node, core, cell };
                    Poll::Pending
                }
            },
            State::Failed(error) => Poll::Ready(Err(*error)),
            // A future is not polled again after it has ended; whoever does it all the same waits forever.
            State::Done | State::OnCore { .. } => Poll::Pending,
        }
    }
}

/// The future of an ask that a core's thread made is awaited on another thread: the answer follows it there.
fn move_outside(node: u64, core: u16, key: AskKey) -> State {
    let Some(node) = Node::by_id(node) else {
        return State::Failed(Box::new(AskError::Stopped { target: "the env".into() }));
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
    State::Outside { node, core, cell }
}

/// The reply out of its parcel.
#[inline]
fn open<R: 'static>(answer: Result<Parcel, AskError>) -> Result<R, AskError> {
    answer?.take::<R>().map_err(|other| wrong_type::<R>(&other))
}

#[cold]
fn wrong_type<R>(other: &Parcel) -> AskError {
    AskError::UndecodableReply {
        target: "a handler of this env".into(),
        reason: format!("it replied {}, not {}", other.type_name(), std::any::type_name::<R>()).into(),
    }
}

impl<R> Drop for Asking<R> {
    #[inline]
    fn drop(&mut self) {
        match &self.state {
            State::Done | State::Failed(_) => {}
            State::OnCore { node, core, key } => match current::get() {
                Some(shard) if shard.node.id == *node && shard.core == *core => shard.abandon_ask(*key),
                _ => {
                    if let Some(node) = Node::by_id(*node) {
                        abandon_outside(&node, *core, *key);
                    }
                }
            },
            State::Outside { node, core, cell } => {
                // Without a key it is still with the jobs of its core, and will not be made.
                if let Some(key) = cell.give_up() {
                    abandon_outside(node, *core, key);
                }
            }
        }
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
