//! The lane of a shard, through its life: opened when the disk allows it, closed for good when it fails.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::batches::PresentLane;
use super::open_lane::{LaneMaker, OpenLane};
use crate::event::position::Position;
use crate::journal::disk_thread::{DiskReport, REOPEN_AFTER};
use crate::journal::lane_handle::{DiskLane, MemoryLane};

/// Where the events of a shard are kept until they are stored.
// A tag of its own: each event reads it, and one that is packed into a field costs more to read.
#[derive(Debug)]
#[repr(u8)]
pub(super) enum LaneState {
    /// In memory alone: the lane is a name and positions.
    Memory {
        lane: Arc<MemoryLane>,
        /// Position of the next event.
        next: Position,
    },
    /// No lane is open. The disk thread tries to open one, and no event is taken.
    Opening {
        maker: LaneMaker,
        /// The failures of the disk are logged once until a lane is open.
        is_failure_logged: bool,
    },
    /// Events are appended to the lane.
    Open(OpenLane),
    /// The lane takes no event any more. It is closed when the write under way is back, for its blocks
    /// belong to the lane.
    Failed { lane: OpenLane, fault: io::Error },
    /// The shard has drained.
    Ended,
}

/// A lane that was closed.
pub(super) struct Closed {
    pub(super) lane: Arc<DiskLane>,
    /// Everything before is on the disk.
    pub(super) durable: Position,
    /// Events between `durable` and here are forgotten.
    pub(super) next: Position,
    pub(super) spilled_from: Option<Position>,
}

impl LaneState {
    /// What events that are taken now belong to.
    pub(super) fn present(&self) -> Option<PresentLane<'_>> {
        match self {
            Self::Memory { lane, .. } => Some(PresentLane::Memory(lane)),
            Self::Open(lane) | Self::Failed { lane, .. } => Some(lane.present()),
            Self::Opening { .. } | Self::Ended => None,
        }
    }

    /// The lane on disk that is not closed yet.
    pub(super) fn on_disk(&self) -> Option<&OpenLane> {
        match self {
            Self::Open(lane) | Self::Failed { lane, .. } => Some(lane),
            Self::Memory { .. } | Self::Opening { .. } | Self::Ended => None,
        }
    }

    /// The lane on disk that events are appended to.
    pub(super) fn open(&mut self) -> Option<&mut OpenLane> {
        match self {
            Self::Open(lane) => Some(lane),
            _ => None,
        }
    }

    /// Position of the next event; the start while no lane is open.
    pub(super) fn next(&self) -> Position {
        match self {
            Self::Memory { next, .. } => *next,
            Self::Open(lane) | Self::Failed { lane, .. } => lane.next,
            Self::Opening { .. } | Self::Ended => Position::START,
        }
    }

    /// Everything before is as safe as the lane makes it.
    pub(super) fn durable(&self) -> Position {
        match self {
            Self::Memory { next, .. } => *next,
            Self::Open(lane) | Self::Failed { lane, .. } => lane.durable,
            Self::Opening { .. } | Self::Ended => Position::START,
        }
    }

    /// What the disk thread has to report.
    pub(super) fn report(&self) -> Option<DiskReport> {
        match self {
            Self::Opening { maker, .. } => maker.disk.report(),
            Self::Open(lane) | Self::Failed { lane, .. } => lane.maker.disk.report(),
            Self::Memory { .. } | Self::Ended => None,
        }
    }

    /// Appends events to a new lane from now on.
    pub(super) fn opened(&mut self, lane: Arc<DiskLane>, segment: File) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Opening { maker, .. } => {
                log::debug!("lane {} is open", lane.id);
                Self::Open(OpenLane::new(maker, lane, segment))
            }
            // Not asked for: the janitor finds it when this process has ended.
            other => other,
        };
    }

    /// The disk does not allow a lane to be opened. Tried again every second.
    pub(super) fn not_opened(&mut self, fault: &io::Error) {
        if let Self::Opening {
            is_failure_logged, ..
        } = self
            && !std::mem::replace(is_failure_logged, true)
        {
            log_closed(fault);
        }
    }

    /// Takes no event any more: a write or a segment has failed.
    pub(super) fn fail(&mut self, fault: io::Error) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Open(lane) => Self::Failed { lane, fault },
            other => other,
        };
    }

    /// Closes a lane that has failed or lacks events, and asks for another; not while a write is under way.
    pub(super) fn close_failed(&mut self) -> Option<Closed> {
        let is_due = match self {
            Self::Failed { lane, .. } => lane.is_idle(),
            Self::Open(lane) => lane.is_idle() && lane.lane.is_damaged(),
            Self::Memory { .. } | Self::Opening { .. } | Self::Ended => false,
        };
        if !is_due {
            return None;
        }
        let (lane, reopen_after, is_failure_logged) = match std::mem::replace(self, Self::Ended) {
            Self::Failed { lane, fault } => {
                log_closed(&fault);
                (lane, REOPEN_AFTER, true)
            }
            Self::Open(lane) => (lane, Duration::ZERO, false),
            other => {
                *self = other;
                return None;
            }
        };
        let closed = Closed {
            lane: Arc::clone(&lane.lane),
            durable: lane.durable,
            next: lane.next,
            spilled_from: lane.spilled_from,
        };
        *self = Self::Opening {
            maker: lane.close(reopen_after),
            is_failure_logged,
        };
        Some(closed)
    }
}

fn log_closed(fault: &io::Error) {
    log::error!(
        event = "journal_write_failed", code = fault.raw_os_error();
        "the journal cannot be written: {fault}; the lane is closed, and events are answered 503 until \
         another can be opened"
    );
}
