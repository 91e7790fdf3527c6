//! Group commit: while one write is on its way to the disk, events gather; then one write for all of
//! them.
//!
//! A write is durable when it ends (`O_DSYNC`), so that it needs no call of its own to be synced. On
//! io_uring the shard's ring does it. Whatever else would block, making lanes and segments, and on
//! epoll the writes too, is done by a thread of the shard's own, which rings a notifier when it has
//! something to report.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use super::blocks::Blocks;
use super::lane_handle::{DiskLane, Origin};
use super::record::SegmentNumber;
use super::segment::{SEGMENT_BYTES, make_directory, make_segment};
use super::storage::{Disk, StorageFile};
use crate::event::position::LaneId;
use crate::os::notifier::ShardNotifier;

/// How long to wait before the next lane is tried, when one could not be opened or written.
pub const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Orders that can be under way: a write, and a lane or a segment.
const ORDERS_MAX: usize = 2;

/// How often another name is tried, when another process took hold of a new lane first.
const NAMES_TRIED: usize = 8;

/// Blocks on their way into a segment.
#[derive(Debug)]
pub struct Write {
    /// The segment, where it is another than that of the write before. Whoever writes keeps it.
    pub segment: Option<File>,
    /// Where in it.
    pub offset: u64,
    /// What.
    pub blocks: Blocks,
}

/// What became of a write.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Events in it.
    pub events: u32,
    /// From its start to its end.
    pub took: Duration,
}

/// What a disk thread is asked for.
#[derive(Debug)]
pub enum DiskOrder {
    /// A new lane, not before this time has passed; again and again until there is one.
    Lane(Duration),
    /// Another segment of the lane.
    Segment(Arc<DiskLane>, SegmentNumber),
    /// A write, where the shard's driver cannot.
    Write(Write),
}

/// What a disk thread has to say.
#[derive(Debug)]
pub enum DiskReport {
    /// A new lane, and its first segment.
    Opened(Arc<DiskLane>, File),
    /// There is no new lane yet.
    NotOpened(io::Error),
    /// The segment that was asked for.
    Segment(io::Result<File>),
    /// The blocks of a write come back; whether they are on the disk.
    Written(Blocks, io::Result<()>),
}

/// A shard's end of its disk thread.
#[derive(Debug)]
pub struct DiskThread {
    orders: SyncSender<DiskOrder>,
    reports: Receiver<DiskReport>,
}

/// The thread is gone, or was asked for more than it does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskThreadGone;

impl DiskThread {
    /// Asks for something; the answer is a report.
    pub fn order(&self, order: DiskOrder) -> Result<(), DiskThreadGone> {
        self.orders
            .try_send(order)
            .map_err(|refused| match refused {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => DiskThreadGone,
            })
    }

    /// The next report, if there is one.
    pub fn report(&self) -> Option<DiskReport> {
        self.reports.try_recv().ok()
    }
}

/// What a disk thread runs.
#[derive(Debug)]
pub struct DiskWork {
    journal: PathBuf,
    orders: Receiver<DiskOrder>,
    reports: Sender<DiskReport>,
    notifier: ShardNotifier,
    opened: Sender<Arc<DiskLane>>,
}

/// A disk thread for lanes in `journal`: the shard's end, which has asked for a lane already, and the
/// work. `opened` hears of every lane.
pub fn disk_thread(
    journal: PathBuf,
    notifier: ShardNotifier,
    opened: Sender<Arc<DiskLane>>,
) -> (DiskThread, DiskWork) {
    let (orders, inbox) = sync_channel(ORDERS_MAX);
    let (to_shard, reports) = channel();
    let work = DiskWork {
        journal,
        orders: inbox,
        reports: to_shard,
        notifier,
        opened,
    };
    (DiskThread { orders, reports }, work)
}

impl DiskWork {
    /// Works until the shard's end is dropped.
    pub fn run(self) {
        let mut segment = None;
        while let Ok(order) = self.orders.recv() {
            let report = match order {
                DiskOrder::Lane(after) => {
                    // That of a lane that was closed: the disk gets back what it takes.
                    segment = None;
                    self.open_at_last(after)
                }
                DiskOrder::Segment(lane, number) => {
                    let made = make_segment(&Disk, &lane.directory, number, SEGMENT_BYTES);
                    Some(DiskReport::Segment(made))
                }
                DiskOrder::Write(write) => {
                    segment = write.segment.or(segment);
                    let written = match &segment {
                        Some(segment) => {
                            StorageFile::write_at(segment, write.blocks.as_slice(), write.offset)
                        }
                        None => Err(io::Error::other("no segment is open")),
                    };
                    Some(DiskReport::Written(write.blocks, written))
                }
            };
            let Some(report) = report else { return };
            if !self.report(report) {
                return;
            }
        }
    }

    fn report(&self, report: DiskReport) -> bool {
        let is_heard = self.reports.send(report).is_ok();
        self.notifier.notify();
        is_heard
    }

    /// Tries to open a lane until there is one; `None` when nobody wants it any more.
    fn open_at_last(&self, after: Duration) -> Option<DiskReport> {
        let mut wait = after;
        loop {
            // A shard without a lane orders nothing: what ends the wait early is its end.
            let waited = self.orders.recv_timeout(wait);
            if !matches!(waited, Err(RecvTimeoutError::Timeout)) {
                return None;
            }
            match self.open() {
                Ok((lane, file)) => {
                    let lane = Arc::new(lane);
                    self.opened.send(Arc::clone(&lane)).ok()?;
                    return Some(DiskReport::Opened(lane, file));
                }
                Err(fault) => {
                    if !self.report(DiskReport::NotOpened(fault)) {
                        return None;
                    }
                    wait = REOPEN_AFTER;
                }
            }
        }
    }

    /// A new lane in a directory of its own, locked before it has a segment.
    fn open(&self) -> io::Result<(DiskLane, File)> {
        for _ in 0..NAMES_TRIED {
            let id = LaneId::random()?;
            let directory = make_directory(&Disk, &self.journal, id)?;
            let notifier = Some(self.notifier.clone());
            let opened = DiskLane::lock(id, directory.clone(), Origin::Opened, notifier).and_then(
                |locked| {
                    // Another process may find it in this very moment, have it, and remove it.
                    let Some(lane) = locked else { return Ok(None) };
                    let first = SegmentNumber(0);
                    let file = make_segment(&Disk, &directory, first, SEGMENT_BYTES)?;
                    Ok(Some((lane, file)))
                },
            );
            match opened {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => {}
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => {
                    // Nothing was promised in it; what is left of it is what fills the disk.
                    if let Err(left) = fs::remove_dir_all(&directory) {
                        log::debug!("{}: {left}", directory.display());
                    }
                    return Err(fault);
                }
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}
