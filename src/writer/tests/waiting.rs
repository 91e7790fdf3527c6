//! Lanes that wait: for a person, for the disk, or for the database.

use super::*;
use crate::journal::held_lane::{Decision, Hold};

#[test]
fn a_decision_about_other_events_is_not_applied() {
    let bench = Bench::new();
    let id = bench.lane(&["a", "b", "c"]).id;
    let hold = |from, to| Hold {
        from: Position(from),
        to: Position(to),
        reason: "a test".to_owned(),
    };
    let directory = bench.directory.path().join(id.to_string());
    hold(0, 2).write(&directory).unwrap();
    for (decided, rows) in [
        (hold(0, 1), &[][..]),
        (hold(1, 2), &[]),
        (hold(0, 2), &["c"]),
    ] {
        decided.decide(Decision::Stored).write(&directory).unwrap();
        let (own, found) = (bench.lane(&[]), bench.lock(id, Origin::Found));
        bench.recover(&own, &found);
        assert_eq!(bench.rows(), rows, "{decided:?}");
        assert_eq!(found.held().is_some(), rows.is_empty());
    }
    assert_eq!(Hold::read(&directory).unwrap(), None);
}
