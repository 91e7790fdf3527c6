//! Rows of the table of checkpoints are lost, and the rows of the events are not. The rows have ids, by which they are
//! found.

use std::ops::Range;

use super::*;
use crate::event::fingerprint::Fingerprint;
use crate::journal::held_lane::{Decision, HeldCheckpoint, Hold};
use crate::journal::row_witnesses::RowWitness;
use crate::os::bugs::{Bug, plant};
use crate::sink::Step;

pub(super) const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

/// A lane of [`NAMES`], of which the first `stored` are rows. What is noted beside it is older.
pub(super) struct Killed {
    pub(super) bench: Bench,
    pub(super) lane: LaneId,
    pub(super) witnesses: Vec<RowWitness>,
}

impl Killed {
    pub(super) fn new(stored: usize) -> Self {
        let bench = Bench::new();
        bench.database.lock().unwrap().has_ids = true;
        let lane = bench.lane(&NAMES);
        let batches: Vec<_> = (0..stored).map(|at| (at as u64, &NAMES[at..=at])).collect();
        bench.run(&handle(&lane), &batches, &[], None);
        assert_eq!(bench.rows(), NAMES[..stored]);
        let witnesses = lane.rows().spread(Position::START, Position(9), 9);
        let lane = lane.id;
        Self {
            bench,
            lane,
            witnesses,
        }
    }

    /// The next process, which finds the first `noted` events noted as stored.
    pub(super) fn recover(&self, noted: u64) -> Arc<DiskLane> {
        self.recover_noted(noted, noted)
    }

    /// One that finds the rows of the first `rows` events noted, and `noted` events as stored: fewer where a lane is held.
    pub(super) fn recover_noted(&self, noted: u64, rows: u64) -> Arc<DiskLane> {
        let (own, found) = (
            self.bench.lane(&[]),
            self.bench.lock(self.lane, Origin::Found),
        );
        found.set_stored(Position(noted));
        for row in &self.witnesses {
            if row.end <= Position(rows) {
                found.rows().push(*row);
            }
        }
        self.bench.recover(&own, &found);
        found
    }

    pub(super) fn lose_checkpoints(&self) {
        let mut database = self.bench.database.lock().unwrap();
        database.checkpoints.remove(&self.lane);
        database.checkpoints.remove(&self.lane.complement());
    }

    pub(super) fn directory(&self) -> std::path::PathBuf {
        self.bench.directory.path().join(self.lane.to_string())
    }

    /// Holds the lane, and decides about it.
    pub(super) fn decide(&self, hold: &Hold, decision: Decision) {
        hold.write(&self.directory()).unwrap();
        hold.decide(decision).write(&self.directory()).unwrap();
    }

    pub(super) fn hold(&self) -> Hold {
        Hold::read(&self.directory()).unwrap().unwrap()
    }
}

/// A hold of the events in a range, with the position and epoch of the checkpoint that was found.
pub(super) fn hold(events: Range<u64>, checkpoint: Option<(u64, u64)>) -> Hold {
    Hold {
        from: Position(events.start),
        to: Position(events.end),
        reason: "a test".to_owned(),
        checkpoint: checkpoint.map(|(position, epoch)| HeldCheckpoint {
            position: Position(position),
            epoch,
        }),
    }
}

#[test]
fn what_was_stored_after_the_note_is_not_stored_again() {
    for (stored, noted) in [(4, 4), (7, 7), (9, 9)] {
        let killed = Killed::new(stored);
        killed.lose_checkpoints();
        let found = killed.recover(noted);
        assert_eq!(killed.bench.rows(), NAMES, "{stored} {noted}");
        assert_eq!(found.held(), None);
    }
}

/// They are removed after the checkpoint was found to be altered, and before it is put back.
#[test]
fn a_checkpoint_is_not_put_back_into_a_database_without_its_rows() {
    let killed = Killed::new(6);
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.checkpoints.get_mut(&killed.lane).unwrap().position = Position(0);
        database.before_step = Some(Alteration {
            lane: killed.lane,
            at: Position::START,
            alter: |database| {
                database.rows.clear();
                database.checkpoints.clear();
            },
        });
    }
    drop(killed.recover(6));
    let found = killed.recover(6);
    assert_eq!(
        (killed.bench.rows(), found.held()),
        (NAMES.map(str::to_owned).to_vec(), None)
    );
}

/// Rows that are found by what they have may be those of another lane with equal events.
#[test]
fn rows_that_are_not_noted_are_no_proof() {
    for stored in [7, 8, 9] {
        let killed = Killed::new(stored);
        killed.lose_checkpoints();
        assert_eq!(killed.recover(4).held(), Some(stored as u64 - 4));
        assert_eq!(killed.bench.rows(), NAMES[..stored]);
    }
}

/// A row that is missing in the middle says nothing about those after it.
#[test]
fn rows_after_an_altered_one_are_not_stored_again() {
    let killed = Killed::new(9);
    killed.lose_checkpoints();
    killed.bench.database.lock().unwrap().rows[6] = "altered".to_owned();
    assert_eq!(killed.recover(4).held(), Some(5));
    assert_eq!(killed.bench.rows().len(), 9);
}

/// The row of an earlier event is not taken for that of an equal one.
#[test]
fn events_whose_equals_are_stored_are_not_taken_for_stored() {
    let bench = Bench::new();
    bench.database.lock().unwrap().has_ids = true;
    let names = ["w", "x", "y", "z", "a", "b", "c", "a", "b", "c"];
    let lane = bench.lane(&names);
    let batches: Vec<_> = (0..7).map(|at| (at as u64, &names[at..=at])).collect();
    bench.run(&handle(&lane), &batches, &[], None);
    let killed = Killed {
        witnesses: lane.rows().spread(Position::START, Position(9), 9),
        lane: lane.id,
        bench,
    };
    drop(lane);
    killed.lose_checkpoints();
    assert!(killed.recover(4).held().is_some());
    assert_eq!(killed.bench.rows(), names[..7]);
}

/// Few rows may be those of other events. The lane is held for those alone, and goes on as is decided.
#[test]
fn few_rows_after_the_note_are_left_to_a_person() {
    for decision in [Decision::Stored, Decision::Refill] {
        let killed = Killed::new(6);
        killed.lose_checkpoints();
        assert_eq!(killed.recover(4).held(), Some(2));
        assert_eq!(killed.bench.rows(), NAMES[..6]);
        let hold = killed.hold();
        assert_eq!((hold.from, hold.to), (Position(4), Position(6)));
        if decision == Decision::Refill {
            killed.bench.database.lock().unwrap().rows.truncate(4);
        }
        hold.decide(decision).write(&killed.directory()).unwrap();
        let found = killed.recover(4);
        assert_eq!(killed.bench.rows(), NAMES, "{decision:?}");
        assert_eq!(found.held(), None);
    }
}

/// The outcome of its last COMMIT is unknown to the process itself.
#[test]
fn what_was_sent_to_commit_is_not_stored_again() {
    let bench = Bench::new();
    bench.database.lock().unwrap().has_ids = true;
    let lane = bench.lane(&NAMES);
    let batches: [(u64, &[&str]); 2] = [(0, &NAMES[..4]), (4, &NAMES[4..])];
    let script = [
        (At::Commit, Act::Nothing),
        (At::Commit, Act::LoseAnswerAndCheckpoints),
    ];
    bench.run(&handle(&lane), &batches, &script, None);
    assert_eq!(bench.rows(), NAMES);
}

/// A machine has gone back to an earlier state with its memory, and has stored `stored` events, the last of which are others.
/// Of those of this lane, as many are rows as `rows` says.
pub(super) fn recover_after_other_events(stored: usize, rows: usize) -> (Killed, Option<u64>) {
    let killed = count_others(Killed::new(stored), rows);
    let held = killed.recover(2).held();
    (killed, held)
}

/// The checkpoint counts the events of another machine, beside the first `rows`.
pub(super) fn count_others(killed: Killed, rows: usize) -> Killed {
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.rows.truncate(rows);
        let checkpoint = database.checkpoints[&killed.lane];
        let step = Step {
            lane: killed.lane,
            epoch: checkpoint.epoch,
            old: Position::START,
            new: checkpoint.position,
            last: Fingerprint::from_bits(1 << 4),
        };
        database
            .checkpoints
            .insert(killed.lane.complement(), step.copy());
    }
    killed
}

#[test]
fn a_checkpoint_that_counts_other_events_is_left_to_its_owner() {
    for (stored, rows) in [(6, 2), (9, 6)] {
        let (killed, held) = recover_after_other_events(stored, rows);
        assert_eq!(held, None);
        assert_eq!(killed.bench.rows(), NAMES, "{rows}");
        // Under its own key it is where it was.
        let database = killed.bench.database.lock().unwrap();
        let checkpoint = database.checkpoints[&killed.lane];
        assert_eq!(checkpoint.position, Position(stored as u64));
    }
}

/// The database went back to after the last row that was noted, and a copy of the machine has filled it again.
#[test]
fn a_position_that_is_noted_after_the_last_noted_row_is_no_proof() {
    let killed = count_others(Killed::new(9), 4);
    let held = killed.recover_noted(9, 4).held();
    assert_eq!(
        (held, killed.bench.rows()),
        (None, NAMES.map(str::to_owned).to_vec())
    );
}

/// Events after a checkpoint that both rows were set back to are rows, and it was noted just there.
#[test]
fn rows_after_the_noted_position_are_not_stored_again() {
    for is_believed in [false, true] {
        let killed = Killed::new(6);
        {
            let mut database = killed.bench.database.lock().unwrap();
            for row in database.checkpoints.values_mut() {
                row.position = Position(4);
            }
        }
        plant(is_believed.then_some(Bug::NoteBelieved));
        let held = killed.recover(4).held();
        plant(None);
        assert_eq!(held.is_none(), is_believed);
        let stored = if is_believed { 11 } else { 6 };
        assert_eq!(killed.bench.rows().len(), stored);
    }
}

/// Other nodes store events that have the same. The last of those before the checkpoint is not the lane's own.
#[test]
fn rows_of_all_events_up_to_others_are_no_proof() {
    let (killed, held) = recover_after_other_events(9, 8);
    assert_eq!(held, Some(6));
    let hold = killed.hold();
    assert_eq!((hold.from, hold.to), (Position(2), Position(8)));
    assert_eq!(killed.bench.rows(), NAMES[..8]);
}

/// The twin of a process without a journal has moved its checkpoint from where it was before a COMMIT without an answer.
#[test]
fn a_commit_that_others_came_before_is_repeated_under_another_key() {
    // Fewer than those of the COMMIT, as many, and more.
    for events in [1, 2, 10] {
        let bench = Bench::new();
        let lane = LaneHandle::Memory(Arc::new(MemoryLane::new().unwrap()));
        let stored = Act::StoreOthers(events);
        let script = [(At::Commit, Act::Nothing), (At::Commit, stored)];
        let batches: [(u64, &[&str]); 3] = [(0, &["a"]), (1, &["b", "c"]), (3, &["d"])];
        bench.run(&lane, &batches, &script, None);
        assert_eq!(bench.rows(), ["a", "b", "c", "d"], "{events}");
    }
}

/// One row may be that of another event.
#[test]
fn where_rows_do_not_tell_which_events_both_have_a_person_does() {
    let (killed, held) = recover_after_other_events(6, 3);
    assert_eq!(held, Some(1));
    let hold = killed.hold();
    assert_eq!((hold.from, hold.to), (Position(2), Position(3)));
    assert_eq!(killed.bench.rows(), NAMES[..3]);
    hold.decide(Decision::Stored)
        .write(&killed.directory())
        .unwrap();
    assert_eq!(killed.recover(2).held(), None);
    assert_eq!(killed.bench.rows(), NAMES);
    let database = killed.bench.database.lock().unwrap();
    assert_eq!(database.checkpoints[&killed.lane].position, Position(6));
}

/// The rows may be removed since: the checkpoint says whose events it counts.
#[test]
fn a_checkpoint_that_counts_the_own_events_is_believed_without_rows() {
    let killed = Killed::new(6);
    killed.bench.database.lock().unwrap().rows.truncate(5);
    assert_eq!(killed.recover(2).held(), None);
    let rows = [&NAMES[..5], &NAMES[6..]].concat();
    assert_eq!(killed.bench.rows(), rows);
}

/// Rows before a row are missing where they were refused or altered, or removed since. Events are stored in their order.
#[test]
fn a_checkpoint_before_which_an_older_row_is_missing_is_believed() {
    let killed = Killed::new(6);
    killed.bench.database.lock().unwrap().rows[3] = "altered".to_owned();
    assert_eq!(killed.recover(2).held(), None);
    let rows = [&NAMES[..3], &["altered"], &NAMES[4..]].concat();
    assert_eq!(killed.bench.rows(), rows);
}

/// Somebody has set its epoch to the greatest number.
#[test]
fn a_lane_whose_epoch_is_the_greatest_is_settled_and_taken_over_again() {
    let killed = Killed::new(6);
    {
        let mut database = killed.bench.database.lock().unwrap();
        let row = database.checkpoints.get_mut(&killed.lane).unwrap();
        row.epoch = Epoch(u64::MAX);
        row.position = Position(8);
    }
    assert!(killed.recover(6).held().is_some());
    let hold = killed.hold();
    hold.decide(Decision::Refill)
        .write(&killed.directory())
        .unwrap();
    assert_eq!(killed.recover(hold.from.0).held(), None);
    assert_eq!(killed.bench.rows(), NAMES);
    let found = killed.recover(9);
    assert_eq!((found.held(), killed.bench.rows().len()), (None, 9));
}

/// A lane of a version that wrote no copies, and noted rows: its process was killed before it noted the last ones.
#[test]
fn rows_speak_for_a_checkpoint_that_never_had_a_copy() {
    let killed = Killed::new(6);
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.checkpoints.remove(&killed.lane.complement());
    }
    let found = killed.recover(3);
    assert_eq!(
        (killed.bench.rows(), found.held()),
        (NAMES.map(str::to_owned).to_vec(), None)
    );
    let checkpoint = killed.bench.database.lock().unwrap().checkpoints[&killed.lane];
    assert_eq!(checkpoint.position, Position(9));
}
