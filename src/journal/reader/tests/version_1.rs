//! Lanes of version 1 of the format: records directly after the head and each other.

use super::*;
use crate::journal::record::finish_record;

/// Bytes of a segment.
const SEGMENT: usize = 4096;

/// A lane of `records` records of three events each, whose values are their positions.
pub(super) fn write_lane(directory: &Path, lane: LaneId, records: u32) {
    let mut segment = Vec::new();
    let mut number = SegmentNumber(0);
    for value in 0..records {
        if segment.len() + STRIDE > SEGMENT {
            finish_segment(directory, number, &mut segment);
            number.0 += 1;
        }
        let id = SegmentId { lane, number };
        let position = Position(u64::from(value) * 3);
        if segment.is_empty() {
            segment.extend(segment_head(FormatVersion::One, id, position));
        }
        let mut record = Vec::new();
        begin_record(&mut record);
        append_three(&mut record, value, "name");
        finish_record(&mut record, id, position, 3);
        segment.extend(record);
    }
    finish_segment(directory, number, &mut segment);
}

fn finish_segment(directory: &Path, number: SegmentNumber, segment: &mut Vec<u8>) {
    segment.resize(SEGMENT, 0);
    fs::write(file(directory, number.0), &segment).unwrap();
    segment.clear();
}

/// A lane of 100 records and three segments, written by the last release with that version.
#[test]
fn a_lane_of_an_earlier_release_is_read() {
    let journal = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-version-1");
    let lane = "0123456789abcdef0123456789abcdef";
    let directory = journal.join(lane);
    for start in [0, 1, 150, 299, 300] {
        let read = read_lane(&directory, lane.parse().unwrap(), Position(start.into()));
        assert_eq!(read, ((start..300).collect(), vec![], 0));
    }
}

#[test]
fn a_torn_tail_is_the_end() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 4);
    overwrite(directory.path(), 0, 48 + 3 * STRIDE + 60, &[0xAA; 20]);
    let (values, damages, torn_bytes) = read_lane(directory.path(), lane, Position(0));
    assert_eq!((values, damages), ((0..9).collect(), vec![]));
    assert!((20..=STRIDE as u64).contains(&torn_bytes), "{torn_bytes}");
}

#[test]
fn damage_before_a_later_record_is_reported_and_the_rest_is_read() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 200);
    overwrite(directory.path(), 0, 48 + 5 * STRIDE + 50, &[0xAA; 1]);
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(values, (0..15).chain(18..600).collect::<Vec<_>>());
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(
        (damages[0].from, damages[0].to),
        (Position(15), Position(18))
    );
}

#[test]
fn events_lost_with_a_head_are_reported() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 200);
    let start = start_of(directory.path(), lane, 1);
    let next = start_of(directory.path(), lane, 2);
    let lost = |damages: Vec<Damage>| -> Vec<_> {
        let positions = |damage: &Damage| (damage.from.0, damage.to.0);
        damages.iter().map(positions).collect()
    };
    // With the first two records.
    overwrite(directory.path(), 1, 0, &[0xAA; 48 + STRIDE + 60]);
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(
        (values.len(), lost(damages)),
        (594, vec![(start, start + 6)])
    );
    // With all of them.
    overwrite(directory.path(), 1, 0, &vec![0; 4096]);
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(values.len() as u64, 600 - (next - start));
    assert_eq!(lost(damages), [(start, next)]);
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
    overwrite(directory.path(), 1, 60, &[0xAA; 8]);
    assert_eq!(from_oldest(), (0, Some(value + 3), 1));
}

/// Also if the damaged block is the one with the head.
#[test]
fn nothing_that_is_left_of_a_long_segment_is_skipped() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    let id = SegmentId {
        lane,
        number: SegmentNumber(0),
    };
    let mut segment = segment_head(FormatVersion::One, id, Position(0)).to_vec();
    for value in 0..200 {
        let mut record = Vec::new();
        begin_record(&mut record);
        append_three(&mut record, value, "name");
        finish_record(&mut record, id, Position(u64::from(value) * 3), 3);
        segment.extend(record);
    }
    fs::write(file(directory.path(), 0), &segment).unwrap();
    let records = |bytes: usize| u32::try_from(bytes.saturating_sub(48) / STRIDE).unwrap();
    for block in 0..segment.len() / 4096 {
        let (start, end) = (block * 4096, (block + 1) * 4096);
        overwrite(directory.path(), 0, start, &[0xAA; 4096]);
        let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
        // Those that are in the block with any byte.
        let (first, next) = (records(start) * 3, records(end + STRIDE - 1) * 3);
        let left: Vec<_> = (0..first).chain(next..600).collect();
        assert_eq!((values, damages.len()), (left, 1), "block {block}");
        overwrite(directory.path(), 0, 0, &segment);
    }
}
