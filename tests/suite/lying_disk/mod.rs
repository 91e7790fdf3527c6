//! The data directory is on a disk that lies: what is not synced is only seemingly written. While senders send, the
//! power is cut at random moments. The binary is killed, and started again on what the disk has kept: everything that
//! was synced, and of the rest whatever a seed chooses. At the end every event that was answered 200 is exactly one row,
//! none that was answered 503 is a row, and none without an answer is two.
//!
//! The disk is a FUSE file system, which the test serves itself: `content.rs` has the bytes of a file, `names.rs` the
//! names, `power.rs` the power cut and the faults, `mount.rs` the calls of FUSE. What it models, and how to repeat a failing
//! seed, is in docs/testing.md.

mod content;
mod disk;
mod lives;
mod model;
mod mount;
mod names;
mod plan;
mod power;
mod senders;
mod unreadable;

use std::path::PathBuf;

use self::lives::Lives;
use self::mount::LyingDisk;
use crate::support::DatabaseServer;

/// Power cuts between two looks at the rows.
const CUTS_AT_ONCE: u64 = 20;

/// Where rows go. It does not lie, and is on no lying disk.
pub enum Database {
    Sqlite(PathBuf),
    DatabaseServer(DatabaseServer),
}

impl Database {
    fn dsn(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::DatabaseServer(server) => server.dsn(),
        }
    }

    /// Values and names of the rows from a value on.
    fn rows(&self, from: u32) -> Vec<(u32, String)> {
        let sql = format!("SELECT value, name FROM eventlog WHERE value >= {from}");
        match self {
            Self::DatabaseServer(server) => server.query(sql.as_str()),
            Self::Sqlite(path) => {
                let file = rusqlite::Connection::open(path).unwrap();
                let mut query = file.prepare(&sql).unwrap();
                let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
                rows.unwrap().map(Result::unwrap).collect()
            }
        }
    }

    /// How many rows there are.
    fn count(&self) -> usize {
        match self {
            Self::DatabaseServer(server) => server.count() as usize,
            Self::Sqlite(path) => {
                let file = rusqlite::Connection::open(path).unwrap();
                let sql = "SELECT COUNT(*) FROM eventlog";
                let count: u32 = file.query_row(sql, (), |row| row.get(0)).unwrap();
                count as usize
            }
        }
    }
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Half of the power cuts, with one I/O driver.
#[expect(clippy::print_stdout, reason = "shown when the test fails")]
fn cut_the_power(io: &'static str, database: impl FnOnce() -> Database) {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let cuts = setting("HAKARU_POWER_CUTS").unwrap_or(200).div_ceil(2);
    let seed = setting("HAKARU_POWER_CUT_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("HAKARU_POWER_CUT_SEED={seed}, {io}");
    let database = database();
    let mut lives = Lives::new(&disk, database, io, seed);
    let mut left = cuts;
    while left > 0 {
        let some = left.min(CUTS_AT_ONCE);
        lives.live(some);
        left -= some;
    }
    println!("{io}: {}", lives.summary);
}

#[test]
fn what_is_answered_survives_power_cuts_on_epoll() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("eventlog.db");
    cut_the_power("epoll", || Database::Sqlite(file));
}

#[test]
fn what_is_answered_survives_power_cuts_on_io_uring() {
    cut_the_power("io_uring", || {
        Database::DatabaseServer(DatabaseServer::start())
    });
}
