//! What becomes of the events of a body while it is read.

use super::ContentFault;
use crate::event::list::{EventList, LIST_EVENTS_MAX, Span};
use crate::event::rule::EventRule;
use crate::http::query::Rejection;

/// Most events that are named in the answer to a lenient request. All are counted.
const LISTED_MAX: usize = 100;

/// Where the parts of an event are in the text of the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) name: Span,
    pub(super) value: u32,
    pub(super) id: Option<Span>,
}

/// Why one event was refused while others of its body are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// It cannot be stored.
    Event(Rejection),
    /// It is not what its media type says. The reason is in ASCII and one line.
    Malformed(String),
}

impl LeftOut {
    /// The reason in the answer, in ASCII and one line.
    pub fn reason(&self, rule: EventRule) -> String {
        match self {
            Self::Event(rejection) => rejection.reason(rule).to_string(),
            Self::Malformed(reason) => reason.clone(),
        }
    }
}

/// Events that were refused while others of their body are taken.
#[derive(Debug, Default)]
pub struct Rejected {
    /// The first of them: each by its number in the body, from 0.
    pub listed: Vec<(usize, LeftOut)>,
    /// How many there were for each reason, in the order of [`Rejection::ALL`].
    pub counts: [u64; Rejection::ALL.len()],
}

impl Rejected {
    fn note(&mut self, event: usize, rejection: Rejection, left_out: impl FnOnce() -> LeftOut) {
        self.counts[rejection as usize] += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push((event, left_out()));
        }
    }
}

/// Collects the events of one body.
pub(super) struct Collector<'l> {
    list: &'l mut EventList,
    rule: EventRule,
    /// Bytes of the text of the list that are those of its events.
    text_bytes: usize,
    /// Events so far, with those that were refused.
    seen: usize,
    /// Whether the body may have several events.
    is_many: bool,
    /// Where one that cannot be stored is no reason to refuse the others.
    rejected: Option<Rejected>,
    /// Why the body is refused.
    fault: Option<ContentFault>,
}

/// The body is refused, for the reason that [`Collector::fault`] tells.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("refused")]
pub(super) struct BodyRefused;

impl<'l> Collector<'l> {
    /// Collects into an empty list.
    pub(super) fn new(list: &'l mut EventList, rule: EventRule, is_lenient: bool) -> Self {
        list.clear();
        Self {
            list,
            rule,
            text_bytes: 0,
            seen: 0,
            is_many: false,
            rejected: is_lenient.then(Rejected::default),
            fault: None,
        }
    }

    /// The body may have several events: a fault names the event that has it.
    pub(super) fn expect_many(&mut self) {
        self.is_many = true;
    }

    /// The number of the next event, where the body may have several.
    pub(super) fn next(&self) -> Option<usize> {
        self.is_many.then_some(self.seen)
    }

    /// The list, to which the texts of the next event are added, and what an event may be.
    pub(super) fn list(&mut self) -> (&mut EventList, EventRule) {
        (self.list, self.rule)
    }

    /// Adds a text to the list, for the next event.
    pub(super) fn add_text(&mut self, text: &str) -> Span {
        self.list.add_text(text)
    }

    /// Adds an event, or notes why it cannot be stored.
    pub(super) fn add(&mut self, event: Result<Parts, Rejection>) -> Result<(), BodyRefused> {
        if self.seen == LIST_EVENTS_MAX {
            return Err(self.refuse(ContentFault::TooManyEvents));
        }
        match (event, &mut self.rejected) {
            (Ok(Parts { name, value, id }), _) => {
                self.list.push(name, value, id);
                self.text_bytes = self.list.text_bytes();
            }
            (Err(rejection), Some(rejected)) => {
                self.list.truncate_text(self.text_bytes);
                rejected.note(self.seen, rejection, || LeftOut::Event(rejection));
            }
            (Err(rejection), None) => {
                let event = self.next();
                return Err(self.refuse(ContentFault::Event { rejection, event }));
            }
        }
        self.seen += 1;
        Ok(())
    }

    /// Notes that the next event is not what its media type says, for this reason. That is asked for only if it is told.
    pub(super) fn add_malformed(
        &mut self,
        reason: impl FnOnce() -> String,
    ) -> Result<(), BodyRefused> {
        let Some(rejected) = &mut self.rejected else {
            let (event, reason) = (self.next(), reason());
            return Err(self.refuse(ContentFault::Malformed { reason, event }));
        };
        if self.seen == LIST_EVENTS_MAX {
            return Err(self.refuse(ContentFault::TooManyEvents));
        }
        self.list.truncate_text(self.text_bytes);
        let left_out = || LeftOut::Malformed(reason());
        rejected.note(self.seen, Rejection::BodyMalformed, left_out);
        self.seen += 1;
        Ok(())
    }

    /// Notes why the body is refused.
    pub(super) fn refuse(&mut self, fault: ContentFault) -> BodyRefused {
        self.list.clear();
        self.fault = Some(fault);
        BodyRefused
    }

    /// Whether the body was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.fault.is_some()
    }

    /// Why the body was refused, if it was.
    pub(super) fn fault(&mut self) -> Option<ContentFault> {
        self.fault.take()
    }

    /// The events that were refused while others are taken.
    pub(super) fn into_rejected(self) -> Option<Rejected> {
        self.rejected
    }
}
