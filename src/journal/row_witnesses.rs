//! Rows that a lane's events are known to have become: the file `rows` beside its segments.
//!
//! They tell a database that was restored from one whose checkpoint was altered or removed: after a restore the rows
//! are gone too. The file is not synced and may be a second old.

use std::io;
use std::path::Path;

use crate::event::position::Position;
use crate::os::fs;

/// The file's name in the directory of its lane.
const NAME: &str = "rows";

/// Under this name it is written before it takes the other's place.
const NEW_NAME: &str = "rows.new";

/// Most rows that are kept of a lane.
const KEPT_MAX: usize = 64;

/// The last rows are kept one by one. Earlier ones are thinned.
const LAST: usize = 16;

/// A row and its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowWitness {
    /// The position of the event.
    pub position: Position,
    /// Where the transaction moved the checkpoint.
    pub end: Position,
    /// The `id` of the row.
    pub row: u64,
}

/// Rows of a lane, in the order of their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowWitnesses(Vec<RowWitness>);

impl RowWitnesses {
    /// Notes a row of the transaction that was committed last.
    pub fn push(&mut self, witness: RowWitness) {
        if self.0.len() == KEPT_MAX {
            let mut index = 0;
            self.0.retain(|_| {
                index += 1;
                index % 2 == 1 || index > KEPT_MAX - LAST
            });
        }
        self.0.push(witness);
    }

    /// Notes that a transaction has moved the checkpoint from `first` to `end` without a row.
    pub fn extend(&mut self, first: Position, end: Position) {
        if let Some(last) = self.0.last_mut().filter(|last| last.end == first) {
            last.end = end;
        }
    }

    /// Forgets the rows of events from `position` on.
    pub fn truncate(&mut self, position: Position) {
        self.0.retain(|witness| witness.position < position);
    }

    /// Up to `count` rows of events from `from` up to `to`, spread over what is known, with the first and the last.
    pub fn spread(&self, from: Position, to: Position, count: usize) -> Vec<RowWitness> {
        let range = from..to;
        let within = self
            .0
            .iter()
            .filter(|known| range.contains(&known.position));
        let within: Vec<_> = within.copied().collect();
        spread(within.len(), count)
            .map(|index| within[index])
            .collect()
    }

    /// The last row of an event before `position`.
    pub fn last_before(&self, position: Position) -> Option<RowWitness> {
        let mut known = self.0.iter().rev();
        known.find(|known| known.position < position).copied()
    }

    /// Whether no row is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the file beside the lane in `directory`. What cannot be read or understood is not known.
    pub fn read(directory: &Path) -> Self {
        let text = fs::read_to_string(&directory.join(NAME)).unwrap_or_default();
        Self(text.lines().map_while(RowWitness::parse).collect())
    }

    /// Writes the file. A crash leaves the one before or this one.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let line = |RowWitness { position, end, row }: &RowWitness| {
            format!("position {} end {} row {row}\n", position.0, end.0)
        };
        let text: String = self.0.iter().map(line).collect();
        fs::write(&directory.join(NEW_NAME), text.as_bytes())?;
        fs::rename(&directory.join(NEW_NAME), &directory.join(NAME))
    }
}

impl RowWitness {
    fn parse(line: &str) -> Option<Self> {
        let (position, rest) = line.strip_prefix("position ")?.split_once(" end ")?;
        let (end, row) = rest.split_once(" row ")?;
        Some(Self {
            position: Position(position.parse().ok()?),
            end: Position(end.parse().ok()?),
            row: row.parse().ok()?,
        })
    }
}

/// Up to `count` numbers below `length`, evenly spread, with the first and the last.
pub fn spread(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let last = length.saturating_sub(1);
    let count = count.min(length);
    (0..count).map(move |index| last * index / count.saturating_sub(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(position: u64) -> RowWitness {
        RowWitness {
            position: Position(position),
            end: Position(position + 1),
            row: position + 1000,
        }
    }

    #[test]
    fn rows_are_thinned_and_the_last_ones_are_kept() {
        let mut rows = RowWitnesses::default();
        for position in 0..10_000 {
            rows.push(witness(position));
            assert!(rows.0.len() <= KEPT_MAX);
        }
        let positions: Vec<_> = rows.0.iter().map(|known| known.position.0).collect();
        assert!(positions.is_sorted());
        assert_eq!(positions[0], 0);
        assert_eq!(
            positions[positions.len() - LAST..],
            (9984..10_000).collect::<Vec<_>>()
        );
        assert_eq!(rows.last_before(Position(9990)), Some(witness(9989)));
        rows.truncate(Position(9990));
        assert_eq!(rows.last_before(Position(20_000)), Some(witness(9989)));
        let directory = tempfile::tempdir().unwrap();
        rows.write(directory.path()).unwrap();
        assert_eq!(RowWitnesses::read(directory.path()), rows);
    }

    #[test]
    fn a_spread_has_the_first_and_the_last() {
        let of = |length, count| spread(length, count).collect::<Vec<_>>();
        assert!(of(0, 8).is_empty());
        assert_eq!(of(1, 8), [0]);
        assert_eq!(of(3, 8), [0, 1, 2]);
        assert_eq!(of(100, 3), [0, 49, 99]);
    }
}
