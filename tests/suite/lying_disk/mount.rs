//! The disk as a mounted file system.

use std::any::Any;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_DSYNC, O_SYNC};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::content::Content;
use super::disk::{Disk, Node, Number, lock};
use super::names::Names;
use super::power::{Done, Refusal};

/// The kernel asks anew each time, also after a power cut.
const NOT_CACHED: Duration = Duration::ZERO;

/// Every read and write reaches the disk at once: the page cache would hide what is not synced.
const UNCACHED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

/// A disk that is mounted as long as this value lives.
pub struct LyingDisk {
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
    directory: TempDir,
}

impl LyingDisk {
    /// Mounts an empty disk. `None` where that is not possible, and then says so.
    pub fn mount() -> Option<Self> {
        isolate();
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Mutex::new(Disk::default()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("hakaru-lying-disk".to_owned())];
        let served = Served(Arc::clone(&disk));
        match fuser::spawn_mount(served, directory.path(), &config) {
            Ok(session) => Some(Self {
                disk,
                session: Some(session),
                directory,
            }),
            Err(_) if !Path::new("/dev/fuse").exists() => not_run("no /dev/fuse"),
            Err(fault) => not_run(&format!("FUSE cannot be mounted ({fault})")),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn lock(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }
}

impl Drop for LyingDisk {
    fn drop(&mut self) {
        // A process that is still there must not keep the mount.
        self.lock().power.release();
        let is_gone = umount2(self.path(), MntFlags::MNT_DETACH).is_ok();
        // Without root, fuser unmounts by fusermount3.
        drop(self.session.take());
        if !is_gone && !std::thread::panicking() {
            let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
            let place = self.path().display().to_string();
            assert!(!mounts.contains(&place), "{place} is still mounted");
        }
    }
}

/// Says so in a line that `cargo test` does not capture.
fn not_run(why: &str) -> Option<LyingDisk> {
    let line = format!("lying_disk: {why}, not run\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// Gives the thread of the test, and the processes that it starts, mounts of their own: those end with them, also when
/// the test is killed. Only root may do that; without it the mount ends in the order of [`LyingDisk`].
fn isolate() {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, private, none))
        .unwrap_or_default();
}

/// A reply that can say that something failed.
trait Refusable: Any + Send {
    fn refuse(self, code: Errno);
}

macro_rules! refusable {
    ($($reply:ty),*) => {
        $(impl Refusable for $reply {
            fn refuse(self, code: Errno) {
                self.error(code);
            }
        })*
    };
}

refusable!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyEmpty,
    ReplyEntry,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite
);

/// What FUSE calls.
struct Served(Arc<Mutex<Disk>>);

impl Served {
    /// Does an operation, and answers it; or keeps the reply until the process is gone.
    fn answer<R: Refusable, T>(
        &self,
        reply: R,
        act: impl FnOnce(&mut Disk) -> Done<T>,
        send: impl FnOnce(R, T),
    ) {
        let mut disk = lock(&self.0);
        match act(&mut disk) {
            Ok(done) => send(reply, done),
            Err(Refusal::Fails(code)) => reply.refuse(code),
            Err(Refusal::NoAnswer) => disk.power.keep_unanswered(reply),
        }
    }
}

fn attributes(number: Number, node: &Node) -> FileAttr {
    let (kind, perm, size) = match node {
        Node::File(content) => (FileType::RegularFile, 0o600, content.size()),
        Node::Directory(_) => (FileType::Directory, 0o700, 0),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn known(disk: &mut Disk, number: Number) -> Done<FileAttr> {
    disk.node(number).map(|node| attributes(number, node))
}

fn enter(reply: ReplyEntry, about: FileAttr) {
    reply.entry(&NOT_CACHED, &about, Generation(0));
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let find = |disk: &mut Disk| {
            let number = disk.lookup(parent.0, name)?;
            known(disk, number)
        };
        self.answer(reply, find, enter);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(
            reply,
            |disk| known(disk, ino.0),
            |reply, about| reply.attr(&NOT_CACHED, &about),
        );
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = |disk: &mut Disk| {
            if let Some(size) = size {
                disk.set_size(ino.0, size)?;
            }
            known(disk, ino.0)
        };
        self.answer(reply, set, |reply, about| reply.attr(&NOT_CACHED, &about));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let make = |disk: &mut Disk| {
            let number = disk.make(parent.0, name, Node::Directory(Names::default()))?;
            known(disk, number)
        };
        self.answer(reply, make, enter);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let make = |disk: &mut Disk| {
            let number = disk.make(parent.0, name, Node::File(Content::default()))?;
            known(disk, number)
        };
        self.answer(reply, make, |reply, about| {
            reply.created(&NOT_CACHED, &about, Generation(0), FileHandle(0), UNCACHED);
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer(
            reply,
            |disk| known(disk, ino.0),
            |reply, _| reply.opened(FileHandle(0), UNCACHED),
        );
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = |disk: &mut Disk| disk.read(ino.0, offset, size as usize);
        self.answer(reply, read, |reply, bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_synced = flags.0 & (O_DSYNC | O_SYNC) != 0;
        self.answer(
            reply,
            |disk| disk.write(ino.0, offset, data, is_synced),
            |reply, ()| reply.written(data.len() as u32),
        );
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = |disk: &mut Disk| match mode {
            0 => disk.allocate(ino.0, offset + length),
            mode if mode == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE => {
                disk.punch(ino.0, offset, length)
            }
            _ => Err(Refusal::Fails(Errno::EOPNOTSUPP)),
        };
        self.answer(reply, allocate, |reply, ()| reply.ok());
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer(reply, |disk| disk.sync(ino.0), |reply, ()| reply.ok());
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer(reply, |disk| disk.sync_names(ino.0), |reply, ()| reply.ok());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |disk: &mut Disk| disk.remove(parent.0, name);
        self.answer(reply, remove, |reply, ()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |disk: &mut Disk| disk.remove(parent.0, name);
        self.answer(reply, remove, |reply, ()| reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = |disk: &mut Disk| disk.rename((parent.0, name), (to.0, new));
        self.answer(reply, rename, |reply, ()| reply.ok());
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let list = |disk: &mut Disk| {
            disk.power.powered()?;
            let names = disk.names(ino.0)?.present.clone();
            let kind = |disk: &Disk, number| match disk.nodes.get(&number) {
                Some(Node::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            let entries = names
                .into_iter()
                .map(|(name, number)| (number, kind(disk, number), name));
            Ok(entries.collect::<Vec<_>>())
        };
        self.answer(reply, list, |mut reply, entries| {
            // The number of an entry is its place: a directory that changes is not read twice.
            let later = entries.into_iter().filter(|entry| entry.0 > offset);
            let mut later: Vec<_> = later.collect();
            later.sort_by_key(|entry| entry.0);
            for (number, kind, name) in later {
                if reply.add(INodeNo(number), number, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = 1 << 24;
        self.answer(
            reply,
            |disk| disk.power.powered(),
            |reply, ()| {
                reply.statfs(free, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
            },
        );
    }

    /// Nothing becomes durable by closing a file.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
