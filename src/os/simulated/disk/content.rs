//! What a simulated disk has: what is durable, and what is only written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::names::{Names, Renamed, apply, directory_of};
use crate::os::fs::About;
use crate::os::reached::reached;
use crate::os::simulated::since_epoch;

/// The unit of a write that is interrupted.
pub(super) const BLOCK_BYTES: usize = 4096;

/// A power cut keeps or loses a sector of what is not synced as a whole.
pub(super) const SECTOR_BYTES: usize = 512;

/// What fails. Each number is that of operations of which one fails; 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Writes, in part or whole.
    pub(crate) writes: u32,
    /// Whether the next write fails, and no other by this.
    pub(crate) one_write: bool,
    /// Syncs: what was not durable is lost in part, though it still reads as if it were there.
    pub(crate) syncs: u32,
    /// Opening and allocating, and whatever makes or removes a name.
    pub(crate) names: u32,
    /// Reads.
    pub(crate) reads: u32,
    /// Whether nothing can be made or become longer.
    pub(crate) is_full: bool,
}

/// A change of a file that is not durable.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    pub(super) durable: Vec<u8>,
    pub(super) present: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
    pub(super) unreadable: BTreeSet<usize>,
    /// When it was last changed, since 1970.
    pub(super) modified: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(u64),
}

/// A file that was removed, with what it had.
#[derive(Debug, Clone)]
pub(crate) struct Removed {
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) files: BTreeMap<u64, FileState>,
    pub(super) names: Names,
    pub(super) durable: Names,
    pub(super) unsynced: Vec<Renamed>,
    /// Which open file of which process has locked a file.
    pub(super) locks: BTreeMap<u64, (u32, u64)>,
    pub(super) dead: BTreeSet<u32>,
    pub(super) in_flight: BTreeMap<u32, (u64, usize, Vec<u8>)>,
    pub(super) removed: Vec<Removed>,
    pub(super) faults: Faults,
    pub(super) next: u64,
    pub(super) random: fastrand::Rng,
}

impl State {
    pub(super) fn chance(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.random.u32(0..one_in) == 0
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn rename(&mut self, change: Renamed) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }

    pub(super) fn sync_names(&mut self, directory: &str) {
        let changes = std::mem::take(&mut self.unsynced);
        for change in changes {
            if change
                .iter()
                .any(|(name, _)| directory_of(name) == directory)
            {
                apply(&mut self.durable, &change);
            } else {
                self.unsynced.push(change);
            }
        }
    }

    /// Keeps any part of what is not durable: names in the order of the changes of each, sectors in any order.
    pub(super) fn cut_power(&mut self) {
        let mut lost = BTreeSet::new();
        for change in std::mem::take(&mut self.unsynced) {
            let is_kept = !change.iter().any(|(name, _)| lost.contains(name)) && self.chance(2);
            if is_kept {
                reached("disk: a power cut keeps a name that is not synced");
                apply(&mut self.durable, &change);
            } else {
                reached("disk: a power cut loses a name that is not synced");
                lost.extend(change.into_iter().map(|(name, _)| name));
            }
        }
        // A directory is before what is in it.
        let mut present = BTreeSet::from([String::new()]);
        self.durable.retain(|name, _| {
            let is_kept = present.contains(directory_of(name));
            if is_kept {
                present.insert(name.clone());
            }
            is_kept
        });
        self.names = self.durable.clone();
        for (_, (file, offset, bytes)) in std::mem::take(&mut self.in_flight) {
            reached("disk: a write is interrupted by a power cut");
            self.tear(file, offset, &bytes);
        }
        let files: Vec<u64> = self.files.keys().copied().collect();
        for file in files {
            let changes = self
                .files
                .get_mut(&file)
                .map(|file| std::mem::take(&mut file.unsynced));
            for change in changes.into_iter().flatten() {
                self.keep_part(file, change);
            }
            if let Some(file) = self.files.get_mut(&file) {
                file.present = file.durable.clone();
            }
        }
        self.locks.clear();
    }

    pub(super) fn keep_part(&mut self, file: u64, change: Change) {
        match change {
            Change::Length(length) => {
                if self.chance(2)
                    && let Some(file) = self.files.get_mut(&file)
                {
                    reached("disk: a length that is not synced is kept");
                    file.durable.resize(length, 0);
                }
            }
            Change::Write(offset, bytes) => {
                for (offset, sector) in pieces(offset, &bytes, SECTOR_BYTES) {
                    if self.chance(2)
                        && let Some(file) = self.files.get_mut(&file)
                    {
                        reached("disk: a sector that is not synced is kept");
                        put(&mut file.durable, offset, sector);
                    } else {
                        reached("disk: a sector that is not synced is lost");
                    }
                }
            }
        }
    }

    /// A write of blocks that was interrupted: each has its old content, the new one, sectors of both, or any other.
    pub(super) fn tear(&mut self, file: u64, offset: usize, bytes: &[u8]) {
        for (offset, block) in pieces(offset, bytes, BLOCK_BYTES) {
            let mut content = block.to_vec();
            match self.random.u32(0..5) {
                0 => {
                    reached("disk: a torn block keeps its old content");
                    continue;
                }
                1 => {
                    reached("disk: a torn block is garbage");
                    self.random.fill(&mut content);
                }
                2 => {
                    reached("disk: a torn block is garbage in part");
                    let kept = self.random.usize(0..content.len());
                    self.random.fill(&mut content[kept..]);
                }
                3 => {
                    reached("disk: a torn block has some of its sectors");
                    for (offset, sector) in pieces(offset, block, SECTOR_BYTES) {
                        if self.chance(2) {
                            self.put(file, offset, sector);
                        }
                    }
                    continue;
                }
                _ => reached("disk: a torn block is whole"),
            }
            self.put(file, offset, &content);
        }
    }

    /// Changes what a file reads as, for good.
    fn put(&mut self, file: u64, offset: usize, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(&file) {
            put(&mut file.durable, offset, bytes);
            put(&mut file.present, offset, bytes);
        }
    }
}

/// A write as the pieces of `bytes` bytes that it touches.
pub(super) fn pieces(offset: usize, bytes: &[u8], size: usize) -> Vec<(usize, &[u8])> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + size - (offset + at) % size);
        all.push((offset + at, &bytes[at..end]));
        at = end;
    }
    all
}

pub(super) fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn about(state: &State, file: Option<u64>) -> About {
    About {
        length: file.map_or(0, |file| state.files[&file].present.len() as u64),
        identity: (0, file.unwrap_or(0)),
        owner: (0, 0),
        modified: file.map(|file| UNIX_EPOCH + state.files[&file].modified),
    }
}

/// Changes what a file reads as, until it is synced not for good.
pub(super) fn change(state: &mut State, file: u64, change: Change) {
    let file = state.files.get_mut(&file).unwrap();
    file.modified = since_epoch().unwrap_or_default();
    match &change {
        Change::Write(offset, bytes) => put(&mut file.present, *offset, bytes),
        Change::Length(length) => file.present.resize(*length, 0),
    }
    file.unsynced.push(change);
}
