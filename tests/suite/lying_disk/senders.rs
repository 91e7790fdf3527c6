//! Senders that remember every answer, and what must have become of their events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::mount::LyingDisk;
use crate::support::Client;

/// Senders at the same time.
pub const SENDERS: u32 = 4;

/// Values that one sender may use between two looks at the rows: the first half for short names, the second for long
/// ones.
pub const VALUES: u32 = 1_000_000;

/// Most requests that are sent at once.
const REQUESTS_MAX: u32 = 600;

/// Wait before a sender tries again.
const PAUSE: Duration = Duration::from_millis(1);

/// What senders share with the test.
pub struct Shared<'a> {
    pub disk: &'a LyingDisk,
    pub address: SocketAddr,
    pub stop: AtomicBool,
    /// The number of power cuts so far.
    pub life: AtomicU64,
    /// Whether senders fill segments: many long names at once.
    pub is_heavy: AtomicBool,
    /// How many events were answered 200.
    pub answered: AtomicU64,
}

/// Values by their answers, each with the life in which it was answered. Those of neither may be stored or not.
#[derive(Default)]
pub struct Answers {
    pub acknowledged: BTreeMap<u32, u64>,
    pub shed: BTreeMap<u32, u64>,
}

impl Answers {
    pub fn extend(&mut self, more: Self) {
        self.acknowledged.extend(more.acknowledged);
        self.shed.extend(more.shed);
    }
}

/// The name of the event with this value: what is stored must not be garbled.
pub fn name_of(value: u32) -> String {
    let letter = char::from(b'a' + (value % 26) as u8);
    let hash = value.wrapping_mul(2_654_435_761) >> 24;
    let is_long = value % VALUES >= VALUES / 2;
    let length = 1 + if is_long { 254 } else { hash / 8 };
    letter.to_string().repeat(length as usize)
}

/// Sends events that nobody else sends, and never twice: one or many at once.
pub fn send(sender: u32, seed: u64, shared: &Shared) -> Answers {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(sender));
    let mut answers = Answers::default();
    let first = sender * VALUES;
    let mut next = [first, first + VALUES / 2];
    let is_stopped = || shared.stop.load(Ordering::Relaxed);
    while !is_stopped() {
        let Ok(mut client) = Client::try_connect(shared.address) else {
            thread::park_timeout(PAUSE);
            continue;
        };
        while !is_stopped() {
            let is_heavy = shared.is_heavy.load(Ordering::Relaxed);
            let count = match random.u8(0..40) {
                _ if is_heavy => REQUESTS_MAX,
                0..30 => 1,
                30..39 => random.u32(2..30),
                _ => random.u32(30..REQUESTS_MAX),
            };
            let next = &mut next[usize::from(is_heavy)];
            let values = *next..*next + count;
            *next = values.end;
            let end = first + VALUES / 2 * (1 + u32::from(is_heavy));
            assert!(values.end <= end, "too many events");
            let life = shared.life.load(Ordering::Relaxed);
            if !take_answers(&mut client, values, life, shared, &mut answers) {
                break;
            }
        }
    }
    answers
}

/// Sends requests at once and notes their answers. Whether the connection goes on.
fn take_answers(
    client: &mut Client,
    values: Range<u32>,
    life: u64,
    shared: &Shared,
    answers: &mut Answers,
) -> bool {
    let mut answer = client.try_request(&requests(values.clone()));
    for value in values.clone() {
        // A 503 that the dead disk may have caused may be a row: nothing could be written down.
        let is_dark = shared.disk.lock().power.is_dark();
        match answer.map(|answer| answer.status) {
            Some(200) => {
                answers.acknowledged.insert(value, life);
                shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            Some(503) => {
                if !is_dark {
                    answers.shed.insert(value, life);
                }
                thread::park_timeout(PAUSE);
            }
            Some(status) => panic!("status {status}"),
            None => return false,
        }
        let is_last = value + 1 == values.end;
        answer = if is_last { None } else { client.try_answer() };
    }
    true
}

/// Requests that are sent at once, so that their events become one record.
fn requests(values: Range<u32>) -> String {
    let request = |value| {
        let name = name_of(value);
        format!("GET /hakaru?name={name}&value={value} HTTP/1.1\r\nHost: h\r\n\r\n")
    };
    values.map(request).collect()
}

/// What is wrong with the rows, and in which lives, or nothing. A 503 counts where `is_known` says that the life has
/// written down where its lanes end.
pub fn faults(
    rows: &[(u32, String)],
    answers: &Answers,
    is_known: impl Fn(&u64) -> bool,
) -> (Vec<String>, BTreeSet<u64>) {
    let mut faults = Vec::new();
    let mut lives = BTreeSet::new();
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for (value, name) in rows {
        *counts.entry(*value).or_default() += 1;
        if *name != name_of(*value) {
            faults.push(format!("{value} is stored with the name {name:?}"));
        }
    }
    let mut add = |value: &u32, what: String| {
        let life = answers
            .acknowledged
            .get(value)
            .or_else(|| answers.shed.get(value));
        lives.extend(life);
        faults.push(format!("{value}: {what}; answered in life {life:?}"));
    };
    for (value, count) in &counts {
        if *count > 1 {
            add(value, format!("{count} rows"));
        }
    }
    for value in answers.acknowledged.keys() {
        if !counts.contains_key(value) {
            add(value, "answered 200, and no row".to_owned());
        }
    }
    for (value, life) in &answers.shed {
        if counts.contains_key(value) && is_known(life) {
            add(value, "answered 503, and a row".to_owned());
        }
    }
    (faults, lives)
}
