//! Senders. Each sends events of its own, none twice, and writes into the history what it sends and what is answered.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::history::{History, Outcome};
use super::requests::{Request, Shape};
use crate::support::{Client, wait_until};

pub const SENDERS: u32 = 5;

/// After so many requests of a round the senders are slow. The rows of a round are read again and again, also on a busy
/// machine.
const QUICK_REQUESTS_MAX: u64 = 20_000;

/// Where more than so many batches, and so many events, are pending in a process, the senders are slow, so that it can
/// drain in time.
const BATCHES_MAX: u64 = 4;
const PENDING_MAX: u64 = 2_000;

/// How long a slow sender waits after each request.
const SLOW: Duration = Duration::from_millis(20);

/// A sender waits no longer for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A process that may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub node: u32,
    pub database: usize,
    pub address: SocketAddr,
}

/// What senders share with the round.
pub struct Load<'a> {
    pub history: &'a History,
    pub targets: Mutex<Vec<Target>>,
    /// Microseconds from an answer to the next request.
    pub pace: u64,
    pub stop: AtomicBool,
    /// Events of one process that may be pending before the senders are slow.
    pending_max: u64,
    is_ahead: AtomicBool,
    is_paused: AtomicBool,
    at_rest: AtomicU32,
}

impl<'a> Load<'a> {
    pub fn new(history: &'a History, pace: u64, batch_events: u32) -> Self {
        Self {
            history,
            targets: Mutex::default(),
            pace,
            pending_max: PENDING_MAX.max(BATCHES_MAX * u64::from(batch_events)),
            stop: AtomicBool::new(false),
            is_ahead: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            at_rest: AtomicU32::new(0),
        }
    }

    pub fn send_to(&self, targets: &[Target]) {
        *self.targets.lock().unwrap() = targets.to_vec();
    }

    /// Notes the largest number of events that are pending in a process.
    pub fn set_pending(&self, pending: u64) {
        let is_ahead = pending > self.pending_max;
        self.is_ahead.store(is_ahead, Ordering::Relaxed);
    }

    /// Sends nothing more to a process that has ended: another one may listen at its port.
    pub fn forget(&self, node: u32) {
        let mut targets = self.targets.lock().unwrap();
        targets.retain(|target| target.node != node);
    }

    /// Waits until `more` requests were taken.
    pub fn wait_for_answers(&self, more: u64) {
        let before = self.history.requests();
        wait_until("requests are taken", || {
            self.history.requests() > before + more
        });
    }

    /// Waits until `more` events were sent to a process.
    pub fn wait_for_requests(&self, node: u32, more: u64) {
        let before = self.history.counts(node).sent;
        wait_until("events are sent", || {
            self.history.counts(node).sent > before + more
        });
    }

    /// Waits until each sender knows what became of its last request. None sends any more.
    pub fn pause(&self) {
        self.is_paused.store(true, Ordering::SeqCst);
        wait_until("the senders pause", || {
            self.at_rest.load(Ordering::SeqCst) == SENDERS
        });
    }

    pub fn resume(&self) {
        self.is_paused.store(false, Ordering::SeqCst);
        wait_until("the senders send again", || {
            self.at_rest.load(Ordering::SeqCst) == 0
        });
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn rest(&self) {
        self.at_rest.fetch_add(1, Ordering::SeqCst);
        while self.is_paused.load(Ordering::SeqCst) && !self.is_stopped() {
            thread::park_timeout(Duration::from_millis(2));
        }
        self.at_rest.fetch_sub(1, Ordering::SeqCst);
    }

    /// Rests while the senders pause. Whether they did.
    pub fn rests(&self) -> bool {
        let is_paused = self.is_paused.load(Ordering::SeqCst);
        if is_paused {
            self.rest();
        }
        is_paused
    }

    /// A connection to one of the processes.
    pub fn connect(&self, random: &mut fastrand::Rng) -> Option<(Target, Client)> {
        let target = random.choice(&*self.targets.lock().unwrap()).copied()?;
        let client = Client::try_connect(target.address).ok()?;
        client.give_up_after(PATIENCE);
        Some((target, client))
    }

    /// Sends until it is stopped.
    pub fn send(&self, sender: u32, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed ^ u64::from(sender));
        let mut value = 0;
        while !self.is_stopped() {
            if self.rests() {
                continue;
            }
            let Some((target, mut client)) = self.connect(&mut random) else {
                thread::park_timeout(Duration::from_millis(1));
                continue;
            };
            // Other connections come to other shards.
            for _ in 0..random.u8(1..50) {
                let shape = Shape::draw(&mut random);
                let first = value + 1;
                value += shape.events;
                let ids = (first..=value).map(|value| (sender, value)).collect();
                let request = Request::new(shape, ids, false, &mut random);
                let (_, may_go_on) = self.attempt(&mut client, &request, target);
                if !may_go_on {
                    break;
                }
                thread::park_timeout(Duration::from_micros(self.pace));
            }
        }
    }

    /// Sends a request once. Returns what became of it, and whether the connection may be used further.
    pub fn attempt(
        &self,
        client: &mut Client,
        request: &Request,
        target: Target,
    ) -> (Outcome, bool) {
        let (history, ids) = (self.history, &request.ids);
        let places = history.invoke(ids, target.node, target.database);
        let answer = match request.cut_at {
            Some(length) => {
                // Half of the cuts are only in one direction.
                let is_sent = client.try_send(&request.bytes[..length]) && length % 2 == 0;
                is_sent.then(|| client.try_end()).flatten()
            }
            None => client
                .try_send(&request.bytes)
                .then(|| client.try_answer())
                .flatten(),
        };
        let status = answer.as_ref().map(|answer| answer.status);
        let outcome = match (status, request.cut_at, request.is_wrong) {
            (None, None, _) => Outcome::NoAnswer,
            (None | Some(400 | 408), Some(_), _) => Outcome::Cut,
            (Some(400), None, true) => Outcome::Rejected,
            (Some(200), None, false) => Outcome::Ok,
            (Some(503), _, _) => Outcome::Shed,
            (Some(422), None, false) => Outcome::Refused,
            (status, cut_at, is_wrong) => {
                let text = format!(
                    "{:?}…, cut at {cut_at:?}, wrong: {is_wrong}: status {status:?}",
                    ids[0]
                );
                history.accuse(text, ids.iter().copied());
                Outcome::NoAnswer
            }
        };
        history.end(places, outcome);
        if history.requests() > QUICK_REQUESTS_MAX || self.is_ahead.load(Ordering::Relaxed) {
            thread::park_timeout(SLOW);
        }
        let may_go_on = request.cut_at.is_none()
            && answer.is_some_and(|answer| answer.field("Connection") != Some("close"))
            && !self.is_paused.load(Ordering::SeqCst)
            && !self.is_stopped()
            && self.targets.lock().unwrap().contains(&target);
        (outcome, may_go_on)
    }
}
