//! A thread that asks all processes for `/stats.json` all the time, and compares the numbers.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::checker::Numbers;
use super::history::History;
use super::node::Node;
use super::senders::Load;
use crate::support::Client;

/// A process does not answer while it is frozen.
const PATIENCE: Duration = Duration::from_secs(1);

/// A process that is asked.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    pub node: u32,
    pub admin: SocketAddr,
    /// It has successors at the same address, each with numbers of its own.
    pub is_reloaded: bool,
    /// Events in memory were lost with a restore.
    pub may_lose: bool,
}

impl Watched {
    /// Of a process that was just started.
    pub fn new(node: &Node<'_>) -> Self {
        Self {
            node: node.number,
            admin: node.hakaru.admin(),
            is_reloaded: false,
            may_lose: false,
        }
    }
}

#[derive(Default)]
pub struct Watch {
    watched: Mutex<Vec<Watched>>,
    /// How often numbers were compared.
    pub looks: AtomicU64,
}

impl Watch {
    pub fn begin(&self, watched: Watched) {
        self.watched.lock().unwrap().push(watched);
    }

    pub fn change(&self, change: impl Fn(&mut Watched)) {
        self.watched.lock().unwrap().iter_mut().for_each(change);
    }

    pub fn end(&self, node: u32) {
        let mut watched = self.watched.lock().unwrap();
        watched.retain(|watched| watched.node != node);
    }

    pub fn of(&self, node: u32) -> Option<Watched> {
        let watched = self.watched.lock().unwrap();
        watched.iter().find(|watched| watched.node == node).copied()
    }

    /// Asks until the senders are stopped.
    pub fn run(&self, load: &Load<'_>) {
        while !load.stop.load(Ordering::SeqCst) {
            let all = self.watched.lock().unwrap().clone();
            let pending = all
                .into_iter()
                .filter_map(|watched| self.look(watched, load.history));
            load.set_pending(pending.max().unwrap_or_default());
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Compares the numbers of a process. Returns how many events are pending, if it answers.
    fn look(&self, watched: Watched, history: &History) -> Option<u64> {
        let before = history.counts(watched.node);
        let numbers = ask(watched.admin)?;
        let after = history.counts(watched.node);
        // What was allowed or begun meanwhile holds for these numbers too.
        let watched = self.of(watched.node).unwrap_or(watched);
        let differ = || {
            numbers
                .differ(before, after)
                .filter(|_| !watched.is_reloaded)
        };
        if let Some(text) = numbers.wrong(watched.may_lose).or_else(differ) {
            history.accuse(format!("process {}: {text}", watched.node), []);
        }
        self.looks.fetch_add(1, Ordering::Relaxed);
        Some(numbers.pending)
    }
}

/// The numbers of a process. `None`: it does not answer.
pub fn ask(admin: SocketAddr) -> Option<Numbers> {
    let mut client = Client::try_connect(admin).ok()?;
    client.give_up_after(PATIENCE);
    let answer = client.try_get("/stats.json")?;
    let stats: Value = serde_json::from_str(&answer.body).ok()?;
    Some(Numbers::of(&stats["events"]))
}
