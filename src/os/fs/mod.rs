//! Files and directories. In tests, the disk of a simulation may take their place (`os/simulated/disk.rs`).
//!
//! The journal and the dead letters use no other files. Each function is that of `std::fs` with the same name, unless
//! it says otherwise.

use std::fs;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statvfs::statvfs;

pub use std::fs::TryLockError;

#[cfg(test)]
use super::simulated::{self, disk};

/// An open file.
#[derive(Debug)]
pub struct File(Inner);

#[derive(Debug)]
enum Inner {
    Real(fs::File),
    #[cfg(test)]
    Simulated(disk::OpenFile),
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It exists.
    Read,
    /// It exists.
    Write,
    /// It exists. Each write is durable when it returns.
    WriteDurably {
        /// Past the cache of the system (`O_DIRECT`).
        is_direct: bool,
    },
    /// It is made if it does not exist, and keeps what it has.
    Keep,
    /// It is made if it does not exist. Each write goes to its end.
    Append,
    /// It is made if it does not exist, and emptied.
    Replace,
    /// It does not exist.
    New,
}

/// What is known of a file without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Bytes.
    pub length: u64,
    /// The device and the number of the file on it: no two files have the same.
    pub identity: (u64, u64),
    /// User and group.
    pub owner: (u32, u32),
    /// When its content last changed. `None` where the file system does not say.
    pub modified: Option<SystemTime>,
}

impl About {
    fn of(real: &fs::Metadata) -> Self {
        Self {
            length: real.len(),
            identity: (real.dev(), real.ino()),
            owner: (real.uid(), real.gid()),
            modified: real.modified().ok(),
        }
    }
}

/// Runs the second expression with the machine of a simulation, if there is one.
macro_rules! unless_simulated {
    ($machine:ident => $simulated:expr, $real:expr) => {{
        #[cfg(test)]
        if let Some($machine) = simulated::machine() {
            return $simulated;
        }
        $real
    }};
}

impl File {
    /// Opens a file.
    pub fn with(path: &Path, purpose: Use) -> io::Result<Self> {
        unless_simulated!(machine => machine.open(path, purpose).map(|file| Self(Inner::Simulated(file))), {
            let mut options = fs::OpenOptions::new();
            let options = match purpose {
                Use::Read => options.read(true),
                Use::Write => options.read(true).write(true),
                Use::WriteDurably { is_direct } => {
                    let direct = if is_direct { OFlag::O_DIRECT } else { OFlag::empty() };
                    options.write(true).custom_flags((OFlag::O_DSYNC | direct).bits())
                }
                Use::Keep => options.write(true).create(true).truncate(false),
                Use::Append => options.read(true).append(true).create(true),
                Use::Replace => options.write(true).create(true).truncate(true),
                Use::New => options.read(true).write(true).create_new(true),
            };
            options.open(path).map(|file| Self(Inner::Real(file)))
        })
    }

    /// Opens a file or a directory that exists, for reading or to be synced.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with(path, Use::Read)
    }

    /// The file of the system. An error in a simulation.
    pub fn into_real(self) -> io::Result<fs::File> {
        match self.0 {
            Inner::Real(file) => Ok(file),
            #[cfg(test)]
            Inner::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// What is known of it.
    pub fn about(&self) -> io::Result<About> {
        match &self.0 {
            Inner::Real(file) => file.metadata().map(|about| About::of(&about)),
            #[cfg(test)]
            Inner::Simulated(file) => file.about(),
        }
    }

    /// Makes its content durable.
    pub fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => file.sync_data(),
            #[cfg(test)]
            Inner::Simulated(file) => file.sync(),
        }
    }

    /// Makes all of it durable; of a directory, the names in it.
    pub fn sync_all(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => file.sync_all(),
            #[cfg(test)]
            Inner::Simulated(file) => file.sync(),
        }
    }

    /// Cuts it, or extends it by zeros.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => file.set_len(length),
            #[cfg(test)]
            Inner::Simulated(file) => file.set_len(length),
        }
    }

    /// Writes all of `bytes` at an offset.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => file.write_all_at(bytes, offset),
            #[cfg(test)]
            Inner::Simulated(file) => file.write_at(bytes, offset),
        }
    }

    /// Reads `bytes.len()` bytes from an offset; fewer only at the end of the file.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            Inner::Real(file) => read_fully_at(file, bytes, offset),
            #[cfg(test)]
            Inner::Simulated(file) => file.read_at(bytes, offset),
        }
    }

    /// Locks it, and waits for that.
    pub fn lock(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => file.lock(),
            #[cfg(test)]
            Inner::Simulated(file) => file.lock(),
        }
    }

    /// Locks it, unless it is locked.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        match &self.0 {
            Inner::Real(file) => file.try_lock(),
            #[cfg(test)]
            Inner::Simulated(file) => file.try_lock(),
        }
    }

    /// Unlocks it.
    pub fn unlock(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => file.unlock(),
            #[cfg(test)]
            Inner::Simulated(file) => file.unlock(),
        }
    }

    /// Allocates the first `bytes` bytes, which read as zeros where nothing was written.
    pub fn allocate(&self, bytes: u64) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => {
                match fallocate(file.as_fd(), FallocateFlags::empty(), 0, offset(bytes)) {
                    // Without allocation the file is sparse: writes are slower and as durable.
                    Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => file.set_len(bytes),
                    outcome => Ok(outcome?),
                }
            }
            #[cfg(test)]
            Inner::Simulated(file) => file.allocate(bytes),
        }
    }

    /// Makes a part of it read as zeros, without writing to it.
    pub fn erase(&self, bytes: Range<u64>) -> io::Result<()> {
        match &self.0 {
            Inner::Real(file) => {
                let flags =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let length = offset(bytes.end.saturating_sub(bytes.start));
                Ok(fallocate(file.as_fd(), flags, offset(bytes.start), length)?)
            }
            #[cfg(test)]
            Inner::Simulated(file) => file.erase(bytes),
        }
    }

    /// Gives it the permissions of `other`.
    pub fn set_permissions_of(&self, other: &Self) -> io::Result<()> {
        #[cfg_attr(
            not(test),
            expect(irrefutable_let_patterns, reason = "tests have another kind of file")
        )]
        if let (Inner::Real(file), Inner::Real(other)) = (&self.0, &other.0) {
            file.set_permissions(other.metadata()?.permissions())?;
        }
        Ok(())
    }
}

fn read_fully_at(file: &fs::File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(read)
}

/// An offset as the system calls have it.
fn offset(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Real(file) => file.write(bytes),
            #[cfg(test)]
            Inner::Simulated(file) => file.append(bytes).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for &File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Inner::Real(file) => (&*file).read(bytes),
            #[cfg(test)]
            Inner::Simulated(file) => file.read_on(bytes),
        }
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self).read(bytes)
    }
}

/// Makes a directory.
pub fn create_dir(path: &Path) -> io::Result<()> {
    unless_simulated!(machine => machine.create_dir(path), fs::create_dir(path))
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file.
pub fn remove_file(path: &Path) -> io::Result<()> {
    unless_simulated!(machine => machine.remove_file(path), fs::remove_file(path))
}

/// Removes a directory and all that is in it.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    unless_simulated!(machine => machine.remove_dir_all(path), fs::remove_dir_all(path))
}

/// Renames a file or a directory.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    unless_simulated!(machine => machine.rename(from, to), fs::rename(from, to))
}

/// The names in a directory, in any order. hakaru gives no file a name that is not UTF-8; others are left out.
pub fn names(path: &Path) -> io::Result<Vec<String>> {
    unless_simulated!(machine => machine.names(path), {
        let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
        names
            .filter_map(|name| name.map(|name| name.into_string().ok()).transpose())
            .collect()
    })
}

/// What is known of a file or a directory.
pub fn about(path: &Path) -> io::Result<About> {
    unless_simulated!(machine => machine.about(path), fs::metadata(path).map(|about| About::of(&about)))
}

/// All of a file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a file that is text.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file, in the place of one with that name. It is not durable when this returns.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::with(path, Use::Replace)?.write_all(bytes)
}

/// The path without symbolic links. A file must be there.
pub fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    unless_simulated!(machine => machine.about(path).map(|_| path.to_owned()), fs::canonicalize(path))
}

/// Gives a file or a directory this user and group.
pub fn set_owner(path: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    unless_simulated!(_machine => Ok(()), chown(path, Some(user), Some(group)))
}

/// Bytes that are free on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    unless_simulated!(machine => machine.free_bytes(), {
        let about = statvfs(path)?;
        Ok(about
            .blocks_available()
            .saturating_mul(about.fragment_size()))
    })
}

/// Whether an error of a read is about the blocks that were read, such as a bad sector.
pub fn is_unreadable(fault: &io::Error) -> bool {
    let unreadable = [
        Errno::EIO,
        Errno::ENODATA,
        Errno::EBADMSG,
        Errno::EUCLEAN,
        Errno::EILSEQ,
    ];
    let code = fault.raw_os_error().map(Errno::from_raw);
    code.is_some_and(|code| unreadable.contains(&code))
}
