//! Lanes on a disk that loses power and fails: thousands of power cuts in a run, each reproducible by its seed.
//!
//! A power cut keeps everything that was durable. Of the rest it keeps any sectors of any writes in any order, and any
//! names. A block whose write it interrupts may have any content. Writes, syncs, allocations and new files may fail. The
//! bytes of a failed sync may be lost although the file still reads as if they were there.

use super::*;
use crate::journal::segment::make_directory;
use crate::os::bugs::{Bug, plant};
use crate::os::simulated::disk::{Faults, Machine};
use crate::os::simulated::{Pause, Simulated, Task, pause};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Five blocks: so small that a few dozen records fill several segments.
const SEGMENT_BYTES: u64 = 5 * 4096;

/// Power cuts in each test.
const SEEDS: u64 = 4_000;

/// Operations of the disk within which all lanes are read.
const READS_MAX: usize = 100_000;

/// A lane and how far the database has stored it.
struct Written {
    id: LaneId,
    directory: PathBuf,
    stored: Position,
}

/// What happened up to the power cut. Each event has its own value.
#[derive(Default)]
struct History {
    next_value: u32,
    attempted: BTreeSet<u32>,
    acknowledged: BTreeSet<u32>,
    /// Rows of the database.
    rows: Vec<u32>,
    lanes: Vec<Written>,
}

/// What fails apart from the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    Nothing,
    /// One operation in twenty.
    Some,
    /// From a random moment on, every operation that needs space.
    DiskFull,
}

/// A planted bug in the order of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    /// An event is acknowledged before it is durable.
    AnswerBeforeWrite,
    /// The checkpoint is stored, and the power may be cut before the rows are.
    CheckpointBeforeRows,
}

/// Writes one lane after another for ever. A failed lane is never written again.
fn write_lanes(history: &RefCell<History>, random: &mut fastrand::Rng, mistake: Option<Mistake>) {
    loop {
        let id = LaneId::random().unwrap();
        let opened = make_directory(Path::new("data"), id).and_then(|directory| {
            let lane = LaneWriter::create(&directory, id, SEGMENT_BYTES)?;
            Ok((lane, directory))
        });
        let Ok((lane, directory)) = opened else {
            continue;
        };
        history.borrow_mut().lanes.push(Written {
            id,
            directory,
            stored: Position::START,
        });
        write_lane_until_it_fails(lane, history, random, mistake);
    }
}

fn write_lane_until_it_fails(
    mut lane: LaneWriter,
    history: &RefCell<History>,
    random: &mut fastrand::Rng,
    mistake: Option<Mistake>,
) {
    let mut unstored = Vec::new();
    let mut record = Vec::new();
    loop {
        // A few take several blocks.
        let events = if random.u8(0..8) == 0 {
            random.u32(5..40)
        } else {
            random.u32(1..5)
        };
        let name = "n".repeat(random.usize(1..250));
        let values = history.borrow_mut().attempt(events);
        begin_record(&mut record);
        for &value in &values {
            let received_at = UnixMillis(1);
            append_event(
                &mut record,
                Event {
                    name: &name,
                    value,
                    received_at,
                    id: None,
                },
            );
        }
        if mistake == Some(Mistake::AnswerBeforeWrite) {
            history.borrow_mut().acknowledged.extend(&values);
        }
        lane = match lane.append(&mut record, events) {
            Ok(lane) => lane,
            Err(_) => return,
        };
        history.borrow_mut().acknowledged.extend(&values);
        unstored.extend(values);
        if random.u8(0..4) == 0 {
            // The writer stores rows and checkpoint in one transaction, on another disk.
            history.borrow_mut().store_checkpoint(unstored.len());
            if mistake == Some(Mistake::CheckpointBeforeRows) {
                pause(Pause::Crash);
            }
            history.borrow_mut().rows.append(&mut unstored);
        }
    }
}

impl History {
    fn attempt(&mut self, events: u32) -> Vec<u32> {
        let values: Vec<u32> = (self.next_value..self.next_value + events).collect();
        self.next_value += events;
        self.attempted.extend(&values);
        values
    }

    /// Moves the checkpoint of the last lane.
    fn store_checkpoint(&mut self, events: usize) {
        let lane = self.lanes.last_mut().unwrap();
        lane.stored = lane.stored.plus(events);
    }

    /// Reads each lane that is left from its checkpoint on, as a new process does.
    fn recover(&mut self) -> Result<(), String> {
        for lane in &self.lanes {
            if crate::os::fs::names(&lane.directory).is_err() {
                continue;
            }
            let mut reader = LaneReader::new(&lane.directory, lane.id, lane.stored);
            let mut batch = Batch::new(BatchEvents::new(7).unwrap());
            loop {
                batch.clear();
                let filled = reader.fill(&mut batch, None);
                self.rows.extend(batch.events().map(|event| event.value));
                match filled {
                    Ok(Filled::More) => {}
                    Ok(Filled::End { .. }) => break,
                    Err(ReadError::Damage(damage)) => return Err(format!("damage: {damage}")),
                    Err(fault) => return Err(format!("unreadable: {fault}")),
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let rows: BTreeSet<u32> = self.rows.iter().copied().collect();
        if rows.len() != self.rows.len() {
            return Err("an event was stored twice".to_owned());
        }
        if let Some(lost) = self.acknowledged.difference(&rows).next() {
            return Err(format!("event {lost} was acknowledged and is lost"));
        }
        if let Some(invented) = rows.difference(&self.attempted).next() {
            return Err(format!("event {invented} was invented"));
        }
        Ok(())
    }
}

/// Writes, cuts the power and recovers once. The error says which rule is broken.
fn cut_power_and_recover(
    seed: u64,
    failing: Failing,
    mistake: Option<Mistake>,
) -> Result<(), String> {
    let _simulated = Simulated::start(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let machine = Machine::new(!seed);
    let history = Rc::<RefCell<History>>::default();
    let (written, mut fork) = (Rc::clone(&history), random.fork());
    let mut writer = Task::new(machine.process(1), move || {
        write_lanes(&written, &mut fork, mistake);
    });
    if failing == Failing::Some {
        machine.set_faults(Faults {
            writes: 20,
            syncs: 20,
            names: 20,
            ..Faults::default()
        });
    }
    for _ in 0..random.usize(1..200) {
        if failing == Failing::DiskFull && random.u8(0..50) == 0 {
            machine.set_faults(Faults {
                is_full: true,
                ..Faults::default()
            });
        }
        writer.resume();
    }
    machine.cut_power();
    machine.kill(1);
    drop(writer);
    machine.set_faults(Faults::default());
    let found = Rc::<RefCell<_>>::default();
    let result = Rc::clone(&found);
    let mut recovery = Task::new(machine.process(2), move || {
        let mut history = history.take();
        let recovered = history.recover().and_then(|()| history.check());
        result.replace(Some(recovered));
    });
    let has_ended = (0..READS_MAX).any(|_| recovery.resume().pause.is_none());
    machine.kill(2);
    match found.take() {
        Some(recovered) if has_ended => recovered,
        _ => Err("reading does not end".to_owned()),
    }
}

fn keeps_all_rules(failing: Failing) {
    for seed in 0..SEEDS {
        if let Err(wrong) = cut_power_and_recover(seed, failing, None) {
            panic!("seed {seed}, {failing:?}: {wrong}");
        }
    }
}

/// At least one seed must find the bug.
fn is_detected(bug: Option<Bug>, mistake: Option<Mistake>) {
    plant(bug);
    let found = (0..SEEDS).find_map(|seed| {
        let wrong = cut_power_and_recover(seed, Failing::Nothing, mistake).err();
        wrong.map(|wrong| (seed, wrong))
    });
    plant(None);
    let (seed, wrong) = found.unwrap_or_else(|| panic!("{bug:?} {mistake:?} is not detected"));
    println!("{bug:?} {mistake:?}: seed {seed}: {wrong}");
}

#[test]
fn a_power_cut_loses_doubles_and_invents_no_event() {
    keeps_all_rules(Failing::Nothing);
}

#[test]
fn failed_writes_syncs_and_allocations_lose_double_and_invent_no_event() {
    keeps_all_rules(Failing::Some);
}

#[test]
fn a_full_disk_loses_doubles_and_invents_no_event() {
    keeps_all_rules(Failing::DiskFull);
}

#[test]
fn planted_bugs_are_detected() {
    is_detected(Some(Bug::DirectoryNotSynced), None);
    is_detected(Some(Bug::ChecksumIgnored), None);
    is_detected(Some(Bug::DurableBlockRewritten), None);
    is_detected(Some(Bug::SpareIgnored), None);
    is_detected(None, Some(Mistake::AnswerBeforeWrite));
    is_detected(None, Some(Mistake::CheckpointBeforeRows));
}
