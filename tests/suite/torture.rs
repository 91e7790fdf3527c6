//! Senders remember every 200 while hakaru is killed, its database is killed, and the connection
//! between them is cut at the worst moments. At the end every promised event is exactly one row.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::support::{
    Client, Hakaru, MariaDb, Mischief, Proxy, Settings, StopWhenDropped, free_port, wait_until,
};

const SENDERS: u32 = 6;

/// Sends events that nobody else sends; gives the values that were answered 200.
fn send(
    sender: u32,
    address: SocketAddr,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> BTreeSet<u32> {
    let mut promised = BTreeSet::new();
    let mut value = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_connect(address) else {
            thread::yield_now();
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            value += 1;
            let target = format!("/hakaru?name=sender{sender}&value={value}");
            match client.try_get(&target).map(|answer| answer.status) {
                Some(200) => {
                    promised.insert(value);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                // Nothing was promised; the event is not sent again.
                Some(503) => {}
                Some(status) => panic!("status {status}"),
                None => break,
            }
        }
    }
    promised
}

struct Torture {
    database: MariaDb,
    proxy: Proxy,
    directory: tempfile::TempDir,
    address: SocketAddr,
    random: fastrand::Rng,
}

impl Torture {
    fn start_hakaru(&mut self) -> Hakaru {
        Settings::datasource(&self.proxy.dsn())
            .directory(self.directory.path())
            .flag(&format!("--listen={}", self.address))
            .flag("--ack=journaled")
            .flag(&format!("--cores={}", self.random.u8(1..=2)))
            .flag(&format!("--batch-events={}", self.random.u16(1..500)))
            .flag(&format!("--linger={}ms", self.random.u8(1..100)))
            .start()
    }

    /// One thing that goes wrong.
    fn round(&mut self, mut hakaru: Hakaru) -> Hakaru {
        match self.random.u8(0..10) {
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
            _ => {
                let mischief = Mischief::ALL[self.random.usize(1..Mischief::ALL.len())];
                self.proxy.make(mischief);
                wait_until("there was an occasion", || self.proxy.is_done());
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
fn every_promised_event_is_exactly_one_row_whatever_fails() {
    let rounds =
        std::env::var("HAKARU_TORTURE_ROUNDS").map_or(30, |rounds| rounds.parse().unwrap());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let database = MariaDb::start();
    let mut torture = Torture {
        proxy: Proxy::start(database.port()),
        database,
        directory: tempfile::tempdir().unwrap(),
        address: SocketAddr::from(([127, 0, 0, 1], free_port())),
        random: fastrand::Rng::with_seed(seed),
    };
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let first = torture.start_hakaru();
    // A row that the table refuses must disturb nobody.
    torture
        .database
        .run("ALTER TABLE eventlog ADD CONSTRAINT poison CHECK (value % 1000 <> 999)");
    let (promised, hakaru) = thread::scope(|scope| {
        let mut hakaru = first;
        let _stopped = StopWhenDropped(&stop);
        let (stop, answered, address) = (&stop, &answered, torture.address);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| scope.spawn(move || send(sender, address, stop, answered)))
            .collect();
        for _ in 0..rounds {
            let before = answered.load(Ordering::Relaxed);
            wait_until("answers go on", || {
                answered.load(Ordering::Relaxed) > before + 200
            });
            hakaru = torture.round(hakaru);
        }
        stop.store(true, Ordering::Relaxed);
        let promised: Vec<BTreeSet<u32>> = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect();
        (promised, hakaru)
    });
    torture.proxy.make(Mischief::None);
    let directory = torture
        .directory
        .path()
        .join("hakaru-data/dead-letters.ndjson");
    let dead = || std::fs::read_to_string(&directory).unwrap_or_default();
    let is_poison = |value: &u32| value % 1000 == 999;
    for (sender, promised) in promised.iter().enumerate() {
        let query = format!("SELECT value FROM eventlog WHERE name = 'sender{sender}'");
        let expected: BTreeSet<u32> = promised
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
        for value in promised.iter().filter(|value| is_poison(value)) {
            let letter = format!("\"name\":\"sender{sender}\",\"value\":{value},");
            assert!(
                dead().contains(&letter),
                "{letter} is in no dead letter, seed {seed}"
            );
        }
    }
    assert!(promised.iter().map(BTreeSet::len).sum::<usize>() > 200 * rounds);
    hakaru.stop();
}
