//! The states of a shard's lane: opened when the disk allows it, closed for good when it fails.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::batches::PresentLane;
use super::open_lane::{LaneMaker, OpenLane};
use crate::event::position::Position;
use crate::journal::disk_thread::{DiskReport, REOPEN_AFTER};
use crate::journal::lane_handle::{DiskLane, MemoryLane};
use crate::os::bugs::{Bug, planted};
use crate::os::fs::File;

/// Where the events of a shard are kept until they are stored.
// `repr` gives the enum a tag of its own. Each event reads it; a tag packed into a field costs more to read.
#[derive(Debug)]
#[repr(u8)]
pub(super) enum LaneState {
    /// Only in memory: the lane is an id and positions, without files.
    Memory {
        lane: Arc<MemoryLane>,
        /// Position of the next event.
        next: Position,
    },
    /// No lane is open. The disk thread tries to open one, and no event is taken.
    Opening {
        maker: LaneMaker,
        /// Failures of the disk are logged only once until a lane is open.
        is_failure_logged: bool,
    },
    /// Events are appended to the lane.
    Open(OpenLane),
    /// The lane takes no more events. It is closed when the write under way has ended, which holds its blocks.
    Failed { lane: OpenLane, fault: io::Error },
    /// The shard has drained.
    Ended,
}

/// A lane that was closed.
pub(super) struct Closed {
    pub(super) lane: Arc<DiskLane>,
    /// Every event before this position is on the disk.
    pub(super) durable: Position,
    /// The events from `durable` to this position are dropped.
    pub(super) next: Position,
    /// From this position on events are kept only on disk.
    pub(super) spilled_from: Option<Position>,
}

impl LaneState {
    /// The lane of the events in the open batch, also if it has failed.
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

    /// Every event before this position is as safe as the lane makes it: on the disk or in memory.
    pub(super) fn durable(&self) -> Position {
        match self {
            Self::Memory { next, .. } => *next,
            Self::Open(lane) | Self::Failed { lane, .. } => lane.durable,
            Self::Opening { .. } | Self::Ended => Position::START,
        }
    }

    /// The next report of the disk thread, if there is one.
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
            // Not ordered any more. A janitor adopts the lane when this process has ended.
            other => other,
        };
    }

    /// A lane could not be opened. The disk thread tries again every second.
    pub(super) fn not_opened(&mut self, fault: &io::Error) {
        if let Self::Opening {
            is_failure_logged, ..
        } = self
            && !std::mem::replace(is_failure_logged, true)
        {
            log_closed(fault);
        }
    }

    /// Takes no more events: a write or a segment has failed.
    pub(super) fn fail(&mut self, fault: io::Error) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Open(_) if planted(Bug::FailedForEver) => Self::Ended,
            Self::Open(lane) => Self::Failed { lane, fault },
            other => other,
        };
    }

    /// Ends the lane for good: the shard has drained.
    pub(super) fn end(&mut self) {
        if let Self::Open(lane) | Self::Failed { lane, .. } = std::mem::replace(self, Self::Ended) {
            lane.end();
        }
    }

    /// Closes a lane that has failed or that its writer wants closed, unless a write is under way, and orders another
    /// one.
    pub(super) fn close_failed(&mut self) -> Option<Closed> {
        let is_due = match self {
            Self::Failed { lane, .. } => lane.is_idle(),
            Self::Open(lane) => lane.is_idle() && lane.lane.is_to_close(),
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
