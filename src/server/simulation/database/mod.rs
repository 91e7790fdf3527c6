//! The database of a simulation: rows and checkpoints, with transactions, row locks and sessions that outlive their
//! connections.

mod troubles;

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
    /// What its sender calls it. Each of these is only once in the table.
    pub(super) id: Option<String>,
    /// Which event it is, also among equal ones. The server does not see it.
    pub(super) event: EventId,
}

impl Row {
    /// Whether its columns are those of the event.
    pub(super) fn is_equal(&self, event: Event<'_>) -> bool {
        let seconds = event.received_at.seconds();
        (self.at, self.name.as_str(), self.value) == (seconds, event.name, event.value)
    }

    /// Whether it has this id.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
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
    /// Whether its sender calls it by an id, and may have sent it more than once.
    pub(super) has_id: bool,
}

/// What is in the database.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) id: Option<DatabaseId>,
    pub(super) rows: BTreeMap<u64, Row>,
    pub(super) checkpoints: BTreeMap<LaneId, Checkpoint>,
    pub(super) last_row: u64,
    /// The ids of its rows.
    ids: BTreeSet<String>,
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
    pub(super) fn new(server: Server) -> Self {
        Self(Arc::new(Mutex::new(server)))
    }

    /// Puts another server in its place, for all who share it.
    pub(super) fn replace(&self, server: Server) -> Server {
        std::mem::replace(&mut *self.0.lock().unwrap(), server)
    }

    /// The server as it is now.
    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        let mut server = self.0.lock().unwrap();
        server.tick();
        server
    }
}

impl Server {
    /// An empty one, whose sessions have numbers after this one.
    pub(super) fn new(seed: u64, next_session: u64) -> Self {
        Self {
            content: Content::default(),
            other: Content::default(),
            other_snapshots: Vec::new(),
            faults: Faults::default(),
            sessions: BTreeMap::new(),
            next_session,
            ever: BTreeSet::new(),
            ever_unnamed: BTreeSet::new(),
            altered: BTreeSet::new(),
            snapshots: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Does what the sessions of lost connections do by themselves.
    fn tick(&mut self) {
        let now = simulated::elapsed();
        let is_due = |session: &Session| {
            let times = [session.commits_at, session.ends_at];
            times.into_iter().flatten().any(|at| at <= now)
        };
        let sessions = self.sessions.iter();
        let due = sessions.filter(|(_, session)| is_due(session));
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
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
        let ids = rows.iter().filter_map(|(_, row)| row.id.clone());
        self.content.ids.extend(ids);
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

    /// Whether the table has a row with this id.
    pub(super) fn has_row_with(&self, id: &str) -> bool {
        self.content.ids.contains(id)
    }

    /// Whether another session has inserted a row with one of these ids, and has not ended its transaction.
    pub(super) fn is_inserting(&self, ids: &BTreeSet<&str>, other_than: SessionId) -> bool {
        let others = self.sessions.iter().filter(|(id, _)| **id != other_than.0);
        others
            .filter_map(|(_, session)| session.transaction.as_ref())
            .flat_map(|open| &open.rows)
            .any(|(_, row)| row.id.as_deref().is_some_and(|id| ids.contains(id)))
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
