//! Machines, processes, a database and senders, and the schedule that drives them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::database::{Database, Server};
use super::history::{self, note};
use super::memory::Memory;
use super::oracle::{Broken, Oracle};
use super::process::{Process, Settings};
use super::rest::LettersRead;
use super::schedule::{Troubles, draw_settings};
use super::senders::Senders;
use super::troubles::Trouble;
use crate::os::reached::take_reached;
use crate::os::simulated::disk::{Faults, Machine};
use crate::os::simulated::{self, Simulated};

/// Most threads that are resumed before all must be quiet.
pub(super) const STEPS_MAX: u64 = 3_000_000;

/// More sessions than a seed ever has.
const SESSIONS_MAX: u64 = 1 << 32;

/// What is counted over many seeds.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) events: u64,
    pub(super) counts: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, what: impl Into<String>, times: u64) {
        *self.counts.entry(what.into()).or_default() += times;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.events += other.events;
        for (what, times) in &other.counts {
            self.count(what.clone(), *times);
        }
    }
}

/// Everything in a simulation.
pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) machines: Vec<Machine>,
    /// Copies of disks, with the events that were acknowledged until then.
    pub(super) snapshots: Vec<(usize, Machine, BTreeSet<u32>)>,
    pub(super) processes: Vec<Process>,
    pub(super) database: Database,
    pub(super) senders: Senders,
    pub(super) settings: Settings,
    pub(super) oracle: Oracle,
    /// Whether some events are equal.
    pub(super) has_twins: bool,
    /// Whether some events have ids, by which their senders repeat them.
    pub(super) has_ids: bool,
    /// Whether some requests have several events.
    pub(super) has_bodies: bool,
    /// Whether processes may be interrupted in the middle of an operation of the disk.
    pub(super) may_crash: bool,
    /// How many of the troubles that take long may still come.
    pub(super) quiet_left: u32,
    pub(super) tally: Tally,
    pub(super) memory: Memory,
    pub(super) seed: u64,
    /// How many turns there are, and were.
    turns: u32,
    pub(super) turn: u32,
    pub(super) troubles: Troubles,
    /// What the letters were when they were last looked at.
    pub(super) letters_read: RefCell<LettersRead>,
    /// Threads that may go on, by the indices of their processes. Its memory is kept.
    ready: Vec<(usize, usize)>,
    next_process: u32,
}

/// What a seed has led to.
pub(super) struct Run {
    pub(super) outcome: Result<(), Broken>,
    /// The families of its troubles.
    pub(super) families: String,
    pub(super) tally: Tally,
}

/// Runs one seed.
pub(super) fn run(seed: u64) -> Run {
    history::listen();
    let _simulated = Simulated::start(seed);
    let database = Database::new(Server::new(0, 0));
    let mut world = World::new(seed, database, Senders::default(), 0);
    let ran = catch_unwind(AssertUnwindSafe(|| world.live()));
    let mut outcome = ran.unwrap_or_else(|panic| {
        let owned = panic.downcast_ref::<String>().cloned();
        let text = owned.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_default();
        Err(Broken::Final(format!("panic: {text}")))
    });
    world.tally.events = world.senders.count() as u64;
    world.kill_all();
    for (branch, times) in take_reached() {
        world.tally.count(branch, times);
    }
    for (event, times) in history::take_events() {
        if event == "lane_forked" && !world.troubles.may_fork(world.settings.ack) {
            outcome = outcome.and_then(|()| Err(Broken::Final("forked for no reason".to_owned())));
        }
        world.tally.count(format!("log: {event}"), times);
    }
    Run {
        outcome,
        families: format!("{:?}", world.troubles.families),
        tally: world.tally,
    }
}

impl World {
    /// The world of this seed. It fills the database and the senders.
    pub(super) fn new(seed: u64, database: Database, senders: Senders, first_session: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let troubles = Troubles::draw(&mut random);
        let settings = draw_settings(&mut random, &troubles);
        let machine = Machine::new(random.u64(..));
        simulated::set_machine(Some(machine.clone()));
        crate::os::fs::create_dir(super::process::JOURNAL.as_ref()).unwrap();
        crate::os::fs::sync_dir("data".as_ref()).unwrap();
        simulated::set_machine(None);
        database.replace(Server::new(random.u64(..), first_session));
        // Where a machine goes back with its memory, rows tell which of its events are stored: those of equal ones do not.
        let has_twins = random.u32(0..3) == 0 && !troubles.bring_memory_back();
        // Drawn by the seed itself, so that the others stay as they were.
        let has_ids = seed % 3 == 1 && troubles.may_repeat();
        Self {
            machines: vec![machine],
            snapshots: Vec::new(),
            processes: Vec::new(),
            database,
            senders,
            settings,
            oracle: Oracle::default(),
            has_twins,
            has_ids,
            has_bodies: seed % 2 == 1,
            may_crash: true,
            quiet_left: 2,
            tally: Tally::default(),
            memory: Memory::default(),
            seed,
            turns: 0,
            turn: 0,
            troubles,
            letters_read: RefCell::default(),
            ready: Vec::new(),
            next_process: 1,
            random,
        }
    }

    /// Troubles, then a time in which everything must come to rest.
    fn live(&mut self) -> Result<(), Broken> {
        note(|| format!("seed {}: {:?}", self.seed, self.settings));
        self.begin();
        while self.turn < self.turns {
            self.take_turn()?;
        }
        // Rows are gone, and nothing follows.
        if self.troubles.has(Trouble::Backup) && self.random.bool() {
            self.quiet_left = 1;
            let last = if self.random.bool() {
                Trouble::RestoredInQuiet
            } else {
                Trouble::RowsDeleted
            };
            self.trouble(last)?;
        }
        self.heal()
    }

    fn begin(&mut self) {
        self.start_process(0);
        self.turns = self.random.u32(50..400);
    }

    fn take_turn(&mut self) -> Result<(), Broken> {
        if let Some(trouble) = self.troubles.next(&mut self.random) {
            self.trouble(trouble)?;
        }
        for _ in 0..self.random.u32(1..30) {
            if !self.step() && !self.advance_clock() {
                break;
            }
        }
        self.turn += 1;
        self.check_removed()
    }

    /// The world as it was before this turn. Whatever it shares with this one must be put back.
    pub(super) fn before(&self, turn: u32) -> Result<Self, Broken> {
        let (database, senders) = (self.database.clone(), self.senders.clone());
        let mut past = Self::new(self.seed, database, senders, SESSIONS_MAX);
        past.begin();
        while past.turn < turn {
            past.take_turn()?;
        }
        Ok(past)
    }

    /// The number of the next process.
    pub(super) fn number_process(&mut self) -> u32 {
        let number = self.next_process;
        self.next_process += 1;
        number
    }

    /// Resumes one thread. `false`: none can go on now.
    pub(super) fn step(&mut self) -> bool {
        let now = simulated::now().filter(|_| self.tally.steps <= STEPS_MAX);
        let Some(now) = now else {
            return false;
        };
        self.ready.clear();
        for (index, process) in self.processes.iter().enumerate() {
            if process.is_frozen {
                continue;
            }
            for (thread, state) in process.threads.iter().enumerate() {
                if state.is_ready(now) {
                    self.ready.push((index, thread));
                }
            }
        }
        if self.ready.is_empty() {
            return false;
        }
        let (index, thread) = self.ready[self.random.usize(0..self.ready.len())];
        self.resume(index, thread);
        true
    }

    fn resume(&mut self, index: usize, thread: usize) {
        loop {
            self.tally.steps += 1;
            if self.tally.steps > STEPS_MAX {
                return;
            }
            let is_busy = self.processes[index].threads[thread].step();
            if is_busy {
                let threads = self
                    .processes
                    .iter_mut()
                    .flat_map(|process| &mut process.threads);
                threads.for_each(|thread| thread.is_idle = false);
            }
            let process = &mut self.processes[index];
            if process.answered_at.is_none() && process.served.id().is_some() {
                process.answered_at = Some(simulated::elapsed());
            }
            let thread = &self.processes[index].threads[thread];
            if !thread.is_alone() {
                break;
            }
            if self.may_crash && self.random.u32(0..400) == 0 {
                let number = self.processes[index].number;
                let name = thread.name.clone();
                let is_power = self.random.bool();
                note(|| format!("process {number}: {name} is interrupted"));
                if is_power {
                    self.cut_power(self.processes[index].machine);
                } else {
                    self.kill_process(index);
                }
                return;
            }
        }
        if self.processes[index].has_ended() {
            let process = self.processes.remove(index);
            note(|| format!("process {}: has ended", process.number));
            self.oracle.process_ended(&process, &self.senders, false);
        }
    }

    /// Moves the clock to when the next thread goes on. `false`: none ever does.
    pub(super) fn advance_clock(&mut self) -> bool {
        let threads = self
            .processes
            .iter()
            .filter(|process| !process.is_frozen)
            .flat_map(|process| &process.threads);
        let next: Option<Instant> = threads.filter_map(super::thread::Thread::wakes_at).min();
        let next = next.filter(|_| self.tally.steps <= STEPS_MAX);
        if let Some(next) = next {
            simulated::advance(next);
        }
        next.is_some()
    }

    /// Starts a process on a machine.
    pub(super) fn start_process(&mut self, machine: usize) {
        let number = self.number_process();
        let disk = self.machines[machine].clone();
        let started = Process::start(
            number,
            (machine, &disk),
            self.settings.clone(),
            &self.database,
            &self.senders,
        );
        note(|| match &started {
            Some(_) => format!("process {number}: starts on machine {machine}"),
            None => format!("process {number}: cannot start on machine {machine}"),
        });
        self.processes.extend(started);
    }

    /// Starts a command on a machine that replays the letters of events with these values.
    pub(super) fn start_replay(
        &mut self,
        machine: usize,
        is_wanted: impl Fn(u32) -> bool + 'static,
    ) {
        let number = self.number_process();
        let disk = self.machines[machine].clone();
        note(|| format!("process {number}: replays letters on machine {machine}"));
        let command = Process::replay(number, (machine, &disk), is_wanted);
        self.processes.push(command);
    }

    pub(super) fn kill_process(&mut self, index: usize) {
        let process = self.processes.remove(index);
        note(|| format!("process {}: is killed", process.number));
        self.oracle.process_ended(&process, &self.senders, true);
        process.kill();
    }

    pub(super) fn cut_power(&mut self, machine: usize) {
        note(|| format!("machine {machine}: the power is cut"));
        // Before the processes end: what they had under way is torn.
        self.machines[machine].cut_power();
        while let Some(index) = self
            .processes
            .iter()
            .position(|process| process.machine == machine)
        {
            self.kill_process(index);
        }
    }

    /// Sets what fails on the disk of a machine.
    pub(super) fn set_faults(&mut self, machine: usize, faults: Faults) {
        self.machines[machine].set_faults(faults);
        let is_full = self.machines.iter().any(Machine::is_full);
        let server = self.database.server();
        self.oracle.disks_are_full(is_full, &server, &self.senders);
    }

    fn kill_all(&mut self) {
        for process in self.processes.drain(..) {
            process.kill();
        }
    }

    fn trouble(&mut self, trouble: Trouble) -> Result<(), Broken> {
        if trouble.happen(self)? {
            self.tally.count(format!("trouble: {trouble:?}"), 1);
        }
        Ok(())
    }
}

impl fmt::Debug for World {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("World")
    }
}
