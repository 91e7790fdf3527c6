//! What tells one event from another at the same position of a lane.

use super::Event;

/// 24 bits of an event: its name, its value, and the millisecond in which it was received. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// That of an event. It never changes, since it is in databases.
    pub fn of(event: Event<'_>) -> Self {
        let crc = crc32c::crc32c(&event.received_at.0.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &event.value.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, event.name.as_bytes());
        Self((crc >> 8).max(1))
    }

    /// The one with these 24 bits. `None`: they are 0, or it has more.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (1..1 << 24).contains(&bits).then_some(Self(bits))
    }

    /// Its 24 bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::UnixMillis;

    #[test]
    fn each_part_of_an_event_changes_it() {
        let of = |name, value, millis| {
            let event = Event {
                name,
                value,
                received_at: UnixMillis(millis),
            };
            Fingerprint::of(event).bits()
        };
        let known = of("view", 1, 1_700_000_000_000);
        assert_eq!(known, 106_314);
        assert_ne!(known, of("vieW", 1, 1_700_000_000_000));
        assert_ne!(known, of("view", 2, 1_700_000_000_000));
        assert_ne!(known, of("view", 1, 1_700_000_000_001));
        assert_eq!(Fingerprint::from_bits(known), Some(Fingerprint(known)));
        assert_eq!(Fingerprint::from_bits(0), None);
        assert_eq!(Fingerprint::from_bits(1 << 24), None);
    }
}
