//! What senders asked for and what they were answered.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::event::ack::Ack;
use crate::os::simulated;

/// What a sender knows of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet, or nothing ever: its connection ended.
    None,
    /// 200.
    Ok,
    /// 503.
    Shed,
    /// 422.
    Refused,
}

/// An event and its answer.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) name: String,
    pub(super) answer: Answer,
    /// When it was answered.
    pub(super) answered_at: Duration,
    pub(super) ack: Ack,
    /// The process that was asked.
    pub(super) process: u32,
    /// It was destroyed together with what the sender was promised: by an operator, or as `--ack received` allows.
    pub(super) is_destroyed: bool,
}

/// An event on its way to a shard.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) value: u32,
}

/// The requests that one shard has not read. Each entry arrives in one read.
pub(super) type Inbox = Rc<RefCell<VecDeque<Vec<Request>>>>;

/// All events, by their values, which no two share.
#[derive(Debug, Clone, Default)]
pub(super) struct Senders(Rc<RefCell<BTreeMap<u32, Sent>>>);

impl Senders {
    /// Sends `count` events in one piece.
    pub(super) fn send(
        &self,
        inbox: &Inbox,
        process: u32,
        ack: Ack,
        count: u32,
        name: impl Fn(u32) -> String,
    ) {
        let mut all = self.0.borrow_mut();
        let first = u32::try_from(all.len()).unwrap();
        let requests = (first..first + count).map(|value| {
            let name = name(value);
            let sent = Sent {
                name: name.clone(),
                answer: Answer::None,
                answered_at: Duration::ZERO,
                ack,
                process,
                is_destroyed: false,
            };
            all.insert(value, sent);
            Request { name, value }
        });
        let requests = requests.collect();
        inbox.borrow_mut().push_back(requests);
    }

    /// Answers the sender of an event.
    pub(super) fn answer(&self, value: u32, answer: Answer) {
        if let Some(sent) = self.0.borrow_mut().get_mut(&value) {
            assert_eq!(sent.answer, Answer::None, "event {value} is answered twice");
            sent.answer = answer;
            sent.answered_at = simulated::elapsed();
        }
    }

    /// How many events were sent.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// The events that were acknowledged so far.
    pub(super) fn acknowledged(&self) -> BTreeSet<u32> {
        let all = self.0.borrow();
        let acknowledged = all.iter().filter(|(_, sent)| sent.answer == Answer::Ok);
        acknowledged.map(|(value, _)| *value).collect()
    }

    /// Looks at all events.
    pub(super) fn each(&self, mut look: impl FnMut(u32, &mut Sent)) {
        for (value, sent) in self.0.borrow_mut().iter_mut() {
            look(*value, sent);
        }
    }
}
