//! The state of a lane that its shard, its writer and the janitor share.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::found_events::FoundEvents;
use super::row_witnesses::RowWitnesses;
use crate::event::UnixMillis;
use crate::event::position::{LaneId, Position};
use crate::os::bugs::{Bug, planted};
use crate::os::fs::{File, TryLockError, Use};
use crate::os::notifier::ShardNotifier;

/// The lock file in a lane's directory. A lane has an owner while this file is locked.
const LOCK_NAME: &str = "lock";

/// Where a lane comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A shard of this process created it.
    Opened,
    /// An earlier process left it, and this process has locked it.
    Found,
}

/// A lane, with or without a journal.
#[derive(Debug, Clone)]
pub enum LaneHandle {
    /// Its events are only in memory.
    Memory(Arc<MemoryLane>),
    /// Its events are also in the journal.
    Disk(Arc<DiskLane>),
}

impl LaneHandle {
    /// Its id.
    pub fn id(&self) -> LaneId {
        match self {
            Self::Memory(lane) => lane.id,
            Self::Disk(lane) => lane.id,
        }
    }

    /// The lane in the journal, from which events can be read back. `None` for a lane in memory.
    pub fn on_disk(&self) -> Option<&Arc<DiskLane>> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(lane) => Some(lane),
        }
    }

    /// Whether an earlier process left it.
    pub fn is_found(&self) -> bool {
        self.on_disk()
            .is_some_and(|lane| lane.origin == Origin::Found)
    }

    /// Sets the position up to which the lane is stored. Only its writer calls this. Does nothing for a lane
    /// in memory.
    pub fn set_stored(&self, position: Position) {
        if let Self::Disk(lane) = self {
            lane.set_stored(position);
        }
    }
}

/// A lane without a journal. Its id names the checkpoint, so that a batch is stored once.
#[derive(Debug)]
pub struct MemoryLane {
    /// Its id.
    pub id: LaneId,
}

impl MemoryLane {
    /// A new lane.
    pub fn new() -> io::Result<Self> {
        let id = LaneId::random()?;
        Ok(Self { id })
    }
}

/// A lane in the journal, locked by this process.
#[derive(Debug)]
pub struct DiskLane {
    /// Its id.
    pub id: LaneId,
    /// The directory of its segments.
    pub directory: PathBuf,
    /// Where it comes from.
    pub origin: Origin,
    stored: AtomicU64,
    /// Events that the database has refused and whose answers have not gone out.
    refused: Mutex<BTreeSet<Position>>,
    /// Whether there may be any: what asks for each answer takes no lock.
    has_refused: AtomicBool,
    /// Rows that its events have become, as far as they are kept.
    rows: Mutex<RowWitnesses>,
    confirmed: AtomicU64,
    start: OnceLock<Position>,
    found: OnceLock<FoundEvents>,
    end: OnceLock<Position>,
    found_end: OnceLock<Position>,
    is_damaged: AtomicBool,
    is_retired: AtomicBool,
    /// Events in question, if the lane is held.
    held: Mutex<Option<u64>>,
    /// Its writer cannot take it over at present.
    is_not_taken_over: AtomicBool,
    /// Its writer cannot read it at present.
    is_not_read: AtomicBool,
    is_removed: AtomicBool,
    is_foreign: AtomicBool,
    /// Held while its label is written.
    labelling: Mutex<()>,
    /// Notifies the shard that writes it when more is stored or the lane is found damaged.
    notifier: Option<ShardNotifier>,
    /// The lock file. Closing it releases the lock.
    _lock: File,
}

impl DiskLane {
    /// Locks the lane in `directory`. `None` if it has an owner already. `notifier` is that of the shard that
    /// writes it.
    pub fn lock(
        id: LaneId,
        directory: PathBuf,
        origin: Origin,
        notifier: Option<ShardNotifier>,
    ) -> io::Result<Option<Self>> {
        let lock = File::with(&directory.join(LOCK_NAME), Use::Keep)?;
        let locked = match lock.try_lock() {
            Err(TryLockError::WouldBlock) if planted(Bug::LockIgnored) => Ok(()),
            locked => locked,
        };
        match locked {
            Ok(()) => Ok(Some(Self {
                rows: Mutex::new(RowWitnesses::read(&directory)),
                id,
                directory,
                origin,
                stored: AtomicU64::new(0),
                refused: Mutex::default(),
                has_refused: AtomicBool::new(false),
                confirmed: AtomicU64::new(0),
                start: OnceLock::new(),
                found: OnceLock::new(),
                end: OnceLock::new(),
                found_end: OnceLock::new(),
                is_damaged: AtomicBool::new(false),
                is_retired: AtomicBool::new(false),
                held: Mutex::default(),
                is_not_taken_over: AtomicBool::new(false),
                is_not_read: AtomicBool::new(false),
                is_removed: AtomicBool::new(false),
                is_foreign: AtomicBool::new(false),
                labelling: Mutex::default(),
                notifier,
                _lock: lock,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(fault)) => Err(fault),
        }
    }

    /// The position up to which the lane is stored, as its writer last saw it. Decreases when the database
    /// has lost rows, such as after a restore from a backup.
    pub fn stored(&self) -> Position {
        Position(self.stored.load(Ordering::Acquire))
    }

    /// Sets the position up to which the lane is stored. Only its writer calls this.
    pub fn set_stored(&self, position: Position) {
        self.stored.store(position.0, Ordering::Release);
        self.notify();
    }

    /// Notes events that the database has refused, before they are noted as stored: their answers wait for
    /// that. Each of them is taken by its answer. Only its writer calls this.
    pub fn add_refused(&self, refused: impl Iterator<Item = Position>) {
        let mut all = self.refused();
        all.extend(refused);
        self.has_refused.store(!all.is_empty(), Ordering::Release);
    }

    /// Which of the events from `first` up to `end` the database has refused, numbered from `first`; they are
    /// forgotten then.
    pub fn take_refused(&self, first: Position, end: Position) -> Vec<usize> {
        if !self.has_refused.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut all = self.refused();
        let taken: Vec<_> = all.range(first..end).copied().collect();
        for position in &taken {
            all.remove(position);
        }
        self.has_refused.store(!all.is_empty(), Ordering::Release);
        let index = |position: Position| usize::try_from(position.since(first)).ok();
        taken.into_iter().filter_map(index).collect()
    }

    fn refused(&self) -> MutexGuard<'_, BTreeSet<Position>> {
        // Whoever panicked in there left a set of positions.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that its events have become, as far as they are kept.
    pub fn rows(&self) -> MutexGuard<'_, RowWitnesses> {
        // Whoever panicked in there left a list of rows.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held while its label is written: its writer and the janitor may both do that.
    pub fn labelling(&self) -> MutexGuard<'_, ()> {
        self.labelling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// When the database last confirmed the checkpoint that [`Self::stored`] is based on. `None`: not yet since
    /// this process started.
    pub fn last_confirmed_at(&self) -> Option<UnixMillis> {
        match self.confirmed.load(Ordering::Acquire) {
            0 => None,
            millis => Some(UnixMillis(millis)),
        }
    }

    /// Notes that the database takes writes, on the connection on which it was asked for the lane's checkpoint.
    /// Only its writer calls this.
    pub fn confirm(&self, now: UnixMillis) {
        self.confirmed.store(now.0, Ordering::Release);
    }

    /// The checkpoint that this process has found in the database. `None` before it was read.
    pub fn start(&self) -> Option<Position> {
        self.start.get().copied()
    }

    /// Sets the checkpoint that was found. Only its writer calls this, at the first one.
    pub fn set_start(&self, start: Position) {
        self.start.get_or_init(|| start);
        // Before the writer counts what becomes of the events from there on.
        self.publish_found();
    }

    /// Counts the events that an earlier process left as a part of `total`. When the janitor found the lane, it ended
    /// at `end`.
    pub(super) fn set_found(&self, total: &Arc<AtomicU64>, end: Position) {
        self.found
            .get_or_init(|| FoundEvents::new(Arc::clone(total), end));
        self.publish_found();
    }

    /// Updates the lane's part of the number of events that earlier processes left to this one: those from the
    /// checkpoint on that its writer has found, or from the note as long as that is not known.
    pub(super) fn publish_found(&self) {
        if let Some(found) = self.found.get() {
            found.publish(|| {
                let stored = self.stored();
                let end = self.end().unwrap_or(found.end()).max(stored);
                end.since(self.start().unwrap_or(stored))
            });
        }
    }

    /// Notes that a lane of an earlier process has events up to `end`, before these are counted: it may go on where it
    /// could not be read before. Only its writer calls this.
    pub fn reaches(&self, end: Position) {
        if let Some(found) = self.found.get()
            && end > found.end()
        {
            found.reaches(end);
            self.publish_found();
        }
    }

    /// Takes that part back: this process does not store the lane.
    pub(super) fn unpublish_found(&self) {
        if let Some(found) = self.found.get() {
            found.publish(|| 0);
        }
    }

    /// Where the lane ends. `None` while it is being written or its end is not known yet. Bytes that follow on
    /// the disk were never acknowledged.
    pub fn end(&self) -> Option<Position> {
        self.end.get().copied()
    }

    /// Sets where the lane ends. Its shard calls this when it closes the lane; its writer calls it when it has
    /// read a lane of an earlier process to the end.
    pub fn set_end(&self, end: Position) {
        // A lane that is read again after a restore of the database ends where it ended before.
        let known = self.end.get_or_init(|| end);
        if *known != end {
            log::error!(
                event = "lane_end_changed", lane:% = self.id, end = known.0, found = end.0;
                "lane {}: its end was position {} and is now read as {}; hakaru keeps the first",
                self.id, known.0, end.0
            );
        }
    }

    /// Where the records of a lane of an earlier process ended when it was taken over. `None` if that could not be
    /// read.
    pub fn found_end(&self) -> Option<Position> {
        self.found_end.get().copied()
    }

    /// Sets it. Only the janitor calls this.
    pub fn set_found_end(&self, end: Position) {
        self.found_end.get_or_init(|| end);
    }

    /// Whether the lane has ended and all its events are stored.
    pub fn is_done(&self) -> bool {
        self.end().is_some_and(|end| self.stored() >= end)
    }

    /// Whether events are missing on the disk. Then nothing more is written to the lane, and its files are kept
    /// for inspection.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Notes that events are missing on the disk. Only its writer calls this.
    pub fn set_damaged(&self) {
        self.is_damaged.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether its shard is to close it and open another one.
    pub fn is_to_close(&self) -> bool {
        self.is_damaged() || self.is_retired.load(Ordering::Acquire)
    }

    /// Has its shard close it: its events are kept, and no more are to be added. Only its writer calls this.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.notify();
    }

    /// Of how many of its events nobody can tell whether they are stored. `None`: the lane is not held.
    pub fn held(&self) -> Option<u64> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the lane is held, or that it is not any more. Only its writer calls this.
    pub fn set_held(&self, events: Option<u64>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }

    /// Whether it waits for something else than a database that takes writes: its writer cannot take it over, or cannot
    /// read it, and tries again. Nothing of it may be removed meanwhile.
    pub fn is_waiting(&self) -> bool {
        self.is_not_taken_over.load(Ordering::Acquire) || self.is_not_read.load(Ordering::Acquire)
    }

    /// Notes that it cannot be taken over at present, or that it could be. Returns whether that was so before. Only its
    /// writer calls this.
    pub fn set_not_taken_over(&self, is_so: bool) -> bool {
        self.is_not_taken_over.swap(is_so, Ordering::AcqRel)
    }

    /// Notes that it cannot be read at present, or that it could be. Only its writer calls this.
    pub fn set_not_read(&self, is_so: bool) {
        self.is_not_read.store(is_so, Ordering::Release);
    }

    /// Whether its directory was removed or renamed.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Notes that its directory was removed or renamed. Only the janitor calls this.
    pub fn set_removed(&self) {
        self.is_removed.store(true, Ordering::Release);
    }

    /// Whether its events belong to another database than the one that is served.
    pub fn is_foreign(&self) -> bool {
        self.is_foreign.load(Ordering::Acquire)
    }

    /// Notes that its events belong to another database. Only its writer calls this. The janitor then gives
    /// up its lock.
    pub fn set_foreign(&self) {
        self.is_foreign.store(true, Ordering::Release);
    }

    fn notify(&self) {
        if let Some(notifier) = &self.notifier {
            notifier.notify();
        }
    }
}
