//! Asks the database for rows, where a checkpoint alone does not say what is stored.
//!
//! After a commit one of its rows is noted, with its `id`. A row counts as that of an event only with the same `id`,
//! `at`, `name` and `value`: after a restore the database gives the same ids to other rows.

use super::{Run, Storing};
use crate::event::Event;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::Position;
use crate::journal::lane_handle::DiskLane;
use crate::journal::reader::{Filled, LaneReader};
use crate::journal::row_witnesses::{RowWitness, spread};
use crate::journal::storage::Disk;
use crate::sink::SinkError;

/// Most rows that are asked for to prove one checkpoint.
const ROWS_ASKED: usize = 8;

/// Events read at once.
const BATCH_EVENTS: u32 = 1000;

/// What the rows say about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// All that were asked for are rows. Up to this position the events are stored.
    Stored(Position),
    /// None of those that were asked for is a row.
    Missing,
    /// Some are, and some are not.
    Mixed,
    /// No row is known that could be asked for.
    Unknown,
}

/// Whether rows of a connection can be noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowIds {
    /// No row was looked up yet.
    Untried,
    /// A row was found by its `id`.
    Usable,
    /// A row was not found by its `id`, or may not be read.
    Unusable,
}

impl Storing {
    /// Notes a row of a run that was committed.
    pub(super) fn note_row(&mut self, run: Run<'_>) {
        let Some(disk) = run.lane.on_disk() else {
            return;
        };
        let Some((index, row)) = self.writer.sink.inserted_row() else {
            // All of them are dead letters. The row before them proves them too.
            return disk.rows().extend(run.first, run.end());
        };
        if self.row_ids == RowIds::Untried {
            let found = self.writer.sink.is_row_of(row, run.batch.event(index));
            self.row_ids = match found {
                Ok(true) => RowIds::Usable,
                Ok(false) | Err(_) => RowIds::Unusable,
            };
            if self.row_ids == RowIds::Unusable {
                log::warn!(
                    event = "rows_not_checked", writer = self.writer.index;
                    "writer {}: rows of eventlog cannot be found by a column id{}; a checkpoint that is behind is \
                     believed unchecked",
                    self.writer.index,
                    found.err().map_or_else(String::new, |fault| format!(": {fault}"))
                );
            }
        }
        if self.row_ids == RowIds::Usable {
            let position = run.first.plus(index);
            let end = run.end();
            disk.rows().push(RowWitness { position, end, row });
        } else {
            // Older rows would prove too little.
            disk.rows().truncate(Position::START);
        }
    }

    /// Whether the events from `found` up to `stored`, which were stored, still are: the checkpoint is behind or gone.
    pub(super) fn prove_stored(
        &mut self,
        lane: &DiskLane,
        found: Position,
        stored: Position,
    ) -> Result<Proof, SinkError> {
        let known = lane.rows().spread(found, stored, ROWS_ASKED);
        let Some(last) = known.last() else {
            return self.prove_by_search(lane, found, stored);
        };
        let end = last.end.min(stored);
        let mut answers = Answers::default();
        for row in known {
            if let Some(is_there) = self.is_there(lane, row)? {
                answers.add(is_there);
            }
        }
        Ok(answers.proof(end))
    }

    /// Whether the events from `from` up to `to` are rows, none of which is noted. They are looked for among the rows
    /// that are younger than the last one that is known to be there.
    pub(super) fn prove_by_search(
        &mut self,
        lane: &DiskLane,
        from: Position,
        to: Position,
    ) -> Result<Proof, SinkError> {
        let Some(last) = lane.rows().last_before(from) else {
            return Ok(Proof::Unknown);
        };
        // Where it is gone, the others may have been removed with it.
        if self.is_there(lane, last)? != Some(true) {
            return Ok(Proof::Unknown);
        }
        let count = usize::try_from(to.since(from)).unwrap_or(usize::MAX);
        let mut answers = Answers::default();
        for index in spread(count, ROWS_ASKED) {
            let Some(event) = read_event(lane, from.plus(index)) else {
                continue;
            };
            let event = event.event(0);
            match self.writer.sink.has_row_after(last.row, event)? {
                Some(is_there) => answers.add(is_there),
                None => return Ok(Proof::Unknown),
            }
        }
        Ok(answers.proof(to))
    }

    /// Whether a row is there. `None`: the event cannot be read back from the journal.
    fn is_there(&mut self, lane: &DiskLane, row: RowWitness) -> Result<Option<bool>, SinkError> {
        let Some(event) = read_event(lane, row.position) else {
            return Ok(None);
        };
        let event: Event<'_> = event.event(0);
        self.writer.sink.is_row_of(row.row, event).map(Some)
    }
}

/// How many rows are there, and how many are not.
#[derive(Debug, Default)]
struct Answers {
    there: usize,
    missing: usize,
}

impl Answers {
    fn add(&mut self, is_there: bool) {
        if is_there {
            self.there += 1;
        } else {
            self.missing += 1;
        }
    }

    fn proof(&self, end: Position) -> Proof {
        match (self.there, self.missing) {
            (0, 0) => Proof::Unknown,
            (_, 0) => Proof::Stored(end),
            (0, _) => Proof::Missing,
            _ => Proof::Mixed,
        }
    }
}

/// The event at a position of a lane, if it can be read.
fn read_event(lane: &DiskLane, position: Position) -> Option<Batch> {
    let mut batch = BatchEvents::new(BATCH_EVENTS).map(Batch::new)?;
    let mut reader = LaneReader::new(Disk, &lane.directory, lane.id, position);
    let filled = reader.fill(&mut batch, Some(position.plus(1)));
    let is_read = matches!(filled, Ok(Filled::More | Filled::End { .. })) && !batch.is_empty();
    is_read.then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_or_none_are_a_proof() {
        let proof = |answers: &[bool]| {
            let mut asked = Answers::default();
            answers.iter().for_each(|&is_there| asked.add(is_there));
            asked.proof(Position(7))
        };
        assert_eq!(proof(&[]), Proof::Unknown);
        assert_eq!(proof(&[true, true]), Proof::Stored(Position(7)));
        assert_eq!(proof(&[false]), Proof::Missing);
        assert_eq!(proof(&[true, false]), Proof::Mixed);
    }
}
