//! A replayed dead letter goes into the database that refused it, and into no other.

use std::path::Path;

use serde_json::Value;

use crate::support::{Client, DatabaseServer, Settings, wait_until};

/// Runs `hakaru dead-letters … --json` and gives its lines.
fn letters(directory: &Path, arguments: &[&str]) -> Vec<Value> {
    let settings = Settings::default().flag("dead-letters").flag("--json");
    let settings = arguments.iter().fold(settings, |all, flag| all.flag(flag));
    let output = settings.run_in(directory);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn server(database: &DatabaseServer, directory: &Path) -> Settings {
    Settings::mysql(database)
        .directory(directory)
        .flag("--cores=1")
        .flag("--linger=10ms")
}

/// Has a server store an event of this name, and the database refuse another one of it.
fn refuse(database: &DatabaseServer, directory: &Path, name: &str) {
    let hakaru = server(database, directory).start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    database.run("ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)");
    let mut client = Client::connect(hakaru.address);
    for value in [1, 1000] {
        let path = format!("/hakaru?name={name}&value={value}");
        assert_eq!(client.get(&path).status, 200);
    }
    wait_until("one is stored", || database.count() == 1);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (1, 1));
    database.run("ALTER TABLE eventlog DROP CONSTRAINT small");
}

fn names(database: &DatabaseServer) -> Vec<String> {
    database.query("SELECT name FROM eventlog ORDER BY name")
}

/// The id of a database, as a letter has it.
fn id(database: &DatabaseServer) -> String {
    let sql = "SELECT epoch, position FROM hakaru_checkpoint WHERE lane = 'database'";
    let (high, low): (u64, u64) = database.query_one(sql);
    format!("{high:016x}{low:016x}")
}

/// Letters of two databases are in one file. Each waits for its own.
#[test]
fn a_replayed_letter_goes_into_the_database_that_refused_it() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let (first, second) = (DatabaseServer::start(), DatabaseServer::start());
    refuse(&first, directory, "first");
    refuse(&second, directory, "second");
    let listed = letters(directory, &["list"]);
    let databases: Vec<_> = listed.iter().map(|letter| &letter["database"]).collect();
    assert_eq!(databases, [&id(&first), &id(&second)]);
    // The letter of another database explains nothing that this one lacks.
    let settings = Settings::mysql(&second).flag("reconcile");
    let output = settings
        .flag("--expected=3")
        .flag("--json")
        .run_in(directory);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["dead_letters"], &answer["lost"]),
        (&1.into(), &1.into())
    );
    let replayed = letters(directory, &["replay"]);
    assert_eq!(replayed[0]["replayed"], 2);
    let lanes = replayed[0]["lanes"].as_array().unwrap();
    let databases: Vec<_> = lanes.iter().map(|lane| &lane["database"]).collect();
    assert_eq!(lanes.len(), 2, "{replayed:?}");
    assert!(databases.contains(&&id(&first).into()), "{replayed:?}");

    let hakaru = server(&second, directory).start();
    wait_until("its own letter is stored", || second.count() == 2);
    let line = hakaru.wait_for_event("lane_of_other_database");
    assert_eq!(line["events"], 1);
    assert_eq!(names(&second), ["second", "second"]);
    hakaru.stop();
    let hakaru = server(&first, directory).start();
    wait_until("the other letter is stored", || first.count() == 2);
    assert_eq!(names(&first), ["first", "first"]);
    assert_eq!(hakaru.stop().pending, 0);
    assert_eq!((first.count(), second.count()), (2, 2));
}

/// A version before wrote letters without a database. Only a person can say where they belong.
#[test]
fn a_letter_that_names_no_database_is_replayed_only_with_a_flag() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let database = DatabaseServer::start();
    refuse(&database, directory, "old");
    let file = directory.join("hakaru-data/dead-letters.ndjson");
    let mut old: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("database");
    std::fs::write(&file, format!("{old}\n")).unwrap();

    let kept = letters(directory, &["replay"]);
    let counts = ["replayed", "left", "without_database"].map(|name| &kept[0][name]);
    assert_eq!(counts, [0, 1, 1], "{kept:?}");
    let output = Settings::default()
        .flag("dead-letters")
        .flag("replay")
        .run_in(directory);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--any-database"), "{text}");

    let replayed = letters(directory, &["replay", "--any-database"]);
    assert_eq!(replayed[0]["replayed"], 1);
    let hakaru = server(&database, directory).start();
    wait_until("it is stored", || database.count() == 2);
    hakaru.stop();
}
