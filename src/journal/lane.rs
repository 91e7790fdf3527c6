//! One ordered log: a directory of append-only segments, written by one owner.

use std::io;
use std::path::{Path, PathBuf};

use super::bugs::{Bug, planted};
use super::record::{
    LaneId, Position, SEGMENT_HEAD_BYTES, SegmentId, SegmentNumber, finish_record, segment_head,
};
use super::storage::{Storage, StorageFile};

/// Bytes of a segment. Taken at once, so that a sync while it fills changes no length.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// How the names of segments end.
const SEGMENT_SUFFIX: &str = ".segment";

/// The name of a segment in its lane's directory.
pub fn segment_name(number: SegmentNumber) -> String {
    format!("{:016x}{SEGMENT_SUFFIX}", number.0)
}

/// The segment that a name names.
pub fn parse_segment_name(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let number = SegmentNumber(u64::from_str_radix(digits, 16).ok()?);
    (segment_name(number) == name).then_some(number)
}

/// The segments of a lane, oldest first.
pub fn segments(storage: &impl Storage, directory: &Path) -> io::Result<Vec<SegmentNumber>> {
    let names = storage.names(directory)?;
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| parse_segment_name(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the directory of a new lane, and its name durable.
pub fn make_directory(storage: &impl Storage, journal: &Path, id: LaneId) -> io::Result<PathBuf> {
    let directory = journal.join(id.to_string());
    storage.make_dir(&directory)?;
    storage.sync_dir(journal)?;
    Ok(directory)
}

/// A lane that is written. After a failed operation it is gone: what a file holds after a failed
/// sync is not known, and must not be built on.
#[derive(Debug)]
pub struct Lane<S: Storage> {
    storage: S,
    directory: PathBuf,
    id: LaneId,
    segment: Segment<S::File>,
    segment_bytes: u64,
    position: Position,
}

/// The segment that records are appended to.
#[derive(Debug)]
struct Segment<F> {
    file: F,
    id: SegmentId,
    offset: u64,
}

impl<S: Storage> Lane<S> {
    /// Opens a new lane in the directory `directory`, which must be there and empty, or hold other
    /// files than segments.
    pub fn create(
        storage: S,
        directory: &Path,
        id: LaneId,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let number = SegmentNumber(0);
        let segment = new_segment(
            &storage,
            directory,
            SegmentId { lane: id, number },
            Position::START,
            segment_bytes,
        )?;
        let directory = directory.to_owned();
        Ok(Self {
            storage,
            directory,
            id,
            segment,
            segment_bytes,
            position: Position::START,
        })
    }

    /// Appends a record of `events` events and returns when it is on the disk.
    pub fn append(mut self, record: &mut Vec<u8>, events: u32) -> io::Result<Self> {
        let room = self.segment_bytes.saturating_sub(self.segment.offset);
        if (record.len() as u64).next_multiple_of(8) > room {
            let number = SegmentNumber(self.segment.id.number.0 + 1);
            let id = SegmentId {
                lane: self.id,
                number,
            };
            self.segment = new_segment(
                &self.storage,
                &self.directory,
                id,
                self.position,
                self.segment_bytes,
            )?;
        }
        finish_record(record, self.segment.id, self.position, events);
        self.segment.file.write_at(record, self.segment.offset)?;
        if !planted(Bug::AnswerBeforeSync) {
            self.segment.file.sync()?;
        }
        self.segment.offset += record.len() as u64;
        self.position = self.position.plus(events as usize);
        Ok(self)
    }

    /// The position of the next event.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// Takes room for a segment, or for less where the disk is small.
fn allocate(file: &impl StorageFile, bytes: u64) -> io::Result<()> {
    let mut taken = file.allocate(bytes);
    for smaller in [bytes / 4, bytes / 16] {
        match taken {
            Err(fault) if fault.kind() == io::ErrorKind::StorageFull => {
                taken = file.allocate(smaller);
            }
            outcome => return outcome,
        }
    }
    taken
}

/// Makes a segment whose room, head and name are durable.
fn new_segment<S: Storage>(
    storage: &S,
    directory: &Path,
    id: SegmentId,
    start: Position,
    bytes: u64,
) -> io::Result<Segment<S::File>> {
    let file = storage.create(&directory.join(segment_name(id.number)))?;
    allocate(&file, bytes)?;
    file.write_at(&segment_head(id, start), 0)?;
    file.sync()?;
    if !planted(Bug::DirectoryNotSynced) {
        storage.sync_dir(directory)?;
    }
    Ok(Segment {
        file,
        id,
        offset: SEGMENT_HEAD_BYTES as u64,
    })
}
