//! Lives of the binary that end by a power cut, with what a failing test says about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::Database;
use super::mount::LyingDisk;
use super::plan::{Plan, Summary};
use super::power::{Darkness, Faults};
use super::senders::{Answers, SENDERS, Shared, VALUES, faults, send};
use crate::support::{Client, DEADLINE, Hakaru, Settings, StopWhenDropped, free_port, wait_until};

/// Letters in the name of a lane.
const LANE_NAME: usize = 32;

/// What is known of a life afterwards.
struct Past {
    seed: u64,
    plan: Plan,
    history: Vec<String>,
    log: String,
    /// It could not write down where a lane ends: events that were answered 503 may become rows.
    end_not_written: bool,
}

/// The lives of the binary on one disk.
pub struct Lives<'a> {
    disk: &'a LyingDisk,
    database: Database,
    io: &'static str,
    seed: u64,
    address: SocketAddr,
    directory: TempDir,
    pub summary: Summary,
    /// Those since the rows were looked at.
    past: BTreeMap<u64, Past>,
    answers: Answers,
    /// The first value that senders have used since then, and the rows that there were.
    first_value: u32,
    rows_before: usize,
}

impl<'a> Lives<'a> {
    pub fn new(disk: &'a LyingDisk, database: Database, io: &'static str, seed: u64) -> Self {
        Self {
            disk,
            database,
            io,
            seed,
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            directory: tempfile::tempdir().unwrap(),
            summary: Summary::default(),
            past: BTreeMap::new(),
            answers: Answers::default(),
            first_value: 0,
            rows_before: 0,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.disk.path().join("hakaru-data")
    }

    fn settings(&self, plan: &Plan) -> Settings {
        Settings::datasource(&self.database.dsn())
            .directory(self.directory.path())
            .flag("--ack=journaled")
            .flag(&format!("--data-dir={}", self.data_dir().display()))
            .flag(&format!("--listen={}", self.address))
            .flag(&format!("--io={}", self.io))
            .flag(&format!("--cores={}", plan.cores))
            .flag(&format!("--linger={}ms", plan.linger))
            .flag(&format!("--batch-events={}", plan.batch_events))
            .flag(&format!("--journal-keep={}", plan.keep))
    }

    /// Lives under load that end by so many power cuts, and then one that stores what is left.
    pub fn live(&mut self, cuts: u64) {
        let first = self.summary.power_cuts;
        let sender = self.first_value / VALUES;
        let shared = Shared {
            disk: self.disk,
            address: self.address,
            stop: AtomicBool::new(false),
            life: AtomicU64::new(first),
            is_heavy: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        };
        thread::scope(|scope| {
            let _stopped = StopWhenDropped(&shared.stop);
            let (shared, seed) = (&shared, self.seed ^ first);
            let senders: Vec<_> = (sender..sender + SENDERS)
                .map(|sender| scope.spawn(move || send(sender, seed, shared)))
                .collect();
            for life in first..first + cuts {
                shared.life.store(life, Ordering::Relaxed);
                self.live_once(life, shared);
            }
            shared.stop.store(true, Ordering::Relaxed);
            for sender in senders {
                self.answers.extend(sender.join().unwrap());
            }
        });
        self.store_all();
        self.summary.acknowledged += self.answers.acknowledged.len();
        self.summary.shed += self.answers.shed.len();
        self.answers = Answers::default();
        self.past.clear();
        self.rows_before = self.database.count();
        self.first_value = self.first_value.checked_add(SENDERS * VALUES).unwrap();
    }

    /// One life, from the start to what is left after the power cut.
    fn live_once(&mut self, life: u64, shared: &Shared) {
        let seed = self.seed.wrapping_add(life);
        let plan = Plan::of(seed);
        shared.is_heavy.store(plan.is_heavy, Ordering::Relaxed);
        self.disk.lock().power.seed(seed);
        let mut hakaru = self.past_faults(&plan, shared);
        self.disk.lock().power.cut(plan.cut);
        // The numbers add up at any moment, so at one before the power cut.
        if plan.cut.operations > 300 {
            check_identity(&mut hakaru, self.disk);
        }
        let wanted = if plan.cut.darkness == Darkness::Fails {
            plan.failing
        } else {
            0
        };
        let mut ended = false;
        let start = Instant::now();
        while !ended && !self.has_failed(wanted) {
            assert!(
                start.elapsed() < DEADLINE,
                "no power cut in {plan:?}:\n{}",
                hakaru.log()
            );
            thread::park_timeout(Duration::from_millis(2));
            ended = hakaru.has_ended();
        }
        assert!(
            self.disk.lock().power.is_dark(),
            "ended in {plan:?}:\n{}",
            hakaru.log()
        );
        if !ended {
            hakaru.signal(Signal::SIGKILL);
        }
        self.disk.lock().power.release();
        hakaru.wait();
        let mut disk = self.disk.lock();
        self.summary.operations += disk.power.counts.begun;
        self.summary.segments += disk.power.counts.segments as u64;
        let history = disk.power.history();
        disk.restart();
        drop(disk);
        let is_clean = plan.cut.darkness == Darkness::Blocks && plan.faulty.is_none();
        let past = Past {
            seed,
            plan,
            history,
            log: hakaru.log(),
            end_not_written: !hakaru.events("lane_end_not_written").is_empty(),
        };
        self.note(life, past);
        // Whatever a power cut does to what is not synced is no fault of the disk.
        if is_clean {
            let errors = hakaru.errors();
            assert!(errors.is_empty(), "{errors:#?}\n{}", self.story(life));
        }
    }

    fn note(&mut self, life: u64, past: Past) {
        let cut = past.history.iter().find(|line| line.contains("POWER CUT"));
        // Such as "synced write" or "make", without the digits of its name.
        let kind = cut.map_or("", |line| line.split(' ').next().unwrap_or_default());
        *self.summary.cut_in.entry(kind.to_owned()).or_default() += 1;
        self.summary.power_cuts += 1;
        self.summary.after_faults += u64::from(past.plan.faulty.is_some());
        self.past.insert(life, past);
    }

    fn has_failed(&self, wanted: u64) -> bool {
        let disk = self.disk.lock();
        disk.power.is_dark() && disk.power.counts.failed >= wanted
    }

    /// Starts it. Where the disk has faults at first, lets it live through them.
    fn past_faults(&self, plan: &Plan, shared: &Shared) -> Hakaru {
        let Some((failures, operations, faults)) = plan.faulty else {
            return self.settings(plan).spawn();
        };
        let mut hakaru = self.settings(plan).spawn();
        self.disk.lock().power.set_faults(faults);
        let until = self.disk.lock().power.counts.begun + operations;
        wait_until("the disk has had its faults", || {
            self.start_again(&mut hakaru, plan);
            let disk = self.disk.lock();
            disk.power.counts.begun >= until || disk.power.counts.faulted >= failures
        });
        self.disk.lock().power.set_faults(Faults::default());
        // A request that was sent before may be answered 503 after it.
        let answered = || shared.answered.load(Ordering::Relaxed);
        let before = answered();
        let start = Instant::now();
        while answered() <= before + 2 * u64::from(SENDERS) {
            self.start_again(&mut hakaru, plan);
            let history = self.disk.lock().power.history().join("\n  ");
            assert!(
                start.elapsed() < DEADLINE,
                "no event is taken after the faults of {plan:?}\n  {history}\n{}",
                hakaru.log()
            );
            thread::park_timeout(Duration::from_millis(10));
        }
        hakaru
    }

    /// It may refuse to start on a disk with faults. Once it serves, it must not end.
    fn start_again(&self, hakaru: &mut Hakaru, plan: &Plan) {
        if hakaru.has_ended() {
            assert!(
                hakaru.events("listening").is_empty(),
                "{plan:?}\n{}",
                hakaru.log()
            );
            *hakaru = self.settings(plan).spawn();
        }
    }

    /// Without a power cut everything is stored, and the drain ends well.
    fn store_all(&mut self) {
        let last = self.summary.power_cuts - 1;
        let plan = Plan::of(self.seed.wrapping_add(last));
        let journal = self.data_dir().join("journal");
        let entries = fs::read_dir(&journal).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let lanes: Vec<String> = names.filter(|name| name.len() == LANE_NAME).collect();
        let hakaru = self.settings(&plan).start();
        let is_read = || {
            let recovered = hakaru.events("lane_recovered");
            let is_known = |lane: &String| recovered.iter().any(|line| line["lane"] == **lane);
            let mut left = lanes.iter().filter(|lane| !is_known(lane));
            left.all(|lane| !journal.join(lane).exists())
        };
        let deadline = Instant::now() + DEADLINE;
        let mut problems = vec!["a lane is not read".to_owned()];
        let mut lives = BTreeSet::new();
        while Instant::now() < deadline {
            if is_read() && stats(&hakaru)["events"]["pending"] == 0 {
                (problems, lives) = self.problems();
                if problems.is_empty() {
                    break;
                }
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        let stories: String = lives.iter().map(|&life| self.story(life)).collect();
        problems.truncate(20);
        assert!(
            problems.is_empty(),
            "{problems:#?}\n{stories}\nlast life:\n{}",
            hakaru.log()
        );
        let errors = hakaru.errors();
        assert!(errors.is_empty(), "{errors:#?}\n{}", self.story(last));
        let identity = hakaru.stop();
        assert_eq!((identity.lost, identity.pending), (0, 0), "{identity:?}");
        let (problems, _) = self.problems();
        assert!(problems.is_empty(), "after the drain: {problems:#?}");
    }

    fn problems(&self) -> (Vec<String>, BTreeSet<u64>) {
        let rows = self.database.rows(self.first_value);
        let is_known = |life: &u64| !self.past[life].end_not_written;
        let (mut problems, lives) = faults(&rows, &self.answers, is_known);
        let before = self.database.count() - rows.len();
        if before != self.rows_before {
            problems.push(format!("{before} earlier rows, not {}", self.rows_before));
        }
        (problems, lives)
    }

    /// One life as a person can read it.
    fn story(&self, life: u64) -> String {
        let Some(past) = self.past.get(&life) else {
            return String::new();
        };
        format!(
            "life {life} (HAKARU_POWER_CUT_SEED={}), {:?}\n  {}\nits log:\n{}\n",
            past.seed,
            past.plan,
            past.history.join("\n  "),
            past.log
        )
    }
}

fn stats(hakaru: &Hakaru) -> Value {
    let body = Client::connect(hakaru.admin()).get("/stats.json").body;
    serde_json::from_str(&body).unwrap()
}

/// Asks for the numbers, unless the power is cut before.
fn check_identity(hakaru: &mut Hakaru, disk: &LyingDisk) {
    wait_until("it listens", || {
        !hakaru.events("admin_listening").is_empty()
            || disk.lock().power.is_dark()
            || hakaru.has_ended()
    });
    let known = hakaru.events("admin_listening");
    let Some(address) = known.first().and_then(|line| line["address"].as_str()) else {
        return;
    };
    let Ok(mut client) = Client::try_connect(address.parse().unwrap()) else {
        return;
    };
    let Some(answer) = client.try_get("/stats.json") else {
        return;
    };
    let stats: Value = serde_json::from_str(&answer.body).unwrap();
    let count = |name: &str| stats["events"][name].as_u64().unwrap();
    let ends = count("stored")
        + count("duplicate")
        + count("dead_lettered")
        + count("lost")
        + count("pending");
    assert_eq!(count("received"), ends, "{stats}");
    assert_eq!(count("lost"), 0, "{stats}");
}
