//! A lane as its shard, its writer and the janitor share it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::event::UnixMillis;
use crate::event::position::{LaneId, Position};
use crate::os::notifier::ShardNotifier;

/// The file in a lane's directory whose lock says that the lane has an owner.
const LOCK_NAME: &str = "lock";

/// Where a lane comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A shard of this process writes it, or wrote it.
    Opened,
    /// An earlier process left it.
    Found,
}

/// A lane of either kind.
#[derive(Debug, Clone)]
pub enum LaneHandle {
    /// Its events are in memory alone.
    Memory(Arc<MemoryLane>),
    /// Its events are in the journal too.
    Disk(Arc<DiskLane>),
}

impl LaneHandle {
    /// Its name.
    pub fn id(&self) -> LaneId {
        match self {
            Self::Memory(lane) => lane.id,
            Self::Disk(lane) => lane.id,
        }
    }

    /// The lane, where its events can be read back.
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

    /// Notes how far the lane is stored. Only its writer calls this. Nobody asks it of a lane in memory.
    pub fn set_stored(&self, position: Position) {
        if let Self::Disk(lane) = self {
            lane.set_stored(position);
        }
    }
}

/// A lane without a journal: a name for positions, so that a batch is stored once.
#[derive(Debug)]
pub struct MemoryLane {
    /// Its name.
    pub id: LaneId,
}

impl MemoryLane {
    /// A new lane.
    pub fn new() -> io::Result<Self> {
        let id = LaneId::random()?;
        Ok(Self { id })
    }
}

/// A lane in the journal, and what each of those who share it notes of it.
#[derive(Debug)]
pub struct DiskLane {
    /// Its name.
    pub id: LaneId,
    /// Where its segments are.
    pub directory: PathBuf,
    /// Where it comes from.
    pub origin: Origin,
    stored: AtomicU64,
    confirmed: AtomicU64,
    end: OnceLock<Position>,
    is_damaged: AtomicBool,
    is_removed: AtomicBool,
    /// Of the shard that writes it: notified when more is stored.
    notifier: Option<ShardNotifier>,
    /// Keeps other processes out as long as it is open.
    _lock: File,
}

impl DiskLane {
    /// Locks the lane in `directory`; `None` where it has an owner. `notifier` is that of the shard that
    /// writes it.
    pub fn lock(
        id: LaneId,
        directory: PathBuf,
        origin: Origin,
        notifier: Option<ShardNotifier>,
    ) -> io::Result<Option<Self>> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self {
                id,
                directory,
                origin,
                stored: AtomicU64::new(0),
                confirmed: AtomicU64::new(0),
                end: OnceLock::new(),
                is_damaged: AtomicBool::new(false),
                is_removed: AtomicBool::new(false),
                notifier,
                _lock: lock,
            })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(fault)) => Err(fault),
        }
    }

    /// The stored prefix, as the writer last saw it committed. Goes back where the database did.
    pub fn stored(&self) -> Position {
        Position(self.stored.load(Ordering::Acquire))
    }

    /// Notes how far the lane is stored. Only its writer calls this.
    pub fn set_stored(&self, position: Position) {
        self.stored.store(position.0, Ordering::Release);
        self.notify();
    }

    /// When the database was last known to have what is noted as stored; `None`: not since the start.
    pub fn last_confirmed_at(&self) -> Option<UnixMillis> {
        match self.confirmed.load(Ordering::Acquire) {
            0 => None,
            millis => Some(UnixMillis(millis)),
        }
    }

    /// Notes that the database, which was asked for the lane's checkpoint, works `now`. Only its writer
    /// calls this.
    pub fn confirm(&self, now: UnixMillis) {
        self.confirmed.store(now.0, Ordering::Release);
    }

    /// Where a lane ends that is written no more. What may follow on the disk was never promised.
    pub fn end(&self) -> Option<Position> {
        self.end.get().copied()
    }

    /// Notes that the lane is written no more and where it ends: its shard, when it closes it; its
    /// writer, when it has read a found lane to its end.
    pub fn set_end(&self, end: Position) {
        // A found lane that is read again, for a database that went back, ends where it did.
        let known = self.end.get_or_init(|| end);
        if *known != end {
            log::error!(
                event = "lane_end_changed", lane:% = self.id, end = known.0, found = end.0;
                "lane {}: ended at position {} and is now said to end at {}; the first stands",
                self.id, known.0, end.0
            );
        }
    }

    /// Whether the lane is written no more and every event of it is stored.
    pub fn is_done(&self) -> bool {
        self.end().is_some_and(|end| self.stored() >= end)
    }

    /// Whether events were found missing. Its files are then kept for people, and nothing more is written
    /// to it.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Notes that events are missing. Only its writer calls this.
    pub fn set_damaged(&self) {
        self.is_damaged.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether its files are gone.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Notes that its files are gone. Only the janitor calls this.
    pub fn set_removed(&self) {
        self.is_removed.store(true, Ordering::Release);
    }

    fn notify(&self) {
        if let Some(notifier) = &self.notifier {
            notifier.notify();
        }
    }
}
