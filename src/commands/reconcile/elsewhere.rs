//! Events that are promised and are no rows: dead letters, and what the journal holds beyond the checkpoints.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::ReconcileError;
use crate::commands::journal::{Inspection, Output};
use crate::commands::query::moment::TimeRange;
use crate::commands::query::{QueryError, QuerySession};
use crate::event::position::{LaneId, Position};
use crate::sink::dead_letters::FILE_NAME;

/// Where an event is that is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// The database refused it.
    DeadLetter,
    /// It is to be stored.
    Journal,
}

/// What could not be looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unread {
    /// There is no such directory.
    pub(super) data_dir: Option<PathBuf>,
    /// Lines of the dead letters that are none.
    pub(super) letters: u64,
    /// Events of the journal that the disk has lost.
    pub(super) events: u64,
}

/// A data directory, and how far its lanes are stored.
pub(super) struct Elsewhere {
    data_dir: PathBuf,
    stored: HashMap<LaneId, Position>,
}

impl Elsewhere {
    /// As of the moment that `reading` sees.
    pub(super) fn of_snapshot(
        reading: &mut QuerySession,
        data_dir: &Path,
    ) -> Result<Self, QueryError> {
        let mut stored = HashMap::new();
        let exists = reading.dialect().table_exists("hakaru_checkpoint");
        if reading.row::<1>(&exists)?.is_some() {
            let sql = "SELECT lane, position FROM hakaru_checkpoint";
            reading.rows(sql, |[lane, position]| {
                if let Ok(lane) = lane.text().parse() {
                    stored.insert(lane, Position(position.count()?));
                }
                Ok(())
            })?;
        }
        Ok(Self {
            data_dir: data_dir.to_owned(),
            stored,
        })
    }

    /// Passes on each event that was received in `range` and is no row, once.
    pub(super) fn find(
        &self,
        range: &TimeRange,
        mut each: impl FnMut(Whereabouts, &str, u32),
    ) -> Result<Unread, ReconcileError> {
        let mut unread = Unread::default();
        if matches!(self.data_dir.try_exists(), Ok(false)) {
            unread.data_dir = Some(self.data_dir.clone());
            return Ok(unread);
        }
        // A letter is written again when a crash comes before the checkpoint passes it; until then the
        // journal has its event too.
        let mut seen = HashSet::new();
        unread.letters = self.find_letters(range, &mut seen, &mut each)?;
        let journal = Inspection::new(&self.data_dir, Output::Json);
        if matches!(self.data_dir.join("journal").try_exists(), Ok(false)) {
            return Ok(unread);
        }
        let stored = |lane| self.stored.get(&lane).copied().unwrap_or(Position::START);
        unread.events = journal.pending(stored, |lane, position, event| {
            let received = i64::try_from(event.received_at.seconds()).unwrap_or(i64::MAX);
            if range.holds(received) && !seen.contains(&(lane, position)) {
                each(Whereabouts::Journal, event.name, event.value);
            }
        })?;
        Ok(unread)
    }

    /// How many lines are no letters.
    fn find_letters(
        &self,
        range: &TimeRange,
        seen: &mut HashSet<(LaneId, Position)>,
        each: &mut impl FnMut(Whereabouts, &str, u32),
    ) -> Result<u64, ReconcileError> {
        let path = self.data_dir.join(FILE_NAME);
        let error = |fault| ReconcileError::DeadLetters {
            path: path.clone(),
            fault,
        };
        let file = match File::open(&path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(0),
            outcome => outcome.map_err(error)?,
        };
        let mut unreadable = 0;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).map_err(error)? > 0 {
            match Letter::read(&line) {
                Some(letter) => {
                    let is_in = letter.received.is_none_or(|received| range.holds(received));
                    if is_in && seen.insert(letter.place) {
                        each(Whereabouts::DeadLetter, &letter.name, letter.value);
                    }
                }
                None => unreadable += 1,
            }
            line.clear();
        }
        Ok(unreadable)
    }
}

/// A dead letter, as far as it matters here.
struct Letter {
    name: String,
    value: u32,
    place: (LaneId, Position),
    /// In seconds since 1970.
    received: Option<i64>,
}

impl Letter {
    fn read(line: &[u8]) -> Option<Self> {
        let letter: serde_json::Value = serde_json::from_slice(line).ok()?;
        let received = letter["received_at"].as_str();
        Some(Self {
            name: letter["name"].as_str()?.to_owned(),
            value: letter["value"].as_u64()?.try_into().ok()?,
            place: (
                letter["lane"].as_str()?.parse().ok()?,
                Position(letter["position"].as_u64()?),
            ),
            received: received
                .and_then(|text| text.parse().ok())
                .map(|at: jiff::Timestamp| at.as_millisecond().div_euclid(1000)),
        })
    }
}
