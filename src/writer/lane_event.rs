//! Events that are read back from the journal, to be compared with rows and checkpoints.

use std::io;
use std::ops::Range;

use crate::event::Event;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::Position;
use crate::journal::lane_handle::DiskLane;
use crate::journal::reader::LaneReader;

/// Events after an event, and before one that is searched for, none of which may be equal if its row is to prove anything.
const EVENTS_AROUND: usize = 1000;

/// An event of a lane, and those around it.
pub(super) struct LaneEvent {
    pub(super) events: Batch,
    /// Its index among them.
    pub(super) index: usize,
}

impl LaneEvent {
    /// Reads the event at a position. `None`: it is not there, or the disk has lost it. An error may be over later.
    pub(super) fn read_alone(lane: &DiskLane, position: Position) -> io::Result<Option<Self>> {
        Self::read(lane, position..position.plus(1), position)
    }

    /// Reads the event at a position, and those after it.
    pub(super) fn read_on(lane: &DiskLane, position: Position) -> io::Result<Option<Self>> {
        Self::read(lane, position..position.plus(EVENTS_AROUND), position)
    }

    /// Reads the event at a position, and those around it: an earlier one with an equal row may be found instead of it.
    pub(super) fn read_around(lane: &DiskLane, position: Position) -> io::Result<Option<Self>> {
        let start = Position(position.0.saturating_sub(EVENTS_AROUND as u64));
        match Self::read(lane, start..position.plus(EVENTS_AROUND), position)? {
            Some(event) => Ok(Some(event)),
            None => Self::read_on(lane, position),
        }
    }

    fn read(
        lane: &DiskLane,
        range: Range<Position>,
        position: Position,
    ) -> io::Result<Option<Self>> {
        let count = u32::try_from(range.end.since(range.start)).ok();
        let Some(mut events) = count.and_then(BatchEvents::new).map(Batch::new) else {
            return Ok(None);
        };
        let mut reader = LaneReader::new(&lane.directory, lane.id, range.start);
        if let Err(fault) = reader.fill(&mut events, Some(range.end)) {
            let lost = fault.unless_passing()?;
            log::debug!("lane {}: from position {}: {lost}", lane.id, range.start.0);
        }
        // Of the events around it, those count that are read.
        let index = usize::try_from(position.since(range.start)).unwrap_or(usize::MAX);
        Ok((index < events.len()).then_some(Self { events, index }))
    }

    /// The event after it, if that was read too.
    pub(super) fn next(mut self) -> Option<Self> {
        self.index += 1;
        (self.index < self.events.len()).then_some(self)
    }

    pub(super) fn event(&self) -> Event<'_> {
        self.events.event(self.index)
    }

    /// What a row of it has.
    pub(super) fn content(event: Event<'_>) -> (u64, &str, u32) {
        (event.received_at.seconds(), event.name, event.value)
    }

    /// Whether none of the events around it would have an equal row.
    pub(super) fn has_no_equal(&self) -> bool {
        let own = Self::content(self.event());
        let mut others = self.events.events().enumerate();
        others.all(|(index, event)| index == self.index || Self::content(event) != own)
    }
}
