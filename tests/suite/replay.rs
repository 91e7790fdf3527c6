//! `hakaru dead-letters`: what was refused is looked at, stored after all, or dropped.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Client, Hakaru, MariaDb, Settings, wait_until};

/// Runs `hakaru dead-letters` in the directory of a server and gives its lines.
fn letters(directory: &Path, arguments: &[&str]) -> Vec<Value> {
    let text = letters_text(directory, &[arguments, &["--json"]].concat());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn letters_text(directory: &Path, arguments: &[&str]) -> String {
    let mut settings = Settings::default().flag("dead-letters");
    for argument in arguments {
        settings = settings.flag(argument);
    }
    let output = settings.run_in(directory);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn names(letters: &[Value]) -> Vec<&str> {
    letters
        .iter()
        .map(|letter| letter["name"].as_str().unwrap())
        .collect()
}

/// A server whose table refuses values of 1000 and more, and each of these names with one.
fn refused(database: &MariaDb, directory: &Path, names: &[&str]) -> Hakaru {
    let hakaru = Settings::mysql(database)
        .directory(directory)
        .flag("--linger=20ms")
        .start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    database.run("ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)");
    let mut client = Client::connect(hakaru.address);
    for name in names {
        for value in [1, 1000] {
            let path = format!("/hakaru?name={name}&value={value}");
            assert_eq!(client.get(&path).status, 200);
        }
    }
    let file = directory.join("hakaru-data/dead-letters.ndjson");
    wait_until("the letters are written", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().count() == names.len()
    });
    wait_until("the others are stored", || {
        database.count() == names.len() as u64
    });
    hakaru
}

#[test]
fn letters_are_listed_dropped_and_replayed_while_a_server_runs() {
    let database = MariaDb::start();
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let hakaru = refused(&database, directory, &["a", "b", "c", "d"]);
    let all = letters(directory, &["list"]);
    assert_eq!(names(&all), ["a", "b", "c", "d"]);
    assert_eq!(
        (&all[0]["code"], &all[0]["value"]),
        (&4025.into(), &1000.into())
    );
    let text = letters_text(directory, &["list", "--name=b"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("\"b\"  ") && text.contains("4025"), "{text}");
    for (arguments, expected) in [
        (&["list", "--name=a", "--name=d"][..], &["a", "d"][..]),
        (&["list", "--code=1"], &[]),
        (&["list", "--code=4025", "--from=1h", "--name=c"], &["c"]),
        (&["list", "--to=1h"], &[]),
    ] {
        assert_eq!(
            names(&letters(directory, arguments)),
            expected,
            "{arguments:?}"
        );
    }
    let dropped = letters(directory, &["drop", "--name=d"]);
    assert_eq!(
        (&dropped[0]["dropped"], &dropped[0]["left"]),
        (&1.into(), &3.into())
    );

    // What is refused again is a letter again, under its new place.
    let replayed = letters(directory, &["replay", "--name=a"]);
    assert_eq!(replayed[0]["replayed"], 1);
    let lane = &replayed[0]["lanes"][0]["lane"];
    wait_until("it is refused again", || {
        letters(directory, &["list", "--name=a"])
            .iter()
            .any(|letter| letter["lane"] == *lane)
    });
    assert_eq!(names(&letters(directory, &["list"])), ["b", "c", "a"]);
    assert_eq!(database.count(), 4);

    database.run("ALTER TABLE eventlog DROP CONSTRAINT small");
    let at = letters(directory, &["list", "--name=b"]);
    letters(directory, &["replay"]);
    wait_until("all are stored", || database.count() == 7);
    assert!(letters(directory, &["list"]).is_empty());
    let sql = "SELECT DATE_FORMAT(at, '%Y-%m-%dT%H:%i:%s') FROM eventlog WHERE name = 'b' AND value = 1000";
    let row: String = database.query_one(sql);
    let received = at[0]["received_at"].as_str().unwrap();
    assert_eq!(row, received[..19], "{received}");
    hakaru.stop();
}

#[test]
fn letters_that_are_replayed_without_a_server_are_stored_once_by_the_next() {
    let database = MariaDb::start();
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let hakaru = refused(&database, directory, &["a", "b"]);
    // The janitor finds the lane of a crashed server again, with its events that were refused.
    hakaru.crash();
    database.run("ALTER TABLE eventlog DROP CONSTRAINT small");
    assert_eq!(letters(directory, &["replay"])[0]["replayed"], 2);
    assert_eq!(letters(directory, &["replay"])[0]["replayed"], 0);
    // As after a restore: the checkpoint stands before the letters, and the rows are gone.
    database.run("UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'");
    database.run("DELETE FROM eventlog");
    for _ in 0..2 {
        let hakaru = Settings::mysql(&database).directory(directory).start();
        wait_until("all are stored", || database.count() == 4);
        hakaru.stop();
    }
    assert_eq!(database.count(), 4);
    let values: Vec<u32> = database.query("SELECT value FROM eventlog ORDER BY value");
    assert_eq!(values, [1, 1, 1000, 1000]);
}

/// Starts a replay of all letters, without waiting for it.
fn replay(directory: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hakaru"))
        .current_dir(directory)
        .args(["dead-letters", "replay"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Two at once, at moments that differ from round to round, beside a server that writes letters.
#[test]
fn replays_that_are_killed_lose_and_double_nothing() {
    let database = MariaDb::start();
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let hakaru = refused(&database, directory, &["first"]);
    let mut client = Client::connect(hakaru.address);
    let mut sent = vec![1, 1000];
    let mut killed = 0;
    for round in 0..40_u32 {
        for value in 0..5 {
            let value = 2000 + 5 * round + value;
            let path = format!("/hakaru?name=first&value={value}");
            assert_eq!(client.get(&path).status, 200);
            sent.push(value);
        }
        let mut replays = [replay(directory), replay(directory)];
        let is_killed = round % 4 != 0;
        if is_killed {
            std::thread::park_timeout(Duration::from_micros(fastrand::u64(1_000..20_000)));
        }
        for replay in &mut replays {
            if is_killed {
                replay.kill().unwrap();
            }
            let is_done = replay.wait().unwrap().success();
            assert!(
                is_done || is_killed,
                "two at once do not disturb each other"
            );
            killed += u32::from(!is_done);
        }
    }
    assert!(killed > 0);
    database.run("ALTER TABLE eventlog DROP CONSTRAINT small");
    wait_until("all are stored", || {
        letters(directory, &["replay"]);
        database.count() >= sent.len() as u64
    });
    let listed = letters(directory, &["list"]);
    assert!(listed.is_empty(), "{listed:?}");
    assert_eq!(hakaru.stop().pending, 0);
    let values: Vec<u32> = database.query("SELECT value FROM eventlog ORDER BY value");
    assert_eq!(values, sent);
}

/// Which events of a lane are letters is asked for before it is stored. Where that cannot be read, other lanes go on.
#[test]
fn letters_that_cannot_be_read_hold_the_lanes_of_earlier_processes_alone() {
    let database = MariaDb::start();
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let hakaru = refused(&database, directory, &["a"]);
    hakaru.crash();
    let file = directory.join("hakaru-data/dead-letters.ndjson");
    let moved = directory.join("moved");
    std::fs::rename(&file, &moved).unwrap();
    std::fs::create_dir(&file).unwrap();
    let hakaru = Settings::mysql(&database).directory(directory).start();
    hakaru.wait_for_event("journal_read_failed");
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=b&value=2")
            .status,
        200
    );
    wait_until("the new event is stored", || database.count() == 2);
    assert!(hakaru.events("storing_stopped").is_empty());
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&moved, &file).unwrap();
    hakaru.stop();
}

#[test]
fn a_data_directory_that_does_not_exist_is_an_error() {
    let temporary = tempfile::tempdir().unwrap();
    for action in [&["list"][..], &["replay"], &["drop", "--all"]] {
        let settings = Settings::default().flag("dead-letters");
        let settings = action.iter().fold(settings, |all, flag| all.flag(flag));
        let output = settings.flag("--data-dir=nowhere").run_in(temporary.path());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("nowhere") && error.contains("--data-dir"),
            "{error}"
        );
    }
}

/// A forgotten filter must not remove what is billed.
#[test]
fn letters_are_dropped_only_by_a_filter_or_all_of_them_by_a_flag() {
    let database = MariaDb::start();
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    refused(&database, directory, &["a", "b"]).stop();
    let drop = |flag: &str| {
        let settings = Settings::default().flag("dead-letters").flag("drop");
        let settings = if flag.is_empty() {
            settings
        } else {
            settings.flag(flag)
        };
        let output = settings.run_in(directory);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, error) = drop("");
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("--all") && error.contains("--name"),
        "{error}"
    );
    assert_eq!(names(&letters(directory, &["list"])), ["a", "b"]);
    // A filter and the flag contradict each other.
    let both = letters_output(directory, &["drop", "--all", "--name=a"]);
    assert_eq!(both, Some(2));
    assert_eq!(names(&letters(directory, &["list"])), ["a", "b"]);
    assert_eq!(drop("--name=a").0, Some(0));
    assert_eq!(names(&letters(directory, &["list"])), ["b"]);
    assert_eq!(drop("--all").0, Some(0));
    assert!(letters(directory, &["list"]).is_empty());
}

/// The exit code of `hakaru dead-letters`.
fn letters_output(directory: &Path, arguments: &[&str]) -> Option<i32> {
    let settings = Settings::default().flag("dead-letters");
    let settings = arguments.iter().fold(settings, |all, flag| all.flag(flag));
    settings.run_in(directory).status.code()
}
