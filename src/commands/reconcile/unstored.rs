//! Events that are not rows: dead letters, and events of the journal that are not before the checkpoints.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

use super::ReconcileError;
use crate::commands::journal::{Inspection, Output};
use crate::commands::query::moment::TimeRange;
use crate::commands::query::{Cell, QueryError, QuerySession};
use crate::event::Event;
use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::journal::held_lane::Hold;
use crate::journal::lane_keys::LaneKeys;
use crate::journal::lane_label::LaneLabel;
use crate::journal::refused_note;
use crate::journal::segment::lanes;
use crate::sink::DATABASE_ROW;
use crate::sink::dead_letters::FILE_NAME;
use crate::sink::dead_letters::file::Letters;

/// Why an event is not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnstoredKind {
    /// The database refused it.
    DeadLetter,
    /// It is in the journal and will be stored.
    Pending,
}

/// What could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unread {
    /// The data directory, if it does not exist.
    pub(super) data_dir: Option<PathBuf>,
    /// Lines of the dead-letter file that are no dead letters.
    pub(super) letters: u64,
    /// Events of the journal that are unreadable.
    pub(super) events: u64,
    /// Events of held lanes of which nobody can tell whether they are rows. They are counted as pending too, as far
    /// as the checkpoints have not passed them.
    pub(super) held: u64,
}

/// The events of a data directory that are not stored.
pub(super) struct UnstoredEvents {
    data_dir: PathBuf,
    /// The checkpoints, by the keys of lanes.
    stored: HashMap<LaneId, Position>,
    /// The id of the database, if it has one.
    database: Option<DatabaseId>,
}

impl UnstoredEvents {
    /// Reads the checkpoints of the snapshot that `session` sees.
    pub(super) fn of_snapshot(
        session: &mut QuerySession,
        data_dir: &Path,
    ) -> Result<Self, QueryError> {
        let mut stored = HashMap::new();
        let mut database = None;
        let exists = session.dialect().table_exists("hakaru_checkpoint");
        if session.row::<1>(&exists)?.is_some() {
            let sql = "SELECT lane, epoch, position FROM hakaru_checkpoint";
            session.rows(sql, |[lane, epoch, position]| {
                let lane = lane.text();
                if lane == DATABASE_ROW {
                    database = Some(DatabaseId::from_halves(half(epoch)?, half(position)?));
                } else if let Ok(lane) = lane.parse() {
                    stored.insert(lane, Position(position.count()?));
                }
                Ok(())
            })?;
        }
        Ok(Self {
            data_dir: data_dir.to_owned(),
            stored,
            database,
        })
    }

    /// Calls `each` once with every event that was received in `range` and is not a row.
    pub(super) fn find(
        &self,
        range: &TimeRange,
        mut each: impl FnMut(UnstoredKind, &str, u32),
    ) -> Result<Unread, ReconcileError> {
        let mut unread = Unread::default();
        if matches!(self.data_dir.try_exists(), Ok(false)) {
            unread.data_dir = Some(self.data_dir.clone());
            return Ok(unread);
        }
        // A dead letter is written twice if hakaru crashes before the checkpoint is moved past it. Until then its
        // event is in the journal too.
        let mut seen = HashSet::new();
        unread.letters = self.find_letters(range, &mut seen, &mut each)?;
        let journal = Inspection::new(&self.data_dir, Output::Json);
        if matches!(self.data_dir.join("journal").try_exists(), Ok(false)) {
            return Ok(unread);
        }
        self.find_noted(&mut seen)?;
        unread.held = self.find_held(range, &journal)?;
        let stored = |keys: &LaneKeys, label: &LaneLabel| {
            let from = match label {
                // Its events wait for another database: they explain nothing that this one lacks.
                LaneLabel::Database { id, .. } if self.is_other(*id) => return None,
                LaneLabel::Database { from, .. } => *from,
                _ => Position::START,
            };
            let checkpoint = |key| Ok::<_, Infallible>(self.stored.get(&key).copied());
            let Ok(stored) = keys.stored(checkpoint);
            Some(stored.max(from))
        };
        unread.events = journal.pending(stored, |lane, position, event| {
            if range.holds(received(event)) && !seen.contains(&(lane, position)) {
                each(UnstoredKind::Pending, event.name, event.value);
            }
        })?;
        Ok(unread)
    }

    fn is_other(&self, database: DatabaseId) -> bool {
        self.database.is_some_and(|ours| ours != database)
    }

    /// Events in question in the held lanes of this database that were received in `range`, or cannot be read.
    fn find_held(&self, range: &TimeRange, journal: &Inspection) -> Result<u64, ReconcileError> {
        let mut held = 0;
        for (lane, directory) in self.lanes()? {
            let label = LaneLabel::read(&directory).unwrap_or(LaneLabel::Missing);
            if matches!(label, LaneLabel::Database { id, .. } if self.is_other(id)) {
                continue;
            }
            let hold = Hold::read(&directory).map_err(|fault| note(directory, fault))?;
            let Some(hold) = hold else { continue };
            let mut outside = 0;
            journal.events(lane, &(hold.from..hold.to), |event| {
                outside += u64::from(!range.holds(received(event)));
            })?;
            held += hold.events() - outside;
        }
        Ok(held)
    }

    /// The lanes of the journal and their directories.
    fn lanes(&self) -> Result<impl Iterator<Item = (LaneId, PathBuf)>, ReconcileError> {
        let journal = self.data_dir.join("journal");
        let lanes = lanes(&journal).map_err(|fault| note(journal.clone(), fault))?;
        Ok(lanes
            .into_iter()
            .map(move |lane| (lane, journal.join(lane.to_string()))))
    }

    /// Adds the events that were dead letters and were replayed or dropped: they are not stored from their lanes,
    /// also where the checkpoint has not passed them.
    fn find_noted(&self, seen: &mut HashSet<(LaneId, Position)>) -> Result<(), ReconcileError> {
        for (lane, directory) in self.lanes()? {
            let noted = refused_note::read(&directory).map_err(|fault| note(directory, fault))?;
            seen.extend(noted.into_iter().map(|position| (lane, position)));
        }
        Ok(())
    }

    /// Calls `each` with every dead letter of this database in `range`. Returns how many lines are no dead letters.
    fn find_letters(
        &self,
        range: &TimeRange,
        seen: &mut HashSet<(LaneId, Position)>,
        each: &mut impl FnMut(UnstoredKind, &str, u32),
    ) -> Result<u64, ReconcileError> {
        let scanned = Letters::scan(&self.data_dir, |letter| {
            // The letter of another database explains nothing that this one lacks.
            let is_ours = letter.database.is_none_or(|id| !self.is_other(id));
            if range.holds(received(letter.event())) && seen.insert(letter.place()) && is_ours {
                each(UnstoredKind::DeadLetter, &letter.name, letter.value);
            }
        });
        scanned.map_err(|fault| ReconcileError::DeadLetters {
            path: self.data_dir.join(FILE_NAME),
            fault,
        })
    }
}

/// When an event was received, in seconds of Unix time.
fn received(event: Event<'_>) -> i64 {
    i64::try_from(event.received_at.seconds()).unwrap_or(i64::MAX)
}

fn note(path: PathBuf, fault: io::Error) -> ReconcileError {
    ReconcileError::Note { path, fault }
}

/// A half of the id of the database. SQLite has no unsigned integers.
fn half(cell: Cell<'_>) -> Result<u64, QueryError> {
    let number = cell.integer()?.unwrap_or_default();
    let unsigned = u64::try_from(number).ok();
    let signed = || i64::try_from(number).ok().map(i64::cast_unsigned);
    unsigned
        .or_else(signed)
        .ok_or_else(|| QueryError::Row(format!("an id of {number}")))
}
