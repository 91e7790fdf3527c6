//! The position of an event: its lane, and the number of events before it in that lane.

use std::io;

use crate::os::random;

/// The id of a lane. Random; it stays the same when another process takes the lane over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u128);

impl LaneId {
    /// A new id, from the kernel's random numbers. It must be unique: a lane with the id of another one
    /// would continue from that lane's checkpoint.
    pub fn random() -> io::Result<Self> {
        random::bits().map(Self)
    }

    /// The id with every bit inverted. Under it a lane's key has the copy of its checkpoint; no other lane has it, as no
    /// two random ids are equal.
    pub fn complement(self) -> Self {
        Self(!self.0)
    }

    /// The key that a lane gets after this one. All copies of a lane get the same keys in the same order, and no key comes
    /// twice: a step of a linear congruential generator whose period is all numbers of 128 bits.
    pub fn next_key(self) -> Self {
        const FACTOR: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;
        const SUMMAND: u128 = 0x5851_F42D_4C95_7F2D_1405_7B7E_F767_814F;
        Self(self.0.wrapping_mul(FACTOR).wrapping_add(SUMMAND))
    }

    /// The bytes that the journal stores.
    pub fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

impl std::fmt::Display for LaneId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

impl std::str::FromStr for LaneId {
    type Err = NotALaneId;

    fn from_str(text: &str) -> Result<Self, NotALaneId> {
        let is_hex = text.len() == 32
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if is_hex {
            u128::from_str_radix(text, 16).ok()
        } else {
            None
        };
        number.map(Self).ok_or(NotALaneId)
    }
}

/// The text is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lane id is 32 lower-case hexadecimal digits")]
pub struct NotALaneId;

/// The position of an event in its lane: the number of events before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The position of the first event of a lane.
    pub const START: Self = Self(0);

    /// The position `events` later.
    pub fn plus(self, events: usize) -> Self {
        Self(self.0 + events as u64)
    }

    /// The number of events from `earlier` to here. 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_id_is_parsed_from_its_text_and_from_no_other() {
        let lane = LaneId::random().unwrap();
        assert_eq!(lane.to_string().parse(), Ok(lane));
        let zeros: LaneId = "0".repeat(32).parse().unwrap();
        assert_eq!(zeros.complement().to_string(), "f".repeat(32));
        assert_eq!(zeros.complement().complement(), zeros);
        for text in [
            "",
            "7",
            &"g".repeat(32),
            &"A".repeat(32),
            "+0000000000000000000000000000001",
        ] {
            assert_eq!(text.parse::<LaneId>(), Err(NotALaneId), "{text}");
        }
    }
}
