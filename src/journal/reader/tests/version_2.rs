//! Lanes of version 2 of the format: as those of today, and no event has an id.

use super::*;

/// A lane of `records` records of three events each, whose values are their positions.
pub(super) fn write_lane(directory: &Path, lane: LaneId, records: u32) {
    super::write_lane(directory, lane, records);
    for number in segments(directory).unwrap() {
        let start = Position(start_of(directory, lane, number.0));
        let head = segment_head(FormatVersion::Two, SegmentId { lane, number }, start);
        overwrite(directory, number.0, 0, &head);
    }
}

/// A lane of 60 events, written by the last release with that version.
#[test]
fn a_lane_of_an_earlier_release_is_read() {
    let journal = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-version-2");
    let lane = "cbcf3acae9ab3ab8c9213242c5de0c69";
    let directory = journal.join(lane);
    for start in [0, 1, 30, 59, 60] {
        let read = read_lane(&directory, lane.parse().unwrap(), Position(start.into()));
        assert_eq!(read, ((start..60).collect(), vec![], 0));
    }
}
