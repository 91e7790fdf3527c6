//! Whether a directory is on a file system that keeps what is written to it, and whose locks hold.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::{fmt, io};

use nix::sys::statfs::statfs;

/// Why files of a directory may be gone, or not be ours alone, although the file system takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystemRisk {
    /// In memory alone, on a file system of this name.
    Memory(&'static str),
    /// In the uppermost layer of a container.
    Overlay,
    /// On another machine, by a file system of this name.
    Network(&'static str),
    /// Wherever a program keeps them that serves the file system.
    Fuse,
}

impl FileSystemRisk {
    /// By the number that the kernel gives a kind of file system (`statfs(2)`, `linux/magic.h`).
    fn of(magic: u32) -> Option<Self> {
        Some(match magic {
            0x0102_1994 => Self::Memory("tmpfs"),
            0x8584_58f6 => Self::Memory("ramfs"),
            0x794c_7630 => Self::Overlay,
            0x6969 => Self::Network("NFS"),
            0x517b => Self::Network("SMB"),
            0xff53_4d42 | 0xfe53_4d42 => Self::Network("CIFS"),
            0x00c3_6400 => Self::Network("Ceph"),
            0x5346_414f | 0x6b41_4653 => Self::Network("AFS"),
            0x0102_1997 => Self::Network("9p"),
            0x0bd0_0bd0 => Self::Network("Lustre"),
            0x0116_1970 => Self::Network("GFS2"),
            0x7461_636f => Self::Network("OCFS2"),
            0x4750_4653 => Self::Network("GPFS"),
            0x1983_0326 => Self::Network("BeeGFS"),
            0x7375_7245 => Self::Network("Coda"),
            0x6573_5546 => Self::Fuse,
            _ => return None,
        })
    }
}

impl fmt::Display for FileSystemRisk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(name) => write!(
                out,
                "{name} is memory: a power cut or a reboot loses what is in it"
            ),
            Self::Overlay => out
                .write_str("overlayfs is removed with its container, and what is in it is lost then"),
            Self::Network(name) => write!(
                out,
                "{name} is on other machines: a write waits for them, and its locks may not keep another machine out"
            ),
            Self::Fuse => out.write_str(
                "FUSE is served by a program: whether a write is durable and a lock holds depends on that program",
            ),
        }
    }
}

/// What is risky about the file system of `path`, if anything is.
pub fn risk(path: &Path) -> io::Result<Option<FileSystemRisk>> {
    let about = statfs(path)?;
    // Numbers have 32 bits. Where their type is wider, the one with the highest bit set may be sign-extended.
    let magic = u32::try_from(about.filesystem_type().0 & 0xffff_ffff).unwrap_or(0);
    Ok(FileSystemRisk::of(magic))
}

/// Why two processes may both take a lock, or neither.
#[derive(Debug, thiserror::Error)]
pub enum LockFault {
    /// Two opens of one file are locked at once.
    #[error("a file that is locked can be locked again")]
    Ignored,
    /// No file can be locked, or the trial could not be made.
    #[error("a file cannot be locked: {0}")]
    Refused(#[from] io::Error),
}

/// Tries whether a lock on a file in `directory` keeps another out, on the file `name` that is made for that.
pub fn try_lock(directory: &Path, name: &str) -> Result<(), LockFault> {
    let path = directory.join(name);
    let tried = File::create(&path)
        .and_then(|first| {
            // For writing: NFS gives no exclusive lock on a file that is open for reading alone.
            let second = File::options().write(true).open(&path)?;
            Ok((first, second))
        })
        .map_err(LockFault::from)
        .and_then(|(first, second)| judge(first.try_lock(), second.try_lock()));
    fs::remove_file(&path)?;
    tried
}

/// What became of a lock, and of a second one while the first is held.
fn judge(
    first: Result<(), TryLockError>,
    second: Result<(), TryLockError>,
) -> Result<(), LockFault> {
    let first = match first {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(fault)) => Err(fault),
    };
    first?;
    match second {
        Ok(()) => Err(LockFault::Ignored),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(fault)) => Err(fault.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_a_disk() {
        let shared = tempfile::tempdir_in("/dev/shm").unwrap();
        let found = risk(shared.path()).unwrap();
        assert_eq!(found, Some(FileSystemRisk::Memory("tmpfs")));
        let ext4 = 0xef53;
        assert_eq!(FileSystemRisk::of(ext4), None);
        assert_eq!(
            FileSystemRisk::of(0x6969),
            Some(FileSystemRisk::Network("NFS"))
        );
    }

    #[test]
    fn a_lock_that_holds_is_no_fault_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        try_lock(directory.path(), "trial").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = directory.path().join("missing");
        assert!(matches!(
            try_lock(&missing, "trial"),
            Err(LockFault::Refused(_))
        ));
    }

    #[test]
    fn a_second_lock_that_succeeds_is_a_fault() {
        assert!(matches!(judge(Ok(()), Ok(())), Err(LockFault::Ignored)));
        assert!(judge(Ok(()), Err(TryLockError::WouldBlock)).is_ok());
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        for (first, second) in [
            (Err(TryLockError::Error(unsupported())), Ok(())),
            (Ok(()), Err(TryLockError::Error(unsupported()))),
        ] {
            assert!(matches!(judge(first, second), Err(LockFault::Refused(_))));
        }
    }
}
