//! What drives the ingest of a simulated shard: its requests, its tickets and its timers. In the server these are tasks
//! of an event loop.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::process::Control;
use super::senders::{Answer, Asked, Inbox, Request, Senders};
use crate::event::event_id::EventId;
use crate::event::list::EventList;
use crate::event::{Event, UnixMillis};
use crate::metrics::SealCause;
use crate::os::clock;
use crate::os::simulated::{Pause, notifications, pause, set_busy};
use crate::shard::committer::commit_by_thread;
use crate::shard::ingest::{AckFailed, AckTicket, Ingest, TakenAll, acknowledged};

/// How often the gauges are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// How soon a batch that is due is tried again while the writer is busy.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// How long a request waits for a group that has room.
const WAITS_FOR_ROOM: Duration = Duration::from_secs(1);

/// A shard before it runs.
pub(super) struct SimulatedShard {
    pub(super) ingest: Ingest,
    pub(super) heard: UnixStream,
    pub(super) inbox: Inbox,
    pub(super) senders: Senders,
    pub(super) control: Control,
    pub(super) linger: Duration,
}

/// Answers that wait for a ticket.
struct Waiting {
    ticket: AckTicket,
    /// The numbers of the events that were taken in one turn.
    taken: Vec<u32>,
}

/// Requests of one connection that are not answered yet.
struct Arrived {
    requests: VecDeque<Request>,
    at: Instant,
}

impl SimulatedShard {
    /// Runs until the process drains.
    pub(super) fn run(mut self) {
        self.heard.set_nonblocking(true).unwrap();
        let ingest = RefCell::new(self.ingest);
        let context = &mut Context::from_waker(Waker::noop());
        let mut committer = pin!(commit_by_thread(&ingest));
        let mut waiting: Vec<Waiting> = Vec::new();
        let (mut unanswered, mut list) = (Vec::<Arrived>::new(), EventList::default());
        let mut publish_at = clock::now() + PUBLISH_EVERY;
        let mut retry_at: Option<Instant> = None;
        let mut heard = None;
        loop {
            let mut bytes = [0; 64];
            let is_news = heard.replace(notifications()) != Some(notifications());
            if is_news && self.heard.read(&mut bytes).is_ok_and(|length| length > 0) {
                // More may be left.
                heard = None;
                set_busy();
                ingest.borrow_mut().on_notify();
            }
            let arrived = self.inbox.borrow_mut().pop_front();
            unanswered.extend(arrived.map(|requests| Arrived {
                requests: requests.into(),
                at: clock::now(),
            }));
            for arrived in &mut unanswered {
                let ingest = &mut ingest.borrow_mut();
                waiting.extend(take(ingest, arrived, &self.senders, &mut list));
                ingest.commit_soon();
            }
            unanswered.retain(|arrived| !arrived.requests.is_empty());
            assert!(
                committer.as_mut().poll(context).is_pending(),
                "it never ends"
            );
            waiting.retain(|turn| !is_answered(turn, &ingest, &self.senders));
            let now = clock::now();
            if now >= publish_at {
                ingest.borrow_mut().publish_gauges();
                publish_at = now + PUBLISH_EVERY;
            }
            let due = seal_by_age(&mut ingest.borrow_mut(), self.linger, &mut retry_at);
            let is_answered = waiting.is_empty() && unanswered.is_empty();
            let is_quiet = is_answered && !ingest.borrow().is_committing();
            if self.control.is_draining() && self.inbox.borrow().is_empty() && is_quiet {
                break;
            }
            let wake_at = due.map_or(publish_at, |due| due.min(publish_at));
            pause(Pause::Wait(Some(wake_at)));
        }
        ingest.borrow_mut().close();
    }
}

/// Takes the events of requests that have arrived together, up to one that has to wait. `None`: no answer has to wait.
fn take(
    ingest: &mut Ingest,
    arrived: &mut Arrived,
    senders: &Senders,
    list: &mut EventList,
) -> Option<Waiting> {
    let mut taken = Vec::new();
    while let Some(request) = arrived.requests.front() {
        let now = UnixMillis::now();
        for event in request {
            senders.received(event.number, now);
        }
        let answer = match &request[..] {
            [event] => take_one(ingest, event, now),
            events => {
                fill(list, events);
                // Some are late already, and are not waited for.
                let is_late = events[0].number % 4 == 0;
                let may_wait = !is_late && clock::since(arrived.at) < WAITS_FOR_ROOM;
                match ingest.take_all(list, now, may_wait) {
                    TakenAll::Taken => None,
                    TakenAll::Later(_) => break,
                    TakenAll::Shed => Some(Answer::Shed),
                    TakenAll::TooMany(most) => panic!("a request of more than {most} events"),
                }
            }
        };
        for event in request {
            match answer {
                None => taken.push(event.number),
                Some(answer) => senders.answer(event.number, answer),
            }
        }
        arrived.requests.pop_front();
        set_busy();
    }
    if taken.is_empty() {
        return None;
    }
    let Some(ticket) = ingest.ticket() else {
        for number in taken {
            senders.answer(number, Answer::Ok);
        }
        return None;
    };
    Some(Waiting { ticket, taken })
}

/// Takes the event of a request that has no other. `None`: it is taken.
fn take_one(ingest: &mut Ingest, asked: &Asked, now: UnixMillis) -> Option<Answer> {
    let event = Event {
        name: &asked.name,
        value: asked.value,
        received_at: now,
        id: asked.id.as_deref().and_then(|id| EventId::new(id).ok()),
    };
    ingest.take(event).err().map(|_| Answer::Shed)
}

/// Puts the events of a request into a list.
fn fill(list: &mut EventList, events: &[Asked]) {
    list.clear();
    for event in events {
        let name = list.add_text(&event.name);
        let id = event.id.as_deref().map(|id| list.add_text(id));
        list.push(name, event.value, id);
    }
}

/// Answers the senders of a turn, if its ticket is decided.
fn is_answered(turn: &Waiting, ingest: &RefCell<Ingest>, senders: &Senders) -> bool {
    let mut wait = pin!(acknowledged(ingest, turn.ticket));
    let state = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let answer = match state {
        Poll::Pending => return false,
        Poll::Ready(Ok(())) => Answer::Ok,
        Poll::Ready(Err(AckFailed::NotKept)) => Answer::Shed,
        Poll::Ready(Err(AckFailed::Abandoned | AckFailed::Unknown)) => Answer::None,
    };
    set_busy();
    let refused = match answer {
        Answer::Ok => ingest
            .borrow()
            .take_refused(turn.ticket, turn.taken.len() as u64),
        _ => Vec::new(),
    };
    for (index, number) in turn.taken.iter().enumerate() {
        let is_refused = refused.contains(&index);
        senders.answer(*number, if is_refused { Answer::Refused } else { answer });
    }
    true
}

/// Seals the open batch when it is `linger` old. Returns when to look again.
fn seal_by_age(
    ingest: &mut Ingest,
    linger: Duration,
    retry_at: &mut Option<Instant>,
) -> Option<Instant> {
    let now = clock::now();
    if retry_at.is_some_and(|at| at > now) {
        return *retry_at;
    }
    *retry_at = None;
    let due = ingest.opened_at()? + linger;
    if due > now {
        return Some(due);
    }
    set_busy();
    ingest.seal_when_writer_is_free(SealCause::Age);
    let due = ingest.opened_at().map(|_| now + BUSY_POLL);
    *retry_at = due;
    due
}
