//! Group commit: while one sync runs, events gather; then one write and one sync for all of them.
//!
//! The disk is worked by a thread of its own, so that a shard never waits for it, on either I/O
//! driver. The thread rings a bell, a byte on a socket, when it has something to report.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use super::lane::{Lane, SEGMENT_BYTES, make_directory};
use super::record::{LaneId, Position};
use super::storage::{Disk, Storage};

/// How long to wait before the next lane is tried, when one could not be opened or written.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// The file in a lane's directory whose lock says that the lane has an owner.
const LOCK_NAME: &str = "lock";

/// A lane as its shard, its writer and the janitor know it.
#[derive(Debug)]
pub struct LaneHandle {
    /// Its name.
    pub id: LaneId,
    /// Where its segments are; `None` for a lane that is only in memory.
    pub directory: Option<PathBuf>,
    stored: AtomicU64,
    is_recovered: AtomicBool,
    /// Where a lane that failed ends; what may follow on the disk was never promised.
    closed: OnceLock<Position>,
    /// Rung when more is stored.
    bell: Option<Bell>,
    /// Keeps other processes out as long as it is open.
    _lock: Option<File>,
}

impl LaneHandle {
    /// A lane without a journal: positions, so that a batch is stored once, and nothing on disk.
    pub fn in_memory() -> Self {
        Self {
            id: LaneId::random(),
            directory: None,
            stored: AtomicU64::new(0),
            is_recovered: AtomicBool::new(false),
            closed: OnceLock::new(),
            bell: None,
            _lock: None,
        }
    }

    /// Locks the lane in `directory`, or says `None` where it has an owner.
    pub fn lock(id: LaneId, directory: PathBuf) -> io::Result<Option<Self>> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self {
                id,
                directory: Some(directory),
                stored: AtomicU64::new(0),
                is_recovered: AtomicBool::new(false),
                closed: OnceLock::new(),
                bell: None,
                _lock: Some(lock),
            })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(fault)) => Err(fault),
        }
    }

    /// The stored prefix, as the writer last saw it committed.
    pub fn stored(&self) -> Position {
        Position(self.stored.load(Ordering::Acquire))
    }

    /// Says how far the lane is stored. Only its writer calls this.
    pub fn set_stored(&self, position: Position) {
        self.stored.store(position.0, Ordering::Release);
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// Whether the lane is written no more and every event of it is stored.
    pub fn is_done(&self) -> bool {
        let is_closed = self.closed.get().is_some_and(|end| self.stored() >= *end);
        is_closed || self.is_recovered.load(Ordering::Acquire)
    }

    /// Where a lane that failed ends.
    pub fn closed(&self) -> Option<Position> {
        self.closed.get().copied()
    }

    /// Says that the lane is written no more and ends at `end`. Only its shard calls this, once.
    pub fn set_closed(&self, end: Position) {
        if self.closed.set(end).is_err() {
            log::error!("lane {} was closed twice", self.id);
        }
    }

    /// Says that every event of an adopted lane is stored. Only its writer calls this.
    pub fn set_recovered(&self) {
        self.is_recovered.store(true, Ordering::Release);
    }
}

/// Events for one write and one sync: a record without its head.
#[derive(Debug)]
pub struct Group {
    /// Begun by `begin_record`.
    pub record: Vec<u8>,
    /// Events in it.
    pub events: u32,
}

/// What the disk thread has to say.
#[derive(Debug)]
pub enum Report {
    /// Groups that follow go to a new lane, from its start.
    Opened(Arc<LaneHandle>),
    /// The group is on the disk; its buffer comes back.
    Committed(Vec<u8>),
    /// The lane is closed for good, with the group if there was one. Another is tried.
    Closed {
        /// What the system said.
        fault: io::Error,
        /// The buffer of the group that is not on the disk.
        record: Option<Vec<u8>>,
    },
}

/// A shard's end of its disk thread.
#[derive(Debug)]
pub struct DiskThread {
    /// Takes one group at a time.
    pub groups: SyncSender<Group>,
    /// Answers, each announced by the bell.
    pub reports: Receiver<Report>,
}

/// The other end of a shard's bell.
#[derive(Debug, Clone)]
pub struct Bell(Arc<UnixStream>);

impl Bell {
    /// A bell and the stream on which the shard hears it.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok((Self(Arc::new(near)), far))
    }

    /// Makes the shard look. Never waits: a bell that is full of rings is heard anyway.
    pub fn ring(&self) {
        match (&*self.0).write(&[1]) {
            Ok(_) => {}
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            // The shard has ended.
            Err(fault) => log::trace!("bell: {fault}"),
        }
    }
}

/// Starts the disk thread of a shard, with lanes in `journal`. It ends when the shard's end is dropped.
/// `opened` hears of every lane.
pub fn start(
    name: String,
    journal: PathBuf,
    bell: Bell,
    opened: Sender<Arc<LaneHandle>>,
) -> io::Result<DiskThread> {
    let (groups, inbox) = sync_channel(1);
    let (to_shard, reports) = channel();
    thread::Builder::new()
        .name(name)
        .spawn(move || work(&journal, &inbox, &to_shard, &bell, &opened))?;
    Ok(DiskThread { groups, reports })
}

/// Opens lane after lane; works one until it fails.
fn work(
    journal: &Path,
    groups: &Receiver<Group>,
    reports: &Sender<Report>,
    bell: &Bell,
    opened: &Sender<Arc<LaneHandle>>,
) {
    let report = |report: Report| {
        let is_heard = reports.send(report).is_ok();
        bell.ring();
        is_heard
    };
    loop {
        let closed = match open(Disk, journal) {
            Err(fault) => Report::Closed {
                fault,
                record: None,
            },
            Ok((lane, mut handle)) => {
                handle.bell = Some(bell.clone());
                let handle = Arc::new(handle);
                let is_heard = opened.send(Arc::clone(&handle)).is_ok();
                if !is_heard || !report(Report::Opened(handle)) {
                    return;
                }
                match commit_until_failure(lane, groups, |buffer| report(Report::Committed(buffer)))
                {
                    Some((fault, record)) => Report::Closed {
                        fault,
                        record: Some(record),
                    },
                    None => return,
                }
            }
        };
        if !report(closed) {
            return;
        }
        match groups.recv_timeout(REOPEN_AFTER) {
            // A shard without a lane sends nothing.
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// A new lane in a directory of its own, locked before it has a segment.
fn open(storage: Disk, journal: &Path) -> io::Result<(Lane<Disk>, LaneHandle)> {
    let id = LaneId::random();
    let directory = make_directory(&storage, journal, id)?;
    let Some(handle) = LaneHandle::lock(id, directory.clone())? else {
        // Another process found it in this very moment and has it now; it is empty.
        return Err(io::ErrorKind::WouldBlock.into());
    };
    let lane = Lane::create(storage, &directory, id, SEGMENT_BYTES)?;
    Ok((lane, handle))
}

/// Commits group after group. `None` when no more will come.
fn commit_until_failure<S: Storage>(
    lane: Lane<S>,
    groups: &Receiver<Group>,
    mut committed: impl FnMut(Vec<u8>) -> bool,
) -> Option<(io::Error, Vec<u8>)> {
    let mut lane = lane;
    while let Ok(Group { mut record, events }) = groups.recv() {
        lane = match lane.append(&mut record, events) {
            Ok(lane) => lane,
            Err(fault) => return Some((fault, record)),
        };
        if !committed(record) {
            return None;
        }
    }
    None
}
