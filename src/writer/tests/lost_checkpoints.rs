//! Rows of the table of checkpoints are lost, and the rows of the events are not. The rows have ids, by which they are
//! found.

use std::ops::Range;

use super::*;
use crate::journal::held_lane::{Decision, HeldCheckpoint, Hold};
use crate::journal::lane_keys::LaneKeys;
use crate::journal::row_witnesses::RowWitness;

const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

/// A lane of [`NAMES`], of which the first `stored` are rows. What is noted beside it is older.
struct Killed {
    bench: Bench,
    lane: LaneId,
    witnesses: Vec<RowWitness>,
}

impl Killed {
    fn new(stored: usize) -> Self {
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
    fn recover(&self, noted: u64) -> Arc<DiskLane> {
        self.recover_noted(noted, noted)
    }

    /// One that finds the rows of the first `rows` events noted, and `noted` events as stored: fewer where a lane is held.
    fn recover_noted(&self, noted: u64, rows: u64) -> Arc<DiskLane> {
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

    fn lose_checkpoints(&self) {
        let mut database = self.bench.database.lock().unwrap();
        database.checkpoints.remove(&self.lane);
        database.checkpoints.remove(&self.lane.complement());
    }

    fn directory(&self) -> std::path::PathBuf {
        self.bench.directory.path().join(self.lane.to_string())
    }

    fn hold(&self) -> Hold {
        Hold::read(&self.directory()).unwrap().unwrap()
    }
}

/// A hold of the events in a range, with the position and epoch of the checkpoint that was found.
fn hold(events: Range<u64>, checkpoint: Option<(u64, u64)>) -> Hold {
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
    for (stored, noted) in [(4, 4), (8, 4), (7, 4), (9, 9)] {
        let killed = Killed::new(stored);
        killed.lose_checkpoints();
        let found = killed.recover(noted);
        assert_eq!(killed.bench.rows(), NAMES, "{stored} {noted}");
        assert_eq!(found.held(), None);
    }
}

/// A lane that another node has stored the same events of looks so too: rows that are found by what they have are a proof
/// only where some of those after them are missing.
#[test]
fn rows_that_are_found_for_all_events_are_no_proof() {
    let killed = Killed::new(9);
    killed.lose_checkpoints();
    assert_eq!(killed.recover(4).held(), Some(5));
    assert_eq!(killed.bench.rows(), NAMES);
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

/// As where a machine that went back to a snapshot has stored other events under the same positions.
#[test]
fn a_checkpoint_before_which_rows_are_missing_is_not_believed() {
    let killed = Killed::new(6);
    killed.bench.database.lock().unwrap().rows.truncate(5);
    let found = killed.recover(2);
    assert!(found.held().is_some());
    assert_eq!(
        (killed.hold().from, killed.hold().to),
        (Position(2), Position(6))
    );
    assert_eq!(killed.bench.rows(), NAMES[..5]);
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

/// The events in question stay in question when its checkpoint is lost as well.
#[test]
fn a_decision_about_a_lane_whose_checkpoint_is_lost_meanwhile_is_asked_for_again() {
    for has_witnesses in [true, false] {
        let mut killed = Killed::new(6);
        if !has_witnesses {
            killed.witnesses.clear();
        }
        let hold = hold(3..6, Some((3, 2)));
        hold.write(&killed.directory()).unwrap();
        killed.lose_checkpoints();
        let decided = hold.decide(Decision::Stored);
        decided.write(&killed.directory()).unwrap();
        let found = killed.recover(hold.from.0);
        if has_witnesses {
            // The rows prove what was decided.
            assert_eq!(
                (killed.bench.rows(), found.held()),
                (NAMES.map(str::to_owned).to_vec(), None)
            );
            continue;
        }
        assert_eq!(killed.bench.rows(), NAMES[..6]);
        assert!(found.held().is_some());
        let now = killed.hold();
        assert!(now.from <= hold.from && now.to >= hold.to, "{now:?}");
        drop(found);
        // The second decision is applied.
        let decided = now.decide(Decision::Stored);
        decided.write(&killed.directory()).unwrap();
        let found = killed.recover(now.from.0);
        assert_eq!(found.held(), None);
        assert_eq!(killed.bench.rows(), NAMES);
    }
}

/// The database was restored after it was decided, and does not say at once which rows it has.
#[test]
fn a_decision_that_a_restore_made_untrue_is_not_applied_later() {
    let killed = Killed::new(6);
    let hold = hold(4..6, Some((0, 1)));
    hold.write(&killed.directory()).unwrap();
    let decided = hold.decide(Decision::Stored);
    decided.write(&killed.directory()).unwrap();
    killed.lose_checkpoints();
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.rows.clear();
        database.unread = Some(SinkError::Stop(fault()));
    }
    drop(killed.recover(4));
    killed.bench.database.lock().unwrap().unread = None;
    assert!(killed.recover(4).held().is_some());
    assert!(killed.bench.rows().is_empty());
}

/// The epoch tells that the database went back. Taking the lane over raises it, so nothing may fail between that and the
/// note.
#[test]
fn a_decision_that_a_restore_made_untrue_is_not_applied_after_a_failure() {
    for is_answer_lost in [true, false] {
        let killed = Killed::new(6);
        let hold = hold(4..6, Some((0, 1)));
        hold.write(&killed.directory()).unwrap();
        let decided = hold.decide(Decision::Stored);
        decided.write(&killed.directory()).unwrap();
        killed.lose_checkpoints();
        killed.bench.database.lock().unwrap().rows.clear();
        if is_answer_lost {
            killed.bench.database.lock().unwrap().unanswered = Some(killed.lane);
        } else {
            let obstacle = killed.directory().join("held.new");
            // The decision is removed, and the hold cannot be replaced.
            std::fs::create_dir(&obstacle).unwrap();
            drop(killed.recover(4));
            std::fs::remove_dir(&obstacle).unwrap();
            // A person decides once more, by what the old hold says.
            decided.write(&killed.directory()).unwrap();
        }
        drop(killed.recover(4));
        let found = killed.recover(4);
        if is_answer_lost {
            assert_eq!(found.held(), Some(6));
            assert!(killed.bench.rows().is_empty());
        } else {
            assert_eq!(found.held(), None);
            assert_eq!(killed.bench.rows(), NAMES);
        }
    }
}

/// The checkpoint is where the events in question begin, also before the database went back.
#[test]
fn rows_decide_about_a_decision_that_a_restore_made_untrue() {
    for is_restored in [true, false] {
        let mut killed = Killed::new(6);
        let hold = hold(0..6, Some((0, 1)));
        hold.write(&killed.directory()).unwrap();
        let decided = hold.decide(Decision::Stored);
        decided.write(&killed.directory()).unwrap();
        killed.lose_checkpoints();
        if is_restored {
            killed.bench.database.lock().unwrap().rows.clear();
        } else {
            // They are too few for a proof.
            killed.witnesses.truncate(2);
        }
        let found = killed.recover_noted(0, 6);
        let expected = if is_restored { NAMES.len() } else { 6 };
        assert_eq!(killed.bench.rows().len(), expected);
        assert_eq!(found.held().is_none(), is_restored);
    }
}

/// It was decided and the new key was noted, and the note of the hold was still there when the process was killed.
#[test]
fn a_decision_with_a_new_key_is_applied_once() {
    for decision in [Decision::Stored, Decision::Refill] {
        let killed = Killed::new(6);
        let directory = killed.directory();
        // As after two adoptions of the old key.
        let hold = hold(3..6, Some((20, 5)));
        hold.write(&directory).unwrap();
        hold.decide(decision).write(&directory).unwrap();
        let to = hold.settled(decision);
        let key = LaneId::random().unwrap();
        let mut keys = LaneKeys::new(killed.lane);
        keys.push(key, to);
        keys.write(&directory).unwrap();
        {
            let mut database = killed.bench.database.lock().unwrap();
            // A person is believed against what is found.
            database.rows.truncate(3);
            let checkpoint = Checkpoint {
                epoch: Epoch(1),
                position: to,
            };
            database.checkpoints.insert(key, checkpoint);
        }
        let found = killed.recover(3);
        assert_eq!(found.held(), None, "{decision:?}");
        assert_eq!(Hold::read(&directory).unwrap(), None);
        let stored = usize::try_from(to.0).unwrap();
        let expected = [&NAMES[..3], &NAMES[stored..]].concat();
        assert_eq!(killed.bench.rows(), expected);
    }
}

/// Two copies are held by a version that did not note where the checkpoint was. One of them is settled and goes on.
#[test]
fn what_the_other_copy_has_stored_is_not_stored_again_by_one_that_an_older_version_held() {
    for decision in [Decision::Stored, Decision::Refill] {
        let killed = Killed::new(9);
        let hold = hold(3..6, None);
        hold.write(&killed.directory()).unwrap();
        hold.decide(decision).write(&killed.directory()).unwrap();
        let found = killed.recover(3);
        assert_eq!(killed.bench.rows(), NAMES, "{decision:?}");
        assert_eq!(found.held(), None);
        assert_eq!(found.stored(), Position(9));
    }
}

/// The checkpoint that an older version did not believe is that of another owner, who goes on with it.
#[test]
fn a_checkpoint_beyond_the_lane_is_left_to_its_owner() {
    let killed = Killed::new(6);
    let hold = hold(3..9, None);
    hold.write(&killed.directory()).unwrap();
    hold.decide(Decision::Stored)
        .write(&killed.directory())
        .unwrap();
    let position = || {
        let database = killed.bench.database.lock().unwrap();
        database.checkpoints[&killed.lane].position
    };
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.checkpoints.get_mut(&killed.lane).unwrap().position = Position(20);
        database.checkpoints.remove(&killed.lane.complement());
    }
    let found = killed.recover(3);
    assert_eq!((found.held(), position()), (None, Position(20)));
    assert_eq!(killed.bench.rows(), NAMES[..6]);
}

#[test]
fn a_lane_whose_hold_is_gone_is_held_no_more() {
    let killed = Killed::new(6);
    let hold = hold(3..6, None);
    hold.write(&killed.directory()).unwrap();
    let found = killed.bench.lock(killed.lane, Origin::Found);
    found.set_held(Some(3));
    // Its removal has failed after the note was gone.
    Hold::remove(&killed.directory()).unwrap();
    let own = killed.bench.lane(&[]);
    killed.bench.recover(&own, &found);
    assert_eq!(killed.bench.rows(), NAMES);
    assert_eq!(found.held(), None);
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
