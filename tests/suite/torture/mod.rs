//! A checker that believes nobody. In each round senders write down what they send and what is answered, while troubles
//! drawn by a seed come one after the other: processes are killed, frozen and revived, reloaded, and started on copies of
//! the data directory; the database is killed, restored, replaced, and refuses rows; the disk is full. At quiet moments
//! and at the end each event is compared with the rows, the dead letters, and the numbers of `/stats.json`.
//!
//! docs/testing.md tells how to repeat a round, and how to add a trouble.

mod checker;
pub mod database;
pub mod draw;
pub mod history;
pub mod node;
mod operator;
mod repeats;
pub mod requests;
mod round;
pub mod senders;
mod settled;
pub mod stats;
mod troubles;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use self::database::Database;
use self::draw::{Drawn, Kind};
use self::history::{History, Sent};
use self::node::Ended;
use self::round::Round;
use self::senders::{Load, SENDERS};
use self::stats::Watch;
use crate::support::{DatabaseServer, NetworkFault, Proxy, SmallDisk, StopWhenDropped};

/// Rounds that are under way at the same time.
const AT_ONCE: usize = 3;

/// Rounds where nobody asks for more.
const ROUNDS: usize = 12;

/// The servers of one round after the other.
struct Servers {
    main: DatabaseServer,
    other: DatabaseServer,
    proxy: Proxy,
}

impl Servers {
    fn start() -> Self {
        let main = DatabaseServer::start();
        Self {
            proxy: Proxy::start(main.port()),
            main,
            other: DatabaseServer::start(),
        }
    }
}

/// What was done in all rounds.
#[derive(Debug, Default)]
struct Summary {
    looks: AtomicU64,
    /// How often each thing was drawn.
    drawn: Mutex<BTreeMap<String, u32>>,
    sent: Mutex<Sent>,
}

impl Summary {
    fn count(&self, drawn: &Drawn) {
        let mut counts = self.drawn.lock().unwrap();
        let settings = format!("{:?}, {:?}, {}", drawn.ack, drawn.kind, drawn.io);
        let troubles = drawn.troubles.iter().map(|trouble| format!("{trouble:?}"));
        for thing in troubles.chain([settings]) {
            // Without how many microseconds later a replay is killed.
            let thing = thing.split("Some(").next().unwrap_or_default().to_owned();
            *counts.entry(thing).or_default() += 1;
        }
    }
}

fn live(drawn: &Drawn, servers: &mut Servers, history: &History, summary: &Summary) {
    let (place, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = drawn
        .has_small_disk()
        .then(|| SmallDisk::mount(place.path(), "256m"));
    servers.proxy.inject(NetworkFault::None);
    servers.proxy.point_to(servers.main.port());
    servers.proxy.cut();
    let file = |name: &str| scratch.path().join(name);
    let databases = match drawn.kind {
        Kind::Server => [
            Database::Server(&mut servers.main),
            Database::Server(&mut servers.other),
        ],
        Kind::Sqlite => [
            Database::Sqlite(file("eventlog.db")),
            Database::Sqlite(file("other.db")),
        ],
    };
    let (load, watch) = (
        Load::new(history, drawn.pace, drawn.batch_events),
        Watch::default(),
    );
    let mut ended: Vec<Ended> = Vec::new();
    let lived = thread::scope(|scope| {
        let _stopped = StopWhenDropped(&load.stop);
        for sender in 0..SENDERS {
            let load = &load;
            scope.spawn(move || load.send(sender, drawn.seed));
        }
        scope.spawn(|| watch.run(&load));
        let mut round = Round {
            drawn,
            history,
            load: &load,
            watch: &watch,
            databases,
            proxy: &servers.proxy,
            directory: place.path(),
            scratch: scratch.path(),
            disk: disk.as_ref(),
            random: fastrand::Rng::with_seed(drawn.seed),
            node: None,
            backup: None,
            copy: None,
            nodes: 0,
            ended: &mut ended,
            is_unsettled: false,
            has_served_other: false,
        };
        let lived = catch_unwind(AssertUnwindSafe(|| round.live()));
        if let (Err(_), Some(node)) = (&lived, round.node.take()) {
            round.kill(node);
        }
        lived
    });
    summary
        .looks
        .fetch_add(watch.looks.load(Ordering::Relaxed), Ordering::Relaxed);
    summary.sent.lock().unwrap().add(&history.sent());
    if let Err(panic) = lived {
        std::panic::resume_unwind(panic);
    }
}

/// Where the logs of a failed round are.
fn logs(seed: u64) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{seed}"))
}

/// The report of a failed round. The logs of its processes are kept.
fn failed_round(seed: u64, drawn: &str, history: &History, panic: &(dyn Any + Send)) -> String {
    let directory = logs(seed);
    std::fs::create_dir_all(&directory).unwrap();
    for (node, log) in history.logs() {
        std::fs::write(directory.join(format!("process-{node}.log")), log).unwrap();
    }
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!(
        "HAKARU_TORTURE_SEED={seed}\n{drawn}\n{}\n{}\nlogs: {}\n",
        history.story(),
        text.unwrap_or_default(),
        directory.display()
    )
}

fn try_live(seed: u64, servers: &mut Servers, summary: &Summary) -> Option<String> {
    let (drawn, history) = (Drawn::of(seed), History::new());
    summary.count(&drawn);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        live(&drawn, servers, &history, summary)
    }));
    let panic = lived.err()?;
    // A server may be down.
    *servers = Servers::start();
    Some(failed_round(
        seed,
        &format!("{drawn:#?}"),
        &history,
        panic.as_ref(),
    ))
}

/// A variable of the environment.
pub fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Lives through as many rounds as are asked for, `at_once` at the same time, each with what `start` has made. `live`
/// returns the report of a failed round. Returns how many there were, the first seed, and the reports.
fn run_rounds<S>(
    default: usize,
    at_once: usize,
    start: impl Fn() -> S + Sync,
    live: impl Fn(u64, &mut S) -> Option<String> + Sync,
) -> (usize, u64, Vec<String>) {
    let once = setting::<u64>("HAKARU_TORTURE_SEED");
    let default = if once.is_some() { 1 } else { default };
    let rounds = setting("HAKARU_TORTURE_ROUNDS").unwrap_or(default);
    let seed = once.unwrap_or_else(|| fastrand::u64(..));
    let (failed, next) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..at_once.min(rounds) {
            scope.spawn(|| {
                let mut site = start();
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= rounds || failed.lock().unwrap().len() > 2 {
                        break;
                    }
                    let report = live(seed.wrapping_add(round as u64), &mut site);
                    failed.lock().unwrap().extend(report);
                }
            });
        }
    });
    (rounds, seed, failed.into_inner().unwrap())
}

#[test]
fn every_answer_is_kept_whatever_fails() {
    let summary = Summary::default();
    let (rounds, seed, failed) = run_rounds(ROUNDS, AT_ONCE, Servers::start, |seed, servers| {
        try_live(seed, servers, &summary)
    });
    println!(
        "{rounds} rounds from seed {seed}: {}, /stats.json compared {} times",
        summary.sent.lock().unwrap(),
        summary.looks.load(Ordering::Relaxed)
    );
    for (thing, count) in summary.drawn.lock().unwrap().iter() {
        println!("{count:5}  {thing}");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
