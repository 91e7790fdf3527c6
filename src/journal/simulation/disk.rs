//! A disk in memory that crashes after a given number of operations.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::journal::blocks::BLOCK_BYTES;
use crate::journal::storage::{Storage, StorageFile};

/// A crash keeps or loses a sector as a whole.
const SECTOR_BYTES: usize = 64;

/// What fails apart from the crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    /// Nothing.
    None,
    /// One operation in twenty.
    Some,
    /// From a random moment on, every operation that needs space.
    DiskFull,
}

/// A file: its durable bytes, the bytes that a read returns, and the writes that are not durable.
#[derive(Debug, Clone, Default)]
struct FileState {
    durable: Vec<u8>,
    present: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, FileState>,
    /// Names of directories and files, as they are now.
    names: BTreeMap<PathBuf, Option<u64>>,
    /// The names that a crash keeps for certain.
    durable_names: BTreeMap<PathBuf, Option<u64>>,
    operations_left: usize,
    is_full: bool,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    random: Arc<Mutex<fastrand::Rng>>,
    faults: Faults,
}

/// An open file of it.
#[derive(Debug)]
pub(super) struct SimulatedFile {
    disk: SimulatedDisk,
    number: u64,
}

impl SimulatedDisk {
    /// A disk with a directory `journal`. It crashes at the operation with the number `operations`.
    pub(super) fn new(seed: u64, operations: usize, faults: Faults) -> Self {
        let mut state = State {
            operations_left: operations,
            ..State::default()
        };
        state.names.insert("journal".into(), None);
        state.durable_names.insert("journal".into(), None);
        Self {
            state: Arc::new(Mutex::new(state)),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(!seed))),
            faults,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether the disk has crashed: every operation fails.
    pub(super) fn has_crashed(&self) -> bool {
        self.lock().operations_left == 0
    }

    /// Whether only a few operations are left.
    pub(super) fn is_about_to_crash(&self) -> bool {
        self.lock().operations_left < 4
    }

    fn chance(&self, one_in: u32) -> bool {
        self.random.lock().unwrap().u32(0..one_in) == 0
    }

    /// The content of a block whose write was torn: anything, whatever was in it before.
    fn garbage(&self) -> [u8; BLOCK_BYTES] {
        let mut garbage = [0; BLOCK_BYTES];
        self.random.lock().unwrap().fill(&mut garbage);
        garbage
    }

    /// Counts an operation, and fails if it is to fail.
    fn operation(&self, needs_room: bool) -> io::Result<()> {
        let mut state = self.lock();
        if state.operations_left <= 1 {
            state.operations_left = 0;
            return Err(io::Error::other("crash"));
        }
        state.operations_left -= 1;
        match self.faults {
            Faults::None => Ok(()),
            Faults::Some if self.chance(20) => Err(io::Error::other("injected")),
            Faults::Some => Ok(()),
            Faults::DiskFull => {
                state.is_full |= self.chance(30);
                if state.is_full && needs_room {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(())
            }
        }
    }

    /// The disk that a new process finds. It never fails.
    pub(super) fn after_crash(&self) -> Self {
        let state = self.lock();
        let mut names = state.durable_names.clone();
        for (name, file) in &state.names {
            if !names.contains_key(name) && self.chance(2) {
                names.insert(name.clone(), *file);
            }
        }
        // A name is lost together with its directory.
        let present: BTreeSet<PathBuf> = names.keys().cloned().collect();
        names.retain(|name, _| {
            name.parent()
                .is_none_or(|parent| parent == Path::new("") || present.contains(parent))
        });
        let mut files = state.files.clone();
        for file in files.values_mut() {
            let unsynced = std::mem::take(&mut file.unsynced);
            let mut sectors: Vec<(usize, Vec<u8>)> = unsynced
                .iter()
                .flat_map(|(offset, bytes)| split(*offset, bytes))
                .filter(|_| self.chance(2))
                .collect();
            self.random.lock().unwrap().shuffle(&mut sectors);
            for (offset, bytes) in sectors {
                put(&mut file.durable, offset, &bytes);
            }
            file.present = file.durable.clone();
        }
        let survivor = State {
            files,
            durable_names: names.clone(),
            names,
            operations_left: usize::MAX,
            is_full: false,
        };
        Self {
            state: Arc::new(Mutex::new(survivor)),
            random: Arc::clone(&self.random),
            faults: Faults::None,
        }
    }
}

/// A write as the sectors it touches.
fn split(offset: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes
            .len()
            .min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
        pieces.push((offset + at, bytes[at..end].to_vec()));
        at = end;
    }
    pieces
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Storage for SimulatedDisk {
    type File = SimulatedFile;

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.operation(true)?;
        self.lock().names.insert(path.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.operation(false)?;
        let mut state = self.lock();
        let inside: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(path))
            .map(|(name, file)| (name.clone(), *file))
            .collect();
        state.durable_names.extend(inside);
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<SimulatedFile> {
        self.operation(true)?;
        let mut state = self.lock();
        let number = state.files.len() as u64;
        state.files.insert(number, FileState::default());
        state.names.insert(path.to_owned(), Some(number));
        Ok(SimulatedFile {
            disk: self.clone(),
            number,
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation(false)?;
        self.lock().names.remove(path);
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<SimulatedFile> {
        match self.lock().names.get(path) {
            Some(Some(number)) => Ok(SimulatedFile {
                disk: self.clone(),
                number: *number,
            }),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state
            .names
            .keys()
            .filter(|name| name.parent() == Some(path));
        Ok(inside
            .map(|name| name.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }
}

impl StorageFile for SimulatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        assert_eq!((offset % BLOCK_BYTES, bytes.len() % BLOCK_BYTES), (0, 0));
        let failed = self.disk.operation(false);
        let crashed = self.disk.has_crashed();
        let mut state = self.disk.lock();
        let file = state.files.get_mut(&self.number).unwrap();
        put(&mut file.present, offset, bytes);
        for (offset, block) in (offset..)
            .step_by(BLOCK_BYTES)
            .zip(bytes.chunks(BLOCK_BYTES))
        {
            if failed.is_err() && self.disk.chance(3) {
                put(&mut file.durable, offset, &self.disk.garbage());
                continue;
            }
            for (offset, bytes) in split(offset, block) {
                // A failed write may be done in part. A crash may interrupt it.
                match &failed {
                    Ok(()) => put(&mut file.durable, offset, &bytes),
                    Err(_) if crashed => file.unsynced.push((offset, bytes)),
                    Err(_) if self.disk.chance(2) => put(&mut file.durable, offset, &bytes),
                    Err(_) => {}
                }
            }
        }
        failed
    }

    fn sync(&self) -> io::Result<()> {
        let failed = self.disk.operation(false);
        let mut state = self.disk.lock();
        let file = state.files.get_mut(&self.number).unwrap();
        let unsynced = std::mem::take(&mut file.unsynced);
        for (offset, bytes) in unsynced
            .iter()
            .flat_map(|(offset, bytes)| split(*offset, bytes))
        {
            // After a failed sync the kernel takes all pages for clean: what it has not written is lost.
            if failed.is_ok() || self.disk.chance(2) {
                put(&mut file.durable, offset, &bytes);
            }
        }
        failed
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.operation(true)?;
        let mut state = self.disk.lock();
        let file = state.files.get_mut(&self.number).unwrap();
        file.present.resize(usize::try_from(bytes).unwrap(), 0);
        let unsynced_length = file.present.len();
        file.unsynced.push((unsynced_length - 1, vec![0]));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[&self.number].present.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let content = &state.files[&self.number].present;
        let start = usize::try_from(offset).unwrap().min(content.len());
        let length = bytes.len().min(content.len() - start);
        bytes[..length].copy_from_slice(&content[start..start + length]);
        Ok(length)
    }
}
