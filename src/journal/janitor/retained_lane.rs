//! What the janitor knows of a lane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::trim::trim;
use crate::event::UnixMillis;
use crate::event::position::Position;
use crate::journal::lane_handle::{DiskLane, Origin};
use crate::journal::record::SegmentNumber;
use crate::journal::segment::{segment_name, segments};
use crate::journal::storage::Disk;
use crate::journal::stored_note;

/// Time between two words of a database that counts at most: a writer without work asks it more often,
/// and while it is away nobody knows what it will have when it is back.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Segments at the end of a lane that may have room behind what was written: the last, and one that was
/// made ahead.
const TRIMMED: usize = 2;

/// A lane that the janitor looks after, and since when what of it is stored, by its clock: a file's own
/// times say when it was written, which may be long before.
pub(super) struct RetainedLane {
    pub(super) lane: Arc<DiskLane>,
    pub(super) clock: KeepClock,
    pub(super) stored_since: BTreeMap<SegmentNumber, Duration>,
    pub(super) done_since: Option<Duration>,
    /// What was noted last of how far it is stored.
    noted: Position,
    /// Of a lane that was found: where its events end, as it was then.
    found_end: Position,
    trimmed: BTreeSet<SegmentNumber>,
}

impl RetainedLane {
    pub(super) fn new(lane: Arc<DiskLane>) -> Self {
        Self {
            lane,
            clock: KeepClock::default(),
            stored_since: BTreeMap::new(),
            done_since: None,
            noted: Position::START,
            found_end: Position::START,
            trimmed: BTreeSet::new(),
        }
    }

    /// Of an earlier process. What it noted counts until the database is asked.
    pub(super) fn found(lane: DiskLane) -> Self {
        let noted = stored_note::read(&lane.directory);
        let found = stored_note::end(&lane.directory, lane.id);
        let is_known = found.is_ok();
        let end = found.unwrap_or_else(|fault| {
            // Its writer will log it too.
            log::debug!("lane {}: its end is not known: {fault}", lane.id);
            noted
        });
        lane.set_stored(noted.min(end));
        let mut kept = Self {
            noted,
            found_end: end,
            ..Self::new(Arc::new(lane))
        };
        // What cannot be read, or is of another version, stays as it is.
        if is_known {
            kept.trim_end();
        }
        kept
    }

    /// Notes how far the lane is stored, if that has changed.
    pub(super) fn note(&mut self) {
        let stored = self.lane.stored();
        if stored == self.noted || self.lane.is_removed() {
            return;
        }
        match stored_note::write(&self.lane.directory, stored) {
            Ok(()) => self.noted = stored,
            // Then the next process counts too much until the database is asked.
            Err(fault) => log::debug!("lane {}: nothing can be noted: {fault}", self.lane.id),
        }
    }

    /// Events of an earlier process that are not stored.
    pub(super) fn found_events(&self) -> u64 {
        self.found_end.since(self.lane.stored())
    }

    /// Gives back the room behind the end of a lane of ours that was closed.
    pub(super) fn trim(&mut self) {
        if self.lane.origin == Origin::Opened && self.lane.end().is_some() {
            self.trim_end();
        }
    }

    /// Cuts the last segments to what was written. Nobody writes them.
    fn trim_end(&mut self) {
        let directory = &self.lane.directory;
        let all = segments(&Disk, directory).unwrap_or_default();
        for &number in all.iter().rev().take(TRIMMED) {
            if !self.trimmed.insert(number) {
                continue;
            }
            if let Err(fault) = trim(&directory.join(segment_name(number))) {
                // It takes more room than it needs, no more.
                log::debug!("lane {}: {fault}", self.lane.id);
            }
        }
    }
}

/// Time in which the database was there, and known to have what is said to be stored. While it is away
/// nothing grows old: it may come back without what it had.
#[derive(Debug, Default)]
pub(super) struct KeepClock {
    last_confirmed_at: Option<UnixMillis>,
    passed: Duration,
}

impl KeepClock {
    /// The database was last heard of at `last_confirmed_at`.
    pub(super) fn tick(&mut self, last_confirmed_at: Option<UnixMillis>) {
        if let (Some(before), Some(now)) = (self.last_confirmed_at, last_confirmed_at) {
            let silence = Duration::from_millis(now.0.saturating_sub(before.0));
            self.passed += silence.min(SILENCE_MAX);
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
    fn nothing_grows_old_while_the_database_is_away() {
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
        assert_eq!(back, 15 + SILENCE_MAX.as_secs());
        // A clock that is put back.
        assert_eq!(tick(Some(10)), back);
        assert_eq!(tick(Some(11)), back + 1);
    }
}
