//! Senders remember every 200 while hakaru is killed, its database is killed, and the connection between them is cut
//! at the worst moments. At the end every event that was answered 200 is exactly one row or a dead letter.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::support::{
    Client, Hakaru, MariaDb, NetworkFault, Proxy, Settings, StopWhenDropped, free_port, wait_until,
};

const SENDERS: u32 = 6;

/// Sends events of its own, which are never sent twice. Returns the values that were answered 200.
fn send(sender: u32, port: &AtomicU16, stop: &AtomicBool, answered: &AtomicU64) -> BTreeSet<u32> {
    let mut acknowledged = BTreeSet::new();
    let mut value = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_connect(local(port)) else {
            thread::yield_now();
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            value += 1;
            let target = format!("/hakaru?name=sender{sender}&value={value}");
            match client.try_get(&target).map(|answer| answer.status) {
                Some(200) => {
                    acknowledged.insert(value);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                // The event was not taken, and is not sent again.
                Some(503) => {}
                Some(status) => panic!("status {status}"),
                None => break,
            }
        }
    }
    acknowledged
}

fn local(port: &AtomicU16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port.load(Ordering::Relaxed)))
}

struct Torture<'a> {
    database: MariaDb,
    proxy: Proxy,
    directory: tempfile::TempDir,
    /// The port of hakaru, which changes in an upgrade.
    port: &'a AtomicU16,
    random: fastrand::Rng,
}

impl Torture<'_> {
    fn start_hakaru(&mut self) -> Hakaru {
        // Batches of different sizes, so that a refused row is among few or among thousands.
        let batch_events = *self.random.choice(&[50, 500, 5_000]).unwrap();
        Settings::datasource(&self.proxy.dsn())
            .directory(self.directory.path())
            .flag(&format!("--listen={}", local(self.port)))
            .flag("--ack=journaled")
            .flag(&format!("--cores={}", self.random.u8(1..=2)))
            .flag(&format!("--batch-events={batch_events}"))
            .flag(&format!("--linger={}ms", self.random.u8(1..100)))
            .start()
    }

    /// Makes one thing fail.
    fn round(&mut self, mut hakaru: Hakaru) -> Hakaru {
        match self.random.u8(0..11) {
            0..=2 => {
                hakaru.crash();
                self.start_hakaru()
            }
            3 => {
                hakaru.signal(Signal::SIGTERM);
                assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
                self.start_hakaru()
            }
            4 => {
                self.database.crash();
                if self.random.bool() {
                    hakaru.crash();
                    hakaru = self.start_hakaru();
                }
                self.database.resume();
                hakaru
            }
            5 => {
                self.proxy.cut();
                hakaru
            }
            6 => {
                // An upgrade: for a while two processes share the data directory.
                self.port.store(free_port(), Ordering::Relaxed);
                let new = self.start_hakaru();
                hakaru.signal(Signal::SIGTERM);
                assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
                new
            }
            _ => {
                let fault = NetworkFault::ALL[self.random.usize(1..NetworkFault::ALL.len())];
                self.proxy.inject(fault);
                let waiting = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    wait_until("the fault is injected", || self.proxy.is_injected());
                }));
                assert!(waiting.is_ok(), "{fault:?}: {}", hakaru.log());
                if self.random.bool() {
                    hakaru.crash();
                    hakaru = self.start_hakaru();
                }
                hakaru
            }
        }
    }
}

#[test]
fn every_answered_event_is_exactly_one_row_whatever_fails() {
    let rounds =
        std::env::var("HAKARU_TORTURE_ROUNDS").map_or(30, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("HAKARU_TORTURE_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let database = MariaDb::start();
    let port = AtomicU16::new(free_port());
    let mut torture = Torture {
        proxy: Proxy::start(database.port()),
        database,
        directory: tempfile::tempdir().unwrap(),
        port: &port,
        random: fastrand::Rng::with_seed(seed),
    };
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let first = torture.start_hakaru();
    // Rows that the table refuses must not affect others.
    torture
        .database
        .run("ALTER TABLE eventlog ADD CONSTRAINT poison CHECK (value % 1000 <> 999)");
    let (acknowledged, hakaru) = thread::scope(|scope| {
        let mut hakaru = first;
        let _stopped = StopWhenDropped(&stop);
        let (stop, answered, port) = (&stop, &answered, &port);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| scope.spawn(move || send(sender, port, stop, answered)))
            .collect();
        for _ in 0..rounds {
            let before = answered.load(Ordering::Relaxed);
            wait_until("answers continue", || {
                answered.load(Ordering::Relaxed) > before + 200
            });
            hakaru = torture.round(hakaru);
        }
        stop.store(true, Ordering::Relaxed);
        let acknowledged: Vec<BTreeSet<u32>> = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect();
        (acknowledged, hakaru)
    });
    torture.proxy.inject(NetworkFault::None);
    let file = torture
        .directory
        .path()
        .join("hakaru-data/dead-letters.ndjson");
    let dead_letters = || std::fs::read_to_string(&file).unwrap_or_default();
    let is_poison = |value: &u32| value % 1000 == 999;
    for (sender, acknowledged) in acknowledged.iter().enumerate() {
        let query = format!("SELECT value FROM eventlog WHERE name = 'sender{sender}'");
        let expected: BTreeSet<u32> = acknowledged
            .iter()
            .copied()
            .filter(|value| !is_poison(value))
            .collect();
        let mut missing = expected.len();
        wait_until(&format!("every event of sender {sender} is stored"), || {
            let rows: BTreeSet<u32> = torture.database.query(&query).into_iter().collect();
            missing = expected.difference(&rows).count();
            missing == 0
        });
        let rows: Vec<u32> = torture.database.query(&query);
        let distinct: BTreeSet<u32> = rows.iter().copied().collect();
        assert_eq!(
            rows.len(),
            distinct.len(),
            "events of sender {sender} are doubled, seed {seed}"
        );
        for value in acknowledged.iter().filter(|value| is_poison(value)) {
            let letter = format!("\"name\":\"sender{sender}\",\"value\":{value},");
            assert!(
                dead_letters().contains(&letter),
                "{letter} is in no dead letter, seed {seed}"
            );
        }
    }
    assert!(acknowledged.iter().map(BTreeSet::len).sum::<usize>() > 200 * rounds);
    hakaru.stop();
}
