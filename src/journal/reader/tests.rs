//! Lanes on a real disk, cut and damaged on purpose.

use super::*;
use crate::batch::BatchEvents;
use crate::event::{Event, UnixMillis};
use crate::journal::lane::Lane;
use crate::journal::record::{append_event, begin_record};
use crate::journal::storage::Disk;
use std::fs;
use std::os::unix::fs::FileExt;

const SEGMENT: u64 = 4096;

/// A lane of `records` records of three events each, whose values are their positions.
fn write_lane(directory: &Path, lane: LaneId, records: u32) {
    let mut written = Lane::create(Disk, directory, lane, SEGMENT).unwrap();
    let mut record = Vec::new();
    for value in 0..records {
        begin_record(&mut record);
        for value in value * 3..value * 3 + 3 {
            append_event(
                &mut record,
                Event {
                    name: "name",
                    value,
                    received_at: UnixMillis(1),
                },
            );
        }
        written = written.append(&mut record, 3).unwrap();
    }
    assert_eq!(written.position(), Position(u64::from(records) * 3));
}

/// Everything from `start` on: values, damages, and how it ended.
fn read_lane(directory: &Path, lane: LaneId, start: Position) -> (Vec<u32>, Vec<Damage>, bool) {
    let mut reader = LaneReader::new(Disk, directory, lane, start);
    let (mut values, mut damages) = (Vec::new(), Vec::new());
    loop {
        let mut batch = Batch::new(BatchEvents::new(7).unwrap());
        let filled = reader.fill(&mut batch, None);
        values.extend(batch.events().map(|event| event.value));
        match filled {
            Ok(Filled::More) => {}
            Ok(Filled::End { is_torn }) => return (values, damages, is_torn),
            Err(ReadError::Damage(damage)) => damages.push(damage),
            Err(fault) => panic!("{fault}"),
        }
    }
}

fn file(directory: &Path, number: u64) -> std::path::PathBuf {
    directory.join(segment_name(SegmentNumber(number)))
}

#[test]
fn reads_from_any_position_over_many_segments() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random());
    write_lane(directory.path(), lane, 200);
    assert!(segments(&Disk, directory.path()).unwrap().len() > 3);
    for start in [0, 1, 2, 3, 100, 299, 598, 599, 600] {
        let (values, damages, is_torn) = read_lane(directory.path(), lane, Position(start.into()));
        assert_eq!(values, (start..600).collect::<Vec<_>>());
        assert_eq!((damages, is_torn), (vec![], false));
    }
}

#[test]
fn stops_at_the_end_it_is_given() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random());
    write_lane(directory.path(), lane, 10);
    let mut reader = LaneReader::new(Disk, directory.path(), lane, Position(2));
    let mut batch = Batch::new(BatchEvents::new(100).unwrap());
    assert!(matches!(
        reader.fill(&mut batch, Some(Position(11))),
        Ok(Filled::More)
    ));
    assert_eq!(
        batch.events().map(|event| event.value).collect::<Vec<_>>(),
        (2..11).collect::<Vec<_>>()
    );
}

#[test]
fn a_torn_tail_is_the_end() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random());
    write_lane(directory.path(), lane, 4);
    let last = fs::OpenOptions::new()
        .write(true)
        .open(file(directory.path(), 0))
        .unwrap();
    let stride = ((RECORD_HEAD_BYTES + 3 * 18) as u64).next_multiple_of(8);
    last.write_all_at(&[0xAA; 20], 48 + 3 * stride + 60)
        .unwrap();
    assert_eq!(
        read_lane(directory.path(), lane, Position(0)),
        ((0..9).collect(), vec![], true)
    );
}

#[test]
fn damage_before_a_later_record_is_said_and_the_rest_is_read() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random());
    write_lane(directory.path(), lane, 200);
    let first = fs::OpenOptions::new()
        .write(true)
        .open(file(directory.path(), 0))
        .unwrap();
    let stride = ((RECORD_HEAD_BYTES + 3 * 18) as u64).next_multiple_of(8);
    first
        .write_all_at(&[0xAA; 1], 48 + 5 * stride + 50)
        .unwrap();
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(values, (0..15).chain(18..600).collect::<Vec<_>>());
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(
        (damages[0].from, damages[0].to),
        (Position(15), Position(18))
    );
}

#[test]
fn a_missing_segment_is_said() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random());
    write_lane(directory.path(), lane, 200);
    fs::remove_file(file(directory.path(), 1)).unwrap();
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(damages.len(), 1);
    let lost = damages[0].to.since(damages[0].from);
    assert_eq!(values.len() as u64 + lost, 600);
    fs::remove_file(file(directory.path(), 0)).unwrap();
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(damages[0].from, Position(0));
    assert_eq!(u64::from(values[0]), damages[0].to.0);
}

#[test]
fn records_of_an_earlier_use_of_the_file_are_none() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random());
    write_lane(directory.path(), lane, 200);
    // The blocks of an old segment under the name and head of the next one.
    let old = fs::read(file(directory.path(), 0)).unwrap();
    let last = segments(&Disk, directory.path()).unwrap().pop().unwrap();
    let id = SegmentId {
        lane,
        number: SegmentNumber(last.0 + 1),
    };
    let mut new = old;
    let head = crate::journal::record::segment_head(id, Position(600));
    new[..head.len()].copy_from_slice(&head);
    fs::write(file(directory.path(), last.0 + 1), new).unwrap();
    let (values, damages, is_torn) = read_lane(directory.path(), lane, Position(0));
    assert_eq!((values.len(), damages, is_torn), (600, vec![], true));
}
