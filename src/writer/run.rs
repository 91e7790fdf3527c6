//! Events that follow each other in a lane, and are stored together.

use crate::event::batch::Batch;
use crate::event::fingerprint::Fingerprint;
use crate::event::position::Position;
use crate::journal::lane_handle::LaneHandle;

/// Consecutive events of one lane.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) batch: &'a Batch,
    pub(super) lane: &'a LaneHandle,
    pub(super) first: Position,
}

impl Run<'_> {
    /// The position after its last event.
    pub(super) fn end(self) -> Position {
        self.first.plus(self.batch.len())
    }

    /// The fingerprint of its last events.
    pub(super) fn last(self) -> Option<Fingerprint> {
        let len = self.batch.len();
        let count = Fingerprint::count_of(len)?;
        Fingerprint::of((len - count..len).map(|index| self.batch.event(index)))
    }

    pub(super) fn is_journaled(self) -> bool {
        self.lane.on_disk().is_some()
    }
}
