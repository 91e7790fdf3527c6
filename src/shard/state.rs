//! What the tasks of a shard share, all on one thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use nix::time::{ClockId, clock_gettime};

use super::balance::ShardBalance;
use super::deadlines::{ConnectionId, Deadlines, EndEarly};
use super::ingest::Ingest;
use super::input::Inputs;
use super::service::Bodies;
use crate::event::UnixMillis;
use crate::event::rule::SharedEventRule;
use crate::http::paths::EventPaths;
use crate::http::response::Answers;
use crate::http::taken_answers::TakenAnswers;
use crate::metrics::{Recorder, ShardCounters};
use crate::os::io_driver::IoDriver;

/// One core and all it owns. No borrow of a cell is held over an `await`.
#[derive(Debug)]
pub struct Shard {
    /// What takes events.
    pub ingest: RefCell<Ingest>,
    /// Its counters.
    pub counters: Rc<Recorder<ShardCounters>>,
    /// The paths that take events.
    pub paths: EventPaths,
    /// What the columns take.
    pub event_rule: Arc<SharedEventRule>,
    /// What its event loop waits with.
    pub driver: IoDriver,
    /// Memory for what connections read, on io_uring.
    pub inputs: Inputs,
    /// Formats answers.
    pub answers: RefCell<Answers>,
    /// Scratch: answers of the present turn, not yet sent.
    pub out: RefCell<Outgoing>,
    /// Scratch: the present name, unescaped.
    pub decoded: RefCell<Vec<u8>>,
    /// What reads events in bodies.
    pub bodies: Bodies,
    /// Buffers for answers that wait for their events to be safe.
    spare_outs: RefCell<Vec<Outgoing>>,
    /// All open connections and how long they may take.
    pub deadlines: RefCell<Deadlines>,
    /// Its busy connections beside those of the other shards.
    pub balance: ShardBalance,
    /// Which connections end early because the shard drains.
    pub end_early: Cell<EndEarly>,
    /// Whether connections end with their next answer.
    pub is_draining: Cell<bool>,
    /// Connections that have ended and given their slots back.
    ended: Cell<u64>,
    /// Who waits for the next one that ends: one for each listener at most.
    awaiting_end: RefCell<Vec<Waker>>,
}

/// The answers of one turn of one connection.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// As they are sent.
    pub bytes: Vec<u8>,
    /// The answers to events among them.
    pub taken: TakenAnswers,
}

impl Outgoing {
    /// Empties it for a new turn.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.taken.clear();
    }
}

impl Shard {
    /// A shard without connections.
    pub fn new(
        ingest: Ingest,
        counters: Rc<Recorder<ShardCounters>>,
        paths: EventPaths,
        event_rule: Arc<SharedEventRule>,
        body_limit: usize,
        driver: IoDriver,
        balance: ShardBalance,
    ) -> Self {
        Self {
            ingest: RefCell::new(ingest),
            counters,
            paths,
            event_rule,
            driver,
            inputs: Inputs::default(),
            answers: RefCell::new(Answers::new(UnixMillis::now().seconds())),
            out: RefCell::default(),
            decoded: RefCell::default(),
            bodies: Bodies::new(body_limit),
            spare_outs: RefCell::default(),
            deadlines: RefCell::default(),
            balance,
            end_early: Cell::new(EndEarly::None),
            is_draining: Cell::new(false),
            ended: Cell::new(0),
            awaiting_end: RefCell::default(),
        }
    }

    /// Forgets a connection that has ended. Must be called before its socket is closed.
    pub fn forget(&self, id: ConnectionId) {
        if self.deadlines.borrow_mut().forget(id) {
            self.balance.subtract(1);
        }
    }

    /// Whether a connection is to be served by another shard from now on.
    pub fn should_move(&self, id: ConnectionId) -> bool {
        self.balance.has_surplus()
            && !self.is_draining.get()
            && self.deadlines.borrow().may_move(id)
    }

    /// Compares the loads of the shards once a second.
    pub fn compare_loads(&self) {
        let quiet = self.deadlines.borrow_mut().end_of_busy();
        self.balance.subtract(quiet);
        self.balance.compare();
    }

    /// Notes that a connection has ended and that its slot is free.
    pub fn note_connection_end(&self) {
        self.ended.set(self.ended.get() + 1);
        self.awaiting_end
            .borrow_mut()
            .drain(..)
            .for_each(Waker::wake);
    }

    /// Returns when another connection has ended.
    pub async fn connection_end(&self) {
        let before = self.ended.get();
        poll_fn(|context| {
            if self.ended.get() != before {
                return Poll::Ready(());
            }
            let mut waiting = self.awaiting_end.borrow_mut();
            // A wait that was given up has left its waker.
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Reads the clock, once for all requests that arrived in one read. The coarse clock is at most a few
    /// milliseconds late. It costs a memory read, where the exact one may cost a system call.
    pub fn read_clock(&self) -> UnixMillis {
        let now = match clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
            Ok(time) => {
                let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
                UnixMillis(seconds * 1000 + u64::try_from(time.tv_nsec() / 1_000_000).unwrap_or(0))
            }
            Err(_) => UnixMillis::now(),
        };
        self.answers.borrow_mut().set_second(now.seconds());
        now
    }

    /// Takes the answers of this turn out of the scratch, to be sent later.
    pub fn take_answers(&self) -> Outgoing {
        let spare = self.spare_outs.borrow_mut().pop().unwrap_or_default();
        std::mem::replace(&mut self.out.borrow_mut(), spare)
    }

    /// Takes back the buffer of answers that were sent.
    pub fn give_back(&self, mut answers: Outgoing) {
        answers.clear();
        self.spare_outs.borrow_mut().push(answers);
    }
}
