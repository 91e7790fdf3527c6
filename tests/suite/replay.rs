//! `hakaru dead-letters`: what was refused is looked at, stored after all, or dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Asked, Client, DatabaseServer, Hakaru, Settings, ask, engine, wait_until};

/// Runs `hakaru dead-letters` in a directory.
fn dead_letters(directory: &Path, arguments: &[&str]) -> Asked {
    ask(directory, "", &[&["dead-letters"], arguments].concat())
}

fn names(letters: &[Value]) -> Vec<String> {
    let names = letters
        .iter()
        .map(|letter| letter["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

/// A database whose table refuses values of 1000 and more, and the directory of its servers.
struct Bench {
    database: DatabaseServer,
    directory: TempDir,
}

impl Bench {
    /// With a server that was sent each of these names with a value that is stored, and one that is refused.
    fn with_refused(names: &[&str]) -> (Self, Hakaru) {
        let bench = Self {
            database: DatabaseServer::start(),
            directory: tempfile::tempdir().unwrap(),
        };
        let hakaru = bench.start();
        wait_until("there is a table", || {
            let tables = bench
                .database
                .query::<String>("SHOW TABLES LIKE 'eventlog'");
            !tables.is_empty()
        });
        let constraint = "ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)";
        bench.database.run(constraint);
        let mut client = Client::connect(hakaru.address);
        for name in names {
            for value in [1, 1000] {
                let path = format!("/hakaru?name={name}&value={value}");
                assert_eq!(client.get(&path).status, 200);
            }
        }
        wait_until("the letters are written", || {
            let text = std::fs::read_to_string(bench.file()).unwrap_or_default();
            text.lines().count() == names.len()
        });
        bench.wait_for_rows(names.len());
        (bench, hakaru)
    }

    fn start(&self) -> Hakaru {
        let settings = Settings::mysql(&self.database).directory(self.path());
        settings.flag("--linger=20ms").start()
    }

    /// The directory of its servers.
    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The file of its letters.
    fn file(&self) -> PathBuf {
        self.path().join("hakaru-data/dead-letters.ndjson")
    }

    /// Lets the table take every value.
    fn take_all(&self) {
        let constraint = "ALTER TABLE eventlog DROP CONSTRAINT small";
        self.database.run(constraint);
    }

    fn wait_for_rows(&self, rows: usize) {
        wait_until("all are stored", || self.database.count() == rows as u64);
    }

    /// Runs `hakaru dead-letters`, and gives its lines.
    fn letters(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.letters_text(&[arguments, &["--json"]].concat());
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn letters_text(&self, arguments: &[&str]) -> String {
        let asked = dead_letters(self.path(), arguments);
        assert_eq!(asked.code, Some(0), "{}", asked.err);
        asked.out
    }

    /// The names of the letters that are left.
    fn left(&self) -> Vec<String> {
        names(&self.letters(&["list"]))
    }
}

#[test]
fn letters_are_listed_dropped_and_replayed_while_a_server_runs() {
    let (bench, hakaru) = Bench::with_refused(&["a", "b", "c", "d"]);
    let code = engine().check_violated();
    let by_code = format!("--code={code}");
    let all = bench.letters(&["list"]);
    assert_eq!(names(&all), ["a", "b", "c", "d"]);
    assert_eq!(
        (&all[0]["code"], &all[0]["value"]),
        (&code.into(), &1000.into())
    );
    let text = bench.letters_text(&["list", "--name=b"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.contains("\"b\"  ") && text.contains(&code.to_string()),
        "{text}"
    );
    for (arguments, expected) in [
        (&["list", "--name=a", "--name=d"][..], &["a", "d"][..]),
        (&["list", "--code=1"], &[]),
        (&["list", &by_code, "--from=1h", "--name=c"], &["c"]),
        (&["list", "--to=1h"], &[]),
    ] {
        assert_eq!(names(&bench.letters(arguments)), expected, "{arguments:?}");
    }
    let dropped = bench.letters(&["drop", "--name=d"]);
    assert_eq!(
        (&dropped[0]["dropped"], &dropped[0]["left"]),
        (&1.into(), &3.into())
    );

    // What is refused again is a letter again, under its new place.
    let replayed = bench.letters(&["replay", "--name=a"]);
    assert_eq!(replayed[0]["replayed"], 1);
    let lane = &replayed[0]["lanes"][0]["lane"];
    wait_until("it is refused again", || {
        bench
            .letters(&["list", "--name=a"])
            .iter()
            .any(|letter| letter["lane"] == *lane)
    });
    assert_eq!(bench.left(), ["b", "c", "a"]);
    assert_eq!(bench.database.count(), 4);

    bench.take_all();
    let at = bench.letters(&["list", "--name=b"]);
    bench.letters(&["replay"]);
    bench.wait_for_rows(7);
    assert!(bench.letters(&["list"]).is_empty());
    let sql = "SELECT DATE_FORMAT(at, '%Y-%m-%dT%H:%i:%s') FROM eventlog WHERE name = 'b' AND value = 1000";
    let row: String = bench.database.query_one(sql);
    let received = at[0]["received_at"].as_str().unwrap();
    assert_eq!(row, received[..19], "{received}");
    hakaru.stop();
}

#[test]
fn letters_that_are_replayed_without_a_server_are_stored_once_by_the_next() {
    let (bench, hakaru) = Bench::with_refused(&["a", "b"]);
    // The janitor finds the lane of a crashed server again, with its events that were refused.
    hakaru.crash();
    bench.take_all();
    assert_eq!(bench.letters(&["replay"])[0]["replayed"], 2);
    assert_eq!(bench.letters(&["replay"])[0]["replayed"], 0);
    // As after a restore: the checkpoint stands before the letters, and the rows are gone.
    bench
        .database
        .run("UPDATE hakaru_checkpoint SET position = 0 WHERE lane <> 'database'");
    bench.database.run("DELETE FROM eventlog");
    for _ in 0..2 {
        let hakaru = bench.start();
        bench.wait_for_rows(4);
        hakaru.stop();
    }
    assert_eq!(bench.database.count(), 4);
    assert_eq!(bench.database.values(), [1, 1, 1000, 1000]);
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
    let (bench, hakaru) = Bench::with_refused(&["first"]);
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
        let mut replays = [replay(bench.path()), replay(bench.path())];
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
    bench.take_all();
    wait_until("all are stored", || {
        bench.letters(&["replay"]);
        bench.database.count() >= sent.len() as u64
    });
    let listed = bench.letters(&["list"]);
    assert!(listed.is_empty(), "{listed:?}");
    assert_eq!(hakaru.stop().pending, 0);
    assert_eq!(bench.database.values(), sent);
}

/// Which events of a lane are letters is asked for before it is stored. Where that cannot be read, other lanes go on.
#[test]
fn letters_that_cannot_be_read_hold_the_lanes_of_earlier_processes_alone() {
    let (bench, hakaru) = Bench::with_refused(&["a"]);
    hakaru.crash();
    let file = bench.file();
    let moved = bench.path().join("moved");
    std::fs::rename(&file, &moved).unwrap();
    std::fs::create_dir(&file).unwrap();
    let hakaru = bench.start();
    hakaru.wait_for_event("journal_read_failed");
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=b&value=2")
            .status,
        200
    );
    bench.wait_for_rows(2);
    assert!(hakaru.events("storing_stopped").is_empty());
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&moved, &file).unwrap();
    hakaru.stop();
}

#[test]
fn a_data_directory_that_does_not_exist_is_an_error() {
    let temporary = tempfile::tempdir().unwrap();
    for action in [&["list"][..], &["replay"], &["drop", "--all"]] {
        let arguments = [action, &["--data-dir=nowhere"]].concat();
        let Asked {
            code, err: error, ..
        } = dead_letters(temporary.path(), &arguments);
        assert_eq!(code, Some(1), "{error}");
        assert!(
            error.contains("nowhere") && error.contains("--data-dir"),
            "{error}"
        );
    }
}

/// A forgotten filter must not remove what is billed.
#[test]
fn letters_are_dropped_only_by_a_filter_or_all_of_them_by_a_flag() {
    let (bench, hakaru) = Bench::with_refused(&["a", "b"]);
    hakaru.stop();
    let drop = |flags: &[&str]| {
        let asked = dead_letters(bench.path(), &[&["drop"], flags].concat());
        (asked.code, asked.err)
    };
    let (code, error) = drop(&[]);
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("--all") && error.contains("--name"),
        "{error}"
    );
    assert_eq!(bench.left(), ["a", "b"]);
    // A filter and the flag contradict each other.
    assert_eq!(drop(&["--all", "--name=a"]).0, Some(2));
    assert_eq!(bench.left(), ["a", "b"]);
    assert_eq!(drop(&["--name=a"]).0, Some(0));
    assert_eq!(bench.left(), ["b"]);
    assert_eq!(drop(&["--all"]).0, Some(0));
    assert!(bench.letters(&["list"]).is_empty());
}
