//! What the janitor knows about a lane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use super::trim::trim;
use crate::event::UnixMillis;
use crate::event::position::{LaneId, Position};
use crate::journal::lane_handle::{DiskLane, Origin};
use crate::journal::record::SegmentNumber;
use crate::journal::segment::{segment_name, segments};
use crate::journal::served_database::ServedDatabase;
use crate::journal::stored_note;
use crate::os::bugs::{Bug, planted};

/// Most time between two confirmations that counts. A writer without work confirms more often. During a
/// longer gap the database was unreachable, and it may have lost rows.
const GAP_MAX: Duration = Duration::from_secs(30);

/// Segments at the end of a lane that may have unused space: the last one, and one that was created before it
/// was needed.
const TRIMMED: usize = 2;

/// A lane, and since when its segments are stored, by its [`KeepClock`]. The times of the files tell when
/// events were written, which may be long before they were stored.
pub(super) struct RetainedLane {
    pub(super) lane: Arc<DiskLane>,
    pub(super) clock: KeepClock,
    pub(super) stored_since: BTreeMap<SegmentNumber, Duration>,
    pub(super) done_since: Option<Duration>,
    /// Whether its label names the database that is served, or is none of our business.
    is_labelled: bool,
    /// It could not be removed, which was logged.
    pub(super) has_removal_failed: bool,
    /// The position in its note.
    noted: Position,
    /// Where the events of a lane of an earlier process ended when it was found.
    found_end: Position,
    /// Segments that were trimmed, or could not be.
    trimmed: BTreeSet<SegmentNumber>,
}

impl RetainedLane {
    pub(super) fn new(lane: Arc<DiskLane>) -> Self {
        Self {
            is_labelled: lane.origin == Origin::Found,
            lane,
            clock: KeepClock::default(),
            stored_since: BTreeMap::new(),
            done_since: None,
            has_removal_failed: false,
            noted: Position::START,
            found_end: Position::START,
            trimmed: BTreeSet::new(),
        }
    }

    /// Labels a lane of this process as soon as the database has answered: what it was promised to must be known after
    /// a crash too, also where nothing of it was stored.
    pub(super) fn label(&mut self, served: &ServedDatabase) {
        if self.is_labelled || planted(Bug::LabelLate) {
            return;
        }
        match served.label_opened(&self.lane) {
            Ok(is_labelled) => self.is_labelled = is_labelled,
            // Its writer says so when it stores the first of it.
            Err(fault) => log::debug!("lane {}: its label: {fault}", self.lane.id),
        }
    }

    /// A lane of an earlier process. Its note counts until the database has been asked. Its events become a part of
    /// `total`.
    pub(super) fn found(lane: DiskLane, total: &Arc<AtomicU64>) -> Self {
        let noted = stored_note::read(&lane.directory);
        let (found, fault) = stored_note::end_or_more(&lane.directory, lane.id);
        let end = match fault {
            None => {
                lane.set_found_end(found);
                found
            }
            Some(fault) => {
                // The writer that reads the lane logs the error.
                log::debug!("lane {}: its end is unknown: {fault}", lane.id);
                found.max(noted)
            }
        };
        lane.set_stored(noted.min(end));
        lane.set_found(total, end);
        let mut retained = Self {
            noted,
            found_end: end,
            ..Self::new(Arc::new(lane))
        };
        // A lane that cannot be read, or is of another version, is not changed.
        if retained.lane.found_end().is_some() {
            retained.trim_end();
        }
        retained
    }

    /// Writes the note, if the stored position has changed.
    pub(super) fn write_note(&mut self) {
        let stored = self.lane.stored();
        if stored == self.noted || self.lane.is_removed() {
            return;
        }
        let rows = self.lane.rows().clone();
        // The rows first: without them the position cannot be checked. It is written all the same, as on a full disk.
        if let Err(fault) = rows.write(&self.lane.directory) {
            log::debug!("lane {}: its rows are not noted: {fault}", self.lane.id);
        }
        match stored_note::write(&self.lane.directory, stored) {
            Ok(()) => self.noted = stored,
            // The next process counts too many events as unstored until it has asked the database.
            Err(fault) => log::debug!("lane {}: its note is not written: {fault}", self.lane.id),
        }
    }

    /// When the last of it was stored. `None`: unknown, it may have been just now.
    fn stored_at(&mut self) -> Option<SystemTime> {
        // The note may be that of an earlier part of the lane.
        self.write_note();
        let is_noted = self.noted == self.lane.stored();
        is_noted
            .then(|| stored_note::noted_at(&self.lane.directory))
            .flatten()
    }

    /// Lets the time begin anew after which what is stored is removed.
    pub(super) fn keep_anew(&mut self) {
        self.stored_since.clear();
        self.done_since = None;
    }

    /// Events of a lane of an earlier process that are not stored yet.
    pub(super) fn unstored_events(&self) -> u64 {
        self.found_end.since(self.lane.stored())
    }

    /// Frees the unused space at the end of a lane that this process has closed.
    pub(super) fn trim(&mut self) {
        if self.lane.origin == Origin::Opened && self.lane.end().is_some() {
            self.trim_end();
        }
    }

    /// Cuts the last segments to what was written. They must not be written any more.
    fn trim_end(&mut self) {
        let directory = &self.lane.directory;
        let all = segments(directory).unwrap_or_default();
        for &number in all.iter().rev().take(TRIMMED) {
            if !self.trimmed.insert(number) {
                continue;
            }
            if let Err(fault) = trim(&directory.join(segment_name(number))) {
                // The only effect is that it takes more space than it needs.
                log::debug!("lane {}: {fault}", self.lane.id);
            }
        }
    }
}

/// The stored lanes beyond `retained_max`: those that were stored first. A restore needs the others sooner. One that
/// could not be removed is left out: the others would be removed in its place.
pub(super) fn too_many(lanes: &mut [RetainedLane], retained_max: usize) -> BTreeSet<LaneId> {
    let done = lanes
        .iter_mut()
        .filter(|retained| retained.lane.is_done() && !retained.has_removal_failed);
    let mut done: Vec<&mut RetainedLane> = done.collect();
    let too_many = done.len().saturating_sub(retained_max);
    if too_many == 0 {
        return BTreeSet::new();
    }
    let stored = done.iter_mut().map(|retained| {
        let stored_at = retained.stored_at();
        (stored_at.is_none(), stored_at, retained.lane.id)
    });
    let mut stored: Vec<_> = stored.collect();
    stored.sort();
    let first = stored.into_iter().take(too_many);
    first.map(|(_, _, lane)| lane).collect()
}

/// Time during which the database was reachable and confirmed what is stored. It stands still while the
/// database is unreachable: afterwards it may lack rows, as after a restore from a backup.
#[derive(Debug, Default)]
pub(super) struct KeepClock {
    last_confirmed_at: Option<UnixMillis>,
    passed: Duration,
}

impl KeepClock {
    /// Moves to `last_confirmed_at`, the time of the last confirmation.
    pub(super) fn tick(&mut self, last_confirmed_at: Option<UnixMillis>) {
        if let (Some(before), Some(now)) = (self.last_confirmed_at, last_confirmed_at) {
            let gap = Duration::from_millis(now.0.saturating_sub(before.0));
            self.passed += gap.min(GAP_MAX);
        }
        self.last_confirmed_at = last_confirmed_at;
    }

    pub(super) fn now(&self) -> Duration {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_still_while_the_database_is_unreachable() {
        let mut clock = KeepClock::default();
        let mut tick = |seconds: Option<u64>| {
            clock.tick(seconds.map(|seconds| UnixMillis(seconds * 1000)));
            clock.now().as_secs()
        };
        assert_eq!(tick(None), 0);
        assert_eq!(tick(Some(1_000)), 0);
        assert_eq!(tick(Some(1_015)), 15);
        for _ in 0..100 {
            assert_eq!(tick(Some(1_015)), 15);
        }
        let back = tick(Some(90_000));
        assert_eq!(back, 15 + GAP_MAX.as_secs());
        // The wall clock is set back.
        assert_eq!(tick(Some(10)), back);
        assert_eq!(tick(Some(11)), back + 1);
    }
}
