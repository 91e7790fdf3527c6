//! A checkpoint that somebody altered while no process knew better is put back to where its copy is.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::support::{DatabaseServer, Hakaru, Settings, ask, wait_until};

/// A database that can stop taking writes.
trait Database {
    fn settings(&self) -> Settings;
    fn run(&self, sql: &str);
    fn values(&self) -> Vec<u32>;
    fn block(&mut self);
    fn unblock(&mut self);
    /// The greatest number of the column `epoch`.
    fn greatest_epoch(&self) -> u64;
}

impl Database for DatabaseServer {
    fn settings(&self) -> Settings {
        Settings::mysql(self)
    }

    fn run(&self, sql: &str) {
        Self::run(self, sql);
    }

    fn values(&self) -> Vec<u32> {
        self.query("SELECT value FROM eventlog ORDER BY value")
    }

    fn block(&mut self) {
        self.stop();
    }

    fn unblock(&mut self) {
        self.resume();
    }

    fn greatest_epoch(&self) -> u64 {
        u64::MAX
    }
}

struct Sqlite(PathBuf, Option<rusqlite::Connection>);

impl Sqlite {
    fn open(&self) -> rusqlite::Connection {
        let file = rusqlite::Connection::open(&self.0).unwrap();
        file.busy_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        file
    }
}

impl Database for Sqlite {
    fn settings(&self) -> Settings {
        Settings::sqlite()
    }

    fn run(&self, sql: &str) {
        self.open().execute_batch(sql).unwrap();
    }

    fn values(&self) -> Vec<u32> {
        let file = self.open();
        let Ok(mut query) = file.prepare("SELECT value FROM eventlog ORDER BY value") else {
            return Vec::new();
        };
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// Takes the one lock for writes.
    fn block(&mut self) {
        let file = self.open();
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.1 = Some(file);
    }

    fn unblock(&mut self) {
        self.1 = None;
    }

    fn greatest_epoch(&self) -> u64 {
        i64::MAX.unsigned_abs()
    }
}

fn in_each(test: impl Fn(&mut dyn Database, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    test(&mut DatabaseServer::start(), directory.path());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("eventlog.db");
    test(&mut Sqlite(file, None), directory.path());
}

fn settings(database: &dyn Database, directory: &Path) -> Settings {
    let settings = database.settings().directory(directory);
    settings.flag("--cores=1").flag("--linger=10ms")
}

fn check_rows(database: &dyn Database, count: u32) {
    wait_until("all is stored", || {
        database.values().len() >= count as usize
    });
    assert_eq!(database.values(), (0..count).collect::<Vec<_>>());
}

/// Starts a server that has stored ten events.
fn start_with_ten(database: &dyn Database, directory: &Path) -> Hakaru {
    let hakaru = settings(database, directory).start();
    hakaru.send(0..10);
    check_rows(database, 10);
    hakaru
}

/// Kills a server with events that wait for the database.
fn crash_with_waiting(database: &mut dyn Database, hakaru: Hakaru, waiting: Range<u32>) {
    database.block();
    hakaru.send(waiting);
    hakaru.crash();
    database.unblock();
}

/// Removes notes that are beside the only lane.
fn remove_notes(directory: &Path, notes: &[&str]) {
    for note in notes {
        drop(std::fs::remove_file(lane(directory).join(note)));
    }
}

/// The directory of the only lane.
fn lane(directory: &Path) -> PathBuf {
    let journal = std::fs::read_dir(directory.join("hakaru-data/journal")).unwrap();
    let mut lanes = journal.map(|lane| lane.unwrap().path());
    let lane = lanes.next().unwrap();
    assert_eq!(lanes.next(), None);
    lane
}

fn alter(database: &dyn Database, lane: &Path, statement: &str) {
    let lane = lane.file_name().unwrap().to_str().unwrap();
    database.run(&format!("{statement} WHERE lane = '{lane}'"));
}

/// Waits until these notes are beside the lane and it is noted how many events are stored. Returns the paths of the notes.
fn wait_for_notes(directory: &Path, notes: &[&str], stored: u64) -> Vec<PathBuf> {
    let lane = lane(directory);
    let notes: Vec<_> = notes.iter().map(|note| lane.join(note)).collect();
    wait_until("the stored position is noted", || {
        let noted = std::fs::read_to_string(lane.join("stored"));
        let is_noted = noted.is_ok_and(|noted| noted.trim().parse() == Ok(stored));
        is_noted && notes.iter().all(|note| note.exists())
    });
    notes
}

/// Some events are stored and others wait, when a process is killed before it has noted how far.
#[test]
fn a_checkpoint_that_was_set_ahead_after_a_kill_loses_nothing() {
    in_each(|database, directory| {
        let first = start_with_ten(database, directory);
        crash_with_waiting(database, first, 10..60);
        remove_notes(directory, &["stored", "rows"]);
        alter(
            database,
            &lane(directory),
            "UPDATE hakaru_checkpoint SET position = position + 20",
        );
        let second = settings(database, directory).start();
        check_rows(database, 60);
        let line = second.wait_for_event("checkpoint_put_back");
        assert_eq!(
            (&line["found"], &line["position"]),
            (&30.into(), &10.into())
        );
        assert_eq!(second.stop().pending, 0);
        check_rows(database, 60);
    });
}

/// No row is noted, as in the first second of a lane, or where rows have no usable id.
#[test]
fn a_checkpoint_that_was_set_back_or_removed_without_noted_rows_doubles_nothing() {
    for statement in [
        "UPDATE hakaru_checkpoint SET position = position - 7",
        "DELETE FROM hakaru_checkpoint",
    ] {
        in_each(|database, directory| {
            let first = start_with_ten(database, directory);
            wait_for_notes(directory, &["stored"], 10);
            first.crash();
            remove_notes(directory, &["rows"]);
            alter(database, &lane(directory), statement);
            let second = settings(database, directory).start();
            second.wait_for_event("checkpoint_put_back");
            second.send(10..20);
            check_rows(database, 20);
            assert!(second.events("database_lost_events").is_empty());
            assert_eq!(second.stop().pending, 0);
            check_rows(database, 20);
        });
    }
}

/// The events that follow are stored from where the copy is, by the same process.
#[test]
fn a_checkpoint_that_was_altered_under_a_server_is_put_back() {
    for statement in [
        "UPDATE hakaru_checkpoint SET position = position + 1000",
        "UPDATE hakaru_checkpoint SET position = 3",
        "DELETE FROM hakaru_checkpoint",
    ] {
        in_each(|database, directory| {
            let hakaru = start_with_ten(database, directory);
            alter(database, &lane(directory), statement);
            hakaru.send(10..20);
            check_rows(database, 20);
            hakaru.wait_for_event("checkpoint_put_back");
            assert!(hakaru.events("lane_forked").is_empty());
            assert_eq!(hakaru.stop().pending, 0);
            check_rows(database, 20);
        });
    }
}

/// Whoever forgets WHERE alters the copies too. Nobody can tell then what is stored, where no row is known.
#[test]
fn a_lane_whose_rows_were_both_altered_is_held() {
    in_each(|database, directory| {
        let first = start_with_ten(database, directory);
        crash_with_waiting(database, first, 10..60);
        remove_notes(directory, &["stored", "rows"]);
        database
            .run("UPDATE hakaru_checkpoint SET position = position + 20 WHERE lane <> 'database'");
        let second = settings(database, directory).start();
        second.wait_for_event("lane_held");
        assert!(second.events("checkpoint_put_back").is_empty());
        second.stop();
        check_rows(database, 10);
    });
}

/// A process stores for up to a second before it notes that, and the note may be older after a power cut.
#[test]
fn what_was_stored_after_the_last_note_is_not_stored_again_where_both_rows_are_gone() {
    in_each(|database, directory| {
        let first = settings(database, directory).start();
        // A row of each batch is noted. It takes several to prove something.
        for (from, to) in [(0, 3), (3, 6), (6, 10)] {
            first.send(from..to);
            check_rows(database, to);
        }
        let notes = wait_for_notes(directory, &["stored", "rows"], 10);
        let before: Vec<_> = notes
            .iter()
            .map(|note| std::fs::read(note).unwrap())
            .collect();
        first.send(10..20);
        check_rows(database, 20);
        crash_with_waiting(database, first, 20..30);
        for (note, content) in notes.iter().zip(before) {
            std::fs::write(note, content).unwrap();
        }
        database.run("DELETE FROM hakaru_checkpoint WHERE lane <> 'database'");
        let second = settings(database, directory).start();
        // Nobody can tell whether the rows after the noted ones are those of this lane.
        let held = second.wait_for_event("lane_held");
        assert_eq!(held["events"], 10);
        check_rows(database, 20);
        let lane = held["lane"].as_str().unwrap();
        let settled = ask(directory, "", &["journal", "settle", lane, "--stored"]);
        assert_eq!(settled.code, Some(0), "{settled:?}");
        check_rows(database, 30);
        assert_eq!(second.stop().pending, 0);
        check_rows(database, 30);
    });
}

#[test]
fn a_checkpoint_whose_epoch_was_set_to_the_greatest_number_stops_nobody() {
    in_each(|database, directory| {
        let first = start_with_ten(database, directory);
        wait_for_notes(directory, &["stored", "rows"], 10);
        first.crash();
        let greatest = database.greatest_epoch();
        let statement = format!("UPDATE hakaru_checkpoint SET epoch = {greatest}");
        alter(database, &lane(directory), &statement);
        for from in [10, 20] {
            let next = settings(database, directory).start();
            next.send(from..from + 10);
            check_rows(database, from + 10);
            for event in ["storing_stopped", "lane_held"] {
                assert!(next.events(event).is_empty());
            }
            next.crash();
        }
        check_rows(database, 30);
    });
}
