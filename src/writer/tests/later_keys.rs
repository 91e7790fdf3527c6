//! The checkpoint of a lane counts the events of another copy of it: the lane gets its next key.

use super::lost_checkpoints::{Killed, NAMES, count_others, recover_after_other_events};
use super::*;
use crate::journal::lane_keys::LaneKeys;
use crate::os::bugs::{Bug, plant};

/// Each of two copies leaves the first key. The second one finds its events under the next, whatever rows say.
#[test]
fn copies_that_have_the_same_events_go_on_under_the_same_key() {
    let (killed, _) = recover_after_other_events(6, 2);
    let key = killed.lane.next_key();
    let keys = LaneKeys::read(&killed.directory(), killed.lane).unwrap();
    assert_eq!(keys.given(), Some(key));
    std::fs::remove_file(killed.directory().join("keys")).unwrap();
    killed.bench.database.lock().unwrap().rows.truncate(2);
    assert_eq!(killed.recover(2).held(), None);
    assert_eq!(killed.bench.rows(), NAMES[..2]);
    let database = killed.bench.database.lock().unwrap();
    assert_eq!(database.checkpoints[&key].position, Position(9));
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

/// The key of a copy whose events differ from an earlier one on is left to it.
#[test]
fn a_copy_that_forks_later_passes_the_key_of_one_that_forked_before() {
    let killed = Killed::new(6);
    let key = killed.lane.next_key();
    let earlier = Checkpoint {
        epoch: Epoch::FIRST,
        position: Position(1),
    };
    killed
        .bench
        .database
        .lock()
        .unwrap()
        .checkpoints
        .insert(key, earlier);
    let killed = count_others(killed, 2);
    assert_eq!(killed.recover(2).held(), None);
    assert_eq!(killed.bench.rows(), NAMES);
    let database = killed.bench.database.lock().unwrap();
    assert_eq!(database.checkpoints[&key].position, Position(1));
    assert_eq!(database.checkpoints[&key.next_key()].position, Position(9));
}
