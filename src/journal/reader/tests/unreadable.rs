//! Blocks that the disk does not read.

use super::*;
use crate::os::fs::File;
use std::ops::Range;

/// Real files, of which these bytes cannot be read.
#[derive(Clone)]
struct BadDisk(Range<u64>);

struct BadFile(File, Range<u64>);

impl Storage for BadDisk {
    type File = BadFile;

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        Disk.make_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Disk.sync_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<BadFile> {
        Disk.create(path).map(|file| BadFile(file, self.0.clone()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn open(&self, path: &Path) -> io::Result<BadFile> {
        Disk.open(path).map(|file| BadFile(file, self.0.clone()))
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        Disk.names(path)
    }
}

impl StorageFile for BadFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        StorageFile::write_at(&self.0, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset < self.1.end && self.1.start < offset + bytes.len() as u64 {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        StorageFile::read_at(&self.0, bytes, offset)
    }
}

#[test]
fn a_block_that_is_not_read_is_damage_of_that_block() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    // 39 records in a block, the first in block 2.
    write_lane_on(Disk, directory.path(), lane, 100, 1 << 16, "name");
    let reader =
        |bad: Range<u64>| LaneReader::new(BadDisk(bad), directory.path(), lane, Position(0));
    // A later attempt may succeed.
    let (values, fault) = read_on(&mut reader(9000..9001)).unwrap_err();
    assert!(
        values.is_empty() && matches!(fault, ReadError::Io { .. }),
        "{fault}"
    );
    let mut passing = reader(9000..9001).pass_unreadable();
    let (values, damages, torn_bytes) = read_on(&mut passing).unwrap();
    assert_eq!(values, (117..300).collect::<Vec<_>>());
    assert_eq!(
        (damages[0].from, damages[0].to),
        (Position(0), Position(117))
    );
    assert_eq!((damages.len(), torn_bytes), (1, 0));
    assert!(passing.has_passed_unreadable());
    // The head has a block of its own.
    let mut passing = reader(0..1).pass_unreadable();
    let (values, damages, _) = read_on(&mut passing).unwrap();
    assert_eq!(values, (0..300).collect::<Vec<_>>());
    assert_eq!(damages[0].to.since(damages[0].from), 0);
    // No block at all, except such as are in the page cache: then the disk may be away, and no event is given up.
    for bad in [0..u64::MAX / 2, 4096..u64::MAX / 2] {
        let mut passing = reader(bad).pass_unreadable();
        assert!(matches!(
            read_on(&mut passing),
            Err((_, ReadError::Io { .. }))
        ));
    }
}

#[test]
fn where_blocks_after_the_last_record_are_not_read_the_end_is_not_known() {
    let (directory, lane) = (tempfile::tempdir().unwrap(), LaneId::random().unwrap());
    write_lane_on(Disk, directory.path(), lane, 101, 1 << 16, "name");
    // The last record is in one of them: the third block of records, and the spare block. The other was never written.
    for bad in [16_384, 5_000, 30_000] {
        let disk = BadDisk(bad..bad + 1);
        let reader = LaneReader::new(disk, directory.path(), lane, Position(0));
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
    let on = |disk: BadDisk| LaneReader::new(disk, directory.path(), lane, Position(0));
    let mut first = on(BadDisk(16_384..16_385)).pass_unreadable();
    read_on(&mut first).unwrap_err();
    let mut second = on(BadDisk(16_384..16_385)).pass_again(first.into_unreadable());
    let (_, fault) = read_on(&mut second).unwrap_err();
    assert!(matches!(fault, ReadError::UnknownEnd { .. }), "{fault}");
    let mut third = on(BadDisk(0..0)).pass_again(second.into_unreadable());
    let (values, damages, torn_bytes) = read_on(&mut third).unwrap();
    assert_eq!((values.len(), damages.len(), torn_bytes), (303, 0, 0));
    assert!(!third.has_passed_unreadable());
    // The end is known: then so is what is missing before it.
    fs::write(directory.path().join("end"), format!("{:020}\n", 303)).unwrap();
    let disk = BadDisk(5_000..16_385);
    let reader = LaneReader::new(disk, directory.path(), lane, Position(0));
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
    fs::write(directory.path().join("end"), "nine").unwrap();
    let mut reader = LaneReader::new(Disk, directory.path(), lane, Position(0));
    let (values, fault) = read_on(&mut reader).unwrap_err();
    assert!(values.is_empty() && matches!(fault, ReadError::EndFile { .. }));
    reader.ignore_end_file();
    assert_eq!(read_on(&mut reader).unwrap().0, (0..9).collect::<Vec<_>>());
}
