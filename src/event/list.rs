//! The events of one request, between the check of the last one and the first one's way into the journal.

use std::ops::Range;

use super::event_id::EventId;
use super::{Event, UnixMillis};

/// Most events of a request.
pub const LIST_EVENTS_MAX: usize = 10_000;

/// Where an event of a list is in its text.
#[derive(Debug, Clone, Copy)]
struct Slot {
    value: u32,
    name: Span,
    /// Empty if it has none.
    id: Span,
}

/// A part of the text of a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..(self.start + self.length) as usize
    }
}

/// Up to [`LIST_EVENTS_MAX`] events without the time of their arrival. It is filled anew for each request, and keeps its
/// memory.
#[derive(Debug, Default)]
pub struct EventList {
    text: String,
    slots: Vec<Slot>,
}

impl EventList {
    /// Most memory of a list whose text has at most `text_bytes`.
    pub fn bytes_max(text_bytes: usize) -> usize {
        text_bytes.next_power_of_two() + LIST_EVENTS_MAX.next_power_of_two() * size_of::<Slot>()
    }

    /// Removes all events.
    pub fn clear(&mut self) {
        self.text.clear();
        self.slots.clear();
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
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Whether another event may be added.
    pub fn has_room(&self) -> bool {
        self.slots.len() < LIST_EVENTS_MAX
    }

    /// Appends a text, which is not of an event yet.
    ///
    /// # Panics
    ///
    /// Where the text of the list comes to 4 GiB.
    pub fn add_text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        let end = start + text.len();
        if end > self.text.capacity() {
            // The capacity is a power of two, so that `bytes_max` is exact.
            self.text.reserve_exact(end.next_power_of_two() - start);
        }
        self.text.push_str(text);
        assert!(u32::try_from(self.text.len()).is_ok(), "a body is smaller");
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        Span {
            start: start as u32,
            length: text.len() as u32,
        }
    }

    /// A text that was added.
    pub fn text(&self, span: Span) -> &str {
        &self.text[span.range()]
    }

    /// Removes the text that was added since it had `bytes` bytes.
    pub fn truncate_text(&mut self, bytes: usize) {
        self.text.truncate(bytes);
    }

    /// Appends an event, by the texts of its name and of its id.
    pub fn push(&mut self, name: Span, value: u32, id: Option<Span>) {
        debug_assert!(self.has_room(), "more events than a list holds");
        self.slots.push(Slot {
            value,
            name,
            id: id.unwrap_or_default(),
        });
    }

    /// All events in their order, received at this time.
    pub fn events(&self, received_at: UnixMillis) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.slots.iter().map(move |slot| Event {
            name: self.text(slot.name),
            value: slot.value,
            received_at,
            id: EventId::new(self.text(slot.id)).ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_was_added() {
        let mut list = EventList::default();
        let id = list.add_text("id");
        let name = list.add_text("計");
        list.push(name, 7, Some(id));
        let kept = list.text_bytes();
        list.add_text("of an event that is left out");
        list.truncate_text(kept);
        let name = list.add_text("b");
        list.push(name, 8, None);
        let events: Vec<_> = list
            .events(UnixMillis(5))
            .map(|event| (event.name, event.value, event.id.map(EventId::as_str)))
            .collect();
        assert_eq!(events, [("計", 7, Some("id")), ("b", 8, None)]);
        list.clear();
        assert!(list.is_empty() && list.text_bytes() == 0);
    }
}
