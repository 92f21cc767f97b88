//! What is said of a message that an endpoint has no handler for.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::erased::Entry;
use crate::wire::failure::HandlerError;
use crate::wire::message::MessageId;

/// How many of its handlers an endpoint names.
const NAMED: usize = 8;

/// What the text of the error says first, to `on_error` alone.
const PREFIX: &str = "no handler for ";

/// Makes the texts about messages that an endpoint does not handle.
///
/// A stranger can send such messages without end. The list of handlers is therefore bounded and made once, and a text
/// is kept for the asker, the log, `on_error`, and the next message of the same kind.
#[derive(Debug, Default)]
pub(super) struct Unhandled {
    known: OnceCell<Box<str>>,
    last: RefCell<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    message: MessageId,
    is_ask: bool,
    error: Rc<HandlerError>,
}

impl Unhandled {
    /// The error for a message that came as an ask or not, and that none of these handlers is for.
    pub(super) fn error<E>(&self, entries: &[Entry<E>], message: MessageId, is_ask: bool) -> Rc<HandlerError> {
        let mut last = self.last.borrow_mut();
        if let Some(last) = last.as_ref().filter(|last| last.message == message && last.is_ask == is_ask) {
            return last.error.clone();
        }
        let text = match entries.iter().find(|entry| entry.id == message) {
            Some(entry) => other_kind(entry, is_ask),
            None => {
                let known = self.known.get_or_init(|| list(entries));
                format!("{PREFIX}message id {:#010x}; it handles: {known}", message.0)
            }
        };
        let error = Rc::new(HandlerError::new(text));
        *last = Some(Last { message, is_ask, error: error.clone() });
        error
    }
}

/// Which message it is, for an asker or the log.
pub(super) fn what(error: &HandlerError) -> &str {
    error.text().strip_prefix(PREFIX).unwrap_or(error.text())
}

fn other_kind<E>(entry: &Entry<E>, is_ask: bool) -> String {
    let [came, is] = if is_ask { ["an ask", "a one-way message"] } else { ["a one-way message", "an ask"] };
    format!("{PREFIX}{} v{} as {came}; here it is {is}", entry.name, entry.version)
}

fn list<E>(entries: &[Entry<E>]) -> Box<str> {
    let named: Vec<_> = entries.iter().take(NAMED).map(|entry| format!("{} v{}", entry.name, entry.version)).collect();
    let more = match entries.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (named.join(", ") + &more).into()
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn entries(count: u32) -> Vec<Entry<()>> {
        let entry = |id| Entry {
            id: MessageId(id),
            name: "unhandled.Message",
            version: id as u16,
            is_ask: true,
            run: |_, _, _, _, _| Poll::Ready(()),
            share: None,
            direct: None,
        };
        (1..=count).map(entry).collect()
    }

    #[test]
    fn an_endpoint_names_eight_of_its_handlers_at_most_and_the_number_of_the_others() {
        let text = |count| Unhandled::default().error(&entries(count), MessageId(0xff), true).text().to_owned();
        assert_eq!(text(1), "no handler for message id 0x000000ff; it handles: unhandled.Message v1");
        assert!(text(8).ends_with("unhandled.Message v7, unhandled.Message v8"), "{}", text(8));
        assert!(text(100).ends_with("unhandled.Message v8 and 92 more"), "{}", text(100));
    }

    #[test]
    fn messages_of_one_kind_that_nobody_handles_share_one_text() {
        let (unhandled, entries) = (Unhandled::default(), entries(2));
        let first = unhandled.error(&entries, MessageId(7), true);
        assert!(Rc::ptr_eq(&first, &unhandled.error(&entries, MessageId(7), true)));
        assert!(!Rc::ptr_eq(&first, &unhandled.error(&entries, MessageId(7), false)));
        let other = unhandled.error(&entries, MessageId(1), false);
        assert_eq!(what(&other), "unhandled.Message v1 as a one-way message; here it is an ask");
    }
}
