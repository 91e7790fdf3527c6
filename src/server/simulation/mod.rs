//! The whole server on machines, with a database and senders, driven by one seed.
//!
//! The ingest, the disk threads, the janitor, the writers and the dead letters are those of the server. Each thread is a
//! task that a schedule resumes (`os/simulated`), over a clock, a disk and a database of the simulation.

mod bodies;
mod coverage;
mod database;
mod history;
mod identity;
mod memory;
mod operator;
mod oracle;
mod process;
mod rest;
mod rows;
mod schedule;
mod senders;
mod sending;
mod sequences;
mod shard;
mod sink;
mod thread;
mod troubles;
mod world;

use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::oracle::Broken;
use self::world::{Tally, run};
use crate::os::bugs::{Bug, plant};

/// How many seeds are run, unless `HAKARU_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: a number is accepted")),
    )
}

/// A seed that broke a rule.
struct Failed {
    seed: u64,
    families: String,
    broken: Broken,
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            families,
            broken,
        } = self;
        write!(out, "seed {seed} {families}: {broken}")
    }
}

/// Runs these seeds on all cores. Returns those that broke a rule, in order.
fn run_all(seeds: Range<u64>, bug: Option<Bug>) -> (Tally, Vec<Failed>) {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        plant(bug);
        let (mut tally, mut failed) = (Tally::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (tally, failed);
            }
            let ran = run(seed);
            tally.add(&ran.tally);
            if bug.is_some() && ran.outcome.is_err() {
                // The lower seeds run already.
                next.fetch_max(seeds.end, Ordering::Relaxed);
            }
            failed.extend(ran.outcome.err().map(|broken| Failed {
                seed,
                families: ran.families,
                broken,
            }));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    for (part, more) in parts {
        tally.add(&part);
        failed.extend(more);
    }
    failed.sort_by_key(|failed| failed.seed);
    (tally, failed)
}

#[test]
fn each_event_is_what_its_sender_was_told() {
    let bug = std::env::var("HAKARU_SIM_BUG").ok();
    let bug = bug.map(|name| {
        let known = BUGS.into_iter().find(|bug| format!("{bug:?}") == name);
        known.unwrap_or_else(|| panic!("HAKARU_SIM_BUG={name}: one of {BUGS:?} is accepted"))
    });
    if let Some(seed) = number("HAKARU_SIM_SEED") {
        plant(bug);
        history::start();
        let ran = run(seed);
        println!("{}", history::take().join("\n"));
        return ran
            .outcome
            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    let first = number("HAKARU_SIM_FIRST").unwrap_or(0);
    let seeds = number("HAKARU_SIM_SEEDS").unwrap_or(SEEDS);
    let begin = Instant::now();
    let (tally, failed) = run_all(first..first + seeds, bug);
    println!(
        "{seeds} seeds from {first} on, {} events, {} steps, {:.1} s",
        tally.events,
        tally.steps,
        begin.elapsed().as_secs_f64()
    );
    for (what, times) in &tally.counts {
        println!("{times:10} {what}");
    }
    for failed in failed.iter().take(40) {
        println!("{failed}");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
    let are_all_drawn = std::env::var_os("HAKARU_SIM_TROUBLES").is_none();
    if seeds >= SEEDS && are_all_drawn {
        let missed = coverage::never_reached(&tally);
        assert!(missed.is_empty(), "never reached: {missed:#?}");
    }
}

/// The bugs that are planted, each against a rule of its own.
const BUGS: [Bug; 37] = [
    Bug::DurableBlockRewritten,
    Bug::SpareIgnored,
    Bug::DirectoryNotSynced,
    Bug::AnswerBeforeWrite,
    Bug::UnknownOutcomeBelieved,
    Bug::LettersSkipped,
    Bug::StoredPartRepeated,
    Bug::MissingSkipped,
    Bug::EndNotWritten,
    Bug::RecoveryBeginsLate,
    Bug::SpanDropped,
    Bug::LabelIgnored,
    Bug::OtherDatabaseAccepted,
    Bug::UnstoredRemoved,
    Bug::LockIgnored,
    Bug::CopyIgnored,
    Bug::FailedWriteIgnored,
    Bug::RestoreNotPassedOn,
    Bug::ProbeAsksForNothing,
    Bug::OldDecisionApplied,
    Bug::VoidedTooShort,
    Bug::LabelLate,
    Bug::AlteredCopyBelieved,
    Bug::ReplayedNotNoted,
    Bug::ReplayedTooEarly,
    Bug::StoredAnsweredEarly,
    Bug::LettersNotCounted,
    Bug::RefusedNotTold,
    Bug::FailedForEver,
    Bug::LetterTimeLost,
    Bug::FingerprintIgnored,
    Bug::LaneOfNobody,
    Bug::IdNotReadBack,
    Bug::DuplicateStored,
    Bug::HalfOfRequestTaken,
    Bug::RequestInTwoGroups,
    Bug::FirstGroupAnswered,
];

/// Seeds within which each of them is detected.
const SEEDS_OF_A_BUG: u64 = 2_000;

#[test]
fn planted_bugs_are_detected() {
    let mut missed = Vec::new();
    for bug in BUGS {
        let parts = (0..SEEDS_OF_A_BUG).step_by(500);
        let found = parts
            .map(|first| run_all(first..first + 500, Some(bug)).1)
            .find_map(|failed| failed.into_iter().next());
        match found {
            Some(failed) => println!("{bug:?}: {failed}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not detected: {missed:?}");
}

/// The same seed does the same.
#[test]
fn a_seed_repeats_itself() {
    for seed in 0..20 {
        let tallies = [(); 2].map(|()| {
            let ran = run(seed);
            (ran.tally.steps, ran.tally.events, ran.outcome)
        });
        assert_eq!(tallies[0], tallies[1], "seed {seed}");
    }
}
