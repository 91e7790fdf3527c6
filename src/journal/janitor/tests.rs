//! A janitor over lanes on a real disk. The time is what the tests let the database confirm.

use crate::journal::served_database::EarlierLanes;
use std::sync::mpsc::channel;

use super::*;
use crate::event::database_id::DatabaseId;
use crate::event::position::Position;
use crate::event::{Event, UnixMillis};
use crate::journal::lane_label::LaneLabel;
use crate::journal::lane_writer::LaneWriter;
use crate::journal::record::{append_event, begin_record};
use std::fs;

const SEGMENT: u64 = 64 * 1024;

/// A journal and its janitor, which keeps stored segments for ten seconds.
struct Bench {
    directory: tempfile::TempDir,
    janitor: Janitor,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (_, opened) = channel();
        let janitor = Janitor {
            journal: directory.path().to_owned(),
            keep: Duration::from_secs(10),
            retained_max: 10,
            opened,
            writers: Vec::new(),
            inactive_bytes: Arc::default(),
            served: Arc::new(ServedDatabase::new(
                "here".to_owned(),
                false,
                EarlierLanes::default(),
            )),
            found_events: Arc::default(),
        };
        Self { directory, janitor }
    }

    /// A lane with an event of 250 bytes in each of `records` records.
    fn write(&self, records: u64) -> LaneId {
        let id = LaneId::random().unwrap();
        let directory = self.path(id);
        fs::create_dir(&directory).unwrap();
        let mut writer = LaneWriter::create(&directory, id, SEGMENT).unwrap();
        let mut record = Vec::new();
        let name = "n".repeat(250);
        for _ in 0..records {
            begin_record(&mut record);
            let event = Event {
                name: &name,
                value: 1,
                received_at: UnixMillis(1),
                id: None,
            };
            append_event(&mut record, event);
            writer = writer.append(&mut record, 1).unwrap();
        }
        id
    }

    fn path(&self, id: LaneId) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    fn lock(&self, id: LaneId) -> Arc<DiskLane> {
        let locked = DiskLane::lock(id, self.path(id), Origin::Opened, None);
        Arc::new(locked.unwrap().unwrap())
    }

    /// Lets the note of a lane have been written in this hour.
    fn date_note(&self, id: LaneId, hour: u64) {
        let path = self.path(id).join("stored");
        let note = fs::File::options().write(true).open(path).unwrap();
        let at = std::time::UNIX_EPOCH + Duration::from_secs(hour * 3600);
        note.set_modified(at).unwrap();
    }

    fn segments(&self, id: LaneId) -> usize {
        segments(&self.path(id)).unwrap().len()
    }
}

fn at(seconds: u64) -> UnixMillis {
    UnixMillis(1_700_000_000_000 + seconds * 1000)
}

#[test]
fn stored_segments_age_only_while_the_database_confirms_them() {
    let bench = Bench::new();
    let id = bench.write(500);
    let all = bench.segments(id);
    assert!(all > 2);
    let lane = bench.lock(id);
    lane.set_stored(Position(500));
    let mut lanes = vec![RetainedLane::new(Arc::clone(&lane))];
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    lane.confirm(at(0));
    // Rounds do not count: the database is unreachable.
    for _ in 0..100 {
        bench
            .janitor
            .clean_up(&mut lanes, &mut ForeignLanes::default());
    }
    lane.confirm(at(9));
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    assert_eq!(bench.segments(id), all);
    // The database is reachable again, after a restore.
    lane.set_stored(Position(0));
    lane.confirm(at(1000));
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    assert_eq!(bench.segments(id), all);
    // All is stored again, and the ten seconds start again.
    lane.set_stored(Position(500));
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    assert_eq!(bench.segments(id), all);
    lane.confirm(at(1011));
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    // The last one, and the one that was created before it was needed.
    assert_eq!(bench.segments(id), 2);
}

/// Behind it is the one that was created before it was needed.
#[test]
fn the_segment_in_which_a_lane_ends_is_removed_with_the_lane_alone() {
    let bench = Bench::new();
    let id = bench.write(500);
    let all = bench.segments(id);
    let lane = bench.lock(id);
    lane.set_end(Position(500));
    lane.set_stored(Position(500));
    let ended = ended_segments(&lane).unwrap();
    assert_eq!(ended.len(), all - 2);
    assert!(ended.iter().all(|(_, is_stored)| *is_stored));
}

#[test]
fn a_stored_lane_is_kept_as_long_and_then_removed() {
    let bench = Bench::new();
    let id = bench.write(3);
    let lane = bench.lock(id);
    lane.set_end(Position(3));
    lane.set_stored(Position(3));
    let mut lanes = vec![RetainedLane::new(Arc::clone(&lane))];
    lane.confirm(at(0));
    for _ in 0..100 {
        bench
            .janitor
            .clean_up(&mut lanes, &mut ForeignLanes::default());
    }
    assert!(bench.path(id).exists());
    lane.confirm(at(11));
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    assert!(lanes.is_empty() && !bench.path(id).exists());
}

#[test]
fn a_lane_that_lost_its_first_block_is_not_removed_as_an_empty_one() {
    let bench = Bench::new();
    let (empty, damaged) = (bench.write(0), bench.write(40));
    let segment = bench.path(damaged).join(segment_name(SegmentNumber(0)));
    let file = fs::File::options().write(true).open(segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], 0).unwrap();
    assert!(bench.janitor.lock(empty).unwrap().is_none());
    assert!(!bench.path(empty).exists());
    assert!(bench.janitor.lock(damaged).unwrap().is_some());
}

#[test]
fn a_lane_without_a_shard_takes_no_more_space_than_its_events() {
    let bench = Bench::new();
    let (closed, found) = (bench.write(1), bench.write(1));
    let lane = bench.lock(closed);
    lane.set_end(Position(1));
    let found = DiskLane::lock(found, bench.path(found), Origin::Found, None);
    let mut lanes = vec![
        RetainedLane::new(lane),
        RetainedLane::found(found.unwrap().unwrap(), &bench.janitor.found_events),
    ];
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    assert_eq!(
        bench.janitor.inactive_bytes.load(Ordering::Relaxed),
        2 * 3 * 4096
    );
    assert_eq!(bench.janitor.found_events.load(Ordering::Relaxed), 1);
}

#[test]
fn a_lane_is_not_removed_as_an_empty_one_if_it_ended_with_events() {
    let bench = Bench::new();
    let end = |text: &str, has_segments: bool| {
        let id = bench.write(0);
        if !has_segments {
            for number in segments(&bench.path(id)).unwrap() {
                fs::remove_file(bench.path(id).join(segment_name(number))).unwrap();
            }
        }
        fs::write(bench.path(id).join("end"), text).unwrap();
        stored_note::write(&bench.path(id), Position(5)).unwrap();
        bench.janitor.lock(id).unwrap()
    };
    for has_segments in [true, false] {
        assert!(end("00000000000000000005\n", has_segments).is_none());
        assert!(end("five", has_segments).is_some());
        let lane = end("00000000000000000007\n", has_segments).unwrap();
        assert_eq!(
            RetainedLane::found(lane, &bench.janitor.found_events).unstored_events(),
            2
        );
    }
}

#[test]
fn a_lane_of_another_version_is_left_as_it_is() {
    let bench = Bench::new();
    let id = bench.write(40);
    let segment = bench.path(id).join(segment_name(SegmentNumber(0)));
    let file = fs::File::options().write(true).open(&segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"4", 7).unwrap();
    stored_note::write(&bench.path(id), Position(30)).unwrap();
    let lane = bench.janitor.lock(id).unwrap().unwrap();
    let mut retained = RetainedLane::found(lane, &bench.janitor.found_events);
    retained.write_note();
    assert_eq!(retained.lane.stored(), Position(30));
    assert_eq!(stored_note::read(&bench.path(id)), Position(30));
    assert_eq!(file.metadata().unwrap().len(), SEGMENT);
}

/// A restore needs what was stored last. The order in which a directory lists lanes says nothing.
#[test]
fn of_too_many_stored_lanes_those_that_were_stored_first_are_removed() {
    let mut bench = Bench::new();
    bench.janitor.retained_max = 2;
    // The hour in which each was stored.
    let hours = [5, 4, 3, 1, 2];
    let mut lanes = Vec::new();
    let mut ids = Vec::new();
    for hour in hours {
        let id = bench.write(3);
        let lane = bench.lock(id);
        lane.set_end(Position(3));
        lane.set_stored(Position(3));
        let mut retained = RetainedLane::new(lane);
        retained.write_note();
        bench.date_note(id, hour);
        lanes.push(retained);
        ids.push(id);
    }
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    let left: Vec<LaneId> = lanes.iter().map(|retained| retained.lane.id).collect();
    assert_eq!(left, ids[..2]);
}

/// Its note is written in the round in which its end is found to be stored.
#[test]
fn the_lane_that_was_stored_last_is_not_the_first_of_too_many() {
    let mut bench = Bench::new();
    bench.janitor.retained_max = 1;
    let mut lanes = Vec::new();
    // The second lane ended first, and an earlier part of the first was stored hours before.
    for (noted, hour) in [(2, 1), (3, 2)] {
        let id = bench.write(3);
        stored_note::write(&bench.path(id), Position(noted)).unwrap();
        bench.date_note(id, hour);
        let lane = DiskLane::lock(id, bench.path(id), Origin::Found, None);
        let retained = RetainedLane::found(lane.unwrap().unwrap(), &bench.janitor.found_events);
        retained.lane.set_end(Position(3));
        lanes.push(retained);
    }
    let last = lanes[0].lane.id;
    lanes[0].lane.set_stored(Position(3));
    bench
        .janitor
        .clean_up(&mut lanes, &mut ForeignLanes::default());
    let left: Vec<LaneId> = lanes.iter().map(|retained| retained.lane.id).collect();
    assert_eq!(left, [last]);
}

/// The disk does not let its files go. The lanes that can be removed do not take its place.
#[test]
fn a_lane_that_cannot_be_removed_is_tried_again_after_the_time_to_keep_and_not_counted() {
    let mut bench = Bench::new();
    bench.janitor.retained_max = 1;
    let mut lanes = Vec::new();
    for _ in 0..3 {
        let lane = bench.lock(bench.write(3));
        lane.set_end(Position(3));
        lane.set_stored(Position(3));
        lane.confirm(at(0));
        lanes.push(RetainedLane::new(lane));
    }
    lanes.sort_by_key(|retained| retained.lane.id);
    let failing = Arc::clone(&lanes[0].lane);
    // It is renamed, and something has the name already.
    failing.set_damaged();
    let taken = bench
        .directory
        .path()
        .join(format!("{DAMAGED_PREFIX}{}", failing.id));
    fs::write(&taken, "").unwrap();
    lanes[0].write_note();
    bench.date_note(failing.id, 1);
    let round = |lanes: &mut Vec<RetainedLane>| {
        bench.janitor.clean_up(lanes, &mut ForeignLanes::default());
        lanes.len()
    };
    assert_eq!([round(&mut lanes), round(&mut lanes)], [2, 2]);
    fs::remove_file(&taken).unwrap();
    assert_eq!(round(&mut lanes), 2);
    assert!(failing.directory.exists());
    failing.confirm(at(11));
    round(&mut lanes);
    assert!(!failing.directory.exists());
}

/// Replayed letters whose database has not answered yet, and of which no lane says where it is, are pending.
#[test]
fn events_that_name_a_database_and_no_address_are_counted_before_it_answers() {
    let mut bench = Bench::new();
    let (to_writer, writer) = std::sync::mpsc::sync_channel(1);
    bench.janitor.writers.push(to_writer);
    let id = bench.write(3);
    let label = LaneLabel::Database {
        id: DatabaseId::random().unwrap(),
        address: String::new(),
        from: Position::START,
    };
    label.write(&bench.path(id)).unwrap();
    let mut lanes = Vec::new();
    let mut foreign = ForeignLanes::default();
    let mut round = || {
        let mut failed = LoggedFailures::default();
        bench.janitor.adopt(&mut lanes, &mut foreign, &mut failed);
        bench.janitor.clean_up(&mut lanes, &mut foreign);
        foreign.publish(&bench.janitor.served);
        let pending = bench.janitor.found_events.load(Ordering::Relaxed);
        (pending, bench.janitor.served.foreign().1)
    };
    assert_eq!(round(), (3, 0));
    // Another one answers, and the writer lets the lane go.
    let answered = DatabaseId::random().unwrap();
    bench.janitor.served.answered(answered).unwrap();
    writer.try_recv().unwrap().set_foreign();
    round();
    assert_eq!(round(), (0, 3));
}
