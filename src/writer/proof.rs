//! Asks the database for rows, where a checkpoint alone does not say what is stored.
//!
//! After a commit one of its rows is noted, with its `id`. A row counts as that of an event only with the same `id`,
//! `at`, `name` and `value`: after a restore the database gives the same ids to other rows.
//!
//! These may be equal: another lane, or another node, stores events of the same second, name and value again, on the
//! ids that this lane had. So a row that is missing proves more than one that is there. Events are proven to be stored
//! only by several rows that differ from each other and from the events around them.

use std::io;

use super::Storing;
use super::lane_event::LaneEvent;
use super::row_answers::{Answers, Proof};
use super::run::Run;
use crate::event::position::Position;
use crate::journal::lane_handle::DiskLane;
use crate::journal::row_witnesses::{RowWitness, spread};
use crate::sink::{FoundRow, SinkError};

/// Most rows that are asked for to prove one checkpoint.
const ROWS_ASKED: usize = 8;

/// Events right after one that is missing, of which some are asked for besides those up to the end.
const EVENTS_AFTER: usize = 64;

/// Most events whose ids the table has that are asked for in one search.
const REPEATABLE_MAX: usize = 64;

/// Most events that are asked for to find out whether the table has the ids of all of them.
const ALL_REPEATABLE_MAX: u64 = 10_000;

/// Why the rows cannot be asked at present.
#[derive(Debug)]
pub(super) enum ProofError {
    /// The database does not answer.
    Database(SinkError),
    /// The journal cannot be read.
    Journal(io::Error),
}

impl From<SinkError> for ProofError {
    fn from(fault: SinkError) -> Self {
        Self::Database(fault)
    }
}

impl From<io::Error> for ProofError {
    fn from(fault: io::Error) -> Self {
        Self::Journal(fault)
    }
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
            let refused = self.lanes.refused(run.lane.id(), run.first..run.end());
            if refused.len() == run.batch.len() {
                // The row before them proves them too. Where some are duplicates, rows of other lanes may be theirs.
                disk.rows().extend(run.first, run.end());
            }
            return;
        };
        if self.row_ids == RowIds::Untried {
            let found = self.writer.sink.is_row_of(row, run.batch.event(index));
            if let Err(fault) = &found
                && !matches!(fault, SinkError::Stop(_))
            {
                // The next batch asks again. If the connection was lost, another server may answer next, which may
                // lack this commit: all checkpoints are read again.
                return self.abandon(fault);
            }
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
    ) -> Result<Proof, ProofError> {
        let known = lane.rows().spread(found, stored, ROWS_ASKED);
        let Some(last) = known.last() else {
            let proof = self.prove_by_search(lane, found, stored)?;
            // Rows that are found by their content may be those of the events before, or of another lane.
            return Ok(match proof {
                Proof::Stored(_) => Proof::Few,
                proof => proof,
            });
        };
        let end = last.end.min(stored);
        let mut answers = Answers::default();
        for row in known {
            if let Some(event) = LaneEvent::read_on(lane, row.position)? {
                let is_there = self.writer.sink.is_row_of(row.row, event.event())?;
                answers.add(is_there, &event);
            }
        }
        Ok(answers.proof(end).counted())
    }

    /// Whether each event from `from` up to `to` may be stored once more, since the table has its id. Those that were
    /// refused are not stored again.
    pub(super) fn are_repeatable(
        &mut self,
        lane: &DiskLane,
        from: Position,
        to: Position,
    ) -> Result<bool, ProofError> {
        if to.since(from) > ALL_REPEATABLE_MAX {
            return Ok(false);
        }
        let refused = self.lanes.refused(lane.id, from..to);
        let mut at = from;
        while at < to {
            let Some(mut event) = LaneEvent::read_on(lane, at)? else {
                return Ok(false);
            };
            loop {
                if !refused.contains(&at) {
                    let found = match event.event().id {
                        Some(_) => self.writer.sink.has_row_after(u64::MAX, event.event())?,
                        None => FoundRow::Missing,
                    };
                    if found != FoundRow::Repeatable {
                        return Ok(false);
                    }
                }
                at = at.plus(1);
                match event.next() {
                    Some(next) if at < to => event = next,
                    _ => break,
                }
            }
        }
        Ok(from < to)
    }

    /// A position from which on no event up to `to` is a row: events are stored in their order, and one that is missing was
    /// found by halves. `None`: there are too many rows to be searched.
    pub(super) fn first_missing(
        &mut self,
        lane: &DiskLane,
        from: Position,
        to: Position,
    ) -> Result<Option<Position>, ProofError> {
        let after = self.last_row(lane, from)?;
        self.first_missing_after(lane, from, to, after)
    }

    /// The same, among the rows after this one, if it is known.
    pub(super) fn first_missing_after(
        &mut self,
        lane: &DiskLane,
        from: Position,
        to: Position,
        after: Option<u64>,
    ) -> Result<Option<Position>, ProofError> {
        if from >= to {
            return Ok(Some(from));
        }
        let mut passed = self.lanes.refused(lane.id, from..to);
        let (mut low, mut high, mut repeatable) = (from, to, 0);
        while low < high {
            let half = usize::try_from(high.since(low) / 2).unwrap_or(usize::MAX);
            let middle = low.plus(half);
            let mut asked = middle;
            while passed.contains(&asked) {
                asked = asked.plus(1);
            }
            if asked >= high {
                high = middle;
                continue;
            }
            let found = match LaneEvent::read_alone(lane, asked)? {
                Some(event) => {
                    let after = after.unwrap_or_default();
                    self.writer.sink.has_row_after(after, event.event())?
                }
                // It was lost by the disk, so it may have been stored.
                None => FoundRow::There,
            };
            match found {
                FoundRow::There => low = asked.plus(1),
                FoundRow::Missing => high = middle,
                // It says nothing of those before it and after it.
                FoundRow::Repeatable => {
                    passed.insert(asked);
                    repeatable += 1;
                    if repeatable > REPEATABLE_MAX {
                        return Ok(None);
                    }
                }
                FoundRow::Unsearched => return Ok(None),
            }
        }
        // One that is missing may have been altered or removed: then later ones are there.
        let are_rows_noted = lane.rows().last_before(high).is_some();
        let next = high.plus(EVENTS_AFTER).min(to);
        for (start, end) in [(high, next), (next, to)] {
            let proof = match after {
                Some(after) => self.prove_after(lane, start, end, after)?,
                None => self.prove_by_search(lane, start, end)?,
            };
            match proof {
                Proof::Missing => {}
                Proof::Unknown if start == end || !are_rows_noted => {}
                _ => return Ok(Some(to)),
            }
        }
        Ok(Some(high))
    }

    /// The last row that is known to be of an event before `from`, if it is still there.
    pub(super) fn last_row(
        &mut self,
        lane: &DiskLane,
        from: Position,
    ) -> Result<Option<u64>, ProofError> {
        let Some(last) = lane.rows().last_before(from) else {
            return Ok(None);
        };
        let Some(event) = LaneEvent::read_alone(lane, last.position)? else {
            return Ok(None);
        };
        let is_there = self.writer.sink.is_row_of(last.row, event.event())?;
        Ok(is_there.then_some(last.row))
    }

    /// Whether the events from `from` up to `to` are rows, none of which is noted. They are looked for among the rows
    /// that are younger than the last one that is known to be there. Those that were refused are no rows.
    pub(super) fn prove_by_search(
        &mut self,
        lane: &DiskLane,
        from: Position,
        to: Position,
    ) -> Result<Proof, ProofError> {
        // Where it is gone, the others may have been removed with it.
        match self.last_row(lane, from)? {
            Some(after) => self.prove_after(lane, from, to, after),
            None => Ok(Proof::Unknown),
        }
    }

    /// The same, among the rows after this one.
    pub(super) fn prove_after(
        &mut self,
        lane: &DiskLane,
        from: Position,
        to: Position,
        after: u64,
    ) -> Result<Proof, ProofError> {
        if from >= to {
            return Ok(Proof::Unknown);
        }
        let refused = self.lanes.refused(lane.id, from..to);
        let mut answers = Answers::default();
        let (mut next, mut silent) = (from, 0);
        let count = usize::try_from(to.since(from)).unwrap_or(usize::MAX);
        for index in spread(count, ROWS_ASKED) {
            next = next.max(from.plus(index));
            // Events are stored in their order: if the first one is missing, all are. Where it says nothing, the next one is
            // asked instead.
            loop {
                while refused.contains(&next) {
                    next = next.plus(1);
                }
                if next >= to {
                    break;
                }
                let event = LaneEvent::read_around(lane, next)?;
                next = next.plus(1);
                if let Some(event) = event {
                    match self.writer.sink.has_row_after(after, event.event())? {
                        FoundRow::There => answers.add(true, &event),
                        FoundRow::Missing => answers.add(false, &event),
                        FoundRow::Repeatable => {}
                        FoundRow::Unsearched => return Ok(Proof::Unknown),
                    }
                }
                if answers.are_some() {
                    break;
                }
                silent += 1;
                if silent > REPEATABLE_MAX {
                    return Ok(Proof::Unknown.counted());
                }
            }
        }
        let proof = if refused.len() == count {
            Proof::Stored(to)
        } else {
            answers.proof_by_content(to)
        };
        Ok(proof.counted())
    }
}
