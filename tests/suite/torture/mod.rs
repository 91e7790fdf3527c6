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
mod round;
pub mod senders;
pub mod stats;
mod troubles;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use self::database::Database;
use self::draw::{Drawn, Kind};
use self::history::History;
use self::node::Ended;
use self::round::Round;
use self::senders::{Load, SENDERS};
use self::stats::Watch;
use crate::support::{DatabaseServer, NetworkFault, Proxy, SmallDisk, StopWhenDropped};

/// Rounds that are under way at the same time.
const AT_ONCE: usize = 3;

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
    events: AtomicU64,
    looks: AtomicU64,
    /// How often each thing was drawn.
    drawn: Mutex<BTreeMap<String, u32>>,
    failed: Mutex<Vec<String>>,
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
    let (load, watch) = (Load::new(history, drawn.pace), Watch::default());
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
    summary.events.fetch_add(history.taken(), Ordering::Relaxed);
    if let Err(panic) = lived {
        keep_logs(drawn, history);
        std::panic::resume_unwind(panic);
    }
}

/// Where the logs of a failed round are.
fn logs(seed: u64) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{seed}"))
}

fn keep_logs(drawn: &Drawn, history: &History) {
    let directory = logs(drawn.seed);
    std::fs::create_dir_all(&directory).unwrap();
    for (node, log) in history.logs() {
        std::fs::write(directory.join(format!("process-{node}.log")), log).unwrap();
    }
}

fn try_live(seed: u64, servers: &mut Servers, summary: &Summary) {
    let (drawn, history) = (Drawn::of(seed), History::new());
    summary.count(&drawn);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        live(&drawn, servers, &history, summary)
    }));
    let Err(panic) = lived else {
        return;
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    // A server may be down.
    *servers = Servers::start();
    let report = format!(
        "HAKARU_TORTURE_SEED={seed}\n{drawn:#?}\n{}\n{}\nlogs: {}\n",
        history.story(),
        text.unwrap_or_default(),
        logs(seed).display()
    );
    summary.failed.lock().unwrap().push(report);
}

/// A variable of the environment.
pub fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn every_answer_is_kept_whatever_fails() {
    let once = setting::<u64>("HAKARU_TORTURE_SEED");
    let rounds = setting("HAKARU_TORTURE_ROUNDS").unwrap_or(if once.is_some() { 1 } else { 12 });
    let seed = once.unwrap_or_else(|| fastrand::u64(..));
    let (summary, next) = (Summary::default(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(rounds) {
            scope.spawn(|| {
                let mut servers = Servers::start();
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= rounds || summary.failed.lock().unwrap().len() > 2 {
                        break;
                    }
                    try_live(seed.wrapping_add(round as u64), &mut servers, &summary);
                }
            });
        }
    });
    let failed = summary.failed.lock().unwrap();
    println!(
        "{rounds} rounds from seed {seed}: {} events taken, /stats.json compared {} times",
        summary.events.load(Ordering::Relaxed),
        summary.looks.load(Ordering::Relaxed)
    );
    for (thing, count) in summary.drawn.lock().unwrap().iter() {
        println!("{count:5}  {thing}");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
