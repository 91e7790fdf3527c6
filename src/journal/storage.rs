//! The few file operations the journal needs, behind a trait: real files, or a simulation that fails.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

/// A place where files are kept. Nothing is durable before it was synced, names included.
pub trait Storage: Clone + Send + Sync + 'static {
    /// An open file.
    type File: StorageFile;

    /// Makes a directory.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a new file, to be written and read.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to be read.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// The names in a directory, in no order.
    fn names(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// An open file.
pub trait StorageFile: Send + 'static {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable, and the file's length.
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

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
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
        self.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        match fallocate(self.as_fd(), FallocateFlags::empty(), 0, length) {
            // A file system that cannot is as good, only slower.
            Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => self.set_len(bytes),
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
