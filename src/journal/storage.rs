//! The few file operations the journal needs, behind a trait: real files, or a simulation that fails.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};

use super::blocks::{BLOCK_BYTES, Blocks};

/// A place where files are kept. Nothing is durable before it was synced, names included.
pub trait Storage: Clone + Send + Sync + 'static {
    /// An open file.
    type File: StorageFile;

    /// Makes a directory.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a new file, to be written: a write to it is durable when it returns.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Opens a file to be read.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// The names in a directory, in no order.
    fn names(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// An open file.
pub trait StorageFile: Send + 'static {
    /// Writes all of `bytes`, whole blocks, at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file's length durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes room for `bytes` bytes, which read as zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Reads up to `bytes.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Storage for Disk {
    type File = File;

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Direct, past the page cache: half the processor's time of a write and a sync. Where the file
    /// system knows no such thing, through the cache.
    fn create(&self, path: &Path) -> io::Result<File> {
        File::create_new(path)?;
        let open = |flags: OFlag| {
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(flags.bits())
                .open(path)?;
            // Some refuse it only when they are written.
            let mut zeros = Blocks::default();
            zeros.restart(&[0; BLOCK_BYTES]);
            file.write_all_at(zeros.as_slice(), 0).map(|()| file)
        };
        match open(OFlag::O_DSYNC | OFlag::O_DIRECT) {
            Err(fault) if fault.raw_os_error() == Some(Errno::EINVAL as i32) => {
                open(OFlag::O_DSYNC)
            }
            opened => opened,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
        // A name that is not UTF-8 is none of ours.
        names
            .filter_map(|name| name.map(|name| name.into_string().ok()).transpose())
            .collect()
    }
}

impl StorageFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        match fallocate(self.as_fd(), FallocateFlags::empty(), 0, length) {
            // A file system that cannot is as good, only slower.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.set_len(bytes),
            outcome => Ok(outcome?),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match FileExt::read_at(self, &mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(read)
    }
}
