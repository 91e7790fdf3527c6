//! `hakaru reconcile` finds events that are lost, doubled, unexpected or late, and counts dead letters and the journal.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Client, DatabaseServer, Settings, ask, ask_with, run, wait_until};

/// Sends a hundred events, with three names in turn, and waits until they are rows. Returns the list of them, as a
/// sender would keep it.
fn send(settings: Settings, with_times: bool) -> String {
    let hakaru = settings.start();
    let mut client = Client::connect(hakaru.address);
    let mut list = String::new();
    for value in 0..100 {
        let (escaped, name) = [("a", "a"), ("A", "A"), ("b%0A%22%2C", "b\n\",")][value % 3];
        let mut event = json!({ "name": name, "value": value });
        if with_times {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            event["at"] = now.unwrap().as_secs_f64().into();
        }
        writeln!(list, "{event}").unwrap();
        let answer = client.get(&format!("/hakaru?name={escaped}&value={value}"));
        assert_eq!(answer.status, 200);
    }
    assert_eq!(hakaru.stop().stored, 100);
    list
}

/// Runs `hakaru reconcile`, and checks that the exit code fits the answer.
fn reconcile(directory: &Path, dsn: &str, arguments: &[&str]) -> Value {
    let arguments = [&["reconcile", "--json"], arguments].concat();
    let asked = ask(directory, dsn, &arguments);
    let answer = asked.json();
    let code = if answer["agrees"] == true { 0 } else { 1 };
    assert_eq!(
        (asked.code, asked.err.as_str()),
        (Some(code), ""),
        "{asked:?}"
    );
    answer
}

fn counts(answer: &Value) -> [u64; 5] {
    ["rows", "lost", "doubled", "unexpected", "late"].map(|name| answer[name].as_u64().unwrap())
}

fn listed(answer: &Value) -> Vec<(&str, &str, u64)> {
    let found = answer["listed"].as_array().unwrap().iter();
    found
        .map(|found| {
            let text = |name: &str| found[name].as_str().unwrap();
            (text("kind"), text("name"), found["value"].as_u64().unwrap())
        })
        .collect()
}

const LIST: &str = "--expected=expected.ndjson";

/// Deletes, doubles and adds rows by `run`, and checks that this is found.
fn check_what_is_found(directory: &Path, dsn: &str, mut run: impl FnMut(&str)) {
    let found = |arguments: &[&str]| reconcile(directory, dsn, arguments);
    assert_eq!(counts(&found(&[LIST])), [100, 0, 0, 0, 0]);
    let number = found(&["--expected=100"]);
    assert_eq!(
        (&number["agrees"], &number["rows"], &number["surplus"]),
        (&json!(true), &json!(100), &json!(0))
    );

    run("DELETE FROM eventlog WHERE value IN (3, 5)");
    run(
        "INSERT INTO eventlog (at, name, value) SELECT at, name, value FROM eventlog WHERE value = 4",
    );
    run(
        "INSERT INTO eventlog (at, name, value) SELECT at, 'a', 4294967295 FROM eventlog WHERE value = 4 LIMIT 1",
    );
    run(
        "INSERT INTO eventlog (at, name, value) SELECT at, 'other', 1 FROM eventlog WHERE value = 4 LIMIT 1",
    );
    let answer = found(&[LIST]);
    assert_eq!(counts(&answer), [99, 2, 1, 1, 0], "{answer}");
    assert_eq!(
        listed(&answer),
        [
            ("lost", "a", 3),
            ("lost", "b\n\",", 5),
            ("doubled", "A", 4),
            ("unexpected", "a", 4_294_967_295),
        ]
    );
    assert_eq!(counts(&found(&[LIST, "--strict"])), [99, 2, 1, 2, 0]);
    assert_eq!(listed(&found(&[LIST, "--list=1"])).len(), 3);

    // 98 + 1 + 1 + 1 rows.
    for (arguments, lost, surplus, agrees) in [
        (&["--expected=103"][..], 2, 0, false),
        (&["--expected=101"], 0, 0, true),
        (&["--expected=99"], 0, 2, false),
        (&["--expected=99", "--connections=1"], 0, 2, false),
        (&["--expected=99", "--connections=2"], 0, 2, true),
    ] {
        let answer = found(arguments);
        assert_eq!(
            (&answer["lost"], &answer["surplus"], &answer["agrees"]),
            (&json!(lost), &json!(surplus), &json!(agrees)),
            "{arguments:?}"
        );
    }

    let text = ask(directory, dsn, &["reconcile", LIST]);
    assert_eq!(text.code, Some(1));
    for words in ["b\\n\",  5", "it does not agree", "lost, the first:"] {
        assert!(text.out.contains(words), "{words}: {}", text.out);
    }
}

#[test]
fn lost_and_doubled_rows_are_found_in_mariadb() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let list = send(
        Settings::mysql(&database).directory(directory.path()),
        false,
    );
    std::fs::write(directory.path().join("expected.ndjson"), list).unwrap();
    check_what_is_found(directory.path(), &database.dsn(), |sql| database.run(sql));
}

/// Runs a statement on a SQLite file.
fn sqlite(directory: &Path, sql: &str) {
    let program =
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()";
    let file = directory.join("eventlog.db");
    run("python3", &["-c", program, file.to_str().unwrap(), sql]);
}

#[test]
fn lost_and_doubled_rows_are_found_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let list = send(Settings::sqlite().directory(directory.path()), false);
    std::fs::write(directory.path().join("expected.ndjson"), list).unwrap();
    check_what_is_found(directory.path(), "sqlite:eventlog.db", |sql| {
        sqlite(directory.path(), sql)
    });
}

#[test]
fn a_row_with_another_time_than_its_event_is_late_in_any_time_zone() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let dsn = format!("{}?time_zone=%27%2B09:00%27", database.dsn());
    let list = send(Settings::datasource(&dsn).directory(directory.path()), true);
    std::fs::write(directory.path().join("expected.ndjson"), list).unwrap();
    let found = |arguments: &[&str]| reconcile(directory.path(), &dsn, arguments);
    assert_eq!(counts(&found(&[LIST])), [100, 0, 0, 0, 0]);
    database.run("UPDATE eventlog SET at = at + INTERVAL 100 SECOND WHERE value = 7");
    database.run("UPDATE eventlog SET at = at - INTERVAL 10 SECOND WHERE value = 8");
    let answer = found(&[LIST]);
    assert_eq!(counts(&answer), [100, 0, 0, 0, 2]);
    assert_eq!(listed(&answer), [("late", "A", 7), ("late", "b\n\",", 8)]);
    assert_eq!(counts(&found(&[LIST, "--late=30s"])), [100, 0, 0, 0, 1]);
    assert_eq!(counts(&found(&[LIST, "--late=2min"])), [100, 0, 0, 0, 0]);
    // A range leaves out what was received at another time.
    let answer = found(&[LIST, "--from=1h", "--to=2999-01-01"]);
    assert_eq!(counts(&answer)[..2], [100, 0]);
    assert_eq!(
        counts(&found(&[LIST, "--to=2001-01-01"])),
        [0, 100, 0, 0, 0]
    );
}

#[test]
fn dead_letters_are_accounted_for() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let hakaru = Settings::mysql(&database)
        .directory(directory.path())
        .start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    database.run("ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)");
    let mut client = Client::connect(hakaru.address);
    let mut list = "name,value\n".to_owned();
    for value in [1, 2, 3, 1_001, 1_002] {
        assert_eq!(
            client.get(&format!("/hakaru?name=n&value={value}")).status,
            200
        );
        writeln!(list, "n,{value}").unwrap();
    }
    assert_eq!(hakaru.stop().dead_lettered, 2);
    // Each letter is written twice, as after a crash before the checkpoint was moved past it.
    let letters = directory.path().join("hakaru-data/dead-letters.ndjson");
    let text = std::fs::read_to_string(&letters).unwrap();
    std::fs::write(&letters, format!("{text}{text}")).unwrap();

    let arguments = ["reconcile", "--json", "--expected=-"];
    let asked = ask_with(directory.path(), &database.dsn(), &arguments, &list);
    let answer = asked.json();
    assert_eq!(
        (asked.code, counts(&answer)),
        (Some(0), [3, 0, 0, 0, 0]),
        "{asked:?}"
    );
    assert_eq!(answer["dead_letters"], 2);
    let number = reconcile(directory.path(), &database.dsn(), &["--expected=5"]);
    assert_eq!(
        (&number["agrees"], &number["dead_letters"]),
        (&json!(true), &json!(2))
    );

    // A missing data directory is reported, and a dead letter of another time is not counted.
    let empty = tempfile::tempdir().unwrap();
    let asked = ask_with(empty.path(), &database.dsn(), &arguments, &list);
    let answer = asked.json();
    assert_eq!((asked.code, &answer["lost"]), (Some(1), &json!(2)));
    assert_eq!(answer["unread"]["data_dir"], "hakaru-data");
    let number = reconcile(
        directory.path(),
        &database.dsn(),
        &["--expected=0", "--to=2001-01-01"],
    );
    assert_eq!(number["agrees"], true);
}

#[test]
fn pending_events_of_the_journal_are_accounted_for() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let start = |linger: &str| {
        let settings = Settings::mysql(&database).directory(directory.path());
        settings.flag("--cores=1").flag(linger).start()
    };
    let mut list = String::new();
    let mut send = |hakaru: &crate::support::Hakaru, values: std::ops::Range<u32>| {
        let mut client = Client::connect(hakaru.address);
        for value in values {
            assert_eq!(
                client.get(&format!("/hakaru?name=n&value={value}")).status,
                200
            );
            writeln!(list, "n\t{value}").unwrap();
        }
    };
    let hakaru = start("--linger=10ms");
    send(&hakaru, 0..20);
    wait_until("they are stored", || database.count() == 20);
    hakaru.crash();
    let hakaru = start("--linger=1h");
    send(&hakaru, 20..50);
    std::fs::write(directory.path().join("expected.tsv"), list).unwrap();
    let found = |arguments: &[&str]| reconcile(directory.path(), &database.dsn(), arguments);
    let answer = found(&["--expected=expected.tsv"]);
    assert_eq!(
        (counts(&answer), &answer["pending"]),
        ([20, 0, 0, 0, 0], &json!(30))
    );
    assert_eq!(found(&["--expected=50"])["pending"], 30);
    // No process owns the lane any more. Its events are still pending.
    hakaru.crash();
    assert_eq!(found(&["--expected=expected.tsv"])["pending"], 30);
    let hakaru = start("--linger=10ms");
    wait_until("the rest is stored", || database.count() == 50);
    hakaru.stop();
    let answer = found(&["--expected=expected.tsv"]);
    assert_eq!(
        (counts(&answer), &answer["pending"]),
        ([50, 0, 0, 0, 0], &json!(0))
    );
    assert_eq!(found(&["--expected=50"])["pending"], 0);
}

#[test]
fn wrong_usage_is_exit_code_2_and_a_database_error_is_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    Settings::sqlite()
        .directory(directory.path())
        .start()
        .stop();
    std::fs::write(directory.path().join("wrong.csv"), "a,1\nb,two\n").unwrap();
    std::fs::write(directory.path().join("empty.csv"), "").unwrap();
    for (arguments, words) in [
        (&[][..], "--expected: missing; accepted: a number of events"),
        (&["--expected=99999999999999999999"], "--expected"),
        (&["--expected=nowhere.csv"], "nowhere.csv: No such file"),
        (&["--expected=wrong.csv"], "wrong.csv: line 2"),
        (&["--expected=empty.csv"], "empty.csv: holds no event"),
        (&["--expected=1", "--late=soon"], "--late"),
        (&["--expected=1", "--from=noon"], "--from"),
        (&["--expected=1", "--csv"], "--csv"),
    ] {
        let arguments = [&["reconcile"], arguments].concat();
        let asked = ask(directory.path(), "sqlite:eventlog.db", &arguments);
        assert_eq!(
            (asked.code, asked.out.as_str()),
            (Some(2), ""),
            "{arguments:?}: {asked:?}"
        );
        assert!(
            asked.err.contains(words) && asked.err.lines().count() == 1,
            "{words}: {asked:?}"
        );
    }
    let asked = ask(
        directory.path(),
        "root:s3cret@tcp(127.0.0.1:1)/d",
        &["reconcile", "--expected=1"],
    );
    assert_eq!((asked.code, asked.out.as_str()), (Some(1), ""), "{asked:?}");
    assert!(
        !asked.err.contains("s3cret") && asked.err.contains("mysql://root@127.0.0.1:1/d"),
        "{asked:?}"
    );
    let asked = ask(
        directory.path(),
        "sqlite:none.db",
        &["reconcile", "--expected=1"],
    );
    assert_eq!(asked.code, Some(1), "{asked:?}");
}

/// Its events may be rows, or not. An answer that takes them for pending would be a guess.
#[test]
fn a_held_lane_is_no_agreement() {
    let mut database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let hakaru = Settings::mysql(&database)
        .directory(directory.path())
        .flag("--cores=1")
        .start();
    let mut client = Client::connect(hakaru.address);
    assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
    wait_until("it is stored", || database.count() == 1);
    database.stop();
    for value in 2..5 {
        let path = format!("/hakaru?name=a&value={value}");
        assert_eq!(client.get(&path).status, 200);
    }
    hakaru.crash();
    database.resume();
    let answer = reconcile(directory.path(), &database.dsn(), &["--expected=4"]);
    assert_eq!(
        (
            &answer["agrees"],
            &answer["pending"],
            &answer["unread"]["held"]
        ),
        (&json!(true), &json!(3), &json!(0))
    );
    let lanes = std::fs::read_dir(directory.path().join("hakaru-data/journal")).unwrap();
    for lane in lanes {
        let held = "from 1\nto 4\nreason a test\n";
        std::fs::write(lane.unwrap().path().join("held"), held).unwrap();
    }
    let answer = reconcile(directory.path(), &database.dsn(), &["--expected=4"]);
    assert_eq!(
        (&answer["agrees"], &answer["unread"]["held"]),
        (&json!(false), &json!(3))
    );
    // They say nothing about another year.
    let past = ["--expected=0", "--to=2001-01-01"];
    let answer = reconcile(directory.path(), &database.dsn(), &past);
    assert_eq!(
        (&answer["agrees"], &answer["unread"]["held"]),
        (&json!(true), &json!(0))
    );
    let lanes = std::fs::read_dir(directory.path().join("hakaru-data/journal")).unwrap();
    for lane in lanes {
        std::fs::write(lane.unwrap().path().join("held"), "from").unwrap();
    }
    let arguments = ["reconcile", "--expected=4"];
    let asked = ask(directory.path(), &database.dsn(), &arguments);
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(
        asked.err.contains("held: cannot be understood"),
        "{asked:?}"
    );
    assert!(asked.err.contains("beside a lane"), "{asked:?}");
}
