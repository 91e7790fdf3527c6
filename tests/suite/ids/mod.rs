//! A sender gives its events ids and repeats them: each is one row, wherever and however often it is sent.

mod constraints;
mod stored_ids;
mod usable;

use std::fs;

use crate::support::{Client, DatabaseServer, Family, Hakaru, Settings, ask, engine, wait_until};

/// What an operator runs to have each id stored once.
const ADD_COLUMN: &str = "ALTER TABLE eventlog ADD COLUMN event_id varbinary(64) DEFAULT NULL, \
    ADD UNIQUE KEY event_id (event_id)";

/// A server with the deployed table, and what is done to it.
fn server_with(alter: &str) -> DatabaseServer {
    let database = DatabaseServer::start();
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime DEFAULT NULL, name varchar(255) NOT NULL, value int unsigned) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8 COLLATE=utf8_unicode_ci",
    );
    if !alter.is_empty() {
        database.run(alter);
    }
    database
}

/// Sends an event, and asserts that it is taken.
fn send(hakaru: &Hakaru, name: &str, value: u32, id: &str) {
    let mut client = Client::connect(hakaru.address);
    let id = match id {
        "" => String::new(),
        id => format!("&id={}", id.replace(' ', "%20")),
    };
    let answer = client.get(&format!("/hakaru?name={name}&value={value}{id}"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The ids of all rows, in order.
fn ids(database: &DatabaseServer) -> Vec<String> {
    let rows: Vec<Vec<u8>> = database.query(
        "SELECT CAST(event_id AS BINARY) FROM eventlog WHERE event_id IS NOT NULL ORDER BY id",
    );
    rows.into_iter()
        .map(|id| String::from_utf8(id).unwrap())
        .collect()
}

fn settings(database: &DatabaseServer) -> Settings {
    Settings::mysql(database).flag("--linger=20ms")
}

fn wait_for_end(hakaru: &Hakaru, events: u64) {
    wait_until("each event has its end", || {
        let counts = &hakaru.stats()["events"];
        let count = |name: &str| counts[name].as_u64().unwrap();
        count("stored") + count("duplicate") + count("dead_lettered") == events
    });
}

#[test]
fn repeated_within_a_batch_across_batches_shards_and_processes() {
    let database = server_with(ADD_COLUMN);
    let first = settings(&database)
        .flag("--cores=2")
        .flag("--ack=stored")
        .start();
    let second = settings(&database).flag("--ack=journaled").start();
    let line = first.wait_for_event("listening");
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("is no second row"),
        "{line}"
    );
    for round in 0..5 {
        for hakaru in [&first, &second] {
            // Each on a connection of its own, so that each shard gets some.
            for value in 0..8 {
                send(hakaru, "a", value, &format!("id {value}"));
            }
            send(hakaru, "without", round, "");
        }
    }
    wait_for_end(&second, 45);
    let (first, second) = (first.stop(), second.stop());
    assert_eq!((first.received, second.received), (45, 45));
    assert_eq!(first.stored + second.stored, 8 + 10);
    assert_eq!(first.duplicate + second.duplicate, 90 - 18);
    assert_eq!(database.count(), 18);
    let mut stored = ids(&database);
    stored.sort();
    assert_eq!(
        stored,
        (0..8)
            .map(|value| format!("id {value}"))
            .collect::<Vec<_>>()
    );
}

/// A batch of many events, half of them repeated in it, is one statement or a few.
#[test]
fn repeated_many_times_in_large_batches() {
    let database = server_with(ADD_COLUMN);
    let hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--linger=1s")
        .start();
    let mut client = Client::connect(hakaru.address);
    for value in 0..1_500 {
        let id = value % 500;
        let with_id = match value % 3 {
            0 => String::new(),
            _ => format!("&id={id}"),
        };
        let path = format!("/hakaru?name=a&value={value}{with_id}");
        assert_eq!(client.get(&path).status, 200);
    }
    wait_for_end(&hakaru, 1_500);
    let identity = hakaru.stop();
    // Of the 1,000 with an id, each id comes twice: in its first two of three rounds that have one.
    let distinct = database.query_one::<u64>("SELECT COUNT(DISTINCT event_id) FROM eventlog");
    assert_eq!(database.count(), 500 + distinct);
    assert_eq!(
        (identity.stored, identity.duplicate),
        (500 + distinct, 1_000 - distinct)
    );
    assert_eq!(distinct, 500);
}

/// Whatever the collation of the column takes for equal, an event is a duplicate only of the same id.
#[test]
fn ids_that_only_a_collation_takes_for_equal_are_refused_as_rows() {
    let database = server_with(
        "ALTER TABLE eventlog ADD COLUMN event_id varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, \
         ADD UNIQUE KEY (event_id)",
    );
    let hakaru = settings(&database).flag("--cores=1").start();
    for id in ["a", "A", "a ", "b", "a", "b"] {
        send(&hakaru, "a", 1, id);
    }
    wait_for_end(&hakaru, 6);
    let directory = hakaru.path("hakaru-data");
    let letters = fs::read_to_string(directory.join("dead-letters.ndjson")).unwrap();
    let letters: Vec<serde_json::Value> = letters
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kept: Vec<_> = letters
        .iter()
        .map(|letter| letter["id"].as_str().unwrap())
        .collect();
    assert_eq!(kept, ["A", "a "]);
    assert!(
        letters.iter().all(|letter| letter["code"] == 1062),
        "{letters:?}"
    );
    let identity = hakaru.stop();
    assert_eq!(
        (identity.stored, identity.duplicate, identity.dead_lettered),
        (2, 2, 2)
    );
    assert_eq!(ids(&database), ["a", "b"]);
}

/// A repeated key that is not the id is no duplicate of the event.
#[test]
fn a_conflict_with_another_unique_key_refuses_the_row() {
    let database = server_with(&format!("{ADD_COLUMN}, ADD UNIQUE KEY v (value)"));
    let hakaru = settings(&database).flag("--cores=1").start();
    for (value, id) in [(1, "a"), (1, "b"), (2, "b"), (2, ""), (3, "a")] {
        send(&hakaru, "a", value, id);
    }
    wait_for_end(&hakaru, 5);
    let identity = hakaru.stop();
    // The letter of `b` does not keep its repetition from being a row.
    assert_eq!(
        (identity.stored, identity.duplicate, identity.dead_lettered),
        (2, 1, 2)
    );
    assert_eq!(database.values(), [1, 2]);
    assert_eq!(ids(&database), ["a", "b"]);
}

/// What the server gives as an id of a row is no fault of an event, also in a statement with ids.
#[test]
fn a_primary_key_that_the_server_repeats_stops_storing() {
    let database = server_with(ADD_COLUMN);
    database.run("ALTER TABLE eventlog MODIFY id tinyint unsigned NOT NULL AUTO_INCREMENT");
    database.run("INSERT INTO eventlog (id, name, value) VALUES (254, 'a', 1), (255, 'a', 2)");
    let hakaru = settings(&database).start();
    send(&hakaru, "b", 3, "x");
    hakaru.wait_for_event("storing_stopped");
    database.run("ALTER TABLE eventlog MODIFY id bigint unsigned NOT NULL AUTO_INCREMENT");
    wait_until("it is stored", || database.count() == 3);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (1, 0));
}

#[test]
fn a_letter_whose_id_was_stored_meanwhile_is_no_second_row() {
    let database = server_with(&format!(
        "{ADD_COLUMN}, ADD CONSTRAINT small CHECK (value < 100)"
    ));
    let directory = tempfile::tempdir().unwrap();
    let start = || settings(&database).directory(directory.path()).start();
    let hakaru = start();
    for (value, id) in [(1, "a"), (100, "b"), (200, "c"), (300, "")] {
        send(&hakaru, "a", value, id);
    }
    wait_for_end(&hakaru, 4);
    hakaru.stop();
    let listed = ask(directory.path(), "", &["dead-letters", "list"]).out;
    assert!(
        listed.contains("id \"b\"") && listed.contains("id \"c\""),
        "{listed}"
    );
    let drop = match engine().family {
        Family::MariaDb => "ALTER TABLE eventlog DROP CONSTRAINT small",
        Family::MySql => "ALTER TABLE eventlog DROP CHECK small",
    };
    database.run(drop);
    let hakaru = start();
    // Its sender sends it to another node.
    send(&hakaru, "a", 100, "b");
    wait_for_end(&hakaru, 1);
    assert_eq!(
        ask(directory.path(), "", &["dead-letters", "replay"]).code,
        Some(0)
    );
    wait_for_end(&hakaru, 4);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.duplicate), (3, 1));
    assert_eq!(database.values(), [1, 100, 200, 300]);
    assert_eq!(ids(&database), ["a", "b", "c"]);
}

#[test]
fn ids_are_in_the_journal_before_the_database_was_reached() {
    let mut database = server_with(ADD_COLUMN);
    let directory = tempfile::tempdir().unwrap();
    database.crash();
    for round in 0..2 {
        // Whether ids are stored is not known yet.
        let hakaru = settings(&database).directory(directory.path()).start();
        for value in 0..4 {
            send(&hakaru, "a", value, &format!("{value}"));
        }
        let invalid = Client::connect(hakaru.address).get("/hakaru?name=b&value=9&id=%00");
        assert_eq!(invalid.status, 200, "{round}");
        let dumped = |lane: &str| ask(directory.path(), "", &["journal", "dump", lane]).out;
        let listed = ask(directory.path(), "", &["journal", "list", "--json"]).out;
        let lanes: Vec<serde_json::Value> = listed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let text: String = lanes
            .iter()
            .map(|lane| dumped(lane["lane"].as_str().unwrap()))
            .collect();
        assert!(text.contains("id \"3\""), "{text}");
        hakaru.crash();
    }
    database.resume();
    let hakaru = settings(&database).directory(directory.path()).start();
    wait_for_end(&hakaru, 10);
    let refused = Client::connect(hakaru.address).get("/hakaru?name=b&value=9&id=%00");
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("id: not printable ASCII"),
        "{refused:?}"
    );
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.duplicate), (6, 4));
    assert_eq!(database.count(), 6);
}

#[test]
fn a_column_that_comes_and_goes_while_hakaru_runs_is_noticed() {
    let database = server_with("");
    let hakaru = settings(&database).start();
    let line = hakaru.wait_for_event("listening");
    assert!(
        line["message"].as_str().unwrap().contains("are ignored"),
        "{line}"
    );
    for _ in 0..2 {
        send(&hakaru, "a", 1, "a");
    }
    wait_for_end(&hakaru, 2);
    assert_eq!(database.count(), 2);
    database.run(ADD_COLUMN);
    let said = |text: &'static str| {
        wait_until("it is noticed", || {
            let lines = hakaru.events("name_rule_changed");
            let last = lines
                .last()
                .map(|line| line["message"].as_str().unwrap().to_owned());
            last.is_some_and(|last| last.contains(text))
        });
    };
    said("is no second row");
    for _ in 0..3 {
        send(&hakaru, "a", 2, "a");
    }
    wait_for_end(&hakaru, 5);
    assert_eq!(database.count(), 3);
    let check_told = |is_stored: bool| {
        let stats = hakaru.stats();
        assert_eq!(stats["database"]["ids_stored"], is_stored, "{stats}");
        let metrics = Client::connect(hakaru.admin()).get("/metrics").body;
        let gauge = format!("\nhakaru_event_ids_stored {}\n", u8::from(is_stored));
        assert!(metrics.contains(&gauge), "{metrics}");
    };
    check_told(true);
    // With an event under way that has an id, it is noticed at once.
    database.run("ALTER TABLE eventlog DROP COLUMN event_id");
    send(&hakaru, "a", 3, "b");
    wait_for_end(&hakaru, 6);
    said("are ignored");
    check_told(false);
    assert_eq!(hakaru.events("storing_stopped").len(), 0);
    send(&hakaru, "a", 4, "b");
    wait_for_end(&hakaru, 7);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.duplicate), (5, 2));
}

#[test]
fn a_sqlite_file_stores_each_id_once() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Settings::sqlite()
            .directory(directory.path())
            .flag("--linger=20ms")
            .start()
    };
    let check = || ask(directory.path(), "sqlite:eventlog.db", &["check"]).out;
    let hakaru = start();
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 1);
    let said = check();
    assert!(
        said.contains("CREATE UNIQUE INDEX eventlog_event_id"),
        "{said}"
    );
    let file = rusqlite::Connection::open(directory.path().join("eventlog.db")).unwrap();
    file.execute_batch(
        "ALTER TABLE eventlog ADD COLUMN event_id text; CREATE UNIQUE INDEX eventlog_event_id ON eventlog (event_id)",
    )
    .unwrap();
    // The next batch sees it. Until then ids are ignored.
    send(&hakaru, "b", 1, "");
    wait_for_end(&hakaru, 2);
    for _ in 0..3 {
        send(&hakaru, "a", 1, "a");
    }
    wait_for_end(&hakaru, 5);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.duplicate), (3, 2));
    let hakaru = start();
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 1);
    assert_eq!(hakaru.stop().duplicate, 1);
    assert!(check().contains("is no second row"));
}
