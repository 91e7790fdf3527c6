//! What a table does to ids: a column whose ids would not be those of the senders is not used.

use super::constraints::start;
use super::{ADD_COLUMN, ids, send, server_with, settings, wait_for_end};
use crate::support::{Client, DatabaseServer, Family, ask, engine, wait_until};

/// What `check` says of the column, and hakaru when it starts.
fn said(database: &DatabaseServer) -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    let check = ask(directory.path(), &database.dsn(), &["check"]).out;
    let mut lines = check.lines();
    let line = lines.find(|line| line.contains("column event_id"));
    let line = line.unwrap_or_else(|| panic!("{check}")).to_owned();
    let hakaru = settings(database).start();
    let listening = hakaru.wait_for_event("listening");
    hakaru.stop();
    (line, listening["message"].as_str().unwrap().to_owned())
}

/// What is done to the table, and a word of the reason not to use the column. Where it is empty, the column is used.
type Alteration = (Vec<String>, &'static str);

#[test]
fn a_column_that_does_not_hold_the_ids_of_senders_is_not_used() {
    let with_column = |statement: &str| vec![ADD_COLUMN.to_owned(), statement.to_owned()];
    let column = |column: &str| {
        vec![format!(
            "ALTER TABLE eventlog ADD COLUMN event_id {column}, ADD UNIQUE KEY event_id (event_id)"
        )]
    };
    let text = |set: &str| column(&format!("varchar(64) CHARACTER SET {set} DEFAULT NULL"));
    let trigger = |event: &str, body: &str| {
        with_column(&format!(
            "CREATE TRIGGER changes {event} ON eventlog FOR EACH ROW {body}"
        ))
    };
    let mut alterations: Vec<Alteration> = vec![
        (text("ucs2"), "varbinary(64)"),
        (text("utf16"), "varbinary(64)"),
        (text("utf16le"), "varbinary(64)"),
        (text("utf32"), "varbinary(64)"),
        (text("ascii"), ""),
        (text("latin1"), ""),
        (text("utf8"), ""),
        (text("utf8mb4"), ""),
        (column("varbinary(64) DEFAULT ''"), "DEFAULT NULL"),
        (column("varbinary(64)"), ""),
        (
            trigger("BEFORE UPDATE", "SET NEW.value = 1"),
            "a trigger BEFORE UPDATE",
        ),
        (
            trigger("BEFORE INSERT", "SET NEW.Event_ID = LOWER(NEW.Event_ID)"),
            "a trigger BEFORE INSERT",
        ),
        (
            trigger("BEFORE INSERT", "SET NEW.value = NEW.value + 1"),
            "",
        ),
        (trigger("BEFORE DELETE", "SET @last = OLD.event_id"), ""),
        // As tools do that copy a table while it is used.
        (trigger("AFTER INSERT", "SET @last = NEW.event_id"), ""),
        (trigger("AFTER UPDATE", "SET @last = NEW.event_id"), ""),
    ];
    if engine().family == Family::MariaDb {
        let versioned = with_column("ALTER TABLE eventlog ADD SYSTEM VERSIONING");
        alterations.push((versioned, "system versioning"));
    }
    let database = server_with("");
    database.run("CREATE TABLE deployed LIKE eventlog");
    let mut wrong = Vec::new();
    for (statements, reason) in alterations {
        database.run("DROP TABLE eventlog");
        database.run("CREATE TABLE eventlog LIKE deployed");
        for statement in &statements {
            database.run(statement);
        }
        let (check, start) = said(&database);
        let (found, is_used) = match reason {
            "" => ("ok", true),
            _ => ("warning", false),
        };
        let is_right = check.starts_with(found)
            && check.contains(reason)
            && start.contains("is no second row") == is_used;
        if !is_right {
            wrong.push((statements, check, start));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A column that is made too short takes no id. What is refused for that is stored without one.
#[test]
fn events_are_not_refused_where_the_column_becomes_too_short() {
    let database = server_with(ADD_COLUMN);
    let hakaru = start(&database);
    send(&hakaru, "a", 1, "short");
    wait_for_end(&hakaru, 1);
    database.run("ALTER TABLE eventlog MODIFY event_id varbinary(20) DEFAULT NULL");
    for value in 2..5 {
        send(&hakaru, "a", value, &format!("{value:040}"));
    }
    wait_for_end(&hakaru, 4);
    assert_eq!(hakaru.events("ids_ignored").len(), 1);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (4, 0));
    assert_eq!(ids(&database), ["short"]);
}

/// What a `binary` column adds to the ids is in the packets.
#[test]
fn padded_ids_fit_into_small_packets() {
    let database = server_with(
        "ALTER TABLE eventlog ADD COLUMN event_id binary(255) DEFAULT NULL, ADD UNIQUE KEY event_id (event_id)",
    );
    database.run("SET GLOBAL max_allowed_packet = 16384");
    let hakaru = start(&database);
    let mut client = Client::connect(hakaru.address);
    for value in 0..300 {
        let path = format!("/hakaru?name=a&value={value}&id=id{value}");
        assert_eq!(client.get(&path).status, 200);
    }
    wait_until("all are stored", || database.count() == 300);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (300, 0));
}

/// A `binary` column fills ids up with zeros, which stay when it becomes a `varbinary`.
#[test]
fn ids_of_a_binary_column_are_known_after_the_zeros_are_removed() {
    let database = server_with(
        "ALTER TABLE eventlog ADD COLUMN event_id binary(64) DEFAULT NULL, ADD UNIQUE KEY event_id (event_id)",
    );
    let hakaru = settings(&database).start();
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 1);
    hakaru.stop();
    // As docs/operating.md says.
    database.run("ALTER TABLE eventlog MODIFY event_id varbinary(64) DEFAULT NULL");
    database.run("UPDATE eventlog SET event_id = TRIM(TRAILING 0x00 FROM event_id)");
    assert_eq!(ids(&database), ["a"]);
    let hakaru = settings(&database).start();
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 1);
    assert_eq!(hakaru.stop().duplicate, 1);
}
