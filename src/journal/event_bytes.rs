//! The bytes of an event in a record.

use crate::event::event_id::{EVENT_ID_BYTES_MAX, EventId};
use crate::event::rule::NAME_BYTES_MAX;
use crate::event::{Event, UnixMillis};
use crate::os::bugs::{Bug, planted};

/// Bytes of an event without its name and its id.
const EVENT_HEAD_BYTES: usize = 8 + 4 + 2;

/// Set in the length of a name: a byte with the length of the id, and the id, follow the name. No event of an earlier
/// version has it.
const HAS_ID: u16 = 1 << 15;

const _: () = assert!(NAME_BYTES_MAX < HAS_ID as usize && EVENT_ID_BYTES_MAX <= u8::MAX as usize);

/// Most bytes of one event.
pub const EVENT_BYTES_MAX: usize = EVENT_HEAD_BYTES + NAME_BYTES_MAX + 1 + EVENT_ID_BYTES_MAX;

/// Most bytes of so many events whose names and ids have `text_bytes` together.
pub const fn events_bytes_max(events: usize, text_bytes: usize) -> usize {
    // One byte tells the length of an id.
    events * (EVENT_HEAD_BYTES + 1) + text_bytes
}

/// Appends an event to a record.
pub fn append_event(record: &mut Vec<u8>, event: Event<'_>) {
    debug_assert!(
        event.name.len() <= NAME_BYTES_MAX,
        "names are checked before this"
    );
    #[expect(clippy::cast_possible_truncation, reason = "at most NAME_BYTES_MAX")]
    let name_bytes = event.name.len() as u16;
    let length = match event.id {
        Some(_) => name_bytes | HAS_ID,
        None => name_bytes,
    };
    let mut head = [0; EVENT_HEAD_BYTES];
    head[..8].copy_from_slice(&event.received_at.0.to_le_bytes());
    head[8..12].copy_from_slice(&event.value.to_le_bytes());
    head[12..].copy_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&head);
    record.extend_from_slice(event.name.as_bytes());
    if let Some(id) = event.id.map(EventId::as_str) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most EVENT_ID_BYTES_MAX"
        )]
        record.push(id.len() as u8);
        record.extend_from_slice(id.as_bytes());
    }
}

/// The events of a record, in order. Ends early if the bytes are not events. The checksum rules that out
/// for records from `record::parse_record`.
pub fn events(payload: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let head = rest.first_chunk::<EVENT_HEAD_BYTES>()?;
        let length = u16::from_le_bytes([head[12], head[13]]);
        let name_bytes = usize::from(length & !HAS_ID);
        let (name, mut after) = rest[EVENT_HEAD_BYTES..].split_at_checked(name_bytes)?;
        let mut id = None;
        if length & HAS_ID != 0 {
            let (id_bytes, following) = after.split_first()?;
            let (text, following) = following.split_at_checked(usize::from(*id_bytes))?;
            id = Some(EventId::new(std::str::from_utf8(text).ok()?).ok()?);
            after = following;
        }
        rest = after;
        Some(Event {
            name: std::str::from_utf8(name).ok()?,
            value: u32::from_le_bytes([head[8], head[9], head[10], head[11]]),
            received_at: UnixMillis(u64::from_le_bytes(*head.first_chunk()?)),
            id: id.filter(|_| !planted(Bug::IdNotReadBack)),
        })
    })
}
