//! Where an event is: which lane, and how many events before it.

use std::io;

/// Names a lane. Drawn at random once; outlives the process that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u128);

impl LaneId {
    /// A new one, unlike any other: from the kernel's randomness, since a name that was used before
    /// would take the old lane's checkpoint for its own.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(u128::from_le_bytes(bytes)))
    }

    /// As the journal has it on disk.
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
#[error("a lane is named by 32 lower-case hexadecimal digits")]
pub struct NotALaneId;

/// Events since the lane began: the place of an event in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The first event of a lane.
    pub const START: Self = Self(0);

    /// So many events further on.
    pub fn plus(self, events: usize) -> Self {
        Self(self.0 + events as u64)
    }

    /// Events from `earlier` to here; none where it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_id_is_its_text() {
        let lane = LaneId::random().unwrap();
        assert_eq!(lane.to_string().parse(), Ok(lane));
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
