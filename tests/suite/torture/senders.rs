//! Senders. Each sends events of its own, none twice, and writes into the history what it sends and what is answered.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::history::{History, Outcome};
use crate::support::{Client, wait_until};

pub const SENDERS: u32 = 5;

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
    is_paused: AtomicBool,
    at_rest: AtomicU32,
}

impl<'a> Load<'a> {
    pub fn new(history: &'a History, pace: u64) -> Self {
        Self {
            history,
            targets: Mutex::default(),
            pace,
            stop: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            at_rest: AtomicU32::new(0),
        }
    }

    pub fn send_to(&self, targets: &[Target]) {
        *self.targets.lock().unwrap() = targets.to_vec();
    }

    /// Sends nothing more to a process that has ended: another one may listen at its port.
    pub fn forget(&self, node: u32) {
        let mut targets = self.targets.lock().unwrap();
        targets.retain(|target| target.node != node);
    }

    /// Waits until `more` events were taken.
    pub fn wait_for_answers(&self, more: u64) {
        let before = self.history.taken();
        wait_until("events are taken", || self.history.taken() > before + more);
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

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn rest(&self) {
        self.at_rest.fetch_add(1, Ordering::SeqCst);
        while self.is_paused.load(Ordering::SeqCst) && !self.is_stopped() {
            thread::park_timeout(Duration::from_millis(2));
        }
        self.at_rest.fetch_sub(1, Ordering::SeqCst);
    }

    /// Sends until it is stopped.
    pub fn send(&self, sender: u32, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed ^ u64::from(sender));
        let mut value = 0;
        while !self.is_stopped() {
            if self.is_paused.load(Ordering::SeqCst) {
                self.rest();
                continue;
            }
            let target = random.choice(&*self.targets.lock().unwrap()).copied();
            let client = target.and_then(|target| Client::try_connect(target.address).ok());
            let (Some(target), Some(mut client)) = (target, client) else {
                thread::park_timeout(Duration::from_millis(1));
                continue;
            };
            client.give_up_after(PATIENCE);
            // Other connections come to other shards.
            for _ in 0..random.u8(1..50) {
                value += 1;
                if !self.send_one(&mut client, (sender, value), target) {
                    break;
                }
                thread::park_timeout(Duration::from_micros(self.pace));
            }
        }
    }

    /// Whether the connection may be used further.
    fn send_one(&self, client: &mut Client, id: (u32, u32), target: Target) -> bool {
        let place = self.history.invoke(id, target.node, target.database);
        let path = format!("/hakaru?name=sender{}&value={}", id.0, id.1);
        let Some(answer) = client.try_get(&path) else {
            self.history.end(place, Outcome::NoAnswer);
            return false;
        };
        let outcome = match answer.status {
            200 => Outcome::Ok,
            503 => Outcome::Shed,
            422 => Outcome::Refused,
            status => {
                self.history
                    .accuse(format!("{id:?}: status {status}"), [id]);
                Outcome::NoAnswer
            }
        };
        self.history.end(place, outcome);
        answer.field("Connection") != Some("close")
            && !self.is_paused.load(Ordering::SeqCst)
            && !self.is_stopped()
            && self.targets.lock().unwrap().contains(&target)
    }
}
