//! Senders remember every answer while hakaru and its database are killed, the connection between them is cut at the
//! worst moments, the database is restored to an earlier state, another one answers at its address, dead letters are
//! replayed, and a copy of the data directory is started. At the end every event that was answered 200 is exactly one
//! row or a dead letter.

mod senders;
mod snapshot;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use self::senders::{Answers, SENDERS, Shared, check, letters, send};
use self::snapshot::Snapshot;
use crate::support::{
    Hakaru, MariaDb, NetworkFault, Proxy, Settings, StopWhenDropped, free_port, run, wait_until,
};

/// hakaru keeps the stored lanes of 64 earlier processes at most. What is restored must be kept.
const LANES_MAX: usize = 40;

struct Torture<'a> {
    database: MariaDb,
    /// Another database, in which nothing may be stored.
    other: MariaDb,
    proxy: Proxy,
    directory: tempfile::TempDir,
    shared: &'a Shared,
    snapshot: Option<Snapshot>,
    random: fastrand::Rng,
}

impl Torture<'_> {
    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("hakaru-data")
    }

    fn start_hakaru(&mut self) -> Hakaru {
        let directory = self.directory.path().to_owned();
        self.start_in(&directory, self.shared.address())
    }

    fn start_in(&mut self, directory: &Path, address: SocketAddr) -> Hakaru {
        // Batches of different sizes, so that a refused row is among few or among thousands.
        let batch_events = *self.random.choice(&[50, 500, 5_000]).unwrap();
        Settings::datasource(&self.proxy.dsn())
            .directory(directory)
            .flag(&format!("--listen={address}"))
            .flag("--ack=journaled")
            .flag("--journal-keep=1h")
            .flag(&format!("--cores={}", self.random.u8(1..=2)))
            .flag(&format!("--batch-events={batch_events}"))
            .flag(&format!("--linger={}ms", self.random.u8(1..100)))
            .start()
    }

    /// Makes one thing fail.
    fn round(&mut self, mut hakaru: Hakaru) -> Hakaru {
        if self.lanes().len() > LANES_MAX {
            hakaru = self.begin_another_journal(hakaru);
        }
        match self.random.u8(0..18) {
            0..=2 => {
                hakaru.crash();
                self.start_hakaru()
            }
            3 => {
                end(&mut hakaru);
                self.start_hakaru()
            }
            4 => {
                self.database.crash();
                hakaru = self.crash_perhaps(hakaru);
                self.database.resume();
                hakaru
            }
            5 => {
                self.proxy.cut();
                hakaru
            }
            6 => {
                // An upgrade: for a while two processes share the data directory.
                self.shared.port.store(free_port(), Ordering::Relaxed);
                let new = self.start_hakaru();
                end(&mut hakaru);
                new
            }
            7 => {
                self.snapshot = Some(Snapshot::take(&self.database));
                hakaru
            }
            8..=9 => self.restore(hakaru),
            10 => self.repoint(hakaru),
            11 => self.run_copy(hakaru),
            12..=13 => self.replay(hakaru),
            _ => {
                let fault = NetworkFault::ALL[self.random.usize(1..NetworkFault::ALL.len())];
                self.proxy.inject(fault);
                let waiting = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    wait_until("the fault is injected", || self.proxy.is_injected());
                }));
                assert!(waiting.is_ok(), "{fault:?}: {}", hakaru.log());
                self.crash_perhaps(hakaru)
            }
        }
    }

    fn crash_perhaps(&mut self, hakaru: Hakaru) -> Hakaru {
        if self.random.bool() {
            hakaru.crash();
            self.start_hakaru()
        } else {
            hakaru
        }
    }

    fn lanes(&self) -> Vec<PathBuf> {
        let Ok(journal) = std::fs::read_dir(self.data_dir().join("journal")) else {
            return Vec::new();
        };
        let lanes = journal.map(|lane| lane.unwrap().path());
        let is_lane = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 32);
        lanes.filter(is_lane).collect()
    }

    /// Whether the database has all events of a journal. After a restore a server that drains may leave some of them,
    /// which it has counted as stored before.
    fn is_stored(&self, directory: &Path) -> bool {
        let listed = Command::new(env!("CARGO_BIN_EXE_hakaru"))
            .current_dir(directory)
            .args(["journal", "list", "--json"])
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        text.lines().all(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let (lane, end) = (
                line["lane"].as_str().unwrap(),
                line["end"].as_u64().unwrap(),
            );
            let sql = format!("SELECT position FROM hakaru_checkpoint WHERE lane = '{lane}'");
            end == 0 || self.database.query::<u64>(&sql).pop() >= Some(end)
        })
    }

    /// Removes lanes that are stored: nothing is restored that they have.
    fn begin_another_journal(&mut self, mut hakaru: Hakaru) -> Hakaru {
        end(&mut hakaru);
        if self.is_stored(self.directory.path()) {
            self.snapshot = None;
            for lane in self.lanes() {
                std::fs::remove_dir_all(lane).unwrap();
            }
        }
        self.start_hakaru()
    }

    /// The database goes back, while hakaru is connected to it, or not, or does not run.
    fn restore(&mut self, mut hakaru: Hakaru) -> Hakaru {
        let Some(snapshot) = &self.snapshot else {
            self.snapshot = Some(Snapshot::take(&self.database));
            return hakaru;
        };
        match self.random.u8(0..3) {
            0 => {
                hakaru.crash();
                snapshot.restore(&self.database);
                hakaru = self.start_hakaru();
            }
            1 => {
                snapshot.restore(&self.database);
                self.proxy.cut();
            }
            _ => {
                snapshot.restore(&self.database);
            }
        }
        hakaru
    }

    /// The same address answers as another database, until hakaru has met it.
    fn repoint(&mut self, hakaru: Hakaru) -> Hakaru {
        // The first database that answers is the one that this process serves.
        let rows = self.database.count();
        wait_until("hakaru has stored something", || {
            self.database.count() > rows
        });
        self.proxy.point_to(self.other.port());
        self.proxy.cut();
        let before = self.proxy.connections();
        wait_until("hakaru connects to the other database", || {
            self.proxy.connections() > before + 1
        });
        self.shared.wait_for_answers(100);
        self.proxy.point_to(self.database.port());
        self.proxy.cut();
        hakaru
    }

    /// A copy of the data directory is started where hakaru is killed, and then hakaru again.
    fn run_copy(&mut self, hakaru: Hakaru) -> Hakaru {
        let place = tempfile::tempdir().unwrap();
        let copied = place.path().join("hakaru-data");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        hakaru.signal(Signal::SIGSTOP);
        run("cp", &["-a", &text(&self.data_dir()), &text(&copied)]);
        hakaru.signal(Signal::SIGCONT);
        let copied_letters = letters(&copied);
        self.shared.wait_for_answers(100);
        hakaru.crash();
        let mut copy = self.start_in(place.path(), self.shared.address());
        self.shared.wait_for_answers(100);
        end(&mut copy);
        // A drain leaves lanes of earlier processes. No sender knows this port.
        copy = self.start_in(place.path(), "127.0.0.1:0".parse().unwrap());
        wait_until("the copy is stored", || self.is_stored(place.path()));
        end(&mut copy);
        // As a person does it: the letters of the copy, without those that were copied.
        let known = letters(&self.data_dir());
        let added: String = letters(&copied)
            .into_iter()
            .filter(|(place, _)| !known.contains_key(place) && !copied_letters.contains_key(place))
            .map(|(_, letter)| letter.line + "\n")
            .collect();
        let path = self.data_dir().join("dead-letters.ndjson");
        let own = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, format!("{own}\n{added}")).unwrap();
        // The events that the copy took are in no other journal.
        self.snapshot = None;
        self.start_hakaru()
    }

    /// All letters are replayed, and are refused again. The command is killed now and then.
    fn replay(&mut self, hakaru: Hakaru) -> Hakaru {
        let mut command = replay(self.directory.path()).spawn().unwrap();
        if self.random.bool() {
            thread::park_timeout(Duration::from_micros(self.random.u64(1_000..15_000)));
            command.kill().unwrap();
        }
        command.wait().unwrap();
        self.crash_perhaps(hakaru)
    }
}

fn replay(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hakaru"));
    command
        .current_dir(directory)
        .args(["dead-letters", "replay"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn end(hakaru: &mut Hakaru) {
    hakaru.signal(Signal::SIGTERM);
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
}

#[test]
fn every_answered_event_is_exactly_one_row_whatever_fails() {
    let rounds =
        std::env::var("HAKARU_TORTURE_ROUNDS").map_or(30, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("HAKARU_TORTURE_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let database = MariaDb::start();
    let shared = Shared::default();
    shared.port.store(free_port(), Ordering::Relaxed);
    let mut torture = Torture {
        proxy: Proxy::start(database.port()),
        database,
        other: MariaDb::start(),
        directory: tempfile::tempdir().unwrap(),
        shared: &shared,
        snapshot: None,
        random: fastrand::Rng::with_seed(seed),
    };
    let first = torture.start_hakaru();
    // Rows that the table refuses must not affect others.
    torture
        .database
        .run("ALTER TABLE eventlog ADD CONSTRAINT poison CHECK (value % 1000 <> 999)");
    let (answers, hakaru) = thread::scope(|scope| {
        let mut hakaru = first;
        let _stopped = StopWhenDropped(&shared.stop);
        let shared = &shared;
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| scope.spawn(move || send(sender, shared)))
            .collect();
        for _ in 0..rounds {
            shared.wait_for_answers(200);
            hakaru = torture.round(hakaru);
        }
        shared.stop.store(true, Ordering::Relaxed);
        let answers: Vec<Answers> = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect();
        (answers, hakaru)
    });
    torture.proxy.inject(NetworkFault::None);
    // What was killed last is finished.
    assert!(replay(torture.directory.path()).status().unwrap().success());
    for (sender, answers) in (0..).zip(&answers) {
        check(sender, answers, &torture.database, &torture.data_dir());
    }
    assert_eq!(torture.other.count(), 0, "events are in another database");
    let acknowledged = answers.iter().map(|answers| answers.acknowledged.len());
    assert!(acknowledged.sum::<usize>() > 200 * rounds);
    hakaru.stop();
}
