//! Lanes on a disk, cut and damaged on purpose.

mod live_disk;
mod power_cut;
mod spare_block;
mod unreadable;
mod version_1;
mod version_2;

use super::*;
use crate::event::batch::BatchEvents;
use crate::event::event_id::EventId;
use crate::event::{Event, UnixMillis};
use crate::journal::lane_writer::LaneWriter;
use crate::journal::record::{RECORD_ALIGNMENT, append_event, begin_record, segment_head};
use std::fs;
use std::os::unix::fs::FileExt;

/// Bytes of a segment: the head, the spare block and one block of records.
const SEGMENT: u64 = 3 * 4096;

/// What writes a lane, in each version of the format.
const WRITERS: [fn(&Path, LaneId, u32); 3] =
    [write_lane, version_1::write_lane, version_2::write_lane];

/// Bytes of a record of three events.
const STRIDE: usize = (RECORD_HEAD_BYTES + 3 * 18).next_multiple_of(RECORD_ALIGNMENT);

/// A lane of `records` records of three events each, whose values are their positions.
fn write_lane(directory: &Path, lane: LaneId, records: u32) {
    write_lane_on(directory, lane, records, SEGMENT, "name");
    // The segment that was made ahead.
    let last = segments(directory).unwrap().pop().unwrap();
    if segment_start(directory, lane, last).unwrap().is_none() {
        fs::remove_file(file(directory, last.0)).unwrap();
    }
}

fn write_lane_on(directory: &Path, lane: LaneId, records: u32, segment_bytes: u64, name: &str) {
    let mut written = LaneWriter::create(directory, lane, segment_bytes).unwrap();
    let mut record = Vec::new();
    for value in 0..records {
        begin_record(&mut record);
        append_three(&mut record, value, name);
        written = written.append(&mut record, 3).unwrap();
    }
}

/// The events of the record `number`.
fn append_three(record: &mut Vec<u8>, number: u32, name: &str) {
    for value in number * 3..number * 3 + 3 {
        let received_at = UnixMillis(1);
        append_event(
            record,
            Event {
                name,
                value,
                received_at,
                id: None,
            },
        );
    }
}

/// What was read up to the end: values, damages, and bytes of a torn end.
type Read = (Vec<u32>, Vec<Damage>, u64);

/// Everything from `start` on.
fn read_lane(directory: &Path, lane: LaneId, start: Position) -> Read {
    read_on(&mut LaneReader::new(directory, lane, start)).unwrap()
}

/// Everything from the position of a reader. On an error: the values before it.
fn read_on(reader: &mut LaneReader) -> Result<Read, (Vec<u32>, ReadError)> {
    let (mut values, mut damages) = (Vec::new(), Vec::new());
    loop {
        let mut batch = Batch::new(BatchEvents::new(7).unwrap());
        let filled = reader.fill(&mut batch, None);
        values.extend(batch.events().map(|event| event.value));
        match filled {
            Ok(Filled::More) => {}
            Ok(Filled::End { torn_bytes }) => return Ok((values, damages, torn_bytes)),
            Err(ReadError::Damage(damage)) => damages.push(damage),
            Err(fault) => return Err((values, fault)),
        }
    }
}

fn file(directory: &Path, number: u64) -> std::path::PathBuf {
    directory.join(segment_name(SegmentNumber(number)))
}

/// Overwrites bytes of a segment.
fn overwrite(directory: &Path, number: u64, offset: usize, bytes: &[u8]) {
    let mut options = fs::OpenOptions::new();
    let segment = options.write(true).open(file(directory, number)).unwrap();
    segment.write_all_at(bytes, offset as u64).unwrap();
}

fn start_of(directory: &Path, lane: LaneId, number: u64) -> u64 {
    let start = segment_start(directory, lane, SegmentNumber(number));
    start.unwrap().unwrap().0
}

#[test]
fn reads_from_any_position_over_many_segments() {
    for write in WRITERS {
        let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
        write(directory.path(), lane, 200);
        assert!(segments(directory.path()).unwrap().len() > 3);
        for start in [0, 1, 2, 3, 100, 299, 598, 599, 600] {
            let (values, damages, torn_bytes) =
                read_lane(directory.path(), lane, Position(start.into()));
            assert_eq!(values, (start..600).collect::<Vec<_>>());
            assert_eq!((damages, torn_bytes), (vec![], 0));
        }
    }
}

#[test]
fn ids_are_read_as_they_were_written() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    let mut written = LaneWriter::create(directory.path(), lane, SEGMENT).unwrap();
    let longest = "~".repeat(64);
    let ids = [Some("a"), None, Some(&longest[..]), Some(" ")];
    let event = |value: u32| Event {
        name: "name",
        value,
        received_at: UnixMillis(1),
        id: ids[value as usize % 4].map(|id| EventId::new(id).unwrap()),
    };
    let mut record = Vec::new();
    for value in (0..300).step_by(3) {
        begin_record(&mut record);
        (value..value + 3).for_each(|value| append_event(&mut record, event(value)));
        written = written.append(&mut record, 3).unwrap();
    }
    let mut batch = Batch::new(BatchEvents::new(1000).unwrap());
    let mut reader = LaneReader::new(directory.path(), lane, Position(1));
    assert!(matches!(
        reader.fill(&mut batch, None),
        Ok(Filled::End { torn_bytes: 0 })
    ));
    assert!(batch.events().eq((1..300).map(event)));
}

#[test]
fn stops_at_the_end_it_is_given() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 10);
    let mut reader = LaneReader::new(directory.path(), lane, Position(2));
    let mut batch = Batch::new(BatchEvents::new(100).unwrap());
    assert!(matches!(
        reader.fill(&mut batch, Some(Position(11))),
        Ok(Filled::More)
    ));
    assert_eq!(
        batch.events().map(|event| event.value).collect::<Vec<_>>(),
        (2..11).collect::<Vec<_>>()
    );
    // In the middle of a record: the rest of it is still there.
    assert_eq!(
        read_on(&mut reader).unwrap().0,
        (11..30).collect::<Vec<_>>()
    );
}

#[test]
fn a_missing_segment_is_reported() {
    let gone = |path: PathBuf| fs::remove_file(path).unwrap();
    // A name without a file, as if the file was removed after it was listed.
    let just_gone = |path: PathBuf| {
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", path).unwrap();
    };
    for remove in [gone as fn(PathBuf), just_gone] {
        let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
        write_lane(directory.path(), lane, 200);
        remove(file(directory.path(), 1));
        let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
        assert_eq!(damages.len(), 1);
        let lost = damages[0].to.since(damages[0].from);
        assert_eq!(values.len() as u64 + lost, 600);
        remove(file(directory.path(), 0));
        let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
        assert_eq!(damages[0].from, Position(0));
        assert_eq!(u64::from(values[0]), damages[0].to.0);
    }
}

#[test]
fn records_of_an_earlier_segment_in_the_same_blocks_are_ignored() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 200);
    // The blocks of an old segment under the name and head of the next one.
    let old = fs::read(file(directory.path(), 0)).unwrap();
    let last = segments(directory.path()).unwrap().pop().unwrap();
    let id = SegmentId {
        lane,
        number: SegmentNumber(last.0 + 1),
    };
    let mut new = old;
    let head = segment_head(FormatVersion::Three, id, Position(600));
    new[..head.len()].copy_from_slice(&head);
    fs::write(file(directory.path(), last.0 + 1), new).unwrap();
    let (values, damages, torn_bytes) = read_lane(directory.path(), lane, Position(0));
    assert_eq!((values.len(), damages), (600, vec![]));
    assert!(torn_bytes > 0);
}

#[test]
fn an_unreadable_head_in_the_middle_is_reported_once_and_hides_no_event() {
    for write in WRITERS {
        let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
        write(directory.path(), lane, 200);
        let (second, third) = (
            start_of(directory.path(), lane, 1),
            start_of(directory.path(), lane, 2),
        );
        overwrite(directory.path(), 1, 20, &[0xAA; 8]);
        for start in [0, second - 1, second, second + 1, third - 1] {
            let (values, damages, torn_bytes) = read_lane(directory.path(), lane, Position(start));
            let first = u32::try_from(start).unwrap();
            assert_eq!(values, (first..600).collect::<Vec<_>>());
            let at = Position(start.max(second));
            let expected = Damage {
                file: file(directory.path(), 1),
                offset: 0,
                from: at,
                to: at,
            };
            assert_eq!((damages, torn_bytes), (vec![expected.clone()], 0));
            let text = expected.to_string();
            assert!(
                text.ends_with("the segment's head is unreadable, no event is missing"),
                "{text}"
            );
        }
        let (values, damages, _) = read_lane(directory.path(), lane, Position(third));
        assert_eq!((values.len() as u64, damages), (600 - third, vec![]));
    }
}

#[test]
fn an_unreadable_head_of_the_only_or_the_last_segment_hides_no_event() {
    for records in [4, 200] {
        let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
        write_lane(directory.path(), lane, records);
        let last = segments(directory.path()).unwrap().pop().unwrap();
        let start = Position(start_of(directory.path(), lane, last.0));
        overwrite(directory.path(), last.0, 0, &[0; 48]);
        let (values, damages, torn_bytes) = read_lane(directory.path(), lane, Position(0));
        assert_eq!(values, (0..records * 3).collect::<Vec<_>>());
        assert_eq!((damages.len(), torn_bytes), (1, 0));
        assert_eq!((damages[0].from, damages[0].to), (start, start));
    }
}

/// With all records of its segment, or with those of a block of it.
#[test]
fn events_lost_with_a_head_are_reported() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 200);
    let start = start_of(directory.path(), lane, 1);
    let next = start_of(directory.path(), lane, 2);
    overwrite(directory.path(), 1, 0, &[0; 3 * 4096]);
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(values.len() as u64, 600 - (next - start));
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!((damages[0].from.0, damages[0].to.0), (start, next));
}

#[test]
fn begins_at_the_oldest_event_on_the_disk() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    let from_oldest = || {
        let mut reader = LaneReader::from_oldest(directory.path(), lane).unwrap();
        let first = reader.position().0;
        let (values, damages, _) = read_on(&mut reader).unwrap();
        (first, values.first().copied(), damages.len())
    };
    assert_eq!(from_oldest(), (0, None, 0));
    write_lane(directory.path(), lane, 200);
    let second = start_of(directory.path(), lane, 1);
    let value = u32::try_from(second).unwrap();
    assert_eq!(from_oldest(), (0, Some(0), 0));
    fs::remove_file(file(directory.path(), 0)).unwrap();
    assert_eq!(from_oldest(), (second, Some(value), 0));
    overwrite(directory.path(), 1, 20, &[0xAA; 8]);
    assert_eq!(from_oldest(), (second, Some(value), 1));
    // The first record, and its copy in the spare block.
    for block in [4096, 2 * 4096] {
        overwrite(directory.path(), 1, block + 60, &[0xAA; 8]);
    }
    assert_eq!(from_oldest(), (0, Some(value + 3), 1));
}

#[test]
fn a_last_segment_that_was_never_finished_is_the_end() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 200);
    let last = segments(directory.path()).unwrap().pop().unwrap().0;
    let number = SegmentNumber(last + 1);
    let head = segment_head(
        FormatVersion::Three,
        SegmentId { lane, number },
        Position(600),
    );
    let allocated = |head: &[u8]| [head, &[0; 4000]].concat();
    let unfinished = [
        vec![],
        allocated(&[]),
        allocated(&head[..16]),
        allocated(&[0xAA; 48]),
    ];
    for bytes in unfinished {
        fs::write(file(directory.path(), last + 1), &bytes).unwrap();
        let is_torn = bytes.iter().any(|&byte| byte != 0);
        for (start, expected) in [(0, (0..600).collect()), (600, vec![])] {
            let (values, damages, torn_bytes) = read_lane(directory.path(), lane, Position(start));
            assert_eq!((values, damages), (expected, vec![]));
            assert_eq!(torn_bytes > 0, is_torn);
        }
    }
}

#[test]
fn a_segment_of_another_version_is_never_passed() {
    for write in WRITERS {
        let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
        write(directory.path(), lane, 200);
        let last = segments(directory.path()).unwrap().pop().unwrap().0;
        for number in [last, 1, 0] {
            let start = start_of(directory.path(), lane, number);
            overwrite(directory.path(), number, 7, b"4");
            let mut reader = LaneReader::new(directory.path(), lane, Position(0));
            for expected in [start, 0] {
                let (values, fault) = read_on(&mut reader).unwrap_err();
                assert_eq!(values.len() as u64, expected);
                assert!(
                    matches!(&fault, ReadError::Version { file: named } if *named == file(directory.path(), number)),
                    "{fault}"
                );
            }
            assert_eq!(reader.position(), Position(start));
        }
    }
}
