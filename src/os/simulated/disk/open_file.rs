//! An open file of a simulated disk.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::content::{BLOCK_BYTES, Change, State, about, change, put};
use super::{Machine, Needs};
use crate::os::fs::{About, TryLockError};
use crate::os::reached::reached;
use crate::os::simulated::sleep;

/// How often it is asked for a lock that another one has.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// An open file of it.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(super) machine: Machine,
    pub(super) name: String,
    /// `None`: it is a directory.
    pub(super) file: Option<u64>,
    /// Its number among the open files.
    pub(super) number: u64,
    pub(super) is_durable: bool,
    /// Where the next read begins.
    pub(super) at: Mutex<usize>,
}

impl OpenFile {
    fn begin(&self, needs: Needs) -> io::Result<(MutexGuard<'_, State>, u64)> {
        let state = self.machine.begin(&self.name, needs)?;
        let file = self.file.ok_or(io::ErrorKind::IsADirectory)?;
        Ok((state, file))
    }

    pub(crate) fn about(&self) -> io::Result<About> {
        let state = self.machine.begin(&self.name, Needs::Read)?;
        Ok(about(&state, self.file))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        let failed = self.machine.begin(&self.name, Needs::Sync).map(drop);
        let mut state = self.machine.lock();
        if state.dead.contains(&self.machine.process) {
            return failed;
        }
        let Some(file) = self.file else {
            if failed.is_ok() {
                state.sync_names(&self.name);
            }
            return failed;
        };
        let changes = std::mem::take(&mut state.files.get_mut(&file).unwrap().unsynced);
        if failed.is_ok() {
            let file = state.files.get_mut(&file).unwrap();
            file.durable = file.present.clone();
        } else {
            // After a failed sync the kernel takes all pages for clean: what it has not written is lost.
            for change in changes {
                state.keep_part(file, change);
            }
        }
        failed
    }

    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        let (mut state, file) = self.begin(Needs::Name)?;
        change(
            &mut state,
            file,
            Change::Length(usize::try_from(length).unwrap()),
        );
        Ok(())
    }

    pub(crate) fn allocate(&self, bytes: u64) -> io::Result<()> {
        let (mut state, file) = self.begin(Needs::Space)?;
        let length = state.files[&file]
            .present
            .len()
            .max(usize::try_from(bytes).unwrap());
        change(&mut state, file, Change::Length(length));
        Ok(())
    }

    pub(crate) fn erase(&self, bytes: Range<u64>) -> io::Result<()> {
        let (mut state, file) = self.begin(Needs::Write)?;
        let length = state.files[&file].present.len();
        let range = usize::try_from(bytes.start).unwrap().min(length)
            ..usize::try_from(bytes.end).unwrap().min(length);
        let zeros = vec![0; range.len()];
        change(&mut state, file, Change::Write(range.start, zeros));
        Ok(())
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let end = offset + bytes.len();
        let file = self.file.ok_or(io::ErrorKind::IsADirectory)?;
        if !self.is_durable {
            let is_longer = self.machine.lock().files[&file].present.len() < end;
            let needs = if is_longer {
                Needs::Space
            } else {
                Needs::Write
            };
            let (mut state, file) = self.begin(needs)?;
            change(&mut state, file, Change::Write(offset, bytes.to_vec()));
            return Ok(());
        }
        assert_eq!((offset % BLOCK_BYTES, bytes.len() % BLOCK_BYTES), (0, 0));
        let process = self.machine.process;
        self.machine
            .lock()
            .in_flight
            .insert(process, (file, offset, bytes.to_vec()));
        let failed = self.machine.begin(&self.name, Needs::Write).map(drop);
        let mut state = self.machine.lock();
        if state.dead.contains(&process) {
            return failed;
        }
        state.in_flight.remove(&process);
        if failed.is_err() {
            // It may be done in part or whole.
            state.tear(file, offset, bytes);
            return failed;
        }
        let file = state.files.get_mut(&file).unwrap();
        put(&mut file.present, offset, bytes);
        put(&mut file.durable, offset, bytes);
        Ok(())
    }

    /// Writes at the end.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let (mut state, file) = self.begin(Needs::Space)?;
        let end = state.files[&file].present.len();
        change(&mut state, file, Change::Write(end, bytes.to_vec()));
        Ok(())
    }

    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let (state, file) = self.begin(Needs::Read)?;
        let offset = usize::try_from(offset).unwrap();
        let file = &state.files[&file];
        let end = file.present.len().min(offset + bytes.len());
        let Some(read) = file.present.get(offset..end) else {
            return Ok(0);
        };
        let blocks = offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        if file.unreadable.range(blocks).next().is_some() && !read.is_empty() {
            reached("disk: an unreadable block is read");
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        bytes[..read.len()].copy_from_slice(read);
        Ok(read.len())
    }

    /// Reads from where the last read ended.
    pub(crate) fn read_on(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut at = self.at.lock().unwrap();
        let read = self.read_at(bytes, *at as u64)?;
        *at += read;
        Ok(read)
    }

    pub(crate) fn try_lock(&self) -> Result<(), TryLockError> {
        let (mut state, file) = self.begin(Needs::Read).map_err(TryLockError::Error)?;
        let owner = *state
            .locks
            .entry(file)
            .or_insert((self.machine.process, self.number));
        if owner == (self.machine.process, self.number) {
            Ok(())
        } else {
            reached("disk: a lock is held by another");
            Err(TryLockError::WouldBlock)
        }
    }

    pub(crate) fn lock(&self) -> io::Result<()> {
        loop {
            match self.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(fault)) => return Err(fault),
                Err(TryLockError::WouldBlock) => sleep(LOCK_POLL),
            }
        }
    }

    pub(crate) fn unlock(&self) -> io::Result<()> {
        let own = (self.machine.process, self.number);
        self.machine.lock().locks.retain(|_, owner| *owner != own);
        Ok(())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let own = (self.machine.process, self.number);
        self.machine.lock().locks.retain(|_, owner| *owner != own);
    }
}
