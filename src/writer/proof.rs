//! Asks the database for rows, where a checkpoint alone does not say what is stored.
//!
//! After a commit one of its rows is noted, with its `id`. A row counts as that of an event only with the same `id`,
//! `at`, `name` and `value`: after a restore the database gives the same ids to other rows.
//!
//! These may be equal: another lane, or another node, stores events of the same second, name and value again, on the
//! ids that this lane had. So a row that is missing proves more than one that is there. Events are proven to be stored
//! only by several rows that differ from each other and from the events around them.

use std::collections::BTreeSet;
use std::io;

use super::Storing;
use super::lane_event::LaneEvent;
use super::run::Run;
use crate::event::position::Position;
use crate::journal::lane_handle::DiskLane;
use crate::journal::row_witnesses::{RowWitness, spread};
use crate::os::reached::reached;
use crate::sink::SinkError;

/// Most rows that are asked for to prove one checkpoint.
const ROWS_ASKED: usize = 8;

/// Least rows, all different, that prove events to be stored.
const DIFFERENT_MIN: usize = 3;

/// Events right after one that is missing, of which some are asked for besides those up to the end.
const EVENTS_AFTER: usize = 64;

/// What the rows say about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// All that were asked for are rows. Up to this position the events are stored.
    Stored(Position),
    /// None of those that were asked for is a row.
    Missing,
    /// Some are, and the last one is not, or may be a row of another event.
    Mixed,
    /// The last one is, and some before it are not: they were refused elsewhere, or altered or removed since.
    Gaps,
    /// All are, but so few different ones were asked for that they may be rows of other events.
    Few,
    /// No row is known that could be asked for.
    Unknown,
}

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

impl Proof {
    fn counted(self) -> Self {
        reached(match self {
            Self::Stored(_) => "proof: stored",
            Self::Missing => "proof: missing",
            Self::Few => "proof: few",
            Self::Gaps => "proof: gaps",
            Self::Mixed => "proof: mixed",
            Self::Unknown => "proof: unknown",
        });
        self
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
            // All of them are dead letters. The row before them proves them too.
            return disk.rows().extend(run.first, run.end());
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
        let refused = self.lanes.refused(lane.id, from..to);
        let (mut low, mut high) = (from, to);
        while low < high {
            let half = usize::try_from(high.since(low) / 2).unwrap_or(usize::MAX);
            let middle = low.plus(half);
            let mut asked = middle;
            while refused.contains(&asked) {
                asked = asked.plus(1);
            }
            if asked >= high {
                high = middle;
                continue;
            }
            let is_there = match LaneEvent::read_alone(lane, asked)? {
                Some(event) => {
                    let after = after.unwrap_or_default();
                    self.writer.sink.has_row_after(after, event.event())?
                }
                // It was lost by the disk, so it may have been stored.
                None => Some(true),
            };
            match is_there {
                Some(true) => low = asked.plus(1),
                Some(false) => high = middle,
                None => return Ok(None),
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
        let mut next = from;
        let count = usize::try_from(to.since(from)).unwrap_or(usize::MAX);
        for index in spread(count, ROWS_ASKED) {
            let mut position = next.max(from.plus(index));
            while refused.contains(&position) {
                position = position.plus(1);
            }
            next = position.plus(1);
            if position >= to {
                break;
            }
            let Some(event) = LaneEvent::read_around(lane, position)? else {
                continue;
            };
            match self.writer.sink.has_row_after(after, event.event())? {
                Some(is_there) => answers.add(is_there, &event),
                None => return Ok(Proof::Unknown),
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

/// Which rows are there, and how many are not.
#[derive(Debug, Default)]
struct Answers {
    /// What those have that are there and have no equal.
    different: BTreeSet<(u64, String, u32)>,
    there: usize,
    missing: usize,
    /// Whether the last one is there and has no equal.
    is_last_there: bool,
}

impl Answers {
    /// Adds an answer. They come in the order of the events.
    fn add(&mut self, is_there: bool, event: &LaneEvent) {
        let is_known_there = is_there && event.has_no_equal();
        self.is_last_there = is_known_there;
        if !is_there {
            self.missing += 1;
            return;
        }
        self.there += 1;
        if is_known_there {
            let (seconds, name, value) = LaneEvent::content(event.event());
            self.different.insert((seconds, name.to_owned(), value));
        }
    }

    fn proof(&self, end: Position) -> Proof {
        match (self.there, self.missing) {
            (0, 0) => Proof::Unknown,
            (_, 0) if self.different.len() >= DIFFERENT_MIN => Proof::Stored(end),
            (0, _) => Proof::Missing,
            (_, 0) => Proof::Few,
            _ if self.is_last_there => Proof::Gaps,
            _ => Proof::Mixed,
        }
    }

    /// The same of rows that were found by what they have: that of an equal event that is stored would be taken for that
    /// of the last one.
    fn proof_by_content(&self, end: Position) -> Proof {
        match self.proof(end) {
            Proof::Stored(_) if !self.is_last_there => Proof::Few,
            proof => proof,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::batch::{Batch, BatchEvents};
    use crate::event::{Event, UnixMillis};

    /// Events of one second with this name and these values.
    fn events(values: &[u32]) -> LaneEvent {
        let mut batch = Batch::new(BatchEvents::new(1000).unwrap());
        for &value in values {
            batch
                .push(Event {
                    name: "view",
                    value,
                    received_at: UnixMillis(7_000),
                    id: None,
                })
                .unwrap();
        }
        let (events, index) = (batch, 0);
        LaneEvent { events, index }
    }

    #[test]
    fn several_different_rows_or_none_are_a_proof() {
        let asked = |answers: &[(bool, &[u32])]| {
            let mut asked = Answers::default();
            for (is_there, values) in answers {
                asked.add(*is_there, &events(values));
            }
            asked
        };
        let proof = |answers: &[(bool, &[u32])]| asked(answers).proof(Position(7));
        let by_content = |answers: &[(bool, &[u32])]| asked(answers).proof_by_content(Position(7));
        assert_eq!(proof(&[]), Proof::Unknown);
        let different: [(bool, &[u32]); 3] = [(true, &[1]), (true, &[2, 1]), (true, &[3])];
        assert_eq!(proof(&different), Proof::Stored(Position(7)));
        assert_eq!(proof(&different[..2]), Proof::Few);
        let equal_last = [different[0], different[1], different[2], (true, &[3, 3])];
        assert_eq!(by_content(&equal_last), Proof::Few);
        assert_eq!(by_content(&different), Proof::Stored(Position(7)));
        assert_eq!(proof(&[(false, &[1])]), Proof::Missing);
        assert_eq!(proof(&[(true, &[1]), (false, &[2])]), Proof::Mixed);
        assert_eq!(proof(&[(false, &[1]), (true, &[2])]), Proof::Gaps);
        assert_eq!(proof(&[(false, &[1]), (true, &[2, 2])]), Proof::Mixed);
        let equal: (bool, &[u32]) = (true, &[1, 1]);
        assert_eq!(proof(&[equal; 8]), Proof::Few);
        assert_eq!(proof(&[equal, (false, &[1, 1])]), Proof::Mixed);
    }
}
