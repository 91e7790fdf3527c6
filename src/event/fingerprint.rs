//! What tells the events before a position of a lane from those of another machine that has the same lane.

use super::Event;

/// Most events of a fingerprint.
const EVENTS_MAX: usize = 256;

/// 24 bits of the last events before a position, and how many these are: a power of two. Each event is its name, its value
/// and the millisecond in which it was received. Many of them differ also where all have the same name and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Never 0.
    crc: u32,
    /// The power.
    power: u32,
}

impl Fingerprint {
    /// How many events a fingerprint has where `available` come before a position. `None`: there are none.
    pub fn count_of(available: usize) -> Option<usize> {
        Some(1 << available.min(EVENTS_MAX).checked_ilog2()?)
    }

    /// The fingerprint of events, as many as [`Self::count_of`] says. How it is made never changes, since it is in databases.
    pub fn of<'a>(events: impl ExactSizeIterator<Item = Event<'a>>) -> Option<Self> {
        let power = events.len().checked_ilog2()?;
        let crc = events.fold(0, |crc, event| {
            let crc = crc32c::crc32c_append(crc, &event.received_at.0.to_le_bytes());
            let crc = crc32c::crc32c_append(crc, &event.value.to_le_bytes());
            crc32c::crc32c_append(crc, event.name.as_bytes())
        });
        let crc = (crc >> 8).max(1);
        Some(Self { crc, power })
    }

    /// How many events it is made of.
    pub fn events(self) -> usize {
        1 << self.power
    }

    /// The fingerprint with these bits. `None`: no fingerprint has them.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let (crc, power) = (bits >> 4, bits & 15);
        let is_one = (1..1 << 24).contains(&crc) && 1 << power <= EVENTS_MAX;
        is_one.then_some(Self { crc, power })
    }

    /// It as a number of 28 bits. Never 0.
    pub fn bits(self) -> u32 {
        self.crc << 4 | self.power
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::UnixMillis;

    fn event(name: &str, value: u32, millis: u64) -> Event<'_> {
        Event {
            name,
            value,
            received_at: UnixMillis(millis),
            id: None,
        }
    }

    fn of(events: &[Event<'_>]) -> u32 {
        Fingerprint::of(events.iter().copied()).unwrap().bits()
    }

    #[test]
    fn each_part_of_an_event_changes_it() {
        let known = of(&[event("view", 1, 1_700_000_000_000)]);
        assert_eq!(known, 106_314 << 4);
        assert_ne!(known, of(&[event("vieW", 1, 1_700_000_000_000)]));
        assert_ne!(known, of(&[event("view", 2, 1_700_000_000_000)]));
        assert_ne!(known, of(&[event("view", 1, 1_700_000_000_001)]));
        let [first, second] = [7, 8].map(|millis| event("view", 1, millis));
        assert_ne!(of(&[first, second]), of(&[second, second]));
    }

    #[test]
    fn it_knows_of_how_many_events_it_is() {
        let counts = [0, 1, 3, 4, 300, 100_000].map(Fingerprint::count_of);
        assert_eq!(
            counts,
            [None, Some(1), Some(2), Some(4), Some(256), Some(256)]
        );
        let four = Fingerprint::of([event("a", 1, 1); 4].into_iter()).unwrap();
        assert_eq!(four.events(), 4);
        assert_eq!(Fingerprint::from_bits(four.bits()), Some(four));
        let impossible = [0, 15, 1 << 4 | 9, 1 << 28];
        assert_eq!(impossible.map(Fingerprint::from_bits), [None; 4]);
    }
}
