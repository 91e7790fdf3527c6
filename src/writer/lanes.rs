//! What a writer knows of the lanes it stores from.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::event::UnixMillis;
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::sink::{Checkpoint, Fault, Refused};

/// All lanes of a writer.
#[derive(Default)]
pub(super) struct Lanes(HashMap<LaneId, LaneState>);

/// One of them.
pub(super) struct LaneState {
    pub(super) lane: LaneHandle,
    /// What the database says of it; `None` where it must be asked.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Events before are counted, as stored or as dead-lettered; `None` before the first question.
    counted: Option<Position>,
    /// Events in the dead-letter file that are not counted yet: none is written there twice.
    dead: BTreeMap<Position, Fault>,
    /// Events that the disk has lost: the checkpoint may step over them.
    unreadable: Vec<Range<Position>>,
}

impl Lanes {
    /// What is known of `lane`.
    pub(super) fn of(&mut self, lane: &LaneHandle) -> &mut LaneState {
        self.0.entry(lane.id()).or_insert_with(|| LaneState {
            lane: lane.clone(),
            checkpoint: None,
            counted: None,
            dead: BTreeMap::new(),
            unreadable: Vec::new(),
        })
    }

    /// Has the database asked again for every checkpoint.
    pub(super) fn forget_checkpoints(&mut self) {
        for state in self.0.values_mut() {
            state.checkpoint = None;
        }
    }

    /// The database works: it has what it was asked for on this connection.
    pub(super) fn confirm(&self) {
        let now = UnixMillis::now();
        let asked = self.0.values().filter(|state| state.checkpoint.is_some());
        for lane in asked.filter_map(|state| state.lane.on_disk()) {
            lane.confirm(now);
        }
    }

    /// Lets go of lanes whose files are gone.
    pub(super) fn forget_removed(&mut self) {
        self.0.retain(|_, state| {
            let on_disk = state.lane.on_disk();
            !on_disk.is_some_and(|lane| lane.is_removed())
        });
    }

    /// Lanes in the journal, and how far each was once stored.
    pub(super) fn once_stored(&self) -> impl Iterator<Item = (&Arc<DiskLane>, Position)> {
        self.0.values().filter_map(|state| {
            let counted = state.counted?;
            state.lane.on_disk().map(|lane| (lane, counted))
        })
    }
}

impl LaneState {
    /// Takes in what the database says. Gives how far the lane was once stored.
    pub(super) fn learn(&mut self, checkpoint: Checkpoint) -> Position {
        self.checkpoint = Some(checkpoint);
        *self.counted.get_or_insert(checkpoint.position)
    }

    /// Counts the events of a run as stored: how many were not before, and how many of these are
    /// dead letters.
    pub(super) fn count(&mut self, first: Position, end: Position) -> (u64, u64) {
        let from = self.counted.unwrap_or(first).max(first);
        let new = end.since(from);
        let dead = if new == 0 {
            0
        } else {
            self.dead.range(from..end).count() as u64
        };
        self.dead = self.dead.split_off(&end);
        self.counted = Some(self.counted.unwrap_or(end).max(end));
        (new, dead)
    }

    /// What is dead-lettered already of a run that begins at `first`.
    pub(super) fn refused(&self, first: Position, end: Position) -> Refused {
        self.dead
            .range(first..end)
            .filter_map(|(position, fault)| {
                let index = usize::try_from(position.since(first)).ok()?;
                Some((index, fault.clone()))
            })
            .collect()
    }

    /// Notes that an event is in the dead-letter file.
    pub(super) fn add_dead(&mut self, position: Position, fault: Fault) {
        self.dead.insert(position, fault);
    }

    /// Notes that the disk has lost these events.
    pub(super) fn add_unreadable(&mut self, from: Position, to: Position) {
        if let Some(lane) = self.lane.on_disk() {
            lane.set_damaged();
        }
        if from < to {
            self.unreadable.push(from..to);
        }
    }

    /// Whether there is nothing to be stored between `from` and `to`: it is one place, or the disk
    /// has lost all that was there.
    pub(super) fn is_gap_known(&self, from: Position, to: Position) -> bool {
        let mut at = from;
        while at < to {
            let lost = self.unreadable.iter().find(|lost| lost.contains(&at));
            match lost {
                Some(lost) => at = lost.end,
                None => return false,
            }
        }
        true
    }
}
