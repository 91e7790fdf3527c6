//! The thread that does a shard's blocking disk operations.
//!
//! It creates lanes and segments. On epoll it also writes; on io_uring the shard's ring writes. A write is
//! durable when it ends (`O_DSYNC`), so that no sync follows. While a write is under way, events gather, and
//! the next write contains all of them (group commit). The thread notifies its shard of each report.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use super::blocks::Blocks;
use super::lane_end::ClosedLane;
use super::lane_handle::{DiskLane, Origin};
use super::record::SegmentNumber;
use super::segment::{make_directory, make_segment, segment_bytes};
use super::served_database::ServedDatabase;
use crate::event::position::{LaneId, Position};
use crate::os::clock;
use crate::os::fs::{self, File};
use crate::os::notifier::ShardNotifier;

/// Wait before another lane is opened, after one could not be opened or written.
pub const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Most time that a shard waits for the end of its disk thread.
const END_WAIT: Duration = Duration::from_secs(1);

/// Most orders that wait: a write, and a lane or a segment.
const ORDERS_MAX: usize = 2;

/// Ids that are tried when another process has locked each new lane first.
const NAMES_TRIED: usize = 8;

/// Blocks to be written to a segment.
#[derive(Debug)]
pub struct Write {
    /// The segment. `None`: that of the previous write, which the disk thread or the ring has kept open.
    pub segment: Option<File>,
    /// Offset in the segment.
    pub offset: u64,
    /// The bytes.
    pub blocks: Blocks,
}

/// A write that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Events in it.
    pub events: u32,
    /// Time from its start to its end.
    pub took: Duration,
}

/// An order to a disk thread.
#[derive(Debug)]
pub enum DiskOrder {
    /// Open a lane after this wait, and try again until it succeeds. Before that, write down where the lane that
    /// was closed ends.
    Lane(Duration, Option<ClosedLane>),
    /// Write down where the lane that was closed ends, and end.
    End(ClosedLane),
    /// Create a segment of the lane.
    Segment(Arc<DiskLane>, SegmentNumber),
    /// Write. Only ordered on epoll.
    Write(Write),
}

/// A report of a disk thread.
#[derive(Debug)]
pub enum DiskReport {
    /// A new lane and its first segment.
    Opened(Arc<DiskLane>, File),
    /// An attempt to open a lane has failed. The thread tries again.
    NotOpened(io::Error),
    /// The segment that was ordered.
    Segment(io::Result<File>),
    /// A write has ended. Returns its blocks.
    Written(Blocks, io::Result<()>),
}

/// A shard's end of its disk thread.
#[derive(Debug)]
pub struct DiskThread {
    orders: SyncSender<DiskOrder>,
    reports: Receiver<DiskReport>,
}

/// The thread has ended, or too many orders wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskThreadGone;

impl DiskThread {
    /// Sends an order. Its result is a report.
    pub fn order(&self, order: DiskOrder) -> Result<(), DiskThreadGone> {
        self.orders
            .try_send(order)
            .map_err(|refused| match refused {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => DiskThreadGone,
            })
    }

    /// Waits until the thread has ended, but not long: a disk may hang.
    pub fn wait(&self) {
        while clock::receive_within(&self.reports, END_WAIT).is_ok() {}
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
    served: Arc<ServedDatabase>,
    orders: Receiver<DiskOrder>,
    reports: Sender<DiskReport>,
    notifier: ShardNotifier,
    opened: Sender<Arc<DiskLane>>,
}

/// The shard's end and the work of a disk thread for lanes in `journal`. Every lane that it opens is sent to
/// `opened`.
pub fn disk_thread(
    journal: PathBuf,
    served: Arc<ServedDatabase>,
    notifier: ShardNotifier,
    opened: Sender<Arc<DiskLane>>,
) -> (DiskThread, DiskWork) {
    let (orders, inbox) = sync_channel(ORDERS_MAX);
    let (to_shard, reports) = channel();
    let work = DiskWork {
        journal,
        served,
        orders: inbox,
        reports: to_shard,
        notifier,
        opened,
    };
    (DiskThread { orders, reports }, work)
}

impl DiskWork {
    /// Runs until the shard's end is dropped.
    pub fn run(self) {
        let mut segment = None;
        while let Ok(order) = clock::receive(&self.orders) {
            let report = match order {
                DiskOrder::Lane(after, closed) => {
                    // Closes the segment of the previous lane: else its space is not freed when it is removed.
                    segment = None;
                    self.open_with_retries(after, closed)
                }
                DiskOrder::End(closed) => {
                    if let Err(fault) = closed.write_end() {
                        log_end_not_written(&closed, &fault, "hakaru ends, and does not try again");
                    }
                    return;
                }
                DiskOrder::Segment(lane, number) => {
                    let made = make_segment(&lane.directory, number, segment_bytes());
                    Some(DiskReport::Segment(made))
                }
                DiskOrder::Write(write) => {
                    segment = write.segment.or(segment);
                    let written = match &segment {
                        Some(segment) => {
                            segment.write_all_at(write.blocks.as_slice(), write.offset)
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
        let is_sent = self.reports.send(report).is_ok();
        self.notifier.notify();
        is_sent
    }

    /// Opens a lane, and tries again until it succeeds. `None` when the shard or the janitor has ended.
    fn open_with_retries(
        &self,
        after: Duration,
        mut closed: Option<ClosedLane>,
    ) -> Option<DiskReport> {
        let mut wait = after;
        let mut is_failure_logged = false;
        loop {
            closed = closed.and_then(|closed| write_end(closed, &mut is_failure_logged));
            // A shard without a lane sends no order, so that only its end interrupts the wait.
            let waited = clock::receive_within(&self.orders, wait);
            if !matches!(waited, Err(RecvTimeoutError::Timeout)) {
                return None;
            }
            match self.open() {
                Ok((lane, file)) => {
                    // The disk works again.
                    closed.and_then(|closed| write_end(closed, &mut is_failure_logged));
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

    /// Creates a lane. It is locked before it has a segment.
    fn open(&self) -> io::Result<(DiskLane, File)> {
        for _ in 0..NAMES_TRIED {
            let id = LaneId::random()?;
            let directory = make_directory(&self.journal, id)?;
            let notifier = Some(self.notifier.clone());
            let opened = DiskLane::lock(id, directory.clone(), Origin::Opened, notifier).and_then(
                |locked| {
                    // Another process may lock the new directory first, and remove it because it is empty.
                    let Some(lane) = locked else { return Ok(None) };
                    // Before anything is promised in it.
                    self.served.label(Position::START).write(&directory)?;
                    let first = SegmentNumber(0);
                    let file = make_segment(&directory, first, segment_bytes())?;
                    Ok(Some((lane, file)))
                },
            );
            match opened {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => {}
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => {
                    // It has no event, but it takes disk space.
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

/// Makes durable where a closed lane ends. Returns the lane if that must be tried again.
fn write_end(closed: ClosedLane, is_failure_logged: &mut bool) -> Option<ClosedLane> {
    let fault = closed.write_end().err()?;
    if !std::mem::replace(is_failure_logged, true) {
        log_end_not_written(
            &closed,
            &fault,
            "hakaru tries again until another lane is open",
        );
    }
    Some(closed)
}

fn log_end_not_written(closed: &ClosedLane, fault: &io::Error, next: &str) {
    log::error!(
        event = "lane_end_not_written", lane:% = closed.lane.id, code = fault.raw_os_error();
        "lane {}: it ends at position {}, and that cannot be written: {fault}. {next}. Events that were answered 503 may \
         be stored at the next start",
        closed.lane.id, closed.end.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::lane_end::{self, FailedWrite};
    use crate::journal::served_database::EarlierLanes;
    use crate::os::simulated::disk::{Faults, Machine};
    use crate::os::simulated::{self, Pause, Simulated, Task, set_machine};
    use std::path::Path;

    /// Otherwise events that were answered 503 would be rows after the next start, although the disk fails no more.
    #[test]
    fn where_a_lane_ends_is_written_when_another_one_can_be_opened() {
        let _on = Simulated::start(1);
        let machine = Machine::new(1);
        set_machine(Some(machine.clone()));
        let journal = Path::new("data/journal");
        let (id, lane) = (LaneId::random().unwrap(), journal.join("lane"));
        fs::create_dir(journal).unwrap();
        fs::create_dir(&lane).unwrap();
        let file = make_segment(&lane, SegmentNumber(0), segment_bytes()).unwrap();
        let locked = DiskLane::lock(id, lane.clone(), Origin::Opened, None);
        let closed = ClosedLane {
            lane: Arc::new(locked.unwrap().unwrap()),
            end: Position(3),
            failed_write: Some(FailedWrite {
                segment: SegmentNumber(0),
                bytes: 4096..8192,
            }),
        };
        let served = ServedDatabase::new("here".to_owned(), false, EarlierLanes::default());
        let (notifier, _heard) = ShardNotifier::new().unwrap();
        let (opened, _lanes) = channel();
        let (disk, work) = disk_thread(journal.to_owned(), Arc::new(served), notifier, opened);
        let wait = Duration::from_secs(1);
        disk.order(DiskOrder::Lane(wait, Some(closed))).unwrap();
        // Neither can the file with the end be made at first, nor the failed write be erased.
        machine.set_faults(Faults {
            names: 1,
            writes: 1,
            ..Faults::default()
        });
        let mut thread = Task::new(machine.process(1), || work.run());
        let mut report = None;
        while report.is_none() {
            if let Some(Pause::Wait(Some(until))) = thread.resume().pause {
                machine.set_faults(Faults::default());
                assert_eq!(lane_end::read(&lane).unwrap(), None);
                simulated::advance(until);
            }
            report = disk.report();
        }
        assert!(matches!(report, Some(DiskReport::Opened(..))), "{report:?}");
        set_machine(Some(machine.clone()));
        assert_eq!(lane_end::read(&lane).unwrap(), Some(Position(3)));
        drop(file);
        machine.kill(1);
    }
}
