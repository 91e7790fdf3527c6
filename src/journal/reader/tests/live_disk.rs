//! A lane that is read while it is written.

use super::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// A disk on which a lane is written while it is read. The writer's steps are held back and become visible
/// twice: some at the start, more at one call of the reader.
#[derive(Clone, Default)]
struct LiveDisk(Arc<Mutex<Live>>);

#[derive(Clone, Default)]
struct Live {
    files: BTreeMap<PathBuf, Vec<u8>>,
    hidden: VecDeque<Step>,
    calls: usize,
    /// The call at which more steps become visible, and their number.
    burst: (usize, usize),
}

/// A step of the writer: bytes that appear at an offset of a file.
#[derive(Clone)]
struct Step(PathBuf, usize, Vec<u8>);

impl Live {
    fn show(&mut self, steps: usize) {
        let steps = steps.min(self.hidden.len());
        for Step(path, offset, bytes) in self.hidden.drain(..steps) {
            let content = self.files.entry(path).or_default();
            content.resize(content.len().max(offset + bytes.len()), 0);
            content[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

impl LiveDisk {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap()
    }

    fn reader_calls(&self) -> MutexGuard<'_, Live> {
        let mut live = self.live();
        if live.calls == live.burst.0 {
            let steps = live.burst.1;
            live.show(steps);
        }
        live.calls += 1;
        live
    }
}

impl Storage for LiveDisk {
    type File = (LiveDisk, PathBuf);

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Self::File> {
        let file = (self.clone(), path.to_owned());
        file.write_at(&[], 0).map(|()| file)
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        let live = self.reader_calls();
        let is_there = live.files.contains_key(path);
        let file = is_there.then(|| (self.clone(), path.to_owned()));
        file.ok_or(io::ErrorKind::NotFound.into())
    }

    fn names(&self, _: &Path) -> io::Result<Vec<String>> {
        let live = self.reader_calls();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(live.files.keys().map(name).collect())
    }
}

impl StorageFile for (LiveDisk, PathBuf) {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        // A reader may see one half of a write.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let steps = [(offset, first), (offset + first.len(), second)];
        let steps = steps.map(|(offset, half)| Step(self.1.clone(), offset, half.to_vec()));
        self.0.live().hidden.extend(steps);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.write_at(&vec![0; usize::try_from(bytes).unwrap()], 0)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.live().files[&self.1].len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let live = self.0.reader_calls();
        let content = &live.files[&self.1];
        let start = usize::try_from(offset).unwrap().min(content.len());
        let length = bytes.len().min(content.len() - start);
        bytes[..length].copy_from_slice(&content[start..start + length]);
        Ok(length)
    }
}

/// Reads `written` at every moment: with any number of steps visible at the start, any number more at any
/// call of the reader, and then the rest. Expects these values and damages each time.
fn read_at_every_moment(written: &Live, lane: LaneId, values: &[u32], damages: &[(u64, u64)]) {
    let all = written.hidden.len();
    for (shown, steps) in
        (0..all).flat_map(|shown| (1..=all - shown).map(move |steps| (shown, steps)))
    {
        for call in 0.. {
            let mut live = written.clone();
            live.show(shown);
            live.burst = (call, steps);
            let disk = LiveDisk(Arc::new(Mutex::new(live)));
            let mut reader = LaneReader::new(disk.clone(), Path::new("lane"), lane, Position(0));
            let before = read_on(&mut reader).unwrap();
            let is_over = disk.live().calls <= call;
            disk.live().show(all);
            let after = read_on(&mut reader).unwrap();
            let moment = format!("{steps} steps after {shown}, at call {call}");
            assert_eq!([before.0, after.0].concat(), values, "{moment}");
            let found = before.1.iter().chain(&after.1);
            let found: Vec<_> = found.map(|damage| (damage.from.0, damage.to.0)).collect();
            assert_eq!((found.as_slice(), after.2), (damages, 0), "{moment}");
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_lane_that_is_written_meanwhile_is_not_reported_as_damaged() {
    let lane = LaneId::random().unwrap();
    let disk = LiveDisk::default();
    // Three records in a block, two blocks in a segment, two segments.
    let (path, name) = (Path::new("lane"), "n".repeat(400));
    write_lane_on(disk.clone(), path, lane, 8, 4 * 4096, &name);
    let mut written = disk.live().clone();
    read_at_every_moment(&written, lane, &(0..24).collect::<Vec<_>>(), &[]);

    // With the first record damaged wherever it is written, only that one is reported.
    let first = path.join(segment_name(SegmentNumber(0)));
    for Step(_, _, bytes) in written.hidden.iter_mut().filter(|step| step.0 == first) {
        for start in (0..bytes.len()).step_by(RECORD_ALIGNMENT) {
            let record = &bytes[start..];
            let is_first = record
                .get(40..48)
                .is_some_and(|position| position == [0; 8]);
            if is_first && record.starts_with(b"hRec") {
                bytes[start + RECORD_HEAD_BYTES] ^= 1;
            }
        }
    }
    read_at_every_moment(&written, lane, &(3..24).collect::<Vec<_>>(), &[(0, 3)]);
}
