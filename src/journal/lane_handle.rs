//! A lane as its shard, its writer and the janitor share it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::event::UnixMillis;
use crate::event::position::{LaneId, Position};

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

/// A lane, and what each of those who share it says of it.
#[derive(Debug)]
pub struct LaneHandle {
    /// Its name.
    pub id: LaneId,
    /// Where its segments are; `None` for a lane that is only in memory.
    pub directory: Option<PathBuf>,
    /// Where it comes from.
    pub origin: Origin,
    stored: AtomicU64,
    confirmed: AtomicU64,
    end: OnceLock<Position>,
    is_damaged: AtomicBool,
    is_removed: AtomicBool,
    /// StatementSize when more is stored.
    notifier: Option<ShardNotifier>,
    /// Keeps other processes out as long as it is open.
    _lock: Option<File>,
}

impl LaneHandle {
    fn new(id: LaneId, origin: Origin) -> Self {
        Self {
            id,
            directory: None,
            origin,
            stored: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            end: OnceLock::new(),
            is_damaged: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            notifier: None,
            _lock: None,
        }
    }

    /// A lane without a journal: positions, so that a batch is stored once, and nothing on disk.
    pub fn in_memory() -> io::Result<Self> {
        Ok(Self::new(LaneId::random()?, Origin::Opened))
    }

    /// Locks the lane in `directory`, or says `None` where it has an owner. `notifier` is that of the
    /// shard that writes it.
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
                directory: Some(directory),
                notifier,
                _lock: Some(lock),
                ..Self::new(id, origin)
            })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(fault)) => Err(fault),
        }
    }

    /// The stored prefix, as the writer last saw it committed. Goes back where the database did.
    pub fn stored(&self) -> Position {
        Position(self.stored.load(Ordering::Acquire))
    }

    /// Says how far the lane is stored. Only its writer calls this.
    pub fn set_stored(&self, position: Position) {
        self.stored.store(position.0, Ordering::Release);
        self.notify();
    }

    /// When the database was last known to have what is said to be stored; `None`: not since the start.
    pub fn last_confirmed_at(&self) -> Option<UnixMillis> {
        match self.confirmed.load(Ordering::Acquire) {
            0 => None,
            millis => Some(UnixMillis(millis)),
        }
    }

    /// Says that the database, which was asked for the lane's checkpoint, works `now`. Only its writer
    /// calls this.
    pub fn confirm(&self, now: UnixMillis) {
        self.confirmed.store(now.0, Ordering::Release);
    }

    /// Where a lane ends that is written no more. What may follow on the disk was never promised.
    pub fn end(&self) -> Option<Position> {
        self.end.get().copied()
    }

    /// Says that the lane is written no more and where it ends: its shard, when it closes it; its
    /// writer, when it has read a found lane to its end.
    pub fn set_end(&self, end: Position) {
        // A found lane that is read again, for a database that went back, ends where it did.
        let known = self.end.get_or_init(|| end);
        if *known != end {
            log::error!("lane {}: ends at {}, not at {}", self.id, known.0, end.0);
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

    /// Says that events are missing. Only its writer calls this.
    pub fn set_damaged(&self) {
        self.is_damaged.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether its files are gone.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }

    /// Says that its files are gone. Only the janitor calls this.
    pub fn set_removed(&self) {
        self.is_removed.store(true, Ordering::Release);
    }

    fn notify(&self) {
        if let Some(notifier) = &self.notifier {
            notifier.notify();
        }
    }
}

/// The other end of a shard's notifier.
#[derive(Debug, Clone)]
pub struct ShardNotifier(Arc<UnixStream>);

impl ShardNotifier {
    /// A notifier and the stream on which the shard hears it.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok((Self(Arc::new(near)), far))
    }

    /// Makes the shard look. Never waits: a notifier that is full of rings is heard anyway.
    pub fn notify(&self) {
        match (&*self.0).write(&[1]) {
            Ok(_) => {}
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            // The shard has ended.
            Err(fault) => log::trace!("notifier: {fault}"),
        }
    }
}
