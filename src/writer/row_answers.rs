//! What the rows of several events say about all events of a range.

use std::collections::BTreeSet;

use super::lane_event::LaneEvent;
use crate::event::position::Position;
use crate::os::reached::reached;

/// Least rows, all different, that prove events to be stored.
const DIFFERENT_MIN: usize = 3;

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

impl Proof {
    pub(super) fn counted(self) -> Self {
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

/// Which rows are there, and how many are not.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// What those have that are there and have no equal.
    different: BTreeSet<(u64, String, u32)>,
    there: usize,
    missing: usize,
    /// Whether the last one is there and has no equal.
    is_last_there: bool,
}

impl Answers {
    /// Adds an answer. They come in the order of the events.
    pub(super) fn add(&mut self, is_there: bool, event: &LaneEvent) {
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

    /// Whether any event has said something.
    pub(super) fn are_some(&self) -> bool {
        self.there + self.missing > 0
    }

    pub(super) fn proof(&self, end: Position) -> Proof {
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
    pub(super) fn proof_by_content(&self, end: Position) -> Proof {
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
            let event = Event {
                name: "view",
                value,
                received_at: UnixMillis(7_000),
                id: None,
            };
            batch.push(event).unwrap();
        }
        LaneEvent {
            events: batch,
            index: 0,
        }
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
