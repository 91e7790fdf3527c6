//! A process that serves, with the successors that reloads made of it.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::draw::Drawn;
use super::history::History;
use super::senders::{Load, Target};
use super::stats::Watch;
use crate::support::{DEADLINE, Hakaru, Settings, freeze, wait_until};

pub struct Node<'a> {
    /// By this number the history calls it.
    pub number: u32,
    /// The database that it serves.
    pub database: usize,
    /// Where it was started.
    pub directory: PathBuf,
    pub hakaru: Hakaru,
    pub reloads: usize,
    pub history: &'a History,
}

/// Its log is kept for a round that fails.
impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.history.keep_log(self.number, self.hakaru.log());
    }
}

impl<'a> Node<'a> {
    /// Starts a process. `None`: it refuses to start.
    pub fn start(
        drawn: &Drawn,
        dsn: &str,
        number: u32,
        database: usize,
        directory: &Path,
        history: &'a History,
    ) -> Option<Self> {
        let mut hakaru = Settings::datasource(dsn)
            .directory(directory)
            .flag(drawn.ack.flag())
            .flag(&format!("--io={}", drawn.io))
            .flag("--journal-keep=1h")
            .flag(&format!("--cores={}", drawn.cores))
            .flag(&format!("--batch-events={}", drawn.batch_events))
            .flag(&format!("--linger={}ms", drawn.linger))
            .spawn();
        let deadline = Instant::now() + DEADLINE;
        while hakaru.events("listening").is_empty() {
            if hakaru.has_ended() {
                history.note(format!(
                    "process {number} refuses to start: {}",
                    hakaru.log()
                ));
                return None;
            }
            assert!(Instant::now() < deadline, "process {number} does not start");
            thread::park_timeout(Duration::from_millis(5));
        }
        let hakaru = hakaru.listening();
        history.note(format!(
            "process {number} (pid {}) serves database {database}",
            hakaru.pid()
        ));
        Some(Self {
            number,
            database,
            directory: directory.to_owned(),
            hakaru,
            reloads: 0,
            history,
        })
    }

    pub fn target(&self) -> Target {
        Target {
            node: self.number,
            database: self.database,
            address: self.hakaru.address,
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.directory)
    }

    fn pid(&self) -> Pid {
        let newest = self.hakaru.successors().last().copied();
        Pid::from_raw(newest.unwrap_or(self.hakaru.pid() as i32))
    }

    pub fn freeze(&self) {
        freeze(self.pid());
    }

    pub fn revive(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    /// SIGHUP. Waits until the successor serves, and this process has drained.
    pub fn reload(&mut self) {
        kill(self.pid(), Signal::SIGHUP).unwrap();
        self.reloads += 1;
        wait_until(
            "the successor serves, and the old process has drained",
            || {
                self.hakaru.events("successor_serves").len() == self.reloads
                    && self.hakaru.events("ended").len() == self.reloads
            },
        );
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Ended {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        self.hakaru.wait();
        self.history.killed(self.number);
        self.ended(true)
    }

    /// SIGTERM. Waits until it has drained.
    pub fn end(mut self) -> Ended {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let status = self.hakaru.wait();
        assert_eq!(status.code(), Some(0), "process {}", self.number);
        let ended = self.hakaru.events("ended").len();
        assert_eq!(ended, self.reloads + 1, "process {}", self.number);
        self.ended(false)
    }

    /// Ends it by SIGKILL or SIGTERM. Nobody watches it or asks it any more.
    pub fn leave(self, is_killed: bool, watch: &Watch, load: &Load<'_>) -> Ended {
        let (number, history) = (self.number, self.history);
        watch.end(number);
        let how = if is_killed { "is killed" } else { "drains" };
        history.note(format!("process {number} {how}"));
        let ended = if is_killed { self.kill() } else { self.end() };
        load.forget(number);
        history.note(format!("process {number} has ended"));
        ended
    }

    fn ended(self, was_killed: bool) -> Ended {
        Ended {
            number: self.number,
            was_killed,
            last_lines: self.hakaru.events("ended"),
            end_not_written: !self.hakaru.events("lane_end_not_written").is_empty(),
        }
    }
}

/// What is left of a process.
pub struct Ended {
    pub number: u32,
    pub was_killed: bool,
    /// The lines `ended`, of its successors too.
    pub last_lines: Vec<serde_json::Value>,
    /// It could not write down where a lane ends: events that were answered 503 may become rows.
    pub end_not_written: bool,
}

pub fn data_dir(directory: &Path) -> PathBuf {
    directory.join("hakaru-data")
}
