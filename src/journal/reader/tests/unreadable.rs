//! Blocks that the disk does not read.

use super::*;
use crate::os::fs;
use crate::os::simulated::disk::Machine;
use crate::os::simulated::{Simulated, set_machine};
use std::ops::Range;

/// A lane on a disk of which blocks can be made unreadable.
struct BadDisk {
    machine: Machine,
    lane: LaneId,
    _simulated: Simulated,
}

impl BadDisk {
    /// With `records` records in one segment, 39 in a block, the first in block 2.
    fn with_lane(records: u32) -> Self {
        let simulated = Simulated::start(1);
        let machine = Machine::new(1);
        set_machine(Some(machine.clone()));
        let lane = LaneId::random().unwrap();
        write_lane_on(Path::new("data"), lane, records, 1 << 16, "name");
        Self {
            machine,
            lane,
            _simulated: simulated,
        }
    }

    /// A reader of the lane, of which the blocks with these bytes cannot be read.
    fn reader(&self, bad: Range<u64>) -> LaneReader {
        let directory = Path::new("data");
        self.machine.set_unreadable_bytes(&file(directory, 0), bad);
        LaneReader::new(directory, self.lane, Position(0))
    }
}

#[test]
fn a_block_that_is_not_read_is_damage_of_that_block() {
    let disk = BadDisk::with_lane(100);
    // A later attempt may succeed.
    let (values, fault) = read_on(&mut disk.reader(9000..9001)).unwrap_err();
    assert!(
        values.is_empty() && matches!(fault, ReadError::Io { .. }),
        "{fault}"
    );
    let mut passing = disk.reader(9000..9001).pass_unreadable();
    let (values, damages, torn_bytes) = read_on(&mut passing).unwrap();
    assert_eq!(values, (117..300).collect::<Vec<_>>());
    assert_eq!(
        (damages[0].from, damages[0].to),
        (Position(0), Position(117))
    );
    assert_eq!((damages.len(), torn_bytes), (1, 0));
    assert!(passing.has_passed_unreadable());
    // The head has a block of its own.
    let mut passing = disk.reader(0..1).pass_unreadable();
    let (values, damages, _) = read_on(&mut passing).unwrap();
    assert_eq!(values, (0..300).collect::<Vec<_>>());
    assert_eq!(damages[0].to.since(damages[0].from), 0);
    // No block at all, except such as are in the page cache: then the disk may be away, and no event is given up.
    for bad in [0..u64::MAX / 2, 4096..u64::MAX / 2] {
        let mut passing = disk.reader(bad).pass_unreadable();
        assert!(matches!(
            read_on(&mut passing),
            Err((_, ReadError::Io { .. }))
        ));
    }
}

#[test]
fn where_blocks_after_the_last_record_are_not_read_the_end_is_not_known() {
    let disk = BadDisk::with_lane(101);
    // The last record is in one of them: the third block of records, and the spare block. The other was never written.
    for bad in [16_384, 5_000, 30_000] {
        let reader = disk.reader(bad..bad + 1);
        let (values, fault) = read_on(&mut reader.pass_unreadable()).unwrap_err();
        assert!(
            values.len() >= 300
                && values
                    .iter()
                    .copied()
                    .eq(0..u32::try_from(values.len()).unwrap())
        );
        assert!(matches!(fault, ReadError::UnknownEnd { .. }), "{fault}");
    }
    // A later reader may pass what an earlier one has passed. Where the disk reads it again, the end is known.
    let mut first = disk.reader(16_384..16_385).pass_unreadable();
    read_on(&mut first).unwrap_err();
    let mut second = disk
        .reader(16_384..16_385)
        .pass_again(first.into_unreadable());
    let (_, fault) = read_on(&mut second).unwrap_err();
    assert!(matches!(fault, ReadError::UnknownEnd { .. }), "{fault}");
    let mut third = disk.reader(0..0).pass_again(second.into_unreadable());
    let (values, damages, torn_bytes) = read_on(&mut third).unwrap();
    assert_eq!((values.len(), damages.len(), torn_bytes), (303, 0, 0));
    assert!(!third.has_passed_unreadable());
    // The end is known: then so is what is missing before it.
    let end = format!("{:020}\n", 303);
    fs::write(Path::new("data/end"), end.as_bytes()).unwrap();
    let reader = disk.reader(5_000..16_385);
    let (values, damages, torn_bytes) = read_on(&mut reader.pass_unreadable()).unwrap();
    assert_eq!((values.len(), torn_bytes), (0, 0));
    assert_eq!(
        (damages[0].from, damages[0].to),
        (Position(0), Position(303))
    );
}

#[test]
fn a_file_end_that_says_nothing_is_an_error_until_it_is_ignored() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane(directory.path(), lane, 3);
    fs::write(&directory.path().join("end"), b"nine").unwrap();
    let mut reader = LaneReader::new(directory.path(), lane, Position(0));
    let (values, fault) = read_on(&mut reader).unwrap_err();
    assert!(values.is_empty() && matches!(fault, ReadError::EndFile { .. }));
    reader.ignore_end_file();
    assert_eq!(read_on(&mut reader).unwrap().0, (0..9).collect::<Vec<_>>());
}
