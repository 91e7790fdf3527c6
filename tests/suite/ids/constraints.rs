//! What a table demands of ids: an id that it does not take is refused alone.

use std::fs;

use super::{ADD_COLUMN, ids, send, server_with, wait_for_end};
use crate::support::{DatabaseServer, Family, Hakaru, Settings, engine};

/// A server with the column for ids and a table of two ids, and what is done to it.
fn server_with_known_ids(alter: &str) -> DatabaseServer {
    let database = server_with(ADD_COLUMN);
    database.run("CREATE TABLE known (id varbinary(64) NOT NULL PRIMARY KEY) ENGINE=InnoDB");
    database.run("INSERT INTO known VALUES ('01234567-a'), ('01234567-b')");
    database.run(alter);
    database
}

/// hakaru on this server, which stores all that comes within a second as one batch.
pub(super) fn start(database: &DatabaseServer) -> Hakaru {
    Settings::mysql(database)
        .flag("--linger=1s")
        .flag("--cores=1")
        .start()
}

/// The ids of the dead letters.
fn letters(hakaru: &Hakaru) -> Vec<String> {
    let file = hakaru.path("hakaru-data/dead-letters.ndjson");
    let letters = fs::read_to_string(file).unwrap_or_default();
    let id = |letter: &str| {
        let letter: serde_json::Value = serde_json::from_str(letter).unwrap();
        letter["id"].as_str().unwrap().to_owned()
    };
    letters.lines().map(id).collect()
}

#[test]
fn an_id_that_a_constraint_refuses_is_refused_alone() {
    for constraint in [
        "ADD CONSTRAINT form CHECK (event_id LIKE '________-%')",
        "ADD CONSTRAINT form FOREIGN KEY (event_id) REFERENCES known (id)",
    ] {
        let database = server_with_known_ids(&format!("ALTER TABLE eventlog {constraint}"));
        let hakaru = start(&database);
        for id in ["01234567-a", "notuuid", "01234567-b", "01234567-a", ""] {
            send(&hakaru, "a", 1, id);
        }
        wait_for_end(&hakaru, 5);
        assert_eq!(letters(&hakaru), ["notuuid"], "{constraint}");
        // Alone in a batch, it is no reason to stop either.
        send(&hakaru, "a", 1, "neither");
        wait_for_end(&hakaru, 6);
        assert_eq!(hakaru.events("storing_stopped").len(), 0, "{constraint}");
        let identity = hakaru.stop();
        let ends = (identity.stored, identity.duplicate, identity.dead_lettered);
        assert_eq!(ends, (3, 1, 2), "{constraint}");
        // No trial row stays.
        assert_eq!(database.count(), 3);
        assert_eq!(ids(&database), ["01234567-a", "01234567-b"]);
    }
}

#[test]
fn a_table_that_takes_neither_other_ids_nor_none_stops_storing() {
    let alter = "ALTER TABLE eventlog ADD CONSTRAINT never CHECK (event_id <=> 'never')";
    let database = server_with_known_ids(alter);
    let hakaru = start(&database);
    for id in ["a", "", "b"] {
        send(&hakaru, "a", 1, id);
    }
    hakaru.wait_for_event("storing_stopped");
    assert!(letters(&hakaru).is_empty());
    database.run(match engine().family {
        Family::MariaDb => "ALTER TABLE eventlog DROP CONSTRAINT never",
        Family::MySql => "ALTER TABLE eventlog DROP CHECK never",
    });
    wait_for_end(&hakaru, 3);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (3, 0));
    assert_eq!(ids(&database), ["a", "b"]);
}
