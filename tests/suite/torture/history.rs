//! What the senders and the rounds did, with the time: the only thing that the checker believes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::database::is_poison;

/// An event: which sender sent it, and its value.
pub type Id = (u32, u32);

/// What a sender knows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has been sent.
    Sent,
    /// 200.
    Ok,
    /// 503.
    Shed,
    /// 422.
    Refused,
    /// 400.
    Rejected,
    /// The sender ended the connection in the middle of the request.
    Cut,
    /// The connection has ended, or nothing came in time.
    NoAnswer,
}

/// An event that was sent. It is sent once, or once in each attempt of a sender that repeats.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub id: Id,
    /// The place of the first event of its request.
    pub request: usize,
    /// The table refuses an event of its request.
    pub with_poison: bool,
    /// The process that was asked.
    pub node: u32,
    /// The database that this process serves.
    pub database: usize,
    pub outcome: Outcome,
    sent_at: Duration,
    ended_at: Duration,
    /// It was answered 200, was in memory, and the process was killed; or a restore took its row.
    pub may_be_lost: bool,
}

/// What the senders have counted of one process.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub sent: u64,
    pub ok: u64,
    pub shed: u64,
    pub refused: u64,
    pub unanswered: u64,
    /// Answered 400, or cut by the sender.
    pub not_taken: u64,
}

/// What was sent in one round or several.
#[derive(Debug, Default)]
pub struct Sent {
    /// Different ones.
    pub events: u64,
    /// With each repetition.
    pub requests: u64,
    /// Events in all requests.
    pub attempts: u64,
    pub ok: u64,
    pub refused: u64,
    pub shed: u64,
    pub unanswered: u64,
    pub not_taken: u64,
}

impl Sent {
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.requests += other.requests;
        self.attempts += other.attempts;
        self.ok += other.ok;
        self.refused += other.refused;
        self.shed += other.shed;
        self.unanswered += other.unanswered;
        self.not_taken += other.not_taken;
    }
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} events in {} requests; of {} events with their repetitions {} were answered 200, {} 422, {} 503, \
             {} not at all, and {} were cut off or answered 400",
            self.events,
            self.requests,
            self.attempts,
            self.ok,
            self.refused,
            self.shed,
            self.unanswered,
            self.not_taken
        )
    }
}

#[derive(Default)]
struct Events {
    all: Vec<Invocation>,
    counts: BTreeMap<u32, Counts>,
    notes: Vec<(Duration, String)>,
    /// Requests that were answered 200 or 422.
    requests: u64,
    /// All before this were seen in the database.
    safe: usize,
    /// Processes that were killed, whose events may be lost from this one on.
    killed: BTreeMap<u32, usize>,
    accused: BTreeSet<Id>,
    accusations: Vec<String>,
    logs: BTreeMap<u32, String>,
}

/// Most faults of a round that are shown.
const ACCUSATIONS: usize = 20;

pub struct History {
    start: Instant,
    events: Mutex<Events>,
}

impl History {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            events: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap()
    }

    /// A sender is about to send a request with these events. Returns their places in the history.
    pub fn invoke(&self, ids: &[Id], node: u32, database: usize) -> Range<usize> {
        let sent_at = self.start.elapsed();
        let with_poison = ids.iter().copied().any(is_poison);
        let mut events = self.lock();
        let request = events.all.len();
        events.counts.entry(node).or_default().sent += ids.len() as u64;
        events.all.extend(ids.iter().map(|&id| Invocation {
            id,
            request,
            with_poison,
            node,
            database,
            outcome: Outcome::Sent,
            sent_at,
            ended_at: sent_at,
            may_be_lost: false,
        }));
        request..events.all.len()
    }

    /// What became of a request.
    pub fn end(&self, places: Range<usize>, outcome: Outcome) {
        let ended_at = self.start.elapsed();
        let number = places.len() as u64;
        let mut events = self.lock();
        let node = events.all[places.start].node;
        for invocation in &mut events.all[places] {
            (invocation.outcome, invocation.ended_at) = (outcome, ended_at);
        }
        if matches!(outcome, Outcome::Ok | Outcome::Refused) {
            events.requests += 1;
        }
        let counts = events.counts.entry(node).or_default();
        match outcome {
            Outcome::Sent => unreachable!("it has ended"),
            Outcome::Ok => counts.ok += number,
            Outcome::Shed => counts.shed += number,
            Outcome::Refused => counts.refused += number,
            Outcome::Rejected | Outcome::Cut => counts.not_taken += number,
            Outcome::NoAnswer => counts.unanswered += number,
        }
    }

    /// What was sent.
    pub fn sent(&self) -> Sent {
        let events = self.lock();
        let ids: BTreeSet<Id> = events.all.iter().map(|event| event.id).collect();
        let requests: BTreeSet<usize> = events.all.iter().map(|event| event.request).collect();
        let sum = |of: fn(&Counts) -> u64| events.counts.values().map(of).sum();
        Sent {
            events: ids.len() as u64,
            requests: requests.len() as u64,
            attempts: sum(|counts| counts.sent),
            ok: sum(|counts| counts.ok),
            refused: sum(|counts| counts.refused),
            shed: sum(|counts| counts.shed),
            unanswered: sum(|counts| counts.unanswered),
            not_taken: sum(|counts| counts.not_taken),
        }
    }

    /// What happened, for a person who reads the history.
    pub fn note(&self, text: impl Into<String>) {
        let at = self.start.elapsed();
        self.lock().notes.push((at, text.into()));
    }

    pub fn counts(&self, node: u32) -> Counts {
        self.lock().counts.get(&node).copied().unwrap_or_default()
    }

    fn total(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.lock().counts.values().map(of).sum()
    }

    /// Events that were answered 200 or 422.
    pub fn taken(&self) -> u64 {
        self.total(|counts| counts.ok + counts.refused)
    }

    /// Requests that were answered 200 or 422.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    pub fn shed(&self) -> u64 {
        self.total(|counts| counts.shed)
    }

    pub fn unanswered(&self) -> u64 {
        self.total(|counts| counts.unanswered)
    }

    /// All events, and which of them may be lost. `is_in_memory`: a 200 promises no more than memory.
    pub fn invocations(&self, is_in_memory: bool) -> Vec<Invocation> {
        let events = self.lock();
        let mut all = events.all.clone();
        for (place, invocation) in all.iter_mut().enumerate() {
            let killed = events.killed.get(&invocation.node);
            invocation.may_be_lost |= killed.is_some_and(|&from| place >= from);
            invocation.may_be_lost &= is_in_memory;
        }
        all
    }

    /// Everything that was promised is where it should be.
    pub fn all_is_safe(&self) {
        let mut events = self.lock();
        events.safe = events.all.len();
    }

    pub fn killed(&self, node: u32) {
        let mut events = self.lock();
        let safe = events.safe;
        events.killed.entry(node).or_insert(safe);
    }

    /// The database went back to these rows.
    pub fn restored(&self, rows: &HashSet<Id>) {
        let mut events = self.lock();
        for invocation in &mut events.all {
            invocation.may_be_lost |= !rows.contains(&invocation.id);
        }
    }

    /// Something is wrong with these events. What follows when much is wrong already says nothing new.
    pub fn accuse(&self, text: String, ids: impl IntoIterator<Item = Id>) {
        if self.lock().accusations.len() >= ACCUSATIONS {
            return;
        }
        self.note(format!("FOUND: {text}"));
        let mut events = self.lock();
        events.accusations.push(text);
        let few: Vec<Id> = ids.into_iter().take(5).collect();
        events.accused.extend(few);
    }

    pub fn accusations(&self) -> Vec<String> {
        self.lock().accusations.clone()
    }

    /// The log of a process that has ended.
    pub fn keep_log(&self, node: u32, log: String) {
        self.lock().logs.insert(node, log);
    }

    pub fn logs(&self) -> BTreeMap<u32, String> {
        self.lock().logs.clone()
    }

    /// The history of the round and of the accused events, newest last, one line each.
    pub fn story(&self) -> String {
        let events = self.lock();
        let mut lines = events.notes.clone();
        for invocation in &events.all {
            if events.accused.contains(&invocation.id) {
                let (sender, value) = invocation.id;
                let node = invocation.node;
                lines.push((
                    invocation.sent_at,
                    format!("sender{sender} sends value {value} to process {node}"),
                ));
                let outcome = match invocation.outcome {
                    Outcome::Sent => continue,
                    Outcome::Ok => "200",
                    Outcome::Shed => "503",
                    Outcome::Refused => "422",
                    Outcome::Rejected => "400",
                    Outcome::Cut => "the sender cuts the request",
                    Outcome::NoAnswer => "no answer",
                };
                lines.push((
                    invocation.ended_at,
                    format!("sender{sender}, value {value}, process {node}: {outcome}"),
                ));
            }
        }
        lines.sort_by_key(|(at, _)| *at);
        let line =
            |(at, text): &(Duration, String)| format!("{:10.4} s  {text}\n", at.as_secs_f64());
        lines.iter().map(line).collect()
    }
}
