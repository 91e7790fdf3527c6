//! The database of a simulation: rows and checkpoints, with transactions, row locks and sessions that outlive their
//! connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::history::note;
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::event::{Event, UnixMillis};
use crate::os::reached::reached;
use crate::os::simulated;
use crate::sink::{Checkpoint, Step};

/// How long the server keeps a session whose connection was lost, at most.
const ORPHAN_SECONDS: u64 = 20;

/// A row of `eventlog`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) at: u64,
    pub(super) name: String,
    pub(super) value: u32,
    /// Which event it is, also among equal ones. The server does not see it.
    pub(super) event: EventId,
}

impl Row {
    /// Whether its columns are those of the event.
    pub(super) fn is_equal(&self, event: Event<'_>) -> bool {
        let seconds = event.received_at.seconds();
        (self.at, self.name.as_str(), self.value) == (seconds, event.name, event.value)
    }
}

/// Which event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventId {
    /// Its lane, or the key under which that is stored.
    pub(super) lane: LaneId,
    pub(super) value: u32,
    pub(super) received_at: UnixMillis,
    pub(super) position: Position,
}

/// What is in the database.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) id: Option<DatabaseId>,
    pub(super) rows: BTreeMap<u64, Row>,
    pub(super) checkpoints: BTreeMap<LaneId, Checkpoint>,
    pub(super) last_row: u64,
}

impl Content {
    /// Whether it was served once, also if it has lost its id since.
    pub(super) fn has_been_used(&self) -> bool {
        self.id.is_some() || !self.rows.is_empty()
    }
}

/// Whether two ids are of the same database, or were before one of their halves was overwritten.
pub(super) fn is_same(one: Option<DatabaseId>, other: Option<DatabaseId>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            let ((high, low), (other_high, other_low)) = (one.halves(), other.halves());
            high == other_high || low == other_low
        }
        (one, other) => one == other,
    }
}

#[derive(Debug, Clone)]
struct Transaction {
    step: Step,
    rows: Vec<(u64, Row)>,
}

#[derive(Debug, Default)]
struct Session {
    transaction: Option<Transaction>,
    /// Its connection is lost: it ends then.
    ends_at: Option<Duration>,
    /// A COMMIT that was sent before its connection was lost arrives then.
    commits_at: Option<Duration>,
}

/// What the server does wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// It does not run, or cannot be reached.
    pub(super) is_down: bool,
    /// It takes no writes.
    pub(super) is_read_only: bool,
    /// The table takes no row.
    pub(super) refuses_all: bool,
    /// Whether it takes rows that it refused before: 0: none; 1: all; 2: those of events with an even value.
    pub(super) takes_refused: u32,
    /// One call in this many loses the connection. 0: none does.
    pub(super) loses: u32,
}

/// A server and its content.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) content: Content,
    /// What is in the database to which the address may be repointed.
    pub(super) other: Content,
    other_snapshots: Vec<(Duration, Content)>,
    pub(super) faults: Faults,
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    /// The values of all rows that were ever committed.
    pub(super) ever: BTreeSet<u32>,
    /// Those that were committed while it had no id.
    pub(super) ever_unnamed: BTreeSet<u32>,
    /// Lanes of which a row of the checkpoint was altered: the lower one of its two keys.
    altered: BTreeSet<LaneId>,
    /// Earlier states, oldest first.
    snapshots: Vec<(Duration, Content)>,
    pub(super) random: fastrand::Rng,
}

/// Shared by the sinks of all processes.
#[derive(Debug, Clone)]
pub(super) struct Database(Arc<Mutex<Server>>);

/// The number of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionId(u64);

impl Database {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Server {
            content: Content::default(),
            other: Content::default(),
            other_snapshots: Vec::new(),
            faults: Faults::default(),
            sessions: BTreeMap::new(),
            next_session: 0,
            ever: BTreeSet::new(),
            ever_unnamed: BTreeSet::new(),
            altered: BTreeSet::new(),
            snapshots: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        })))
    }

    /// The server as it is now.
    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        let mut server = self.0.lock().unwrap();
        server.tick();
        server
    }
}

impl Server {
    /// Does what the sessions of lost connections do by themselves.
    fn tick(&mut self) {
        let now = simulated::elapsed();
        let due: Vec<u64> = self.sessions.keys().copied().collect();
        for id in due {
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            if session.commits_at.is_some_and(|at| at <= now) {
                session.commits_at = None;
                reached("database: COMMIT takes effect late");
                let transaction = session.transaction.take();
                self.apply(transaction);
            }
            let session = &self.sessions[&id];
            if session.ends_at.is_some_and(|at| at <= now) {
                reached("database: a session ends after its connection");
                self.sessions.remove(&id);
            }
        }
    }

    fn apply(&mut self, transaction: Option<Transaction>) {
        let Some(Transaction { step, rows }) = transaction else {
            return;
        };
        note(|| {
            let values: Vec<u32> = rows.iter().map(|(_, row)| row.value).collect();
            let (lane, old, new) = (step.lane, step.old.0, step.new.0);
            let epoch = step.epoch.0;
            format!("database: lane {lane}, epoch {epoch}: {old} -> {new}, rows {values:?}")
        });
        if self.content.id.is_none() {
            let unnamed = rows.iter().map(|(_, row)| row.value);
            self.ever_unnamed.extend(unnamed);
        }
        self.ever.extend(rows.iter().map(|(_, row)| row.value));
        self.content.rows.extend(rows);
        let rows = &mut self.content.checkpoints;
        rows.insert(step.lane, step.checkpoint());
        rows.insert(step.lane.complement(), step.copy());
    }

    pub(super) fn connect(&mut self) -> Option<SessionId> {
        if self.faults.is_down {
            return None;
        }
        self.next_session += 1;
        self.sessions.insert(self.next_session, Session::default());
        Some(SessionId(self.next_session))
    }

    pub(super) fn has(&self, session: SessionId) -> bool {
        !self.faults.is_down && self.sessions.contains_key(&session.0)
    }

    /// Whether a call loses its connection.
    pub(super) fn loses(&mut self) -> bool {
        let one_in = self.faults.loses;
        one_in > 0 && self.random.u32(0..one_in) == 0
    }

    /// The connection of a session is lost. The server may notice at once or later; until then it holds its locks.
    pub(super) fn orphan(&mut self, session: SessionId, is_committing: bool) {
        let known = self.sessions.get(&session.0);
        if known.is_none_or(|session| session.ends_at.is_some()) {
            return;
        }
        let seconds = self.random.u64(0..ORPHAN_SECONDS);
        let commits = is_committing && self.random.bool();
        if is_committing && !commits {
            reached("database: COMMIT does not arrive");
        }
        let now = simulated::elapsed();
        let at = now + Duration::from_millis(self.random.u64(0..=seconds * 1000));
        if let Some(session) = self.sessions.get_mut(&session.0) {
            session.ends_at = Some(now + Duration::from_secs(seconds));
            session.commits_at = commits.then_some(at);
        }
        self.tick();
    }

    /// Ends a session, as a connection that is closed does.
    pub(super) fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session.0);
    }

    /// Whether another session holds the lock of a lane's checkpoint.
    pub(super) fn is_locked(&self, lane: LaneId, by_other_than: SessionId) -> bool {
        self.sessions.iter().any(|(id, session)| {
            let locked = session.transaction.as_ref().map(|open| open.step.lane);
            *id != by_other_than.0 && locked == Some(lane)
        })
    }

    pub(super) fn begin(&mut self, session: SessionId, step: Step, rows: Vec<Row>) -> Option<u64> {
        let first = self.content.last_row + 1;
        let rows: Vec<_> = (first..).zip(rows).collect();
        // Ids are not taken back.
        self.content.last_row += rows.len() as u64;
        let first = rows.first().map(|(id, _)| *id);
        if let Some(session) = self.sessions.get_mut(&session.0) {
            session.transaction = Some(Transaction { step, rows });
        }
        first
    }

    pub(super) fn commit(&mut self, session: SessionId) {
        let session = self.sessions.get_mut(&session.0);
        let transaction = session.and_then(|session| session.transaction.take());
        self.apply(transaction);
    }

    pub(super) fn roll_back(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session.0) {
            session.transaction = None;
        }
    }
}

/// What happens to it.
impl Server {
    /// All sessions end, and what they did not commit.
    pub(super) fn kill(&mut self) {
        self.sessions.clear();
    }

    /// The address leads to another database from now on, or back. Sessions end.
    pub(super) fn repoint(&mut self) {
        std::mem::swap(&mut self.content, &mut self.other);
        std::mem::swap(&mut self.snapshots, &mut self.other_snapshots);
        self.kill();
    }

    /// The rows of both databases.
    pub(super) fn all_rows(&self) -> impl Iterator<Item = &Row> {
        self.content.rows.values().chain(self.other.rows.values())
    }

    /// Keeps a copy of the content, as a backup does.
    pub(super) fn back_up(&mut self) {
        let now = simulated::elapsed();
        self.snapshots.push((now, self.content.clone()));
    }

    /// Goes back to a backup. Sessions end. `false`: there is none.
    pub(super) fn restore(&mut self) -> bool {
        if self.snapshots.is_empty() {
            return false;
        }
        let index = self.random.usize(0..self.snapshots.len());
        self.content = self.snapshots[index].1.clone();
        self.kill();
        true
    }

    /// Goes back to the last backup. Sessions end, or stay open where none has a transaction, as when a dump is read in.
    /// `false`: there is no backup.
    pub(super) fn restore_last(&mut self) -> bool {
        let Some((_, content)) = self.snapshots.last() else {
            return false;
        };
        self.content = content.clone();
        if self.is_in_use() || self.random.bool() {
            self.kill();
        }
        true
    }

    fn is_in_use(&self) -> bool {
        let mut sessions = self.sessions.values();
        sessions.any(|session| session.transaction.is_some())
    }

    /// Whether the table takes the event with this value, which it refused before.
    pub(super) fn takes_refused(&self, value: u32) -> bool {
        match self.faults.takes_refused {
            0 => false,
            1 => true,
            _ => value.is_multiple_of(2),
        }
    }

    /// Removes all rows and checkpoints under open connections; with or without the id of the database. `false`: it
    /// would have to wait for a lock.
    pub(super) fn empty(&mut self) -> bool {
        if self.is_in_use() {
            return false;
        }
        self.content.rows.clear();
        self.content.checkpoints.clear();
        if self.random.bool() {
            self.content.id = None;
        }
        true
    }

    /// Gives all rows of the table of checkpoints the same position, as an `UPDATE` without `WHERE` does. Each lane is
    /// altered so once: what came of it is decided by a person, who needs to know what happened.
    pub(super) fn alter_all_checkpoints(&mut self) -> Option<String> {
        let lanes: BTreeSet<LaneId> = self.content.checkpoints.keys().copied().collect();
        let is_first = lanes.iter().all(|lane| !self.altered.contains(lane));
        if lanes.is_empty() || self.is_in_use() || !is_first {
            return None;
        }
        self.altered.extend(lanes);
        // Near to what some process has noted, or anywhere.
        let index = self.random.usize(0..self.content.checkpoints.len());
        let near = self.content.checkpoints.values().nth(index)?.position.0;
        let position = match self.random.u32(0..3) > 0 {
            true => near.saturating_sub(self.random.u64(0..4)),
            false => self.random.u64(0..30),
        };
        for checkpoint in self.content.checkpoints.values_mut() {
            checkpoint.position.0 = position;
        }
        if let Some(id) = &mut self.content.id {
            *id = DatabaseId::from_halves(id.halves().0, position);
        }
        Some(format!("all of them are {position}"))
    }

    /// Alters a row of the table of checkpoints.
    pub(super) fn alter_checkpoint(
        &mut self,
        alter: impl Fn(u64, &mut fastrand::Rng) -> u64,
    ) -> Option<String> {
        let lanes: Vec<LaneId> = self.content.checkpoints.keys().copied().collect();
        if lanes.is_empty() {
            return None;
        }
        let lane = lanes[self.random.usize(0..lanes.len())];
        // Where both rows of a lane are altered, a person decides, who needs to know what happened.
        if self.is_locked(lane, SessionId(0)) || !self.altered.insert(lane.min(lane.complement())) {
            return None;
        }
        let checkpoint = self.content.checkpoints.get_mut(&lane)?;
        let old = checkpoint.position.0;
        checkpoint.position.0 = alter(old, &mut self.random);
        Some(format!("{lane}: {old} -> {}", checkpoint.position.0))
    }
}
