//! What drives the ingest of a simulated shard: its requests, its tickets and its timers. In the server these are tasks
//! of an event loop.

use std::cell::RefCell;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::process::Control;
use super::senders::{Answer, Inbox, Request, Senders};
use crate::event::event_id::EventId;
use crate::event::{Event, UnixMillis};
use crate::metrics::SealCause;
use crate::os::clock;
use crate::os::simulated::{Pause, notifications, pause, set_busy};
use crate::shard::committer::commit_by_thread;
use crate::shard::ingest::{AckFailed, AckTicket, Ingest, acknowledged};

/// How often the gauges are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// How soon a batch that is due is tried again while the writer is busy.
const BUSY_POLL: Duration = Duration::from_millis(50);

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

impl SimulatedShard {
    /// Runs until the process drains.
    pub(super) fn run(mut self) {
        self.heard.set_nonblocking(true).unwrap();
        let ingest = RefCell::new(self.ingest);
        let context = &mut Context::from_waker(Waker::noop());
        let mut committer = pin!(commit_by_thread(&ingest));
        let mut waiting: Vec<Waiting> = Vec::new();
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
            if let Some(requests) = arrived {
                set_busy();
                let turn = take(&mut ingest.borrow_mut(), &requests, &self.senders);
                waiting.extend(turn);
                ingest.borrow_mut().commit_soon();
            }
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
            let is_quiet = waiting.is_empty() && !ingest.borrow().is_committing();
            if self.control.is_draining() && self.inbox.borrow().is_empty() && is_quiet {
                break;
            }
            let wake_at = due.map_or(publish_at, |due| due.min(publish_at));
            pause(Pause::Wait(Some(wake_at)));
        }
        ingest.borrow_mut().close();
    }
}

/// Takes the events of one read. `None`: no answer has to wait.
fn take(ingest: &mut Ingest, requests: &[Request], senders: &Senders) -> Option<Waiting> {
    let mut taken = Vec::new();
    for Request {
        number,
        name,
        value,
        id,
    } in requests
    {
        let event = Event {
            name,
            value: *value,
            received_at: UnixMillis::now(),
            id: id.as_deref().and_then(|id| EventId::new(id).ok()),
        };
        senders.received(*number, event.received_at);
        match ingest.take(event) {
            Ok(()) => taken.push(*number),
            Err(_) => senders.answer(*number, Answer::Shed),
        }
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
