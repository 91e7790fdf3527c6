//! Real clusters of three servers: Galera, and Group Replication with a single primary. hakaru finds them behind a front
//! that follows the member which takes the writes.
//!
//! docs/testing.md tells how to run more rounds, and how to repeat one.

mod check;
mod cluster;
mod draw;
mod front;
mod galera;
mod group_replication;
mod judge;
mod member;
mod network;
mod round;
mod watch;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use self::cluster::{Cluster, Kind};
use self::draw::{Drawn, Trouble};
use self::front::Front;
use self::round::Round;
use self::watch::{WRITERS, Waits, Watch};
use crate::support::StopWhenDropped;
use crate::torture::history::History;
use crate::torture::senders::{Load, SENDERS};
use crate::torture::setting;

/// Rounds of each kind of cluster, if the environment asks for no others.
const ROUNDS: usize = 2;

/// Most clusters at the same time, and the rounds that are worth another one.
const CLUSTERS: usize = 2;
const ROUNDS_OF_A_CLUSTER: usize = 10;

/// What was found in all rounds.
#[derive(Default)]
struct Summary {
    rounds: AtomicUsize,
    events: AtomicU64,
    shed: AtomicU64,
    waits: Mutex<BTreeMap<String, Vec<Waits>>>,
    /// Warnings of hakaru, by event and code.
    lines: Mutex<BTreeMap<String, u32>>,
    failed: Mutex<Vec<String>>,
}

impl Summary {
    fn count(&self, trouble: Trouble, waits: Waits) {
        let mut all = self.waits.lock().unwrap();
        all.entry(format!("{trouble:?}")).or_default().push(waits);
    }

    /// What was measured, one line for each trouble.
    fn table(&self, kind: Kind) -> String {
        let mut table = format!(
            "{kind:?}: {} rounds, {} events answered 200, {} answered 503\n\
             times, longest without a stored row, without a write of the cluster, difference:\n",
            self.rounds.load(Ordering::Relaxed),
            self.events.load(Ordering::Relaxed),
            self.shed.load(Ordering::Relaxed)
        );
        for (trouble, waits) in self.waits.lock().unwrap().iter() {
            let longest = |of: fn(&Waits) -> Duration| {
                let longest = waits.iter().map(of).max().unwrap_or_default();
                longest.as_secs_f64()
            };
            table += &format!(
                "{:5} {:6.2} s {:6.2} s {:6.2} s  {trouble}\n",
                waits.len(),
                longest(|waits| waits.stored),
                longest(|waits| waits.cluster),
                longest(|waits| waits.stored.saturating_sub(waits.cluster)),
            );
        }
        table += "warnings, event and code:\n";
        for (line, count) in self.lines.lock().unwrap().iter() {
            table += &format!("{count:5} {line}\n");
        }
        table
    }
}

fn live(
    drawn: &Drawn,
    cluster: &mut Cluster,
    fronts: &[Front],
    history: &History,
    summary: &Summary,
) {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let directories = places.each_ref().map(tempfile::TempDir::path);
    cluster.make_whole();
    cluster.reset();
    let loads: Vec<Load<'_>> = (0..drawn.writers)
        .map(|_| Load::new(history, drawn.pace, drawn.batch_events))
        .collect();
    let watch = Watch::new(cluster, fronts);
    let sockets = cluster.sockets();
    let (mut waits, mut lines) = (Vec::new(), BTreeMap::new());
    let stop = AtomicBool::new(false);
    let lived = thread::scope(|scope| {
        let _all_stop = [StopWhenDropped(&stop), StopWhenDropped(&watch.stop)];
        let _loads_stop: Vec<_> = loads
            .iter()
            .map(|load| StopWhenDropped(&load.stop))
            .collect();
        for (writer, load) in loads.iter().enumerate() {
            for sender in 0..SENDERS {
                let sender = sender + writer as u32 * SENDERS;
                scope.spawn(move || load.send(sender, drawn.seed));
            }
        }
        for (member, socket) in sockets.iter().enumerate() {
            let watch = &watch;
            scope.spawn(move || watch.follow(member, socket));
        }
        for writer in 0..WRITERS {
            let watch = &watch;
            scope.spawn(move || watch.beat(writer));
        }
        let mut round = Round {
            drawn,
            history,
            cluster,
            fronts,
            watch: &watch,
            loads: &loads,
            directories: &directories,
            random: fastrand::Rng::with_seed(drawn.seed),
            nodes: (0..WRITERS).map(|_| None).collect(),
            started: 0,
            waits: &mut waits,
            lines: &mut lines,
        };
        catch_unwind(AssertUnwindSafe(|| round.live()))
    });
    summary.rounds.fetch_add(1, Ordering::Relaxed);
    summary.events.fetch_add(history.taken(), Ordering::Relaxed);
    summary.shed.fetch_add(history.shed(), Ordering::Relaxed);
    for (line, count) in lines {
        *summary.lines.lock().unwrap().entry(line).or_default() += count;
    }
    for (trouble, waits) in waits {
        summary.count(trouble, waits);
    }
    if let Err(panic) = lived {
        keep_logs(drawn, cluster, history);
        std::panic::resume_unwind(panic);
    }
}

/// Where the logs of a failed round are.
fn logs(seed: u64) -> PathBuf {
    temporary(&format!("cluster-{seed}"))
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn keep_logs(drawn: &Drawn, cluster: &Cluster, history: &History) {
    let directory = logs(drawn.seed);
    std::fs::create_dir_all(&directory).unwrap();
    for (node, log) in history.logs() {
        std::fs::write(directory.join(format!("process-{node}.log")), log).unwrap();
    }
    for (number, member) in cluster.members.iter().enumerate() {
        drop(std::fs::copy(
            member.log(),
            directory.join(format!("member-{number}.log")),
        ));
    }
}

/// A cluster with the fronts to it.
struct Site {
    cluster: Cluster,
    fronts: Vec<Front>,
}

impl Site {
    fn start(kind: Kind) -> Option<Self> {
        let cluster = Cluster::start(kind)?;
        let fronts = (0..WRITERS).map(|_| Front::start(cluster.sockets()));
        Some(Self {
            fronts: fronts.collect(),
            cluster,
        })
    }
}

fn try_live(seed: u64, site: &mut Site, summary: &Summary) {
    let kind = site.cluster.kind;
    let (drawn, history) = (Drawn::of(seed, kind), History::new());
    let lived = catch_unwind(AssertUnwindSafe(|| {
        live(&drawn, &mut site.cluster, &site.fronts, &history, summary);
    }));
    let Err(panic) = lived else {
        return;
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let report = format!(
        "{kind:?}: HAKARU_CLUSTER_SEED={seed}\n{drawn:#?}\n{}\n{}\nlogs: {}\n",
        history.story(),
        text.unwrap_or_default(),
        logs(seed).display()
    );
    std::fs::create_dir_all(logs(seed)).unwrap();
    std::fs::write(logs(seed).join("report"), &report).unwrap();
    summary.failed.lock().unwrap().push(report);
    // A member may be frozen, or split off.
    *site = Site::start(kind).expect("there was one");
}

/// Lives through all rounds, and returns what was measured.
fn torture(kind: Kind) -> String {
    let once = setting::<u64>("HAKARU_CLUSTER_SEED");
    let default = if once.is_some() { 1 } else { ROUNDS };
    let rounds = setting("HAKARU_CLUSTER_ROUNDS").unwrap_or(default);
    let seed = once.unwrap_or_else(|| fastrand::u64(..));
    let (summary, next) = (Summary::default(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..rounds.div_ceil(ROUNDS_OF_A_CLUSTER).min(CLUSTERS) {
            scope.spawn(|| {
                let Some(mut site) = Site::start(kind) else {
                    return;
                };
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= rounds || summary.failed.lock().unwrap().len() > 2 {
                        break;
                    }
                    try_live(seed.wrapping_add(round as u64), &mut site, &summary);
                    // For a person who waits for many rounds.
                    std::fs::write(temporary(&format!("{kind:?}")), summary.table(kind)).unwrap();
                }
            });
        }
    });
    let failed = summary.failed.lock().unwrap();
    let table = format!("from seed {seed}\n{}", summary.table(kind));
    assert!(failed.is_empty(), "{}\n{table}", failed.join("\n\n"));
    table
}

#[test]
fn galera_has_every_event_once_on_each_node_whatever_fails() {
    println!("{}", torture(Kind::Galera));
}

#[test]
fn a_group_has_every_event_once_on_each_member_whatever_fails() {
    println!("{}", torture(Kind::GroupReplication));
}
