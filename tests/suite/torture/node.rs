//! A process that serves, with the successors that reloads made of it.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::history::History;
use super::senders::Target;
use crate::support::{Hakaru, freeze, wait_until};

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

impl Node<'_> {
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
