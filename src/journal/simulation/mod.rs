//! The journal on a simulated disk that fails: thousands of crashes in a run, each reproducible by its seed.
//!
//! A crash keeps everything that was durable. Of the rest it keeps any sectors of any writes in any order, and
//! any names. A block whose write it interrupts may have any content. Writes, syncs, allocations and new files may fail. The bytes of a failed write may be lost
//! although the file still reads as if they were there.

mod disk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::disk::{Faults, SimulatedDisk};
use super::lane_writer::LaneWriter;
use super::reader::{Filled, LaneReader, ReadError};
use super::record::{append_event, begin_record};
use super::segment::make_directory;
use super::storage::Storage;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::position::{LaneId, Position};
use crate::event::{Event, UnixMillis};
use crate::os::bugs::{Bug, plant};

/// Five blocks: so small that a few dozen records fill several segments.
const SEGMENT_BYTES: u64 = 5 * 4096;

/// Crashes in each test.
const SEEDS: u64 = 4_000;

/// A lane and how far the database has stored it.
struct Written {
    id: LaneId,
    directory: PathBuf,
    stored: Position,
}

/// What happened up to the crash. Each event has its own value.
#[derive(Default)]
struct History {
    next_value: u32,
    attempted: BTreeSet<u32>,
    acknowledged: BTreeSet<u32>,
    /// Rows of the database.
    rows: Vec<u32>,
    lanes: Vec<Written>,
}

/// A planted bug in the order of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    /// An event is acknowledged before it is durable.
    AnswerBeforeWrite,
    /// The checkpoint is stored, and a crash follows before the rows are.
    CheckpointBeforeRows,
}

/// Writes one lane after another until the disk crashes. A failed lane is never written again.
fn write_until_crash(
    disk: &SimulatedDisk,
    random: &mut fastrand::Rng,
    mistake: Option<Mistake>,
) -> History {
    let journal = Path::new("journal");
    let mut history = History::default();
    while !disk.has_crashed() {
        let id = LaneId::random().unwrap();
        let opened = make_directory(disk, journal, id).and_then(|directory| {
            let lane = LaneWriter::create(disk.clone(), &directory, id, SEGMENT_BYTES)?;
            Ok((lane, directory))
        });
        let Ok((mut lane, directory)) = opened else {
            continue;
        };
        history.lanes.push(Written {
            id,
            directory,
            stored: Position::START,
        });
        let mut unstored = Vec::new();
        let mut record = Vec::new();
        loop {
            // A few take several blocks.
            let events = if random.u8(0..8) == 0 {
                random.u32(5..40)
            } else {
                random.u32(1..5)
            };
            begin_record(&mut record);
            let values: Vec<u32> = (history.next_value..history.next_value + events).collect();
            history.next_value += events;
            let name = "n".repeat(random.usize(1..250));
            for &value in &values {
                append_event(
                    &mut record,
                    Event {
                        name: &name,
                        value,
                        received_at: UnixMillis(1),
                    },
                );
                history.attempted.insert(value);
            }
            if mistake == Some(Mistake::AnswerBeforeWrite) {
                history.acknowledged.extend(&values);
            }
            lane = match lane.append(&mut record, events) {
                Ok(lane) => lane,
                Err(_) => break,
            };
            history.acknowledged.extend(&values);
            unstored.extend(values);
            if random.u8(0..4) == 0 {
                // The writer stores rows and checkpoint in one transaction, on another disk.
                let stored = &mut history.lanes.last_mut().unwrap().stored;
                *stored = stored.plus(unstored.len());
                if mistake == Some(Mistake::CheckpointBeforeRows) && disk.is_about_to_crash() {
                    break;
                }
                history.rows.append(&mut unstored);
            }
        }
    }
    history
}

/// Reads each lane that is left from its checkpoint on, as a new process does.
fn recover(disk: &SimulatedDisk, history: &mut History) -> Result<(), String> {
    for lane in &history.lanes {
        if disk.names(&lane.directory).is_err() {
            continue;
        }
        let mut reader = LaneReader::new(disk.clone(), &lane.directory, lane.id, lane.stored);
        let mut batch = Batch::new(BatchEvents::new(7).unwrap());
        loop {
            batch.clear();
            let filled = reader.fill(&mut batch, None);
            history.rows.extend(batch.events().map(|event| event.value));
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

/// Writes, crashes and recovers once. The error says which rule is broken.
fn crash_and_recover(seed: u64, faults: Faults, mistake: Option<Mistake>) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed, random.usize(1..120), faults);
    let mut history = write_until_crash(&disk, &mut random, mistake);
    let survivor = disk.after_crash();
    recover(&survivor, &mut history)?;
    let rows: BTreeSet<u32> = history.rows.iter().copied().collect();
    if rows.len() != history.rows.len() {
        return Err("an event was stored twice".to_owned());
    }
    if let Some(lost) = history.acknowledged.difference(&rows).next() {
        return Err(format!("event {lost} was acknowledged and is lost"));
    }
    if let Some(invented) = rows.difference(&history.attempted).next() {
        return Err(format!("event {invented} was invented"));
    }
    Ok(())
}

fn keeps_all_rules(faults: Faults) {
    for seed in 0..SEEDS {
        if let Err(wrong) = crash_and_recover(seed, faults, None) {
            panic!("seed {seed}, {faults:?}: {wrong}");
        }
    }
}

/// At least one seed must find the bug.
fn is_detected(bug: Option<Bug>, mistake: Option<Mistake>) {
    plant(bug);
    let found = (0..SEEDS).find_map(|seed| crash_and_recover(seed, Faults::None, mistake).err());
    plant(None);
    assert!(found.is_some(), "{bug:?} {mistake:?} is not detected");
}

#[test]
fn a_crash_loses_doubles_and_invents_no_event() {
    keeps_all_rules(Faults::None);
}

#[test]
fn failed_writes_syncs_and_allocations_lose_double_and_invent_no_event() {
    keeps_all_rules(Faults::Some);
}

#[test]
fn a_full_disk_loses_doubles_and_invents_no_event() {
    keeps_all_rules(Faults::DiskFull);
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

/// In a reused file, a block may hold a record of an earlier segment.
#[test]
fn a_record_of_another_segment_is_only_accepted_with_the_planted_bug() {
    use super::record::{ParsedRecord, SegmentId, SegmentNumber, finish_record, parse_record};
    let lane = LaneId::random().unwrap();
    let id = |number| SegmentId {
        lane,
        number: SegmentNumber(number),
    };
    let mut record = Vec::new();
    begin_record(&mut record);
    append_event(
        &mut record,
        Event {
            name: "n",
            value: 1,
            received_at: UnixMillis(1),
        },
    );
    finish_record(&mut record, id(1), Position(5), 1);
    assert_eq!(parse_record(&record, id(2)), ParsedRecord::Nothing);
    plant(Some(Bug::OtherSegmentAccepted));
    let is_accepted = matches!(parse_record(&record, id(2)), ParsedRecord::Record(..));
    plant(None);
    assert!(is_accepted);
}
