//! The disk itself: it keeps what is synced, and can lose everything else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_DIRECT, O_DSYNC};

use super::content::BLOCK_BYTES;
use super::mount::LyingDisk;
use super::power::{Darkness, Faults, PowerCut};

/// Enough for every outcome.
const SEEDS: u64 = 200;

/// Whole blocks at an address that is a multiple of a block, as `O_DIRECT` wants it.
#[repr(align(4096))]
struct Aligned([u8; 2 * BLOCK_BYTES]);

/// Makes a file with a durable name and two durable blocks of `a`.
fn durable_file(disk: &LyingDisk, name: &str) -> PathBuf {
    let path = disk.path().join(name);
    fs::write(&path, [b'a'; 2 * BLOCK_BYTES]).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    sync(disk.path());
    path
}

fn sync(directory: &Path) {
    File::open(directory).unwrap().sync_all().unwrap();
}

fn power_cut(disk: &LyingDisk, seed: u64) {
    let mut disk = disk.lock();
    disk.power.seed(seed);
    disk.restart();
}

/// What a file begins with in each of its two blocks, and whether a block is of one piece.
fn blocks(path: &Path) -> Vec<(u8, bool)> {
    let bytes = fs::read(path).unwrap();
    let blocks = bytes.chunks(BLOCK_BYTES);
    let look = |block: &[u8]| (block[0], block.iter().all(|&byte| byte == block[0]));
    blocks.map(look).collect()
}

#[test]
fn what_is_synced_is_kept() {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let path = durable_file(&disk, "file");
    let unnamed = disk.path().join("later");
    for seed in 0..SEEDS {
        let byte = b'b' + (seed % 20) as u8;
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[byte; 2 * BLOCK_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        power_cut(&disk, seed);
        assert_eq!(blocks(&path), [(byte, true); 2]);
        // A write that is synced when it ends, past the end of the file.
        let flags = O_DSYNC | O_DIRECT;
        let file = File::options().write(true).custom_flags(flags).open(&path);
        let offset = 2 * BLOCK_BYTES as u64;
        let bytes = Aligned([byte; 2 * BLOCK_BYTES]);
        file.unwrap().write_all_at(&bytes.0, offset).unwrap();
        power_cut(&disk, seed);
        assert_eq!(blocks(&path), [(byte, true); 4]);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(offset).unwrap();
        fs::rename(&path, &unnamed).unwrap();
        file.sync_all().unwrap();
        sync(disk.path());
        power_cut(&disk, seed);
        assert_eq!(blocks(&unnamed), [(byte, true); 2]);
        assert!(!path.exists());
        fs::rename(&unnamed, &path).unwrap();
        sync(disk.path());
    }
}

#[test]
fn what_is_not_synced_is_lost_for_some_seed_and_kept_for_another() {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let (mut written, mut made, mut removed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut renamed = BTreeSet::new();
    for seed in 0..SEEDS {
        let path = durable_file(&disk, &format!("written-{seed}"));
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[b'b'; BLOCK_BYTES], 0).unwrap();
        file.write_all_at(&[b'c'; 2 * BLOCK_BYTES], 0).unwrap();
        assert_eq!(blocks(&path), [(b'c', true); 2]);
        let gone = durable_file(&disk, &format!("gone-{seed}"));
        let from = durable_file(&disk, &format!("from-{seed}"));
        let [new, to] = ["made", "to"].map(|name| disk.path().join(format!("{name}-{seed}")));
        File::create(&new).unwrap().sync_all().unwrap();
        fs::remove_file(&gone).unwrap();
        fs::rename(&from, &to).unwrap();
        power_cut(&disk, seed);
        written.extend(blocks(&path).into_iter().filter(|block| block.1));
        made.insert(new.exists());
        removed.insert(gone.exists());
        renamed.insert((from.exists(), to.exists()));
    }
    // A block on its way to the disk may also be torn, or zeros.
    let expected = [(0, true), (b'a', true), (b'b', true), (b'c', true)];
    assert_eq!(written, BTreeSet::from(expected));
    assert_eq!((made.len(), removed.len()), (2, 2));
    assert_eq!(renamed, BTreeSet::from([(false, true), (true, false)]));
}

#[test]
fn a_write_during_which_the_power_is_cut_leaves_anything_in_its_blocks() {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let mut left = BTreeSet::new();
    for seed in 0..SEEDS {
        let path = durable_file(&disk, &format!("{seed}"));
        let file = File::options()
            .write(true)
            .custom_flags(O_DSYNC)
            .open(&path)
            .unwrap();
        disk.lock().power.cut(PowerCut::after(0, Darkness::Fails));
        let written = file.write_all_at(&[b'b'; BLOCK_BYTES], BLOCK_BYTES as u64);
        assert_eq!(code(written), nix::libc::EIO);
        assert_eq!(code(fs::read(&path)), nix::libc::EIO);
        drop(file);
        power_cut(&disk, seed);
        let blocks = blocks(&path);
        assert_eq!(blocks[0], (b'a', true));
        left.insert(match blocks[1] {
            (_, false) => "torn",
            (b'a', true) => "old",
            (b'b', true) => "new",
            (0, true) => "zeros",
            _ => "garbage",
        });
    }
    assert_eq!(left, BTreeSet::from(["new", "old", "torn", "zeros"]));
}

/// The code of an error that there must be.
fn code<T>(outcome: io::Result<T>) -> i32 {
    let fault = outcome.err().expect("an error");
    fault.raw_os_error().unwrap()
}

#[test]
fn without_power_nothing_is_answered_until_the_process_is_gone() {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let path = durable_file(&disk, "file");
    disk.lock().power.cut(PowerCut::after(0, Darkness::Blocks));
    std::thread::scope(|scope| {
        let written = scope.spawn(|| fs::write(&path, "b"));
        crate::support::wait_until("the power is cut", || disk.lock().power.is_dark());
        let read = scope.spawn(|| fs::read(&path));
        crate::support::wait_until("both wait", || disk.lock().power.waiting() == 2);
        assert!(!written.is_finished() && !read.is_finished());
        disk.lock().power.release();
        assert!(written.join().unwrap().is_err() && read.join().unwrap().is_err());
    });
    disk.lock().restart();
    fs::read(&path).unwrap();
}

#[test]
fn what_a_failed_sync_has_lost_is_not_synced_by_the_next() {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let mut left = BTreeSet::new();
    let always = Faults {
        syncs: 1000,
        ..Faults::default()
    };
    for seed in 0..SEEDS {
        let path = durable_file(&disk, &format!("{seed}"));
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[b'b'; BLOCK_BYTES], 0).unwrap();
        disk.lock().power.set_faults(always);
        file.sync_all().unwrap_err();
        disk.lock().power.set_faults(Faults::default());
        file.sync_all().unwrap();
        drop(file);
        power_cut(&disk, seed);
        left.insert(blocks(&path)[0]);
    }
    assert_eq!(left, BTreeSet::from([(b'a', true), (b'b', true)]));
}
