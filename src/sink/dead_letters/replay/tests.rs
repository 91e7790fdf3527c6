//! A replay that is cut short after each of its steps.

use super::*;
use crate::event::UnixMillis;
use crate::event::batch::{Batch, BatchEvents};
use crate::journal::reader::LaneReader;
use crate::journal::segment::lanes;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A data directory with letters, of a lane that is still in the journal.
struct Bench {
    directory: tempfile::TempDir,
    lane: LaneId,
    database: DatabaseId,
}

impl Bench {
    fn new(names: &[&str]) -> Self {
        let bench = Self {
            directory: tempfile::tempdir().unwrap(),
            lane: LaneId::random().unwrap(),
            database: DatabaseId::random().unwrap(),
        };
        fs::create_dir_all(bench.journal().join(bench.lane.to_string())).unwrap();
        let lines = (0..)
            .zip(names)
            .map(|(position, name)| bench.letter(name, position));
        let lines: String = lines.map(|letter| format!("{letter}\n")).collect();
        fs::write(bench.path(), lines).unwrap();
        bench
    }

    fn letter(&self, name: &str, position: u64) -> Letter {
        Letter {
            received_at: UnixMillis(1_700_000_000_123 + position),
            name: name.to_owned(),
            value: 7,
            id: (position % 2 == 1).then(|| format!("id {position}")),
            code: Some(4025),
            error: "no".to_owned(),
            lane: self.lane,
            position: Position(position),
            database: Some(self.database),
        }
    }

    fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    fn journal(&self) -> PathBuf {
        self.data_dir().join("journal")
    }

    fn path(&self) -> PathBuf {
        self.data_dir().join(FILE_NAME)
    }

    fn letters(&self) -> Vec<String> {
        let letters = Letters::read(self.data_dir()).unwrap().letters;
        letters.into_iter().map(|letter| letter.name).collect()
    }

    /// The names of events that a server would store, and when they were received.
    fn events(&self) -> Vec<(String, u64)> {
        let mut events = Vec::new();
        for lane in lanes(&self.journal()).unwrap() {
            let directory = self.journal().join(lane.to_string());
            let mut reader = LaneReader::from_oldest(&directory, lane).unwrap();
            let mut batch = Batch::new(BatchEvents::new(10_000).unwrap());
            reader.fill(&mut batch, None).unwrap();
            let each = batch
                .events()
                .map(|event| (event.name.to_owned(), event.received_at.0));
            events.extend(each);
        }
        events.sort();
        events
    }

    /// What the file of letters has.
    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn lock(&self) -> LockedLetters {
        LockedLetters::lock(self.data_dir(), None).unwrap().unwrap()
    }

    fn replay_all(&self) -> Result<Moved, ReplayError> {
        replay_known(self.data_dir(), |_| true)
    }

    /// The positions that are noted beside the lane as not to be stored from there.
    fn noted(&self) -> BTreeSet<Position> {
        refused_note::read(&self.journal().join(self.lane.to_string())).unwrap()
    }

    /// Takes the first steps of a replay, and no more.
    fn cut_short(&self, steps: usize, is_wanted: impl Fn(&Letter) -> bool) {
        let file = self.lock();
        let mut letters = file.read().unwrap();
        let taken = letters.take(is_wanted);
        let mut staged = Vec::new();
        if steps == 0 {
            // In the midst of the first.
            let lane = LaneId::random().unwrap();
            let directory = staged_directory(&self.journal(), lane);
            fs::create_dir(&directory).unwrap();
            drop(LaneWriter::create(&directory, lane, segment_bytes()).unwrap());
        }
        if steps > 0 {
            staged = stage_by_database(&self.journal(), &taken).unwrap();
        }
        if steps > 1 {
            note_refused(&self.journal(), &taken).unwrap();
        }
        if steps > 2 {
            let lanes = staged.iter().map(|lane| lane.id);
            drop(file.replace(&letters, lanes).unwrap());
        }
        for lane in staged.iter().take(steps.saturating_sub(3)) {
            publish(&self.journal(), lane.id).unwrap();
        }
    }

    fn staged(&self) -> usize {
        staged(&self.journal()).unwrap().len()
    }
}

fn replay_known(
    data_dir: &Path,
    is_wanted: impl Fn(&Letter) -> bool,
) -> Result<Moved, ReplayError> {
    replay(data_dir, WithoutDatabase::Leave, is_wanted)
}

fn at(name: &str, millis: u64) -> (String, u64) {
    (name.to_owned(), 1_700_000_000_123 + millis)
}

#[test]
fn wherever_a_replay_is_cut_short_each_event_is_a_letter_or_in_the_journal() {
    let is_wanted = |letter: &Letter| letter.name != "b";
    for steps in 0..=4 {
        for is_server in [true, false] {
            let bench = Bench::new(&["a", "b", "c"]);
            bench.cut_short(steps, is_wanted);
            let is_done = steps > 2;
            let left: &[&str] = if is_done { &["b"] } else { &["a", "b", "c"] };
            assert_eq!(bench.letters(), left, "{steps}");
            if is_server {
                assert!(finish(bench.data_dir()).unwrap().is_empty());
                let events = if is_done {
                    vec![at("a", 0), at("c", 2)]
                } else {
                    Vec::new()
                };
                assert_eq!((bench.events(), bench.staged()), (events, 0), "{steps}");
            }
            // A command does what is left to be done, too.
            let moved = bench.replay_all().unwrap();
            assert_eq!((moved.letters, moved.left), (left.len(), 0), "{steps}");
            let events = [at("a", 0), at("b", 1), at("c", 2)];
            assert_eq!(
                (bench.events(), bench.staged()),
                (events.to_vec(), 0),
                "{steps}"
            );
            assert!(bench.letters().is_empty());
            assert_eq!(bench.noted(), [0, 1, 2].map(Position).into());
        }
    }
}

#[test]
fn a_letter_that_is_there_twice_is_replayed_once_and_what_is_none_stays() {
    let bench = Bench::new(&["a", "b"]);
    let twice = format!("{}\nhalf a l", bench.letter("a", 0));
    let text = bench.text() + &twice;
    fs::write(bench.path(), text).unwrap();
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(bench.path(), mode.clone()).unwrap();
    let moved = replay_known(bench.data_dir(), |letter| letter.name == "a").unwrap();
    assert_eq!((moved.letters, moved.left, moved.unreadable), (1, 1, 1));
    assert_eq!(bench.events(), [at("a", 0)]);
    let text = bench.text();
    assert!(text.contains("\nhalf a l\n"), "{text}");
    let now = fs::metadata(bench.path()).unwrap().permissions().mode();
    assert_eq!(now & 0o777, mode.mode());
}

#[test]
fn what_is_dropped_is_never_stored() {
    let bench = Bench::new(&["a", "b"]);
    let moved = discard(bench.data_dir(), |letter| letter.name == "a").unwrap();
    assert_eq!((moved.letters, moved.left, moved.lanes), (1, 1, Vec::new()));
    assert_eq!(
        (bench.letters(), bench.events()),
        (vec!["b".to_owned()], Vec::new())
    );
    assert_eq!(bench.noted(), [Position(0)].into());
}

#[test]
fn a_staged_lane_whose_letters_were_moved_away_is_kept_for_a_person() {
    let bench = Bench::new(&["a"]);
    bench.cut_short(3, |_| true);
    for text in [Some(""), None] {
        match text {
            Some(text) => fs::write(bench.path(), text).unwrap(),
            None => fs::remove_file(bench.path()).unwrap(),
        }
        assert_eq!(finish(bench.data_dir()).unwrap().len(), 1, "{text:?}");
        assert_eq!(bench.staged(), 1);
    }
    for text in [None, Some("")] {
        if let Some(text) = text {
            fs::write(bench.path(), text).unwrap();
        }
        let error = bench.replay_all().unwrap_err().to_string();
        assert!(error.contains("replay-"), "{error}");
        assert_eq!(bench.staged(), 1);
    }
}

#[test]
fn many_letters_are_many_records() {
    let names: Vec<String> = (0..3000).map(|number| format!("{number:0100}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Bench::new(&names);
    assert_eq!(bench.replay_all().unwrap().letters, 3000);
    let events = bench.events();
    let read: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(read, names);
}

#[test]
fn a_replay_that_fails_leaves_nothing_behind() {
    let bench = Bench::new(&["a"]);
    let blocked = bench.path().with_extension("ndjson.new");
    // Whatever cannot be removed.
    fs::create_dir_all(blocked.join("x")).unwrap();
    let error = bench.replay_all().unwrap_err().to_string();
    assert!(error.contains(FILE_NAME), "{error}");
    assert_eq!((bench.letters(), bench.staged()), (vec!["a".to_owned()], 0));
    fs::remove_dir_all(blocked).unwrap();
    assert_eq!(bench.replay_all().unwrap().letters, 1);
    assert_eq!(bench.events(), [at("a", 0)]);
}

#[test]
fn letters_without_a_journal_are_replayed() {
    let bench = Bench::new(&["a"]);
    fs::remove_dir_all(bench.journal()).unwrap();
    assert_eq!(bench.replay_all().unwrap().letters, 1);
    assert_eq!(bench.events(), [at("a", 0)]);
}

#[test]
fn a_stopped_command_keeps_no_server_from_starting() {
    let bench = Bench::new(&["a"]);
    bench.cut_short(1, |_| true);
    let stopped = bench.lock();
    let error = finish(bench.data_dir()).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    drop(stopped);
    assert!(finish(bench.data_dir()).unwrap().is_empty());
    assert_eq!(bench.staged(), 0);
}

#[test]
fn letters_that_a_server_writes_while_the_file_is_moved_away_are_kept() {
    let bench = Bench::new(&["a", "b"]);
    let file = bench.lock();
    let mut letters = file.read().unwrap();
    letters.take(|letter| letter.name == "a");
    fs::rename(bench.path(), bench.data_dir().join("moved")).unwrap();
    let new = format!("{}\n", bench.letter("c", 2));
    fs::write(bench.path(), &new).unwrap();
    let error = file
        .replace(&letters, std::iter::empty())
        .unwrap_err()
        .to_string();
    assert!(error.contains("moved"), "{error}");
    assert_eq!(bench.text(), new);
}

#[test]
fn a_file_behind_a_link_is_replaced_where_it_is() {
    let bench = Bench::new(&["a", "b"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("letters");
    fs::rename(bench.path(), &target).unwrap();
    std::os::unix::fs::symlink(&target, bench.path()).unwrap();
    assert_eq!(
        replay_known(bench.data_dir(), |letter| letter.name == "a")
            .unwrap()
            .letters,
        1
    );
    assert_eq!(bench.letters(), ["b"]);
    assert!(!fs::read_to_string(target).unwrap().contains("\"a\""));
}

/// One lane for each database. Cut short between two of them, both are finished.
#[test]
fn letters_of_several_databases_are_lanes_of_their_own() {
    let other = DatabaseId::random().unwrap();
    for steps in 3..=5 {
        let bench = Bench::new(&["a"]);
        let letters = [Some(other), None].map(|database| Letter {
            database,
            position: Position(1 + u64::from(database.is_none())),
            ..bench.letter("b", 0)
        });
        let text = bench.text();
        fs::write(
            bench.path(),
            format!("{text}{}\n{}\n", letters[0], letters[1]),
        )
        .unwrap();
        bench.cut_short(steps, |letter| letter.database.is_some());
        assert_eq!(bench.letters(), ["b"]);
        assert!(finish(bench.data_dir()).unwrap().is_empty());
        let left = bench.replay_all().unwrap();
        assert_eq!((left.letters, left.left, left.without_database), (0, 1, 1));
        let any = replay(bench.data_dir(), WithoutDatabase::Replay, |_| true).unwrap();
        assert_eq!((any.letters, any.lanes[0].database), (1, None));
        let mut labels: Vec<Option<DatabaseId>> = Vec::new();
        for lane in lanes(&bench.journal()).unwrap() {
            match LaneLabel::read(&bench.journal().join(lane.to_string())).unwrap() {
                LaneLabel::Database { id, from, .. } => {
                    assert_eq!(from, Position::START);
                    labels.push(Some(id));
                }
                LaneLabel::Any { was: None } => labels.push(None),
                // The lane that the letters come from.
                LaneLabel::Missing => {}
                label => panic!("{label:?}"),
            }
        }
        labels.sort();
        let mut expected = [None, Some(bench.database), Some(other)];
        expected.sort();
        assert_eq!(labels, expected, "{steps}");
        assert_eq!(bench.events().len(), 3);
    }
}

/// It must not be taken for a letter of any database.
#[test]
fn a_line_with_a_database_that_is_none_is_no_letter() {
    let bench = Bench::new(&["a"]);
    let text = bench.text();
    let letter = text.replace(&bench.database.to_string(), "elsewhere");
    fs::write(bench.path(), letter).unwrap();
    let moved = replay(bench.data_dir(), WithoutDatabase::Replay, |_| true).unwrap();
    assert_eq!((moved.letters, moved.unreadable), (0, 1));
}
