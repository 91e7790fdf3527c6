//! Senders that remember every answer, and what must have become of their events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::support::{Client, MariaDb, wait_until};

pub const SENDERS: u32 = 6;

/// What senders share with the rounds.
#[derive(Default)]
pub struct Shared {
    /// The port of hakaru, which changes in an upgrade.
    pub port: AtomicU16,
    pub stop: AtomicBool,
    /// How often a 200 was answered.
    pub answered: AtomicU64,
}

impl Shared {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.load(Ordering::Relaxed)))
    }

    /// Waits until `more` events were answered.
    pub fn wait_for_answers(&self, more: u64) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("answers continue", || {
            self.answered.load(Ordering::Relaxed) > before + more
        });
    }
}

/// The values of a sender by their answers. Those of neither may be stored or not.
#[derive(Default)]
pub struct Answers {
    pub acknowledged: BTreeSet<u32>,
    pub shed: BTreeSet<u32>,
}

/// Sends events of its own, which are never sent twice.
pub fn send(sender: u32, shared: &Shared) -> Answers {
    let mut answers = Answers::default();
    let mut value = 0;
    let is_stopped = || shared.stop.load(Ordering::Relaxed);
    while !is_stopped() {
        let Ok(mut client) = Client::try_connect(shared.address()) else {
            thread::yield_now();
            continue;
        };
        while !is_stopped() {
            value += 1;
            let target = format!("/hakaru?name=sender{sender}&value={value}");
            match client.try_get(&target).map(|answer| answer.status) {
                Some(200) => {
                    answers.acknowledged.insert(value);
                    shared.answered.fetch_add(1, Ordering::Relaxed);
                }
                Some(503) => {
                    answers.shed.insert(value);
                }
                Some(status) => panic!("status {status}"),
                None => break,
            }
        }
    }
    answers
}

/// Values that the table refuses.
pub fn is_poison(value: u32) -> bool {
    value % 1000 == 999
}

/// A dead letter.
pub struct Letter {
    pub name: String,
    pub value: u32,
    /// Its line in the file.
    pub line: String,
}

/// The dead letters in a data directory, by lane and position. After a crash one may be in the file twice.
pub fn letters(data_dir: &Path) -> BTreeMap<(String, u64), Letter> {
    let text = std::fs::read_to_string(data_dir.join("dead-letters.ndjson")).unwrap_or_default();
    let letter = |line: &str| {
        let json: Value = serde_json::from_str(line).ok()?;
        let letter = Letter {
            name: json["name"].as_str()?.to_owned(),
            value: json["value"].as_u64()?.try_into().ok()?,
            line: line.to_owned(),
        };
        Some((
            (
                json["lane"].as_str()?.to_owned(),
                json["position"].as_u64()?,
            ),
            letter,
        ))
    };
    text.lines().filter_map(letter).collect()
}

/// Checks that what was answered 200 is one row or letter, what was answered 503 is none, and the rest one at most.
pub fn check(sender: u32, answers: &Answers, database: &MariaDb, data_dir: &Path) {
    let name = format!("sender{sender}");
    let query = format!("SELECT value FROM eventlog WHERE name = '{name}'");
    let (poison, expected): (BTreeSet<u32>, BTreeSet<u32>) = answers
        .acknowledged
        .iter()
        .partition(|&&value| is_poison(value));
    let mut missing = Vec::new();
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("every event is stored", || {
            let rows: BTreeSet<u32> = database.query(&query).into_iter().collect();
            missing = expected.difference(&rows).copied().collect();
            missing.is_empty()
        });
    }));
    assert!(
        waited.is_ok(),
        "{name}: {} events are missing: {missing:?}",
        missing.len()
    );
    let mut lettered = BTreeMap::new();
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("every refused event is a letter", || {
            lettered.clear();
            for (place, letter) in letters(data_dir) {
                if letter.name == name {
                    lettered
                        .entry(letter.value)
                        .or_insert_with(Vec::new)
                        .push(place);
                }
            }
            poison.iter().all(|value| lettered.contains_key(value))
        });
    }));
    assert!(
        waited.is_ok(),
        "{name}: of {poison:?} only {lettered:?} are letters"
    );
    let twice: Vec<_> = lettered
        .iter()
        .filter(|(_, places)| places.len() > 1)
        .collect();
    assert!(twice.is_empty(), "{name}: letters are doubled: {twice:?}");
    let rows: Vec<u32> = database.query(&query);
    let distinct: BTreeSet<u32> = rows.iter().copied().collect();
    assert_eq!(rows.len(), distinct.len(), "{name}: rows are doubled");
    let shed: Vec<_> = answers
        .shed
        .iter()
        .filter(|&value| distinct.contains(value) || lettered.contains_key(value))
        .collect();
    assert!(
        shed.is_empty(),
        "{name}: {shed:?} were answered 503 and are stored"
    );
}
