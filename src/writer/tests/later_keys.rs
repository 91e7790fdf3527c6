//! The checkpoint of a lane counts the events of another copy of it: the lane gets its next key.

use super::lost_checkpoints::{Killed, NAMES, count_others, recover_after_other_events};
use super::*;
use crate::journal::lane_keys::LaneKeys;
use crate::journal::lane_label::LaneLabel;
use crate::os::bugs::{Bug, plant};
use crate::sink::Begin;
use crate::sink::sealed_copy::Adoption;
use crate::writer::last_events::fingerprint_before;

/// Each of two copies leaves the first key. The second one finds its events under the next, whatever rows say.
#[test]
fn copies_that_have_the_same_events_go_on_under_the_same_key() {
    for has_own_key in [false, true] {
        plant(has_own_key.then_some(Bug::KeyOfItsOwn));
        let (killed, _) = recover_after_other_events(6, 2);
        let keys = LaneKeys::read(&killed.directory(), killed.lane).unwrap();
        assert_eq!(keys.given() != Some(killed.lane.next_key()), has_own_key);
        std::fs::remove_file(killed.directory().join("keys")).unwrap();
        killed.bench.database.lock().unwrap().rows.truncate(2);
        assert_eq!(killed.recover(2).held(), None);
        plant(None);
        let rows = if has_own_key { &NAMES[..] } else { &NAMES[..2] };
        assert_eq!(killed.bench.rows(), rows);
        let database = killed.bench.database.lock().unwrap();
        let given = keys.given().unwrap();
        assert_eq!(database.checkpoints[&given].position, Position(9));
    }
}

/// A database that was restored to before a lane got its key has what it had before: all copies begin there.
#[test]
fn a_key_that_the_database_lacks_is_given_up() {
    for is_kept in [false, true] {
        let (killed, _) = recover_after_other_events(6, 2);
        let key = killed.lane.next_key();
        {
            let mut database = killed.bench.database.lock().unwrap();
            database.rows.truncate(2);
            database.checkpoints.clear();
            let before = Checkpoint {
                epoch: Epoch(7),
                position: Position(2),
            };
            database.checkpoints.insert(killed.lane, before);
        }
        plant(is_kept.then_some(Bug::LostKeyKept));
        assert_eq!(killed.recover(9).held(), None);
        plant(None);
        assert_eq!(killed.bench.rows(), NAMES);
        let database = killed.bench.database.lock().unwrap();
        let used = if is_kept { key } else { killed.lane };
        assert_eq!(database.checkpoints[&used].position, Position(9));
        assert_eq!(database.checkpoints.contains_key(&key), is_kept);
    }
}

/// After a restore, another copy has stored as many of its own events as this one had stored.
#[test]
fn a_checkpoint_that_others_have_filled_again_is_left_to_them() {
    for is_believed in [false, true] {
        let killed = count_others(Killed::new(6), 2);
        plant(is_believed.then_some(Bug::BehindBelieved));
        assert_eq!(killed.recover(6).held(), None);
        plant(None);
        let lost = if is_believed { 2..6 } else { 2..2 };
        let rows = [&NAMES[..lost.start], &NAMES[lost.end..]].concat();
        assert_eq!(killed.bench.rows(), rows);
    }
}

/// Where its rows are there, somebody has removed the checkpoints: nothing is stored again.
#[test]
fn a_key_whose_rows_are_there_is_kept() {
    let (killed, _) = recover_after_other_events(6, 2);
    killed.bench.database.lock().unwrap().checkpoints.clear();
    assert_eq!(killed.recover(9).held(), Some(9));
    assert_eq!(killed.bench.rows(), NAMES);
    let keys = LaneKeys::read(&killed.directory(), killed.lane).unwrap();
    assert_eq!(keys.given(), Some(killed.lane.next_key()));
}

/// Another copy has got the next key of a lane at this position. It has the same events there, or others.
fn begin_next_key(killed: &Killed, position: Position, is_own: bool) -> LaneId {
    let key = killed.lane.next_key();
    let begin = Begin {
        position,
        last: is_own.then(|| {
            let lane = killed.bench.lock(killed.lane, Origin::Found);
            fingerprint_before(&handle(&lane), position).unwrap()
        }),
    };
    let Adoption { found, copy } = Adoption::new(key, begin, None, None);
    let mut database = killed.bench.database.lock().unwrap();
    let rows = &mut database.checkpoints;
    rows.insert(key, found.checkpoint);
    rows.insert(key.complement(), copy.unwrap());
    key
}

/// After a restore, one copy has stored the lane again under the first key, with events of its own, and another one that has
/// less has got the next key again. This one had got it later.
#[test]
fn a_key_that_a_copy_with_less_has_got_again_is_given_up() {
    for is_kept in [false, true] {
        let killed = count_others(Killed::new(6), 6);
        let key = begin_next_key(&killed, Position(2), true);
        let mut keys = LaneKeys::new(killed.lane);
        keys.push(key, Position(6));
        keys.write(&killed.directory()).unwrap();
        // What the restore has taken has other ids now.
        let other = "other".to_owned();
        killed.bench.database.lock().unwrap().rows.insert(2, other);
        plant(is_kept.then_some(Bug::LostKeyKept));
        assert_eq!(killed.recover(6).held(), None);
        plant(None);
        let again = if is_kept { &NAMES[2..6] } else { &[] };
        let rows = [&NAMES[..2], &["other"], &NAMES[2..6], again, &NAMES[6..]].concat();
        assert_eq!(killed.bench.rows(), rows);
        let database = killed.bench.database.lock().unwrap();
        assert_eq!(database.checkpoints[&key].position, Position(9));
    }
}

/// A copy finds the next key of a lane at position 1, where it counts the events that it has itself, or others. Returns where
/// the checkpoints of the next two keys are then.
fn find_next_key(is_own: bool) -> [Option<Position>; 2] {
    let killed = count_others(Killed::new(6), 2);
    let key = begin_next_key(&killed, Position(1), is_own);
    assert_eq!(killed.recover(2).held(), None);
    assert_eq!(killed.bench.rows(), NAMES);
    let database = killed.bench.database.lock().unwrap();
    [key, key.next_key()].map(|key| Some(database.checkpoints.get(&key)?.position))
}

#[test]
fn the_key_of_a_copy_with_other_events_is_passed_by() {
    assert_eq!(find_next_key(false), [Some(Position(1)), Some(Position(9))]);
}

#[test]
fn the_key_of_a_copy_with_the_same_events_is_moved_on() {
    assert_eq!(find_next_key(true), [Some(Position(9)), None]);
}

/// A copy of the lane that has stored less in the first database compares its events with those.
#[test]
fn a_checkpoint_that_begins_in_another_database_says_whose_events_come_before() {
    let killed = Killed::new(9);
    {
        let mut database = killed.bench.database.lock().unwrap();
        database.rows.clear();
        database.checkpoints.clear();
    }
    let label = LaneLabel::Any { was: None };
    label.write(&killed.directory()).unwrap();
    let found = killed.recover(9);
    assert_eq!(killed.bench.rows(), [""; 0]);
    let last = fingerprint_before(&handle(&found), Position(9));
    assert!(last.is_some());
    let begins = Begin {
        position: Position(9),
        last,
    };
    let expected = Adoption::new(killed.lane, begins, None, None);
    let database = killed.bench.database.lock().unwrap();
    let copy = database.checkpoints[&killed.lane.complement()];
    assert_eq!(Some(copy), expected.copy);
}

/// A person has let two copies of a lane into another database. What the first one was noted to have is not stored there, and is
/// not missing.
#[test]
fn what_another_database_has_is_not_looked_for_beside_other_events() {
    for (rows, waiting) in [(0, None), (1, Some(1))] {
        let killed = count_others(Killed::new(9), 0);
        let of_both = NAMES[6..6 + rows].iter().map(|name| (*name).to_owned());
        killed.bench.database.lock().unwrap().rows.extend(of_both);
        let label = LaneLabel::Any { was: None };
        label.write(&killed.directory()).unwrap();
        assert_eq!(killed.recover(6).held(), waiting);
        let stored = if waiting.is_some() { 6 + rows } else { 9 };
        assert_eq!(killed.bench.rows(), NAMES[6..stored]);
    }
}
