//! A batch of events. A shard fills and seals it, a writer stores it, then the shard uses it again.

use std::ops::Range;
use std::time::Instant;

use crate::event::event_id::{EVENT_ID_BYTES_MAX, EventId};
use crate::event::rule::NAME_BYTES_MAX;
use crate::event::{Event, UnixMillis};

/// Most bytes of names and ids in one batch. Keeps the statements of a batch below the 16 MiB at which a
/// MySQL packet is split, and below the 4 MiB `max_allowed_packet` of old servers.
pub const BATCH_NAME_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!(NAME_BYTES_MAX + EVENT_ID_BYTES_MAX <= BATCH_NAME_BYTES_MAX);
const _: () = assert!(BATCH_NAME_BYTES_MAX < 1 << ID_BYTES_SHIFT);
const _: () = assert!(EVENT_ID_BYTES_MAX < 1 << (u32::BITS - ID_BYTES_SHIFT));

/// How many events a batch holds when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEvents(u32);

impl BatchEvents {
    /// The accepted values.
    pub const RANGE: std::ops::RangeInclusive<u32> = 1..=100_000;

    /// `None` outside [`Self::RANGE`].
    pub fn new(events: u32) -> Option<Self> {
        Self::RANGE.contains(&events).then_some(Self(events))
    }

    /// As a `usize`.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// One event without its text: its name, and its id if it has one. The text starts in the arena where the previous one
/// ends.
#[derive(Debug, Clone, Copy)]
struct EventSlot {
    received_at: UnixMillis,
    value: u32,
    /// Where the text ends, and from the bit [`ID_BYTES_SHIFT`] on how many of its bytes are the id. 0: it has none.
    text: u32,
}

const ID_BYTES_SHIFT: u32 = 24;

impl EventSlot {
    fn text_end(self) -> usize {
        (self.text & ((1 << ID_BYTES_SHIFT) - 1)) as usize
    }

    fn id_bytes(self) -> usize {
        (self.text >> ID_BYTES_SHIFT) as usize
    }
}

/// Events in the order of their arrival: a vector of fixed-size slots and one arena for all names and ids.
///
/// The slots are allocated once. The arena grows as the traffic needs and keeps its size when the batch
/// is used again, so that in the steady state an event allocates nothing.
#[derive(Debug)]
pub struct Batch {
    slots: Vec<EventSlot>,
    names: String,
    events_max: BatchEvents,
    opened_at: Option<Instant>,
}

impl Batch {
    /// An empty batch with room for `events_max` events.
    pub fn new(events_max: BatchEvents) -> Self {
        Self {
            slots: Vec::with_capacity(events_max.get()),
            names: String::new(),
            events_max,
            opened_at: None,
        }
    }

    /// Most memory of a batch of `events_max`, in bytes.
    pub fn bytes_max(events_max: BatchEvents) -> usize {
        events_max.get() * size_of::<EventSlot>() + BATCH_NAME_BYTES_MAX.next_power_of_two()
    }

    /// Appends an event. Fails if the batch is full, by count or by bytes of names and ids.
    pub fn push(&mut self, event: Event<'_>) -> Result<(), BatchFull> {
        let id = event.id.map_or("", EventId::as_str);
        let text_end = self.names.len() + event.name.len() + id.len();
        if self.slots.len() >= self.events_max.get() || text_end > BATCH_NAME_BYTES_MAX {
            return Err(BatchFull);
        }
        if self.slots.is_empty() {
            self.opened_at = Some(crate::os::clock::now());
        }
        if text_end > self.names.capacity() {
            // The capacity is a power of two, so that `bytes_max` is exact.
            self.names
                .reserve_exact(text_end.next_power_of_two() - self.names.len());
        }
        self.names.push_str(event.name);
        if !id.is_empty() {
            self.names.push_str(id);
        }
        self.slots.push(EventSlot {
            received_at: event.received_at,
            value: event.value,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "at most BATCH_NAME_BYTES_MAX and EVENT_ID_BYTES_MAX"
            )]
            text: text_end as u32 | (id.len() as u32) << ID_BYTES_SHIFT,
        });
        Ok(())
    }

    /// Whether it is full by count.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.events_max.get()
    }

    /// When its oldest event was appended. `None` if it is empty.
    pub fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of all names and ids.
    pub fn name_bytes(&self) -> usize {
        self.names.len()
    }

    /// When its oldest event was received.
    pub fn oldest_received_at(&self) -> Option<UnixMillis> {
        self.slots.first().map(|slot| slot.received_at)
    }

    /// The event at `index`, which must be less than [`Self::len`].
    pub fn event(&self, index: usize) -> Event<'_> {
        let slot = self.slots[index];
        let name_end = slot.text_end() - slot.id_bytes();
        Event {
            name: &self.names[self.text_end_before(index)..name_end],
            value: slot.value,
            received_at: slot.received_at,
            id: match slot.id_bytes() {
                0 => None,
                // It was an id when it was pushed.
                _ => EventId::new(&self.names[name_end..slot.text_end()]).ok(),
            },
        }
    }

    /// How many of a range of events have an id.
    pub fn ids_of(&self, events: Range<usize>) -> usize {
        let slots = self.slots[events].iter();
        slots.filter(|slot| slot.id_bytes() > 0).count()
    }

    /// All events, oldest first.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        (0..self.len()).map(|index| self.event(index))
    }

    /// Bytes of the names and ids of a range of events, which must lie within the batch.
    pub fn name_bytes_of(&self, events: Range<usize>) -> usize {
        self.text_end_before(events.end) - self.text_end_before(events.start)
    }

    /// Where the name of the event at `index` starts.
    fn text_end_before(&self, index: usize) -> usize {
        index
            .checked_sub(1)
            .map_or(0, |before| self.slots[before].text_end())
    }

    /// Keeps the first `events` events and removes the others.
    pub fn truncate(&mut self, events: usize) {
        if events < self.slots.len() {
            self.names.truncate(self.text_end_before(events));
            self.slots.truncate(events);
            if events == 0 {
                self.opened_at = None;
            }
        }
    }

    /// An empty batch with the same bounds and no memory. In a drain it takes the place of a shard's last batch;
    /// no event is added to it.
    pub fn without_memory(&self) -> Self {
        Self {
            slots: Vec::new(),
            names: String::new(),
            events_max: self.events_max,
            opened_at: None,
        }
    }

    /// Removes all events and keeps the memory.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.names.clear();
        self.opened_at = None;
    }
}

/// The event was not appended: the batch is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchFull;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, value: u32) -> Event<'_> {
        Event {
            name,
            value,
            received_at: UnixMillis(u64::from(value)),
            id: None,
        }
    }

    #[test]
    fn returns_what_was_pushed_in_order() {
        let mut batch = Batch::new(BatchEvents(3));
        for (name, value) in [("open", 0), ("購入", 120), ("x", 960)] {
            assert_eq!(batch.push(event(name, value)), Ok(()));
        }
        let stored: Vec<_> = batch
            .events()
            .map(|event| (event.name, event.value))
            .collect();
        assert_eq!(stored, [("open", 0), ("購入", 120), ("x", 960)]);
        assert!(batch.is_full());
        assert_eq!(batch.push(event("more", 1)), Err(BatchFull));
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn an_event_keeps_its_id() {
        assert_eq!(size_of::<EventSlot>(), 16);
        let mut batch = Batch::new(BatchEvents(4));
        let longest = "x".repeat(EVENT_ID_BYTES_MAX);
        let with_id = |name, id| Event {
            id: Some(EventId::new(id).unwrap()),
            ..event(name, 1)
        };
        let events = [
            with_id("open", "a"),
            event("購入", 2),
            with_id("", &longest),
            with_id("open", " "),
        ];
        for event in events {
            assert_eq!(batch.push(event), Ok(()));
        }
        assert!(batch.events().eq(events));
        assert_eq!((batch.ids_of(0..4), batch.ids_of(1..2)), (3, 0));
        assert_eq!(batch.name_bytes_of(0..2), 5 + 6);
        batch.truncate(1);
        assert!(batch.events().eq([events[0]]));
    }

    #[test]
    fn is_full_by_bytes_before_it_is_full_by_count() {
        let mut batch = Batch::new(BatchEvents(100_000));
        let name = "n".repeat(NAME_BYTES_MAX);
        let id = "i".repeat(EVENT_ID_BYTES_MAX);
        let event = |name, value| Event {
            id: EventId::new(&id).ok(),
            ..event(name, value)
        };
        let fits = BATCH_NAME_BYTES_MAX / (NAME_BYTES_MAX + EVENT_ID_BYTES_MAX);
        for _ in 0..fits {
            assert_eq!(batch.push(event(&name, 1)), Ok(()));
        }
        assert_eq!(batch.push(event(&name, 1)), Err(BatchFull));
        assert_eq!(batch.len(), fits);
        assert!(batch.names.capacity() <= BATCH_NAME_BYTES_MAX.next_power_of_two());
    }

    #[test]
    fn is_empty_and_usable_after_clear() {
        let mut batch = Batch::new(BatchEvents(2));
        assert_eq!(batch.push(event("first", 1)), Ok(()));
        batch.clear();
        assert!(batch.is_empty() && batch.opened_at().is_none());
        assert_eq!(batch.push(event("second", 2)), Ok(()));
        assert_eq!(batch.event(0), event("second", 2));
    }
}
