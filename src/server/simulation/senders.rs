//! What senders asked for and what they were answered.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::history::note;
use super::sink::REFUSED_PREFIX;
use crate::event::UnixMillis;
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

/// The value of an event says which one it is, unless it is a twin: those from this value on are shared.
const TWIN_VALUES: u32 = 1 << 31;

/// Whether other events may have the same name and value.
pub(super) const fn is_twin(value: u32) -> bool {
    value >= TWIN_VALUES
}

/// What a sender sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event that differs from all others.
    Single,
    /// The same with an id. Its sender may repeat it.
    WithId,
    /// One that differs from all others, and is refused by the table.
    Refused,
    /// One that is equal to all others with this number.
    Twin(u32),
}

impl Kind {
    /// The name and the value of the event with this number.
    fn content(self, number: u32, length: usize) -> (String, u32) {
        let tail = "n".repeat(length);
        match self {
            Self::Single | Self::WithId => (format!("e{number}.{tail}"), number),
            Self::Refused => (format!("{REFUSED_PREFIX}e{number}.{tail}"), number),
            Self::Twin(twin) => (format!("twin{twin}."), TWIN_VALUES + twin),
        }
    }
}

/// An event and its answer.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) name: String,
    pub(super) value: u32,
    /// By this its sender repeats it, until there is an answer.
    pub(super) id: Option<String>,
    /// The number of the first event of its request, if that has several.
    pub(super) body: Option<u32>,
    pub(super) answer: Answer,
    /// When the server says that it received it.
    pub(super) received_at: UnixMillis,
    /// When it was answered.
    pub(super) answered_at: Duration,
    pub(super) ack: Ack,
    /// The process that was asked.
    pub(super) process: u32,
    /// It was destroyed together with what the sender was promised: by an operator, or as `--ack received` allows.
    pub(super) is_destroyed: bool,
}

/// How often equal events are rows or letters.
#[derive(Default)]
pub(super) struct Promised<'a> {
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) must_be_letter: bool,
    /// They are one event, which its sender has repeated.
    pub(super) is_one: bool,
    /// One of them, for people.
    pub(super) last: Option<&'a Sent>,
}

/// The events of one request on their way to a shard.
pub(super) type Request = Vec<Asked>;

/// An event of a request.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Its number among all events.
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) value: u32,
    pub(super) id: Option<String>,
}

/// The requests that one shard has not read. Each entry arrives in one read.
pub(super) type Inbox = Rc<RefCell<VecDeque<Vec<Request>>>>;

/// All events, by their numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Senders {
    all: Rc<RefCell<Vec<Sent>>>,
    /// Values of events of which a row was promised since they were last asked for.
    rows_promised: Rc<RefCell<Vec<u32>>>,
    /// Who sent an event with a lower number cannot be answered by this process.
    first: Rc<Cell<u32>>,
}

impl Senders {
    /// As a process sees them.
    pub(super) fn of_process(&self) -> Self {
        Self {
            first: Rc::default(),
            ..self.clone()
        }
    }

    /// Cuts the connections of this process: nobody hears its answers to what was sent until now.
    pub(super) fn cut(&self) {
        self.first.set(u32::try_from(self.count()).unwrap());
    }

    /// Puts other events in the place of all, for all who share them.
    pub(super) fn replace(&self, all: Vec<Sent>) -> Vec<Sent> {
        self.all.replace(all)
    }

    /// All events, by their numbers.
    pub(super) fn all(&self) -> Ref<'_, Vec<Sent>> {
        self.all.borrow()
    }

    /// Sends events in one piece, with tails of these lengths: in one request, or each in its own.
    pub(super) fn send(
        &self,
        inbox: &Inbox,
        asked: (u32, Ack),
        events: &[(Kind, usize)],
        is_body: bool,
    ) {
        let first = u32::try_from(self.count()).unwrap();
        let contents = (first..).zip(events).map(|(number, (kind, length))| {
            let (name, value) = kind.content(number, *length);
            let id = (*kind == Kind::WithId).then(|| format!("id {number}"));
            (name, value, id)
        });
        self.send_these(inbox, asked, contents.collect(), is_body);
    }

    /// Repeats events that have ids and no answer, up to `count` of them from this one on.
    pub(super) fn repeat(
        &self,
        inbox: &Inbox,
        asked: (u32, Ack),
        (from, count): (usize, usize),
        is_body: bool,
    ) {
        let unanswered = self.unanswered();
        let skipped = if unanswered.is_empty() {
            0
        } else {
            from % unanswered.len()
        };
        let contents = unanswered.into_iter().skip(skipped).take(count);
        self.send_these(inbox, asked, contents.collect(), is_body);
    }

    /// The values of events that were sent more than once.
    pub(super) fn repeated(&self) -> BTreeSet<u32> {
        let all = self.all.borrow();
        let mut seen = BTreeSet::new();
        let with_ids = all.iter().filter(|sent| sent.id.is_some());
        with_ids
            .map(|sent| sent.value)
            .filter(|value| !seen.insert(*value))
            .collect()
    }

    /// The events with ids that were never answered but by 503: name, value and id.
    fn unanswered(&self) -> Vec<(String, u32, Option<String>)> {
        let all = self.all.borrow();
        let has_end = |sent: &&Sent| matches!(sent.answer, Answer::Ok | Answer::Refused);
        let ended: BTreeSet<_> = all.iter().filter(has_end).map(|sent| sent.value).collect();
        let open = all
            .iter()
            .filter(|sent| sent.id.is_some() && !ended.contains(&sent.value));
        let open = open.map(|sent| (sent.value, (sent.name.clone(), sent.id.clone())));
        let open: BTreeMap<_, _> = open.collect();
        open.into_iter()
            .map(|(value, (name, id))| (name, value, id))
            .collect()
    }

    fn send_these(
        &self,
        inbox: &Inbox,
        (process, ack): (u32, Ack),
        contents: Vec<(String, u32, Option<String>)>,
        is_body: bool,
    ) {
        let mut all = self.all.borrow_mut();
        let first = u32::try_from(all.len()).unwrap();
        let body = (is_body && contents.len() > 1).then_some(first);
        let events = (first..).zip(contents).map(|(number, (name, value, id))| {
            let sent = Sent {
                name: name.clone(),
                value,
                id: id.clone(),
                body,
                answer: Answer::None,
                received_at: UnixMillis(0),
                answered_at: Duration::ZERO,
                ack,
                process,
                is_destroyed: false,
            };
            all.push(sent);
            Asked {
                number,
                name,
                value,
                id,
            }
        });
        let requests: Vec<Request> = if body.is_some() {
            vec![events.collect()]
        } else {
            events.map(|event| vec![event]).collect()
        };
        if !requests.is_empty() {
            inbox.borrow_mut().push_back(requests);
        }
    }

    /// The server gives an event this time.
    pub(super) fn received(&self, number: u32, at: UnixMillis) {
        if let Some(sent) = self.all.borrow_mut().get_mut(number as usize) {
            sent.received_at = at;
        }
    }

    /// Answers the sender of an event.
    pub(super) fn answer(&self, number: u32, answer: Answer) {
        if number < self.first.get() {
            return;
        }
        if let Some(sent) = self.all.borrow_mut().get_mut(number as usize) {
            assert_eq!(
                sent.answer,
                Answer::None,
                "event {number} is answered twice"
            );
            note(|| format!("event {number}: {answer:?}"));
            sent.answer = answer;
            sent.answered_at = simulated::elapsed();
            if sent.ack == Ack::Stored && answer == Answer::Ok {
                self.rows_promised.borrow_mut().push(sent.value);
            }
        }
    }

    /// Values of events of which a row was promised since this was last called.
    pub(super) fn take_rows_promised(&self) -> Vec<u32> {
        self.rows_promised.take()
    }

    /// How many events were sent.
    pub(super) fn count(&self) -> usize {
        self.all.borrow().len()
    }

    /// The events that were acknowledged so far.
    pub(super) fn acknowledged(&self) -> BTreeSet<u32> {
        let all = self.all.borrow();
        let acknowledged = (0..).zip(&*all);
        let acknowledged = acknowledged.filter(|(_, sent)| sent.answer == Answer::Ok);
        acknowledged.map(|(number, _)| number).collect()
    }

    /// Looks at all events.
    pub(super) fn each(&self, mut look: impl FnMut(u32, &mut Sent)) {
        for (number, sent) in (0..).zip(self.all.borrow_mut().iter_mut()) {
            look(number, sent);
        }
    }
}
