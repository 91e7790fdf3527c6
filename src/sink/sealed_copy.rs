//! The copy of a checkpoint, by which an altered row of `hakaru_checkpoint` is known.
//!
//! Each checkpoint has a second row in the same table, whose `lane` is the complement of the key. Each transaction that
//! moves the checkpoint moves the copy too. The copy has the same position. Its epoch is a number of 64 bits: the epoch of
//! the checkpoint, and above it the tag, combined by exclusive or with `mix64` of the key and the position. The tag is the
//! [`Fingerprint`] of the last events before the position, with 4 bits that check it; or 0, where that is not known.
//!
//! So whoever alters one of the two rows, or both of them with the same statement, leaves two rows that do not fit
//! together. A restore moves both. This detects accidents: it is no secret, and where the checkpoint was removed and its
//! copy altered, about one altered copy in thirty passes.
//!
//! The fingerprint tells whether a checkpoint is about the events of one's own lane. Where a machine goes back to an earlier
//! state with its memory, it takes other events into a lane that is stored further already.

use super::{Begin, Checkpoint, Epoch};
use crate::event::fingerprint::Fingerprint;
use crate::event::position::{LaneId, Position};

/// A checkpoint that exists has an epoch below this. The epoch of a copy is below it only by chance.
pub(crate) const EPOCH_END: u64 = 1 << 32;

/// What a lane's rows in the table of checkpoints say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundCheckpoint {
    /// The checkpoint, of which this process is the owner now.
    pub checkpoint: Checkpoint,
    /// Its copy.
    pub copy: SealedCopy,
}

impl FoundCheckpoint {
    /// Whether the database has neither the checkpoint nor its copy: this process is the first owner.
    pub fn is_new(self) -> bool {
        self.checkpoint.epoch == Epoch::FIRST
    }

    /// Where the checkpoint was moved to last: one that was altered alone is put back to its copy.
    pub fn position(self) -> Position {
        match self.copy {
            SealedCopy::At { position, .. } => position,
            SealedCopy::Missing | SealedCopy::Altered => self.checkpoint.position,
        }
    }
}

/// What the copy of a checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedCopy {
    /// There is none, as in a lane that an older version has stored.
    Missing,
    /// It does not belong to the checkpoint. Somebody altered both, or an older version has taken the lane over.
    Altered,
    /// The checkpoint was moved to this position last.
    At {
        /// The position.
        position: Position,
        /// Which events are the last ones before it. `None`: that is not known.
        last: Option<Fingerprint>,
    },
}

/// What an adoption of a lane finds, and what it writes.
pub(crate) struct Adoption {
    /// What was found. The epoch is raised already.
    pub(crate) found: FoundCheckpoint,
    /// The copy to be written. `None`: the row stays as it is.
    pub(crate) copy: Option<Checkpoint>,
}

impl Adoption {
    /// Adopts a lane, given its row and that of its copy. Without a row, the checkpoint is that of `begin`.
    pub(crate) fn new(
        lane: LaneId,
        begin: Begin,
        row: Option<Checkpoint>,
        copy: Option<Checkpoint>,
    ) -> Self {
        let unsealed = copy.and_then(|copy| {
            let (epoch, last) = unseal(lane, copy)?;
            let is_authentic = row.is_none_or(|row| row.epoch == epoch);
            is_authentic.then_some((epoch, last))
        });
        let epoch = unsealed.map(|(epoch, _)| epoch);
        // Somebody may have set it to the greatest number.
        let next = |epoch: Epoch| match epoch.0 {
            last if last >= EPOCH_END - 1 => Epoch::FIRST,
            epoch => Epoch(epoch + 1),
        };
        let checkpoint = Checkpoint {
            epoch: next(row.map(|row| row.epoch).or(epoch).unwrap_or(Epoch(0))),
            position: row.map_or(begin.position, |row| row.position),
        };
        let sealed = match copy {
            Some(copy) => unsealed.map(|(_, last)| (copy.position, last)),
            // A lane without rows is new. One that has a row alone gets the other with its first step.
            None => row.is_none().then_some((begin.position, begin.last)),
        };
        Self {
            found: FoundCheckpoint {
                checkpoint,
                copy: match sealed {
                    Some((position, last)) => SealedCopy::At { position, last },
                    None if copy.is_none() => SealedCopy::Missing,
                    None => SealedCopy::Altered,
                },
            },
            copy: sealed.map(|(position, last)| {
                let epoch = checkpoint.epoch;
                seal(lane, Checkpoint { epoch, position }, last)
            }),
        }
    }
}

/// The copy of a checkpoint, as it is written. `last` are the last events before it.
pub(super) fn seal(lane: LaneId, checkpoint: Checkpoint, last: Option<Fingerprint>) -> Checkpoint {
    let Checkpoint { epoch, position } = checkpoint;
    let tag = last.map_or(0, |last| tag(epoch, last));
    let epoch = Epoch(epoch.0 ^ tag << 32 ^ mix64(lane, position));
    Checkpoint { epoch, position }
}

/// The epoch of the checkpoint to which a copy belongs, and which events are the last ones before it. `None`: somebody
/// altered the copy.
fn unseal(lane: LaneId, copy: Checkpoint) -> Option<(Epoch, Option<Fingerprint>)> {
    let number = copy.epoch.0 ^ mix64(lane, copy.position);
    let epoch = Epoch(number % EPOCH_END);
    let found = number / EPOCH_END;
    if found == 0 {
        return Some((epoch, None));
    }
    let last = Fingerprint::from_bits(u32::try_from(found >> 4).ok()?)?;
    (tag(epoch, last) == found).then_some((epoch, Some(last)))
}

/// A fingerprint, and below it 4 bits that check it and the epoch.
fn tag(epoch: Epoch, last: Fingerprint) -> u64 {
    let bits = u64::from(last.bits());
    bits << 4 | mix(bits << 32 ^ epoch.0) & 0xf
}

/// A number of 64 bits for a key and a position. It never changes, since it is in databases. Under one key two positions
/// never have the same number.
fn mix64(lane: LaneId, position: Position) -> u64 {
    let [mut high, mut low] = [[0; 8]; 2];
    let bytes = lane.to_le_bytes();
    low.copy_from_slice(&bytes[..8]);
    high.copy_from_slice(&bytes[8..]);
    let mixed = mix(u64::from_le_bytes(high) ^ 0x9e37_79b9_7f4a_7c15);
    let mixed = mix(mixed ^ u64::from_le_bytes(low));
    mix(mixed ^ position.0)
}

/// The last steps of SplitMix64: each bit of the result depends on each bit of `number`.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, position: u64) -> Checkpoint {
        Checkpoint {
            epoch: Epoch(epoch),
            position: Position(position),
        }
    }

    fn lane() -> LaneId {
        "00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn event(bits: u32) -> Option<Fingerprint> {
        Fingerprint::from_bits(bits)
    }

    fn moved(position: u64, bits: u32) -> SealedCopy {
        SealedCopy::At {
            position: Position(position),
            last: event(bits),
        }
    }

    fn adopt(row: Option<Checkpoint>, copy: Option<Checkpoint>) -> (Checkpoint, SealedCopy) {
        let Adoption {
            found,
            copy: written,
        } = Adoption::new(lane(), Position(7).into(), row, copy);
        let is_at = matches!(found.copy, SealedCopy::At { .. });
        assert_eq!(written.is_some(), is_at, "{found:?}");
        if let (Some(written), SealedCopy::At { position, last }) = (written, found.copy) {
            assert_eq!(written.position, position);
            assert_eq!(
                unseal(lane(), written),
                Some((found.checkpoint.epoch, last))
            );
        }
        (found.checkpoint, found.copy)
    }

    #[test]
    fn the_numbers_of_a_key_and_a_position_stay_as_they_are() {
        let numbers = [0, 1, u64::MAX].map(|position| mix64(lane(), Position(position)));
        let known = [
            0x5d21_a147_16c9_c7bd,
            0xb5d9_328f_40de_9725,
            0xe77d_3124_d063_50f8,
        ];
        assert_eq!(numbers, known);
        let other = "00112233445566778899aabbccddeefe".parse().unwrap();
        assert_ne!(mix64(other, Position(0)), numbers[0]);
        let tags = [0x10, 0x0abc_def8].map(|bits| tag(Epoch(3), event(bits).unwrap()));
        assert_eq!(tags, [0x0104, 0xabcd_ef86]);
    }

    #[test]
    fn a_copy_that_belongs_to_its_checkpoint_says_where_it_was_moved() {
        assert_eq!(adopt(None, None), (at(1, 7), moved(7, 0)));
        assert_eq!(
            adopt(Some(at(3, 20)), None),
            (at(4, 20), SealedCopy::Missing)
        );
        for bits in [0, 0x10, 0x0fff_fff8] {
            let copy = Some(seal(lane(), at(3, 20), event(bits)));
            let moved = moved(20, bits);
            assert_eq!(adopt(Some(at(3, 20)), copy), (at(4, 20), moved));
            // The row was altered, or is gone.
            assert_eq!(adopt(Some(at(3, 21)), copy), (at(4, 21), moved));
            assert_eq!(adopt(None, copy), (at(4, 7), moved));
        }
    }

    #[test]
    fn a_copy_that_does_not_belong_to_its_checkpoint_says_nothing() {
        for bits in [0, 0x0123_4567] {
            let copy = seal(lane(), at(3, 20), event(bits));
            let raised = |by: u64| Some(at(3 + by, 20));
            for (row, copy) in [
                // An older version has taken the lane over.
                (raised(1), copy),
                // Both were altered.
                (Some(at(3, 21)), at(copy.epoch.0, 21)),
                (Some(at(3, 0)), at(copy.epoch.0, 0)),
                (raised(1), at(copy.epoch.0.wrapping_add(1), 20)),
                (Some(at(0, 7)), at(0, 7)),
                // The copy alone was altered.
                (raised(0), at(copy.epoch.0, 19)),
                (raised(0), at(copy.epoch.0 ^ 1, 20)),
                (raised(0), at(copy.epoch.0 ^ 1 << 40, 20)),
                (None, at(copy.epoch.0, 19)),
            ] {
                let (_, found) = adopt(row, Some(copy));
                assert_eq!(found, SealedCopy::Altered, "{row:?} {copy:?}");
            }
        }
    }
}
