//! How the committer takes the group of an open lane out, and what follows when its write has ended.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Ingest;
use super::lane::LaneState;
use super::open_lane::{NextSegment, OpenLane};
use crate::event::ack::Ack;
use crate::journal::blocks::Blocks;
use crate::journal::disk_thread::{DiskOrder, REOPEN_AFTER, Write, Written};
use crate::journal::lane_end::FailedWrite;
use crate::os::bugs::{Bug, planted};
use crate::os::clock;
use crate::os::fs::File;

/// What the task that writes groups to the disk is doing.
#[derive(Debug)]
pub(super) enum CommitterState {
    /// It writes, or is about to look for a group.
    Busy,
    /// It waits for a group.
    Waiting(Waker),
    /// It must close the file of a closed lane. Until then the disk space of the file is not freed.
    MustRelease,
}

impl Ingest {
    /// Wakes the committer, if a group can be written. It runs after all tasks that are ready now, so that
    /// events of the same turn of the event loop share one write.
    pub fn commit_soon(&mut self) {
        if matches!(self.committer, CommitterState::Waiting(_))
            && self.lane.open().is_some_and(|lane| lane.is_ready())
        {
            self.wake_committer(CommitterState::Busy);
        }
    }

    pub(super) fn wake_committer(&mut self, next: CommitterState) {
        if let CommitterState::Waiting(committer) = std::mem::replace(&mut self.committer, next) {
            committer.wake();
        }
    }

    /// Begins to write the collected group, unless another write is under way. The end of the write must be
    /// passed to [`Self::end_write`].
    pub fn begin_write(&mut self) -> Option<Write> {
        let write = self.lane.open()?.begin_write()?;
        // The next group is empty.
        self.wake_requests();
        Some(write)
    }

    /// Has the disk thread write a group. It reports the end of the write.
    pub fn write_by_thread(&self, group: Write) {
        if let Some(lane) = self.lane.on_disk() {
            lane.maker.order(DiskOrder::Write(group));
        }
    }

    /// Processes the end of a write. Returns what was written, if its senders are answered now.
    pub fn end_write(&mut self, blocks: Blocks, outcome: io::Result<()>) -> Option<Written> {
        let written = self.process_write(blocks, outcome);
        self.advance();
        written.filter(|_| self.ack == Ack::Journaled)
    }

    pub(super) fn process_write(
        &mut self,
        blocks: Blocks,
        outcome: io::Result<()>,
    ) -> Option<Written> {
        let (LaneState::Open(lane) | LaneState::Failed { lane, .. }) = &mut self.lane else {
            return None;
        };
        if let Err(fault) = outcome
            && !planted(Bug::FailedWriteIgnored)
        {
            lane.fail_write(blocks);
            self.lane.fail(fault);
            return None;
        }
        let written = lane.end_write(blocks);
        let counters = &self.counters;
        counters.observe_time(|counters| &counters.sync_time, written.took);
        counters.add(|counters| &counters.received, u64::from(written.events));
        Some(written)
    }

    /// Whether events are being written, or wait for the next write.
    pub fn is_committing(&self) -> bool {
        let lane = self.lane.on_disk();
        lane.is_some_and(|lane| lane.unwritten() > 0)
    }

    fn poll_group(&mut self, context: &Context<'_>) -> Poll<Option<Write>> {
        if matches!(self.committer, CommitterState::MustRelease) {
            self.committer = CommitterState::Busy;
            return Poll::Ready(None);
        }
        if let Some(write) = self.begin_write() {
            self.committer = CommitterState::Busy;
            return Poll::Ready(Some(write));
        }
        self.committer = CommitterState::Waiting(context.waker().clone());
        Poll::Pending
    }
}

/// Waits until a group can be written. `None`: the lane was closed, and its file must be closed too.
pub async fn next_group(ingest: &RefCell<Ingest>) -> Option<Write> {
    poll_fn(|context| ingest.borrow_mut().poll_group(context)).await
}

impl OpenLane {
    /// Whether a group can be written now. Requests the next segment, if it is needed now or soon.
    pub(super) fn is_ready(&mut self) -> bool {
        if !self.group.is_ready() {
            return false;
        }
        let is_ready = self.fits() || matches!(self.next_segment, NextSegment::Ready(_));
        self.request_ahead();
        is_ready
    }

    /// Whether the present segment has room for the collected group.
    fn fits(&self) -> bool {
        self.cursor.fits(self.group.record_bytes())
    }

    /// Requests the next segment before it is needed.
    fn request_ahead(&mut self) {
        let is_wanted = self.cursor.is_half_full() || !self.fits();
        let may_request = match self.next_segment {
            NextSegment::NotRequested => true,
            NextSegment::Failed(at) => clock::since(at) > REOPEN_AFTER || !self.fits(),
            NextSegment::Requested | NextSegment::Ready(_) => false,
        };
        if is_wanted && may_request {
            let number = self.cursor.next_segment();
            let order = DiskOrder::Segment(Arc::clone(&self.lane), number);
            if self.maker.disk.order(order).is_ok() {
                self.next_segment = NextSegment::Requested;
            }
        }
    }

    /// Begins to write the collected group, and begins the next group. The write must be ended by
    /// [`Self::end_write`] or [`Self::fail_write`].
    pub(super) fn begin_write(&mut self) -> Option<Write> {
        if !self.is_ready() {
            return None;
        }
        let fits = self.fits();
        let mut blocks = self.group.lend_blocks()?;
        if !fits
            && let NextSegment::Ready(segment) =
                std::mem::replace(&mut self.next_segment, NextSegment::NotRequested)
        {
            self.segment = Some(segment);
            self.cursor.go_to_next_segment(&mut blocks);
        }
        let staged = self.group.stage(&mut self.cursor, &mut blocks);
        self.usage.write(staged.new_bytes);
        self.write_offset = staged.offset;
        Some(Write {
            segment: self.segment.take(),
            offset: staged.offset,
            blocks,
        })
    }

    /// Takes back the blocks of a write that is durable now.
    pub(super) fn end_write(&mut self, blocks: Blocks) -> Written {
        let written = self.group.end_write(blocks);
        self.durable = self.durable.plus(written.events as usize);
        self.usage.mark(self.durable);
        written
    }

    /// Takes back the blocks of a write that failed. How much of it is on the disk is not known.
    pub(super) fn fail_write(&mut self, blocks: Blocks) {
        let bytes = blocks.as_slice().len() as u64;
        self.failed_write = Some(FailedWrite {
            segment: self.cursor.segment(),
            bytes: self.write_offset..self.write_offset + bytes,
        });
        self.group.end_write(blocks);
    }

    /// Takes the segment that was requested. If it could not be made, that fails the lane only if the segment
    /// is needed now.
    pub(super) fn add_segment(&mut self, made: io::Result<File>) -> io::Result<()> {
        match made {
            Ok(segment) => self.next_segment = NextSegment::Ready(segment),
            Err(fault) if self.fits() => {
                log::debug!("lane {}: no next segment: {fault}", self.lane.id);
                self.next_segment = NextSegment::Failed(clock::now());
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}
