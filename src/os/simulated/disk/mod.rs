//! The disk of a simulated machine. It forgets what is not synced when the power is cut, and fails as it is told to.

mod content;
mod damage;
mod names;
mod open_file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use self::content::{Change, Entry, FileState, State, about, change};
pub(crate) use self::content::{Faults, Removed};
use self::names::{Names, Renamed, below, directory_of, name_of};
pub(crate) use self::open_file::OpenFile;
use super::{Pause, pause, set_busy};
use crate::os::fs::{About, Use};
use crate::os::reached::reached;

/// A machine with one disk, as one process on it sees it. Clones are the same machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    state: Arc<Mutex<State>>,
    process: u32,
}

/// What an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Write,
    Sync,
    Name,
    Space,
    Read,
}

impl Needs {
    /// What its failure is counted as.
    const fn fault(self) -> &'static str {
        match self {
            Self::Write => "disk: a write fails",
            Self::Sync => "disk: a sync fails",
            Self::Name | Self::Space => "disk: a name or an allocation fails",
            Self::Read => "disk: a read fails",
        }
    }
}

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::ENOENT)
}

fn is_segment(name: &str) -> bool {
    name.ends_with(".segment")
}

/// How a test treats a machine.
impl Machine {
    /// A machine whose disk has an empty directory `data`.
    pub(crate) fn new(seed: u64) -> Self {
        let names = Names::from([("data".to_owned(), Entry::Directory)]);
        let state = State {
            files: BTreeMap::new(),
            durable: names.clone(),
            names,
            unsynced: Vec::new(),
            locks: BTreeMap::new(),
            dead: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            removed: Vec::new(),
            faults: Faults::default(),
            next: 0,
            random: fastrand::Rng::with_seed(seed),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            process: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The same machine, as this process sees it.
    pub(crate) fn process(&self, process: u32) -> Self {
        Self {
            state: Arc::clone(&self.state),
            process,
        }
    }

    /// A machine with a copy of the disk, as it reads at present. Nothing on it is locked.
    pub(crate) fn copy(&self, seed: u64) -> Self {
        let mut state = self.lock().clone();
        for file in state.files.values_mut() {
            file.durable = file.present.clone();
            file.unsynced.clear();
        }
        state.durable = state.names.clone();
        state.unsynced.clear();
        state.locks.clear();
        state.in_flight.clear();
        state.removed.clear();
        state.faults = Faults::default();
        state.random = fastrand::Rng::with_seed(seed);
        Self {
            state: Arc::new(Mutex::new(state)),
            process: 0,
        }
    }

    /// Gives the disk the content of another one.
    pub(crate) fn revert(&self, to: &Self) {
        let mut old = to.copy(self.lock().random.u64(..)).lock().clone();
        let mut state = self.lock();
        old.dead = state.dead.clone();
        old.next = state.next.max(old.next);
        *state = old;
    }

    /// Ends a process. What it has written stays; a write that it waits for is done in part or whole.
    pub(crate) fn kill(&self, process: u32) {
        let mut state = self.lock();
        state.dead.insert(process);
        state.locks.retain(|_, (owner, _)| *owner != process);
        if let Some((file, offset, bytes)) = state.in_flight.remove(&process) {
            reached("disk: a write is interrupted by a kill");
            state.tear(file, offset, &bytes);
        }
    }

    /// Ends the process that sees it.
    pub(crate) fn kill_own(&self) {
        self.kill(self.process);
    }

    /// Cuts the power. All its processes must have been killed right after.
    pub(crate) fn cut_power(&self) {
        self.lock().cut_power();
    }

    /// The files that were removed since this was last asked.
    pub(crate) fn take_removed(&self) -> Vec<Removed> {
        std::mem::take(&mut self.lock().removed)
    }

    /// The path and the content of each file, as they read at present.
    pub(crate) fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.lock();
        let files = state.names.iter().filter_map(|(name, entry)| match entry {
            Entry::File(file) => Some((PathBuf::from(name), state.files[file].present.clone())),
            Entry::Directory => None,
        });
        files.collect()
    }

    /// The content of each file with this name in any directory, as it reads at present.
    pub(crate) fn contents_of(&self, name: &str) -> Vec<Vec<u8>> {
        let state = self.lock();
        let named = |path: &str| path.strip_suffix(name).is_some_and(|at| at.ends_with('/'));
        let files = state.names.iter().filter_map(|(path, entry)| match entry {
            Entry::File(file) if named(path) => Some(state.files[file].present.clone()),
            _ => None,
        });
        files.collect()
    }
}

/// What the code under test does on it.
impl Machine {
    /// Lets the test act before an operation: the power may be cut, and where other threads may see the difference,
    /// they may run.
    fn begin(&self, name: &str, needs: Needs) -> io::Result<MutexGuard<'_, State>> {
        let is_lane = directory_of(name).ends_with("/journal");
        // Notes are written under locks, for which another thread of the process would wait for ever.
        let others_may_run = is_segment(name) && needs != Needs::Read
            || is_lane && matches!(needs, Needs::Name | Needs::Space);
        pause(if others_may_run {
            Pause::Step
        } else {
            Pause::Crash
        });
        set_busy();
        let mut state = self.lock();
        if state.dead.contains(&self.process) {
            return Err(io::Error::other("the process was killed"));
        }
        let faults = state.faults;
        let one_in = match needs {
            Needs::Write => faults.writes,
            Needs::Sync => faults.syncs,
            Needs::Name | Needs::Space => faults.names,
            Needs::Read => faults.reads,
        };
        let code = match needs {
            Needs::Space if faults.is_full => {
                reached("disk: no space");
                nix::libc::ENOSPC
            }
            Needs::Write if faults.one_write => {
                reached("disk: one write fails");
                state.faults.one_write = false;
                nix::libc::EIO
            }
            _ if state.chance(one_in) => {
                reached(needs.fault());
                nix::libc::EIO
            }
            _ => return Ok(state),
        };
        Err(io::Error::from_raw_os_error(code))
    }

    pub(crate) fn open(&self, path: &Path, purpose: Use) -> io::Result<OpenFile> {
        let name = name_of(path);
        let exists = self.lock().names.contains_key(name);
        let needs = match purpose {
            Use::Read | Use::Write | Use::WriteDurably { .. } => Needs::Read,
            Use::Keep | Use::Append | Use::Replace if exists => Needs::Read,
            Use::Keep | Use::Append | Use::Replace | Use::New => Needs::Space,
        };
        let mut state = self.begin(name, needs)?;
        let entry = match (state.names.get(name).copied(), purpose) {
            (Some(_), Use::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(entry), _) => entry,
            (None, Use::Read | Use::Write | Use::WriteDurably { .. }) => return Err(not_found()),
            (None, _) if !state.names.contains_key(directory_of(name)) => return Err(not_found()),
            (None, _) => {
                let file = state.number();
                state.files.insert(file, FileState::default());
                state.rename(vec![(name.to_owned(), Some(Entry::File(file)))]);
                Entry::File(file)
            }
        };
        let file = match entry {
            Entry::File(file) => Some(file),
            Entry::Directory => None,
        };
        if let (Some(file), Use::Replace) = (file, purpose) {
            change(&mut state, file, Change::Length(0));
        }
        let number = state.number();
        drop(state);
        Ok(OpenFile {
            machine: self.clone(),
            name: name.to_owned(),
            file,
            number,
            is_durable: matches!(purpose, Use::WriteDurably { .. }),
            at: Mutex::new(0),
        })
    }

    pub(crate) fn create_dir(&self, path: &Path) -> io::Result<()> {
        let name = name_of(path);
        let mut state = self.begin(name, Needs::Space)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.rename(vec![(name.to_owned(), Some(Entry::Directory))]);
        Ok(())
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let name = name_of(path);
        let mut state = self.begin(name, Needs::Name)?;
        let Some(Entry::File(file)) = state.names.get(name).copied() else {
            return Err(not_found());
        };
        let content = state.files[&file].present.clone();
        state.removed.push(Removed {
            path: path.to_owned(),
            content,
        });
        state.rename(vec![(name.to_owned(), None)]);
        Ok(())
    }

    pub(crate) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for name in self.names(path)? {
            let inside = path.join(name);
            if self.lock().names.get(name_of(&inside)) == Some(&Entry::Directory) {
                self.remove_dir_all(&inside)?;
            } else {
                self.remove_file(&inside)?;
            }
        }
        let mut state = self.begin(name_of(path), Needs::Name)?;
        state.rename(vec![(name_of(path).to_owned(), None)]);
        Ok(())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (name_of(from), name_of(to));
        let mut state = self.begin(from, Needs::Name)?;
        let Some(moved) = state.names.get(from).copied() else {
            return Err(not_found());
        };
        let mut change: Renamed = vec![(from.to_owned(), None), (to.to_owned(), Some(moved))];
        for (name, entry) in below(&state.names, from) {
            change.push((name.clone(), None));
            change.push((format!("{to}{}", &name[from.len()..]), Some(*entry)));
        }
        state.rename(change);
        Ok(())
    }

    pub(crate) fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let directory = name_of(path);
        let state = self.begin(directory, Needs::Read)?;
        if !state.names.contains_key(directory) {
            return Err(not_found());
        }
        let names = below(&state.names, directory).map(|(name, _)| &name[directory.len() + 1..]);
        let inside = names.filter(|name| !name.contains('/'));
        Ok(inside.map(str::to_owned).collect())
    }

    pub(crate) fn about(&self, path: &Path) -> io::Result<About> {
        let name = name_of(path);
        let state = self.begin(name, Needs::Read)?;
        match state.names.get(name) {
            Some(Entry::File(file)) => Ok(about(&state, Some(*file))),
            Some(Entry::Directory) => Ok(about(&state, None)),
            None => Err(not_found()),
        }
    }

    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let is_full = self.lock().faults.is_full;
        Ok(if is_full { 0 } else { u64::MAX })
    }
}
