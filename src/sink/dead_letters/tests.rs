//! Letters in their file, on a real disk and on a simulated one.

use super::replay::WithoutDatabase;
use super::*;
use crate::event::UnixMillis;
use crate::event::event_id::EventId;
use crate::journal::lane_handle::Origin;
use crate::os::bugs::plant;
use crate::os::simulated::disk::Machine;
use crate::os::simulated::{Simulated, set_machine};
use serde_json::json;
use std::fs;

const LIMIT: u64 = 1 << 20;

#[test]
fn a_letter_is_one_line_whatever_the_name_holds() {
    let directory = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(directory.path(), LIMIT);
    let fault = Fault::numbered(1366, "Incorrect string value: '\\xF0'");
    let received_at = UnixMillis(1_700_000_000_123);
    for name in ["a\nb", "\"😀\""] {
        let event = Event {
            name,
            value: 7,
            received_at,
            id: None,
        };
        letters
            .write(
                LaneId::random().unwrap(),
                None,
                [(event, Position(5), &fault)].into_iter(),
            )
            .unwrap();
    }
    let text = std::fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["name"], "a\nb");
    assert_eq!(lines[1]["received_at"], "2023-11-14T22:13:20.123Z");
    assert_eq!(
        (&lines[1]["code"], &lines[1]["value"]),
        (&json!(1366), &json!(7))
    );
}

#[test]
fn a_letter_keeps_the_id_of_its_event() {
    let directory = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(directory.path(), LIMIT);
    let fault = Fault::new("no");
    for id in [None, Some("\"7~ ")] {
        let event = Event {
            name: "a",
            value: 7,
            received_at: UnixMillis(5),
            id: id.map(|id| EventId::new(id).unwrap()),
        };
        let letter = [(event, Position(5), &fault)];
        let lane = LaneId::random().unwrap();
        letters.write(lane, None, letter.into_iter()).unwrap();
        let text = std::fs::read(directory.path().join(FILE_NAME)).unwrap();
        let line = text.split(|&byte| byte == b'\n').rev().nth(1).unwrap();
        let Line::Letter(read) = Line::parse(line) else {
            panic!("{line:?}")
        };
        assert_eq!(read.event(), event);
        let has_id = serde_json::from_slice::<serde_json::Value>(line).unwrap()["id"].is_string();
        assert_eq!(has_id, id.is_some());
    }
    // What is no id must not become an event without one.
    let text = std::fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
    let altered = text.lines().nth(1).unwrap().replace("7~ ", "é");
    assert_eq!(Line::parse(altered.as_bytes()), Line::Unreadable);
}

/// Writes the letter of an event of a new lane.
fn write(letters: &DeadLetters, name: &str) {
    let fault = Fault::new("no");
    let event = Event {
        name,
        value: 1,
        received_at: UnixMillis(0),
        id: None,
    };
    let letter = [(event, Position(0), &fault)];
    letters
        .write(LaneId::random().unwrap(), None, letter.into_iter())
        .unwrap();
}

#[test]
fn half_a_line_that_a_crash_left_spoils_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    write(&DeadLetters::new(directory.path(), LIMIT), "a");
    let half = r#"{"received_at":"2026-01-31T08:00:00.000Z","na"#;
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str(half);
    fs::write(&path, text).unwrap();
    let letters = DeadLetters::new(directory.path(), LIMIT);
    for name in ["b", "c"] {
        write(&letters, name);
    }
    let text = fs::read_to_string(&path).unwrap();
    let names: Vec<_> = text
        .lines()
        .map(|line| {
            serde_json::from_str(line).map(|letter: serde_json::Value| letter["name"].clone())
        })
        .map(Result::ok)
        .collect();
    assert_eq!(
        names,
        [Some("a".into()), None, Some("b".into()), Some("c".into())],
        "{text}"
    );
}

#[test]
fn a_file_that_is_replaced_while_its_lock_is_waited_for_gets_no_letter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let letters = DeadLetters::new(directory.path(), LIMIT);
    write(&letters, "a");
    let old = File::open(&path).unwrap();
    old.lock().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&letters, "b"));
        // Where it does not wait yet, it finds the new file at once, which is right too.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let new = directory.path().join("new");
        fs::write(&new, b"").unwrap();
        fs::rename(new, &path).unwrap();
        old.unlock().unwrap();
        writer.join().unwrap();
    });
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""name":"b""#), "{text:?}");
}

#[test]
fn a_file_that_was_moved_or_removed_is_created_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let moved = directory.path().join("moved");
    let letters = DeadLetters::new(directory.path(), LIMIT);
    let fault = Fault::new("no");
    let write = |position| {
        let event = Event {
            name: "a",
            value: 1,
            received_at: UnixMillis(0),
            id: None,
        };
        let letter = [(event, Position(position), &fault)];
        letters
            .write(LaneId::random().unwrap(), None, letter.into_iter())
            .unwrap();
    };
    let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
    write(0);
    write(1);
    fs::rename(&path, &moved).unwrap();
    write(2);
    assert_eq!((lines(&moved), lines(&path)), (2, 1));
    fs::remove_file(&path).unwrap();
    write(3);
    assert_eq!(lines(&path), 1);
}

#[test]
fn beyond_its_limit_the_file_takes_no_letter_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let letters = DeadLetters::new(directory.path(), 100);
    let fault = Fault::new("no");
    let event = Event {
        name: "a",
        value: 1,
        received_at: UnixMillis(0),
        id: None,
    };
    let lane = LaneId::random().unwrap();
    let write = || letters.write(lane, None, [(event, Position(0), &fault)].into_iter());
    write().unwrap();
    let path = directory.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    let error = write().unwrap_err().to_string();
    let said = format!("{} bytes", whole.len());
    assert!(error.contains(&said) && error.contains("(100)"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), whole);
    fs::write(&path, b"").unwrap();
    write().unwrap();
}

#[test]
fn an_unwritable_file_is_an_error_that_names_it() {
    let letters = DeadLetters::new(Path::new("/proc/nowhere"), LIMIT);
    let error = letters
        .write(LaneId::random().unwrap(), None, std::iter::empty())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/proc/nowhere/dead-letters.ndjson"),
        "{error}"
    );
}

/// Whether some power cut loses a letter that was read by another process than the one that was killed when it had
/// written it.
fn may_lose_a_letter(read: fn(&Path, LaneId)) -> bool {
    (0..100).any(|seed| {
        let _on = Simulated::start(seed);
        let machine = Machine::new(seed);
        set_machine(Some(machine.clone()));
        let (data, id) = (Path::new("data"), LaneId::random().unwrap());
        let directory = data.join(id.to_string());
        crate::os::fs::create_dir(&directory).unwrap();
        let letter = Letter {
            received_at: UnixMillis(0),
            name: "a".to_owned(),
            value: 1,
            id: None,
            code: None,
            error: String::new(),
            lane: id,
            position: Position(3),
            database: None,
        };
        let mut file = File::with(&data.join(FILE_NAME), Use::Append).unwrap();
        file.write_all(format!("{letter}\n").as_bytes()).unwrap();
        read(data, id);
        machine.cut_power();
        let left = machine.content().into_iter();
        let mut left = left.filter(|(path, _)| path.ends_with(FILE_NAME));
        left.next().is_none_or(|(_, text)| text.is_empty())
    })
}

/// A server reads which events of its lane are letters.
fn read_of_lane(data: &Path, id: LaneId) {
    let lane = DiskLane::lock(id, data.join(id.to_string()), Origin::Found, None);
    let read = DeadLetters::new(data, LIMIT).of_lane(&lane.unwrap().unwrap());
    assert_eq!(read.unwrap(), BTreeSet::from([Position(3)]));
}

/// A replay notes that the events are never to be stored from their lanes, and fails before its next step.
fn fail_to_replay(data: &Path, _: LaneId) {
    let obstacle = data.join(FILE_NAME).with_extension("ndjson.new");
    crate::os::fs::create_dir(&obstacle).unwrap();
    replay::replay(data, WithoutDatabase::Replay, |_| true).unwrap_err();
}

#[test]
fn a_letter_that_was_read_survives_a_power_cut() {
    for read in [read_of_lane, fail_to_replay] {
        assert!(!may_lose_a_letter(read));
        plant(Some(Bug::LettersNotSynced));
        assert!(may_lose_a_letter(read));
        plant(None);
    }
}
