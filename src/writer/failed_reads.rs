//! What the disk does not read, or has lost.

use std::mem::Discriminant;
use std::time::Duration;

use super::{Outcome, Run, Storing};
use crate::event::batch::Batch;
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::LaneHandle;
use crate::journal::reader::{Damage, ReadError};
use crate::os::fs::is_unreadable;

/// Wait before a lane that could not be read is tried again.
pub(super) const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A lane that waits is tried again after this many times as long as the last take-over took, at least: it must not take
/// much of the time of the others.
const WAIT_PER_TAKE_OVER: u32 = 10;

/// The longest wait before a lane is tried again. Later events of the lane wait as long.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a lane waits that cannot be stored, if `take_over` is how long it took to ask the database about it.
pub(super) fn wait_after(take_over: Duration) -> Duration {
    let wait = take_over.saturating_mul(WAIT_PER_TAKE_OVER);
    wait.clamp(READ_AGAIN_AFTER, WAIT_MAX)
}

/// Attempts in a row to read a lane after which blocks that the disk does not read are taken for damaged: until then
/// the disk may come back.
const UNREADABLE_TRIES: u32 = 120;

/// The least time that they take.
pub(super) const UNREADABLE_FOR: Duration = READ_AGAIN_AFTER.saturating_mul(UNREADABLE_TRIES);

/// What has kept a lane from being read since it was read last.
#[derive(Default)]
pub(super) struct FailedReads {
    /// How often the disk did not read a block of it.
    unreadable: u32,
    /// The kinds of error, each of which was logged.
    logged: Vec<Discriminant<ReadError>>,
}

impl FailedReads {
    /// Adds an error. Returns whether it is the first of its kind.
    pub(super) fn add(&mut self, fault: &ReadError) -> bool {
        // Other errors, such as too many open files, say nothing about the disk.
        if let ReadError::Io { fault, .. } = fault
            && is_unreadable(fault)
        {
            self.unreadable = self.unreadable.saturating_add(1);
        }
        let kind = std::mem::discriminant(fault);
        let is_first = !self.logged.contains(&kind);
        if is_first {
            self.logged.push(kind);
        }
        is_first
    }

    /// The lane was read.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether what cannot be read is taken for damaged.
    pub(super) fn are_enough(&self) -> bool {
        self.unreadable >= UNREADABLE_TRIES
    }
}

/// Logs that a lane cannot be read now, and is tried again.
pub(super) fn log_failed_read(lane: LaneId, fault: &ReadError, wait: Duration) {
    let then = format!("hakaru tries again by itself, first in {wait:?}");
    match fault {
        ReadError::UnknownEnd { .. } => log::error!(
            event = "lane_end_unknown", lane:% = lane;
            "lane {lane}: {fault}; its events before that are stored, its files are kept, and {then}"
        ),
        ReadError::EndFile { .. } => log::error!(
            event = "lane_end_unreadable", lane:% = lane;
            "lane {lane}: where it ends cannot be read: {fault}; {then}"
        ),
        ReadError::Io { file, fault } => log::error!(
            event = "journal_read_failed", lane:% = lane, code = fault.raw_os_error();
            "lane {lane}: the journal cannot be read: {}: {fault}; {then}, and takes blocks that the disk has not read \
             for {UNREADABLE_FOR:?} for damaged",
            file.display()
        ),
        // Neither is tried again.
        ReadError::Damage(_) | ReadError::Version { .. } => {}
    }
}

/// Logs damage. The reader has skipped it.
pub(super) fn log_damage(lane: LaneId, damage: &Damage) {
    match damage.to.since(damage.from) {
        0 => log::error!(
            event = "segment_head_unreadable", lane:% = lane;
            "lane {lane}: {damage}"
        ),
        events => log::error!(
            event = "events_unreadable", lane:% = lane, events;
            "lane {lane}: {damage}"
        ),
    }
}

impl Storing {
    /// Notes and counts that the disk has lost these events.
    pub(super) fn lose(&mut self, lane: &LaneHandle, from: Position, to: Position) {
        if let Some(disk) = lane.on_disk() {
            disk.reaches(to);
        }
        let settled = self.lanes.of(lane).add_unreadable(from, to);
        self.writer.counters.settle(settled, lane.is_found());
    }

    /// Moves the checkpoint of a lane to its end, over events that the disk has lost. If it stayed, it would be behind
    /// what is noted as stored, as after a restore of the database.
    pub(super) fn pass_lost_end(&mut self, lane: &LaneHandle, end: Position) -> Outcome {
        let checkpoint = self.lanes.checkpoint(lane);
        if checkpoint.is_some_and(|checkpoint| checkpoint.position >= end) {
            return Outcome::Stored;
        }
        let run = Run {
            batch: &Batch::new(self.writer.batch_events),
            lane,
            first: end,
        };
        self.store(run, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unread(code: i32) -> ReadError {
        ReadError::Io {
            file: "segment".into(),
            fault: std::io::Error::from_raw_os_error(code),
        }
    }

    #[test]
    fn an_error_of_a_lane_is_logged_once_until_it_is_read() {
        let unknown_end = ReadError::UnknownEnd {
            file: "segment".into(),
        };
        let mut failed = FailedReads::default();
        for is_first in [true, false, false] {
            assert_eq!(failed.add(&unread(nix::libc::EIO)), is_first);
            assert_eq!(failed.add(&unknown_end), is_first);
        }
        failed.clear();
        assert!(failed.add(&unknown_end));
        assert!(!failed.add(&unknown_end));
    }

    #[test]
    fn a_lane_waits_longer_after_a_slow_answer_but_not_for_hours() {
        let waits = [0, 1, 6, 60, 3600].map(|took| wait_after(Duration::from_secs(took)).as_secs());
        assert_eq!(waits, [5, 10, 60, 60, 60]);
    }

    #[test]
    fn blocks_are_taken_for_damaged_after_ten_minutes_without_a_success() {
        let mut failed = FailedReads::default();
        for _ in 1..UNREADABLE_TRIES {
            failed.add(&unread(nix::libc::EIO));
            failed.add(&unread(nix::libc::EMFILE));
        }
        assert!(!failed.are_enough());
        failed.add(&unread(nix::libc::EIO));
        assert!(failed.are_enough());
        failed.clear();
        failed.add(&unread(nix::libc::EIO));
        assert!(!failed.are_enough());
        assert_eq!(UNREADABLE_FOR, Duration::from_secs(600));
    }
}
