//! Decisions about held lanes: they are applied once, and not where the database went back meanwhile.

use super::lost_checkpoints::{Killed, NAMES, hold};
use super::*;
use crate::journal::held_lane::{Decision, Hold};
use crate::journal::lane_keys::LaneKeys;

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
    killed.decide(&hold, Decision::Stored);
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
        killed.decide(&hold, Decision::Stored);
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
            let decided = hold.decide(Decision::Stored);
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
        killed.decide(&hold, Decision::Stored);
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

/// A checkpoint that is ahead is believed without rows. But the first attempt may have raised its epoch and moved nothing, or
/// a restore may have brought it back.
#[test]
fn a_decision_is_not_given_up_for_a_checkpoint_that_has_not_moved() {
    for epoch in [6, 4] {
        let killed = Killed::new(6);
        let hold = hold(3..6, Some((6, 5)));
        killed.decide(&hold, Decision::Refill);
        {
            let mut database = killed.bench.database.lock().unwrap();
            // Some are there, so that the rows do not tell.
            database.rows.truncate(4);
            let checkpoint = Checkpoint {
                epoch: Epoch(epoch),
                position: Position(6),
            };
            database.checkpoints.insert(killed.lane, checkpoint);
            database.checkpoints.remove(&killed.lane.complement());
        }
        let found = killed.recover_noted(3, 0);
        assert_eq!(found.held(), Some(3), "{epoch}");
        assert_eq!(killed.bench.rows(), NAMES[..4]);
        drop(found);
        // It is decided once more.
        let again = killed.hold().decide(Decision::Refill);
        again.write(&killed.directory()).unwrap();
        assert_eq!(killed.recover_noted(3, 0).held(), None);
        let expected = [&NAMES[..4], &NAMES[3..]].concat();
        assert_eq!(killed.bench.rows(), expected);
    }
}

/// What was noted of the checkpoint is true, although the lane was not taken over.
#[test]
fn a_decision_is_not_void_twice() {
    let mut killed = Killed::new(6);
    killed.witnesses.clear();
    let hold = hold(4..6, Some((0, 1)));
    killed.decide(&hold, Decision::Stored);
    killed.lose_checkpoints();
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.rows.truncate(1);
        database.unadopted = Some(killed.lane);
    }
    assert_eq!(killed.recover(4).held(), Some(6));
    let again = killed.hold().decide(Decision::Refill);
    again.write(&killed.directory()).unwrap();
    assert_eq!(killed.recover(4).held(), None);
    let expected = [&NAMES[..1], &NAMES[..]].concat();
    assert_eq!(killed.bench.rows(), expected);
}

/// The database was set back to an older state, the lane was held, and then the newer state came back, as after a failover
/// and a failback.
#[test]
fn a_checkpoint_that_has_come_back_after_the_events_in_question_is_believed() {
    let killed = Killed::new(6);
    let hold = hold(3..5, Some((4, 9)));
    killed.decide(&hold, Decision::Stored);
    let found = killed.recover_noted(3, 6);
    assert_eq!(found.held(), None);
    assert_eq!(killed.bench.rows(), NAMES);
}
