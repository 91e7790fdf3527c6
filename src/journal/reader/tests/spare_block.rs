//! The last block, which is written in turn to its own place and to the spare block.

use super::*;
use crate::journal::blocks::BLOCK_BYTES;

/// Records of three events in a block.
const BLOCK_RECORDS: u32 = 39;

/// A lane of `records` records, all in its first segment, and its directory.
fn lane_of(records: u32) -> (tempfile::TempDir, LaneId) {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane_on(directory.path(), lane, records, 1 << 16, "name");
    (directory, lane)
}

fn overwrite_block(directory: &Path, block: usize) {
    overwrite(directory, 0, block * BLOCK_BYTES, &[0xAA; BLOCK_BYTES]);
}

/// Whatever a torn write leaves in its blocks, everything before it is read, and the bytes are reported.
#[test]
fn a_torn_write_takes_no_earlier_record_with_it() {
    for records in 1..3 * BLOCK_RECORDS {
        let (directory, lane) = lane_of(records);
        let path = file(directory.path(), 0);
        let before = fs::read(&path).unwrap();
        // The last write of the same lane with one more record is where the two differ.
        let longer = tempfile::tempdir().unwrap();
        write_lane_on(longer.path(), lane, records + 1, 1 << 16, "name");
        let after = fs::read(file(longer.path(), 0)).unwrap();
        let blocks = before.chunks(BLOCK_BYTES).zip(after.chunks(BLOCK_BYTES));
        let written: Vec<_> = (0..)
            .zip(blocks)
            .filter(|(_, (before, after))| before != after)
            .collect();
        // The full block and the one after it.
        let most = if records % BLOCK_RECORDS == 0 { 2 } else { 1 };
        assert!(
            (1..=most).contains(&written.len()),
            "{records} records: {}",
            written.len()
        );
        for &(block, _) in &written {
            overwrite_block(directory.path(), block);
        }
        for start in [0, records * 3 / 2, records * 3] {
            let (values, damages, torn) = read_lane(directory.path(), lane, Position(start.into()));
            assert_eq!(
                values,
                (start..records * 3).collect::<Vec<_>>(),
                "{records} records"
            );
            assert_eq!(damages, []);
            assert!(
                torn > 0 && torn <= (written.len() * BLOCK_BYTES) as u64,
                "{torn}"
            );
        }
    }
}

/// A block that is damaged later takes the last record with it at most, unless it is full: then all of its
/// records, and they are reported.
#[test]
fn a_damaged_block_takes_only_what_is_in_no_other_block() {
    for records in 2 * BLOCK_RECORDS..3 * BLOCK_RECORDS {
        let (directory, lane) = lane_of(records);
        let whole = fs::read(file(directory.path(), 0)).unwrap();
        for block in 1..5 {
            overwrite_block(directory.path(), block);
            let (values, damages, torn_bytes) = read_lane(directory.path(), lane, Position(0));
            let lost = |damage: &Damage| damage.to.since(damage.from);
            let reported: u64 = damages.iter().map(lost).sum();
            let unknown = u64::from(records * 3) - values.len() as u64 - reported;
            let expected = match (block, records) {
                (2, _) => u64::from(BLOCK_RECORDS * 3),
                // All but the last record of the block are still in the spare block.
                (3, 79) => 3,
                (3, 80..) => u64::from(BLOCK_RECORDS * 3),
                _ => 0,
            };
            assert_eq!(reported, expected, "{records} records, block {block}");
            assert!(unknown <= 3, "{records} records, block {block}: {unknown}");
            assert!(
                unknown == 0 || torn_bytes > 0,
                "{records} records, block {block}"
            );
            overwrite(directory.path(), 0, 0, &whole);
        }
    }
}

/// In both places of the last block, as only two damaged blocks can be.
#[test]
fn a_damaged_record_before_later_ones_of_the_same_block_is_reported() {
    let (directory, lane) = lane_of(9);
    for block in [1, 2] {
        overwrite(
            directory.path(),
            0,
            block * BLOCK_BYTES + 4 * STRIDE + 50,
            &[0xAA; 1],
        );
    }
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    assert_eq!(values, (0..12).chain(15..27).collect::<Vec<_>>());
    let damages: Vec<_> = damages
        .iter()
        .map(|damage| (damage.from.0, damage.to.0))
        .collect();
    assert_eq!(damages, [(12, 15)]);
    // What is left in the spare block alone is read there.
    overwrite_block(directory.path(), 2);
    let (values, damages, _) = read_lane(directory.path(), lane, Position(0));
    let left = if values.contains(&24) { 27 } else { 24 };
    assert_eq!(values, (0..12).chain(15..left).collect::<Vec<_>>());
    assert_eq!(damages.len(), 1);
}

/// Neither the head nor the spare block says where the records begin.
#[test]
fn a_damaged_head_hides_no_event_whatever_the_spare_block_has() {
    for records in (1..3 * BLOCK_RECORDS).step_by(7) {
        let (directory, lane) = lane_of(records);
        overwrite_block(directory.path(), 0);
        for start in [0, records, records * 3 - 1] {
            let (values, damages, _) = read_lane(directory.path(), lane, Position(start.into()));
            assert_eq!(
                values,
                (start..records * 3).collect::<Vec<_>>(),
                "{records} records"
            );
            // The write of the only record may have been torn.
            assert_eq!(
                damages.len(),
                usize::from(records > 1 && start < records * 3 - 3)
            );
        }
        let reader = LaneReader::from_oldest(directory.path(), lane).unwrap();
        assert_eq!(reader.position(), Position(0));
    }
}
