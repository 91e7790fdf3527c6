//! The bytes of the journal: segment heads, records and the events in them. No I/O.
//!
//! `docs/journal-format.md` describes the format for the authors of other readers.

use super::blocks::BLOCK_BYTES;
pub use super::event_bytes::{EVENT_BYTES_MAX, append_event, events, events_bytes_max};
use crate::event::position::{LaneId, Position};
use crate::os::bugs::{Bug, planted};

/// The number of a segment in its lane, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

/// A segment of a lane. Every head contains it, so that a block of another file, or of an earlier use of
/// the same block, is not taken for a record of this segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentId {
    /// The lane.
    pub lane: LaneId,
    /// The segment.
    pub number: SegmentNumber,
}

/// First bytes of a segment: the name of the format. The byte of the version follows.
const SEGMENT_MAGIC: [u8; 7] = *b"hakaruJ";

/// A version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatVersion {
    /// Records directly after the head and each other. Only read.
    One,
    /// The head, a spare block, and records in blocks. Only read.
    Two,
    /// The same, and events may have an id.
    Three,
}

impl FormatVersion {
    const fn byte(self) -> u8 {
        match self {
            Self::One => b'1',
            Self::Two => b'2',
            Self::Three => b'3',
        }
    }

    /// Offset of the first record.
    pub const fn first_record(self) -> u64 {
        match self {
            Self::One => SEGMENT_HEAD_BYTES as u64,
            Self::Two | Self::Three => FIRST_BLOCK,
        }
    }
}

/// Offset of the spare block: a second place for the last block of a segment.
pub const SPARE_BLOCK: u64 = BLOCK_BYTES as u64;

/// Offset of the first block with records.
pub const FIRST_BLOCK: u64 = SPARE_BLOCK + BLOCK_BYTES as u64;

/// First bytes of a record.
pub const RECORD_MAGIC: [u8; 4] = *b"hRec";

/// Bytes of a segment head.
pub const SEGMENT_HEAD_BYTES: usize = 48;

/// Bytes of a record head.
pub const RECORD_HEAD_BYTES: usize = 48;

/// Records start at multiples of this.
pub const RECORD_ALIGNMENT: usize = 8;

/// Most bytes of events in one record.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The head of a segment, as bytes.
pub fn segment_head(
    version: FormatVersion,
    id: SegmentId,
    start: Position,
) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[0..7].copy_from_slice(&SEGMENT_MAGIC);
    head[7] = version.byte();
    head[8..24].copy_from_slice(&id.lane.to_le_bytes());
    head[24..32].copy_from_slice(&id.number.0.to_le_bytes());
    head[32..40].copy_from_slice(&start.0.to_le_bytes());
    let crc = crc32c::crc32c(&head[..40]);
    head[40..44].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What is found at the place of a segment head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentHead {
    /// The head of this segment: the position of its first event, and its version.
    Whole(Position, FormatVersion),
    /// A head of another version of the format. What follows cannot be read.
    OtherVersion,
    /// No head of this segment: not yet written, torn or damaged.
    Unreadable,
}

/// Reads the head of the segment `id`.
pub fn read_segment_head(bytes: &[u8], id: SegmentId) -> SegmentHead {
    let version = match bytes.split_first_chunk() {
        // 0 is not a version: these bytes were not written yet.
        Some((&SEGMENT_MAGIC, [0, ..]) | (_, [])) | None => return SegmentHead::Unreadable,
        Some((&SEGMENT_MAGIC, [b'1', ..])) => FormatVersion::One,
        Some((&SEGMENT_MAGIC, [b'2', ..])) => FormatVersion::Two,
        Some((&SEGMENT_MAGIC, [b'3', ..])) => FormatVersion::Three,
        Some((&SEGMENT_MAGIC, _)) => return SegmentHead::OtherVersion,
        Some(_) => return SegmentHead::Unreadable,
    };
    let Some(head) = bytes.first_chunk::<SEGMENT_HEAD_BYTES>() else {
        return SegmentHead::Unreadable;
    };
    let start = Position(u64_at(head, 32));
    if segment_head(version, id, start) == *head {
        SegmentHead::Whole(start, version)
    } else {
        SegmentHead::Unreadable
    }
}

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// Position of its first event.
    pub position: Position,
    /// Number of its events, at least one.
    pub events: u32,
    /// Bytes of its events.
    pub payload_bytes: usize,
}

impl RecordHead {
    /// Bytes from its start to the start of the next record.
    pub fn stride(self) -> usize {
        (RECORD_HEAD_BYTES + self.payload_bytes).next_multiple_of(RECORD_ALIGNMENT)
    }

    /// The position after its last event.
    pub fn end(self) -> Position {
        self.position.plus(self.events as usize)
    }
}

/// Clears the buffer and begins a record. [`finish_record`] fills in the head.
pub fn begin_record(record: &mut Vec<u8>) {
    record.clear();
    record.resize(RECORD_HEAD_BYTES, 0);
}

/// Fills in the head of a record of `events` events and pads it to the alignment.
pub fn finish_record(record: &mut Vec<u8>, id: SegmentId, position: Position, events: u32) {
    let payload_bytes = record.len() - RECORD_HEAD_BYTES;
    debug_assert!(payload_bytes <= PAYLOAD_BYTES_MAX);
    record[0..4].copy_from_slice(&RECORD_MAGIC);
    #[expect(clippy::cast_possible_truncation, reason = "at most PAYLOAD_BYTES_MAX")]
    record[8..12].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    record[12..16].copy_from_slice(&events.to_le_bytes());
    record[16..32].copy_from_slice(&id.lane.to_le_bytes());
    record[32..40].copy_from_slice(&id.number.0.to_le_bytes());
    record[40..48].copy_from_slice(&position.0.to_le_bytes());
    let crc = crc32c::crc32c(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    record.resize(record.len().next_multiple_of(RECORD_ALIGNMENT), 0);
}

/// What is found where a record could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedRecord<'a> {
    /// A complete record of this segment.
    Record(RecordHead, &'a [u8]),
    /// Possibly the start of a record. It takes this many bytes to decide.
    Needs(usize),
    /// No record of this segment.
    Nothing,
}

/// Reads the record at the start of `bytes`, if there is one.
pub fn parse_record(bytes: &[u8], id: SegmentId) -> ParsedRecord<'_> {
    let Some(head) = bytes.first_chunk::<RECORD_HEAD_BYTES>() else {
        return ParsedRecord::Needs(RECORD_HEAD_BYTES);
    };
    let payload_bytes = u32_at(head, 8) as usize;
    let events = u32_at(head, 12);
    let is_of_segment = head[0..4] == RECORD_MAGIC
        && head[16..32] == id.lane.to_le_bytes()
        && (head[32..40] == id.number.0.to_le_bytes() || planted(Bug::OtherSegmentAccepted))
        && payload_bytes <= PAYLOAD_BYTES_MAX
        && events > 0;
    if !is_of_segment {
        return ParsedRecord::Nothing;
    }
    let end = RECORD_HEAD_BYTES + payload_bytes;
    let Some(record) = bytes.get(..end) else {
        return ParsedRecord::Needs(end);
    };
    if crc32c::crc32c(&record[8..]) != u32_at(head, 4) && !planted(Bug::ChecksumIgnored) {
        return ParsedRecord::Nothing;
    }
    let position = Position(u64_at(head, 40));
    ParsedRecord::Record(
        RecordHead {
            position,
            events,
            payload_bytes,
        },
        &record[RECORD_HEAD_BYTES..],
    )
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::event_id::EventId;
    use crate::event::{Event, UnixMillis};
    use crate::os::bugs::plant;
    use proptest::prelude::*;

    fn id(number: u64) -> SegmentId {
        SegmentId {
            lane: "00000000000000000000000000000007".parse().unwrap(),
            number: SegmentNumber(number),
        }
    }

    fn id_of(value: u32, name: &str) -> Option<EventId<'_>> {
        EventId::new(name).ok().filter(|_| value % 2 == 1)
    }

    /// Each second event has its name as its id, where that is one.
    fn record(names: &[String], position: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin_record(&mut bytes);
        for (value, name) in (0..).zip(names) {
            append_event(
                &mut bytes,
                Event {
                    name,
                    value,
                    received_at: UnixMillis(9),
                    id: id_of(value, name),
                },
            );
        }
        finish_record(
            &mut bytes,
            id(3),
            Position(position),
            u32::try_from(names.len()).unwrap(),
        );
        bytes
    }

    const VERSIONS: [FormatVersion; 3] =
        [FormatVersion::One, FormatVersion::Two, FormatVersion::Three];

    #[test]
    fn a_segment_head_is_valid_for_one_segment() {
        for version in VERSIONS {
            let head = segment_head(version, id(3), Position(12));
            let read = |head: &[u8]| read_segment_head(head, id(3));
            assert_eq!(read(&head), SegmentHead::Whole(Position(12), version));
            assert_eq!(read_segment_head(&head, id(4)), SegmentHead::Unreadable);
            for at in (0..44).filter(|&at| at != VERSION_AT) {
                let mut damaged = head;
                damaged[at] ^= 1;
                assert_eq!(read(&damaged), SegmentHead::Unreadable, "byte {at}");
            }
        }
    }

    /// Offset of the format version in a segment head.
    const VERSION_AT: usize = 7;

    #[test]
    fn a_head_of_another_version_differs_from_a_damaged_one() {
        let mut head = segment_head(FormatVersion::Three, id(3), Position(12));
        head[VERSION_AT] = b'4';
        assert_eq!(read_segment_head(&head, id(3)), SegmentHead::OtherVersion);
        // Another version may have a shorter head with other fields.
        assert_eq!(
            read_segment_head(&head[..=VERSION_AT], id(4)),
            SegmentHead::OtherVersion
        );
        // The checksum covers the version.
        for version in [b'1', 0] {
            head[VERSION_AT] = version;
            assert_eq!(read_segment_head(&head, id(3)), SegmentHead::Unreadable);
        }
        for bytes in [&b""[..], b"hakaruJ", b"hakaruJ1", &[0; 48]] {
            assert_eq!(read_segment_head(bytes, id(3)), SegmentHead::Unreadable);
        }
    }

    /// In a reused file, a block may hold a record of an earlier segment.
    #[test]
    fn a_record_of_another_segment_is_only_accepted_with_the_planted_bug() {
        let record = record(&["n".to_owned()], 5);
        assert_eq!(parse_record(&record, id(4)), ParsedRecord::Nothing);
        plant(Some(Bug::OtherSegmentAccepted));
        let is_accepted = matches!(parse_record(&record, id(4)), ParsedRecord::Record(..));
        plant(None);
        assert!(is_accepted);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_is_read(names in proptest::collection::vec("\\PC{1,40}", 1..20), position: u32) {
            let bytes = record(&names, u64::from(position));
            prop_assert_eq!(bytes.len() % RECORD_ALIGNMENT, 0);
            let ParsedRecord::Record(head, payload) = parse_record(&bytes, id(3)) else { panic!() };
            prop_assert_eq!((head.position, head.events as usize), (Position(position.into()), names.len()));
            prop_assert_eq!(head.stride(), bytes.len());
            let read: Vec<_> = events(payload).map(|event| (event.name, event.value, event.id)).collect();
            let written = names.iter().zip(0..).map(|(name, value)| (&name[..], value, id_of(value, name)));
            prop_assert_eq!(read, written.collect::<Vec<_>>());
            prop_assert_eq!(parse_record(&bytes, id(4)), ParsedRecord::Nothing);
        }

        #[test]
        fn every_changed_bit_is_detected(names in proptest::collection::vec("[a-z]{1,40}", 1..5), bit: usize) {
            let mut bytes = record(&names, 5);
            let ParsedRecord::Record(head, _) = parse_record(&bytes, id(3)) else { panic!() };
            let bit = bit % ((RECORD_HEAD_BYTES + head.payload_bytes) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(parse_record(&bytes, id(3)), ParsedRecord::Record(..)));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_record(&bytes, id(3));
            read_segment_head(&bytes, id(3));
            events(&bytes).for_each(drop);
        }
    }
}
