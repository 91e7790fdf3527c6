use super::*;
use crate::journal::lane_handle::MemoryLane;
use crate::sink::Epoch;

fn settled(stored: u64, lost: u64, passed: u64) -> Settled {
    Settled {
        stored,
        lost,
        passed,
        ..Settled::default()
    }
}

fn lane_at(position: u64) -> (Lanes, LaneHandle) {
    let lane = LaneHandle::Memory(Arc::new(MemoryLane::new().unwrap()));
    let mut lanes = Lanes::default();
    let state = lanes.of(&lane);
    state.set_checkpoint(Checkpoint {
        epoch: Epoch(1),
        position: Position(position),
    });
    assert_eq!(
        state.count_before(Position(position), false).stored,
        position
    );
    (lanes, lane)
}

#[test]
fn lost_events_are_counted_once_however_often_they_are_found() {
    let (mut lanes, lane) = lane_at(10);
    let state = lanes.of(&lane);
    let mut lose = |from, to| state.add_unreadable(Position(from), Position(to)).lost;
    // What was counted as stored stays counted as stored, whatever the database has now.
    assert_eq!((lose(5, 9), lose(8, 12)), (0, 2));
    assert_eq!((lose(20, 30), lose(20, 30)), (10, 0));
    // Around what is known, and with it.
    assert_eq!((lose(15, 35), lose(0, 40)), (10, 8));
}

#[test]
fn positions_are_passed_as_events_are_stored_or_lost() {
    let (mut lanes, lane) = lane_at(10);
    let state = lanes.of(&lane);
    let count =
        |state: &mut LaneState, first, end| state.count(Position(first), Position(end), false);
    assert_eq!(count(state, 10, 15), settled(5, 0, 5));
    assert_eq!(
        state.add_unreadable(Position(15), Position(18)),
        settled(0, 3, 3)
    );
    assert_eq!(count(state, 18, 20), settled(2, 0, 2));
    // Again after a restore of the database.
    assert_eq!(count(state, 12, 15), settled(0, 0, 0));
    assert_eq!(count(state, 18, 25), settled(5, 0, 5));
    // An event that is skipped and not known to be lost shows: the two sides differ.
    assert_eq!(count(state, 26, 27), settled(1, 0, 2));
}

/// A COMMIT is sent that moves the checkpoint to `new`.
fn will_commit(state: &mut LaneState, (old, new): (u64, u64), duplicates: u64) {
    let step = Step {
        lane: state.keys.current(),
        epoch: Epoch(1),
        old: Position(old),
        new: Position(new),
        last: None,
    };
    state.will_commit(&step, duplicates);
}

#[test]
fn duplicates_are_counted_once_and_only_of_the_commit_that_had_them() {
    let (mut lanes, lane) = lane_at(10);
    let state = lanes.of(&lane);
    let duplicates = |duplicates, stored| Settled {
        duplicates,
        ..settled(stored, 0, stored + duplicates)
    };
    let count =
        |state: &mut LaneState, first, end| state.count(Position(first), Position(end), false);
    will_commit(state, (10, 15), 2);
    assert_eq!(count(state, 10, 15), duplicates(2, 3));
    assert_eq!(count(state, 15, 20), duplicates(0, 5));
    // Its COMMIT was sent again with other rows, and took effect unnoticed.
    will_commit(state, (20, 25), 5);
    will_commit(state, (20, 25), 1);
    assert_eq!(state.count_before(Position(25), false), duplicates(1, 4));
    // Another process has stored more than this one has sent.
    will_commit(state, (25, 30), 5);
    assert_eq!(state.count_before(Position(40), false), duplicates(0, 15));
    // Again after a restore of the database: they are counted.
    will_commit(state, (30, 40), 10);
    assert_eq!(count(state, 30, 40), duplicates(0, 0));
    will_commit(state, (30, 45), 15);
    assert_eq!(count(state, 30, 45), duplicates(5, 0));
    // One whose COMMIT took effect unnoticed, and then one with the events after it.
    will_commit(state, (45, 50), 3);
    will_commit(state, (50, 60), 2);
    assert_eq!(count(state, 45, 60), duplicates(5, 10));
}

/// A read fails once, and then it does not.
#[test]
fn lost_events_that_are_stored_after_all_are_counted_as_lost() {
    let (mut lanes, lane) = lane_at(10);
    let state = lanes.of(&lane);
    let lost = state.add_unreadable(Position(10), Position(18));
    assert_eq!(lost, settled(0, 8, 8));
    let stored = state.count(Position(10), Position(30), false);
    assert_eq!(stored, settled(12, 0, 12));
}

/// A lane of this process is held, and no checkpoint of it was accepted before.
#[test]
fn what_is_stored_before_the_events_that_a_person_decides_about_is_counted() {
    let lane = LaneHandle::Memory(Arc::new(MemoryLane::new().unwrap()));
    let mut lanes = Lanes::default();
    let state = lanes.of(&lane);
    let before = state.count_before(Position(3), false);
    let decided = state.count(Position(3), Position(19), false);
    assert_eq!((before, decided), (settled(3, 0, 3), settled(16, 0, 16)));
}

/// While this process waited for the lane, another one has stored events of it.
#[test]
fn what_another_process_has_stored_is_counted_before_the_reader_goes_on() {
    let (mut lanes, lane) = lane_at(10);
    let state = lanes.of(&lane);
    let mut sum = state.count(Position(10), Position(15), false);
    state.add_dead_letter(Position(16), Fault::new("no"));
    let lost = state.add_unreadable(Position(18), Position(20));
    let elsewhere = state.count_before(Position(30), false);
    let after = state.count(Position(30), Position(35), false);
    for more in [
        lost,
        elsewhere,
        after,
        state.count_before(Position(35), false),
    ] {
        sum.stored += more.stored;
        sum.dead_lettered += more.dead_lettered;
        sum.lost += more.lost;
        sum.passed += more.passed;
    }
    assert_eq!((sum.stored, sum.dead_lettered, sum.lost), (22, 1, 2));
    assert_eq!(sum.passed, 25);
    // It has not gone back either.
    assert_eq!(state.count_before(Position(12), false), Settled::default());
}

/// The connection may be lost after a lane was taken over, and before its checkpoint is judged.
#[test]
fn a_lane_that_is_taken_over_again_has_no_twin_unless_it_was_moved() {
    let lane = LaneHandle::Memory(Arc::new(MemoryLane::new().unwrap()));
    let mut lanes = Lanes::default();
    let state = lanes.of(&lane);
    let at = |epoch, position| Checkpoint {
        epoch: Epoch(epoch),
        position: Position(position),
    };
    state.adopted(at(7, 184));
    state.adopted(at(8, 184));
    assert!(!state.has_twin);
    state.adopted(at(9, 185));
    assert!(state.has_twin);
    state.set_checkpoint(at(9, 185));
    will_commit(state, (100, 200), 0);
    state.adopted(at(10, 200));
    assert!(!state.has_twin);
    // Under the epoch of another process.
    state.adopted(at(20, 300));
    assert!(!state.has_twin);
}
