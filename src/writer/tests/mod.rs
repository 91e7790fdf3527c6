//! A writer with a sink that fails by script, and lanes in memory and on the disk.

mod altered_checkpoints;
mod decisions;
mod fault_injector;
mod later_keys;
mod lost_checkpoints;
mod repeated_ids;
mod settled_copies;
mod waiting;

use crate::journal::served_database::EarlierLanes;
use std::cell::RefCell;

use self::fault_injector::{Act, Alteration, At, Database, FaultInjector, fault};
use super::*;
use crate::event::Event;
use crate::event::position::LaneId;
use crate::event::rule::EventRule;
use crate::handoff::{self, Handoff};
use crate::journal::lane_handle::{MemoryLane, Origin};
use crate::journal::lane_writer::LaneWriter;
use crate::journal::record::{append_event, begin_record};
use crate::journal::segment::{SEGMENT_BYTES, segments};
use crate::sink::{Checkpoint, Epoch};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;

/// A writer, its database and a data directory.
struct Bench {
    directory: tempfile::TempDir,
    database: Arc<Mutex<Database>>,
    /// The counters of each process that has run.
    counters: RefCell<Vec<Arc<WriterCounters>>>,
    served: Arc<ServedDatabase>,
    is_draining: bool,
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            database: Arc::default(),
            counters: RefCell::default(),
            served: Arc::new(ServedDatabase::new(
                "here".to_owned(),
                false,
                EarlierLanes::default(),
            )),
            is_draining: false,
        }
    }

    /// A lane on the disk whose events have these names, one per record.
    fn lane(&self, names: &[&str]) -> Arc<DiskLane> {
        let id = LaneId::random().unwrap();
        let directory = self.directory.path().join(id.to_string());
        std::fs::create_dir(&directory).unwrap();
        self.served
            .label(Position::START)
            .write(&directory)
            .unwrap();
        let mut writer = LaneWriter::create(&directory, id, SEGMENT_BYTES).unwrap();
        let mut record = Vec::new();
        for name in names {
            begin_record(&mut record);
            append_event(&mut record, event(name));
            writer = writer.append(&mut record, 1).unwrap();
        }
        self.lock(id, Origin::Opened)
    }

    fn lock(&self, id: LaneId, origin: Origin) -> Arc<DiskLane> {
        let directory = self.directory.path().join(id.to_string());
        let locked = DiskLane::lock(id, directory, origin, None).unwrap();
        Arc::new(locked.unwrap())
    }

    fn writer(&self, script: &[(At, Act)], recoveries: Receiver<Arc<DiskLane>>) -> Writer {
        let (counters, counted) = Recorder::new(WriterCounters::default());
        self.counters.borrow_mut().push(counted);
        Writer {
            index: 0,
            sink: Box::new(FaultInjector::new(&self.database, script)),
            dead_letters: Arc::new(DeadLetters::new(self.directory.path(), 1 << 20)),
            event_rule: Arc::new(SharedEventRule::new(EventRule::DEPLOYED)),
            counters,
            batch_events: BatchEvents::new(100).unwrap(),
            recoveries,
            may_leave: true,
            draining: Arc::new(AtomicBool::new(self.is_draining)),
            served: Arc::clone(&self.served),
        }
    }

    /// Runs a writer that stores batches, each with the position of its first event and the names, and recovers
    /// `found`.
    fn run(
        &self,
        lane: &LaneHandle,
        batches: &[(u64, &[&str])],
        script: &[(At, Act)],
        found: Option<Arc<DiskLane>>,
    ) {
        let (found_lanes, recoveries) = sync_channel(1);
        if let Some(found) = found {
            found_lanes.send(found).unwrap();
        }
        let writer = self.writer(script, recoveries);
        let (to_writer, inbox) = handoff::inbox(1);
        let mut handoff = Handoff::new(to_writer, BatchEvents::new(100).unwrap());
        for (first, names) in batches {
            let mut batch = handoff.empty_batch().unwrap();
            for name in *names {
                batch.push(event(name)).unwrap();
            }
            let (lane, home) = (lane.clone(), handoff.home());
            let work = Work::new(batch, Position(*first), lane, home);
            handoff.send(work).unwrap();
        }
        drop(handoff);
        let (ready, _is_ready) = sync_channel(1);
        writer.run(&inbox, &ready);
    }

    fn rows(&self) -> Vec<String> {
        self.database.lock().unwrap().rows.clone()
    }

    fn letters(&self) -> usize {
        let path = self
            .directory
            .path()
            .join(crate::sink::dead_letters::FILE_NAME);
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    fn counted(&self) -> (u64, u64) {
        let counters = self.counters.borrow();
        let sum = |count: fn(&WriterCounters) -> u64| {
            counters.iter().map(|counters| count(counters)).sum()
        };
        (
            sum(|counters| counters.stored.get()),
            sum(|counters| counters.dead_lettered.get()),
        )
    }
}

fn handle(lane: &Arc<DiskLane>) -> LaneHandle {
    LaneHandle::Disk(Arc::clone(lane))
}

fn event(name: &str) -> Event<'_> {
    Event {
        name,
        value: 1,
        received_at: UnixMillis(0),
        id: None,
    }
}

/// Stores one batch of a lane in memory.
fn store(names: &[&str], script: &[(At, Act)]) -> Bench {
    let bench = Bench::new();
    let lane = LaneHandle::Memory(Arc::new(MemoryLane::new().unwrap()));
    bench.run(&lane, &[(0, names)], script, None);
    bench
}

#[test]
fn after_every_kind_of_error_the_batch_is_stored_once() {
    for error in [
        SinkError::Retry(fault()),
        SinkError::Reconnect(fault()),
        SinkError::Stop(fault()),
    ] {
        for at in [At::Open, At::Insert, At::Commit] {
            let bench = store(&["a", "b"], &[(at, Act::Fail(error.clone()))]);
            assert_eq!(bench.rows(), ["a", "b"], "{error:?} {at:?}");
            let abandoned = bench.database.lock().unwrap().abandoned;
            assert_eq!(
                (bench.counted(), abandoned),
                ((2, 0), 1),
                "{error:?} {at:?}"
            );
        }
    }
}

#[test]
fn an_unknown_outcome_is_resolved_by_the_checkpoint() {
    for act in [
        Act::LoseAnswer,
        Act::Fail(SinkError::OutcomeUnknown(fault())),
    ] {
        let bench = store(&["a", "bad", "b"], &[(At::Commit, act.clone())]);
        assert_eq!(bench.rows(), ["a", "b"], "{act:?}");
        assert_eq!((bench.counted(), bench.letters()), ((2, 1), 1), "{act:?}");
    }
}

#[test]
fn refused_events_are_dead_lettered_once_in_many_attempts() {
    let script = [
        (At::Commit, Act::Fail(SinkError::Retry(fault()))),
        (At::Insert, Act::Fail(SinkError::Reconnect(fault()))),
        (At::Commit, Act::Fail(SinkError::Retry(fault()))),
    ];
    let bench = store(&["a", "bad", "b", "bad too"], &script);
    assert_eq!(bench.rows(), ["a", "b"]);
    assert_eq!((bench.counted(), bench.letters()), ((2, 2), 2));
}

#[test]
fn a_drain_that_leaves_a_batch_leaves_all_later_ones() {
    let mut bench = Bench::new();
    bench.is_draining = true;
    let lane = bench.lane(&["a", "b", "c"]);
    let fails = [(At::Insert, Act::Fail(SinkError::Reconnect(fault())))];
    bench.run(
        &handle(&lane),
        &[(0, &["a"]), (1, &["b"]), (2, &["c"])],
        &fails,
        None,
    );
    assert!(bench.rows().is_empty(), "{:?}", bench.rows());
    assert_eq!(lane.stored(), Position::START);

    // The next process stores what was left, once.
    let id = lane.id;
    drop(lane);
    let (next, found) = (bench.lane(&["d"]), bench.lock(id, Origin::Found));
    bench.is_draining = false;
    bench.recover(&next, &found);
    assert_eq!(bench.rows(), ["a", "b", "c"]);
    assert_eq!(found.end(), Some(Position(3)));
}

#[test]
fn a_commit_whose_answer_is_lost_in_a_drain_is_not_repeated_by_the_next_process() {
    let mut bench = Bench::new();
    bench.is_draining = true;
    let lane = bench.lane(&["a", "b", "c"]);
    let script = [(At::Commit, Act::LoseAnswer)];
    bench.run(
        &handle(&lane),
        &[(0, &["a", "b"]), (2, &["c"])],
        &script,
        None,
    );
    assert_eq!(bench.rows(), ["a", "b"]);
    let id = lane.id;
    drop(lane);
    let (next, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
    bench.is_draining = false;
    bench.recover(&next, &found);
    assert_eq!(bench.rows(), ["a", "b", "c"]);
}

impl Bench {
    /// Runs a process that recovers the lane of an earlier one.
    fn recover(&self, own: &Arc<DiskLane>, found: &Arc<DiskLane>) {
        // A batch of a lane of its own keeps the writer from ending before it has read the found lane. When the queue
        // is closed, the rest of that lane is not recovered: it must fit into one batch.
        self.run(&handle(own), &[(0, &[])], &[], Some(Arc::clone(found)));
    }
}

#[test]
fn events_that_the_database_lacks_before_a_batch_are_read_back_first() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b", "c", "d"]);
    bench.run(&handle(&lane), &[(2, &["c"]), (3, &["d"])], &[], None);
    assert_eq!(bench.rows(), ["a", "b", "c", "d"]);
    assert_eq!((bench.counted(), lane.stored()), ((4, 0), Position(4)));
}

#[test]
fn the_stored_part_of_a_batch_is_not_stored_again() {
    let bench = Bench::new();
    let id = bench.lane(&["a", "b", "c"]).id;
    let lane = bench.lock(id, Origin::Found);
    let checkpoint = Checkpoint {
        epoch: Epoch(1),
        position: Position(2),
    };
    let checkpoints = &bench.database;
    checkpoints
        .lock()
        .unwrap()
        .checkpoints
        .insert(lane.id, checkpoint);
    bench.run(&handle(&lane), &[(0, &["a", "b", "c"])], &[], None);
    assert_eq!(bench.rows(), ["c"]);
}

#[test]
fn events_that_the_database_has_lost_are_stored_again() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b", "c"]);
    let script = [(At::Insert, Act::Nothing), (At::Insert, Act::Restore)];
    bench.run(
        &handle(&lane),
        &[(0, &["a", "b"]), (2, &["c"])],
        &script,
        None,
    );
    assert_eq!(bench.rows(), ["a", "b", "c"]);
    assert_eq!((bench.counted(), lane.stored()), ((3, 0), Position(3)));
}

#[test]
fn a_lane_whose_epoch_has_changed_is_taken_over_again() {
    let bench = Bench::new();
    let in_memory = LaneHandle::Memory(Arc::new(MemoryLane::new().unwrap()));
    for lane in [handle(&bench.lane(&["a", "b", "c"])), in_memory] {
        change_the_epoch(&bench, &lane);
    }
}

fn change_the_epoch(bench: &Bench, lane: &LaneHandle) {
    bench.database.lock().unwrap().rows.clear();
    let script = [(At::Insert, Act::Nothing), (At::Insert, Act::Steal)];
    let batches: [(u64, &[&str]); 3] = [(0, &["a"]), (1, &["b"]), (2, &["c"])];
    bench.run(lane, &batches, &script, None);
    assert_eq!(bench.rows(), ["a", "b", "c"]);
}

#[test]
fn after_a_lost_connection_stored_events_are_not_read_from_the_journal() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b", "c", "d"]);
    let directory = lane.directory.clone();
    // It can be opened, but not read, like a bad sector.
    let unreadable =
        crate::journal::segment::segment_name(crate::journal::record::SegmentNumber(1));
    std::fs::create_dir(directory.join(unreadable)).unwrap();
    let lost = Act::Fail(SinkError::Reconnect(fault()));
    let script = [(At::Insert, Act::Nothing), (At::Insert, lost)];
    let batches: [(u64, &[&str]); 4] = [(0, &["a"]), (1, &["b"]), (2, &["c"]), (3, &["d"])];
    bench.run(&handle(&lane), &batches, &script, None);
    assert_eq!(bench.rows(), ["a", "b", "c", "d"]);
}

#[test]
fn only_events_that_the_disk_has_lost_are_skipped() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b", "lost", "d", "e"]);
    let directory = lane.directory.clone();
    let number = segments(&directory).unwrap()[0];
    let path = directory.join(crate::journal::segment::segment_name(number));
    let mut bytes = std::fs::read(&path).unwrap();
    // In its own block and in the spare one.
    for at in 0..bytes.len() - 4 {
        if bytes[at..].starts_with(b"lost") {
            bytes[at..at + 4].copy_from_slice(b"LOST");
        }
    }
    std::fs::write(&path, bytes).unwrap();
    bench.run(&handle(&lane), &[(4, &["e"])], &[], None);
    assert_eq!(bench.rows(), ["a", "b", "d", "e"]);
    assert!(lane.is_damaged());
}

#[test]
fn an_event_that_is_a_letter_already_stays_one() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b", "c", "d"]);
    let (id, directory) = (lane.id, lane.directory.clone());
    drop(lane);
    // What a process leaves that died before the checkpoint passed the letter, and a replay of another.
    let letters = DeadLetters::new(bench.directory.path(), 1 << 20);
    let letter = [(event("b"), Position(1), &fault())];
    letters.write(id, None, letter.into_iter()).unwrap();
    crate::journal::refused_note::add(&directory, &[Position(2)]).unwrap();
    let (next, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
    bench.recover(&next, &found);
    assert_eq!(bench.rows(), ["a", "d"]);
    assert_eq!((bench.counted(), bench.letters()), ((2, 2), 1));
}

#[test]
fn the_events_of_a_closed_lane_without_segments_are_lost() {
    let bench = Bench::new();
    let lane = bench.lane(&["a", "b"]);
    let (id, directory) = (lane.id, lane.directory.clone());
    drop(lane);
    for number in segments(&directory).unwrap() {
        std::fs::remove_file(directory.join(crate::journal::segment::segment_name(number)))
            .unwrap();
    }
    std::fs::write(directory.join("end"), "00000000000000000002\n").unwrap();
    let (next, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
    bench.recover(&next, &found);
    assert!(found.is_damaged());
    let counters = bench.counters.borrow();
    assert_eq!(counters[0].lost.get(), 2);
}
