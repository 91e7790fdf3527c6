//! What fails on a simulated disk, and what is damaged on it.

use std::ops::Range;
use std::path::Path;

use super::content::{BLOCK_BYTES, Entry, Faults, put};
use super::names::name_of;
use super::{Machine, is_segment};

/// The first block of a segment that has records and no copy.
const FIRST_DATA_BLOCK: usize = 2;

impl Machine {
    /// Sets what fails from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Whether nothing can be made on it.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().faults.is_full
    }

    /// Makes a block of a segment unreadable, or readable again. `false`: there is none.
    pub(crate) fn set_unreadable(&self, is_unreadable: bool) -> bool {
        let mut state = self.lock();
        if !is_unreadable {
            for file in state.files.values_mut() {
                file.unreadable.clear();
            }
            return true;
        }
        let segments: Vec<u64> = state
            .names
            .iter()
            .filter_map(|(name, entry)| match entry {
                Entry::File(file) if is_segment(name) => Some(*file),
                _ => None,
            })
            .collect();
        if segments.is_empty() {
            return false;
        }
        let file = segments[state.random.usize(0..segments.len())];
        let blocks = state.files[&file].present.len() / BLOCK_BYTES;
        let block = state.random.usize(0..blocks.max(1));
        let file = state.files.get_mut(&file).unwrap();
        file.unreadable.insert(block)
    }

    /// Replaces a block of a segment by garbage, after which a record begins: the last record of a lane that nobody has
    /// closed cannot be told from one that was never durable. `None`: there is no such segment.
    pub(crate) fn damage(&self, is_record: impl Fn(&[u8]) -> bool) -> Option<String> {
        let mut state = self.lock();
        // The last block in which a record begins.
        let blocks = |content: &[u8]| {
            let mut offsets = (0..content.len()).rev();
            let last = offsets.find(|&offset| is_record(&content[offset..]));
            last.map_or(0, |last| last / BLOCK_BYTES)
        };
        let known: Vec<(String, u64, usize)> = state
            .names
            .iter()
            .filter_map(|(name, entry)| match entry {
                Entry::File(file) if is_segment(name) => {
                    let last = blocks(&state.files[file].present);
                    (last > FIRST_DATA_BLOCK).then(|| (name.clone(), *file, last))
                }
                _ => None,
            })
            .collect();
        if known.is_empty() {
            return None;
        }
        let (name, file, last) = known[state.random.usize(0..known.len())].clone();
        // The first block has the head of the segment.
        let block = match state.random.u32(0..4) {
            0 => 0,
            _ => state.random.usize(FIRST_DATA_BLOCK..last),
        };
        let mut garbage = vec![0; BLOCK_BYTES];
        state.random.fill(&mut garbage);
        let file = state.files.get_mut(&file)?;
        put(&mut file.durable, block * BLOCK_BYTES, &garbage);
        put(&mut file.present, block * BLOCK_BYTES, &garbage);
        Some(format!("{name}: block {block} is damaged"))
    }

    /// Makes the blocks of a file unreadable that have these bytes, and all its others readable.
    pub(crate) fn set_unreadable_bytes(&self, path: &Path, bytes: Range<u64>) {
        let mut state = self.lock();
        let Some(Entry::File(file)) = state.names.get(name_of(path)).copied() else {
            panic!("{}: no file", path.display());
        };
        let file = state.files.get_mut(&file).unwrap();
        let block = BLOCK_BYTES as u64;
        let blocks = bytes.start / block..bytes.end.div_ceil(block);
        let all = 0..file.present.len().div_ceil(BLOCK_BYTES);
        file.unreadable = all
            .filter(|block| blocks.contains(&(*block as u64)))
            .collect();
    }
}
