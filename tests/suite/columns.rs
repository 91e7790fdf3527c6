//! What the columns of `eventlog` can hold is known before an event is promised.

use std::net::SocketAddr;

use crate::support::{Client, DatabaseServer, Settings, ask, wait_until};

/// A server whose table has these columns.
fn with_columns(name: &str, value: &str) -> DatabaseServer {
    let database = DatabaseServer::start();
    database.run(&format!(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime DEFAULT NULL, name {name} NOT NULL, value {value}) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
    ));
    database
}

/// Sends events and asserts which are taken; those that are not name the bound.
fn offer(address: SocketAddr, name: &str, value: u32, refused_with: Option<&str>) {
    let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/hakaru?name={name}&value={value}");
    let answer = Client::connect(address).get(&path);
    match refused_with {
        None => assert_eq!(answer.status, 200, "{answer:?}"),
        Some(bound) => {
            assert_eq!(answer.status, 400, "{answer:?}");
            assert!(answer.body.contains(bound), "{answer:?}");
        }
    }
}

/// Offers events to a table, each with the bound that it breaks, and sees the others stored as they were sent.
fn promised(database: &DatabaseServer, events: &[(&str, u32, Option<&str>)]) {
    let hakaru = Settings::mysql(database).flag("--linger=10ms").start();
    for &(name, value, refused_with) in events {
        offer(hakaru.address, name, value, refused_with);
    }
    let taken: Vec<(String, u32)> = events
        .iter()
        .filter(|(.., refused_with)| refused_with.is_none())
        .map(|&(name, value, _)| (name.to_owned(), value))
        .collect();
    wait_until("they are stored", || database.count() >= taken.len() as u64);
    let identity = hakaru.stop();
    assert_eq!(
        (identity.stored, identity.dead_lettered),
        (taken.len() as u64, 0)
    );
    let mut stored: Vec<(Vec<u8>, u32)> =
        database.query("SELECT CONVERT(name USING utf8mb4), value FROM eventlog");
    let mut taken: Vec<(Vec<u8>, u32)> = taken
        .into_iter()
        .map(|(name, value)| (name.into_bytes(), value))
        .collect();
    stored.sort();
    taken.sort();
    assert_eq!(stored, taken);
}

/// What `hakaru check` says of the table.
fn check(database: &DatabaseServer) -> String {
    let directory = tempfile::tempdir().unwrap();
    let asked = ask(directory.path(), &database.dsn(), &["check", "--json"]);
    let line = asked
        .out
        .lines()
        .find(|line| line.contains("\"table eventlog\""));
    line.unwrap().to_owned()
}

#[test]
fn a_binary_column_holds_bytes_and_not_characters() {
    let database = with_columns("varbinary(255)", "int unsigned");
    let fits = "計".repeat(85);
    let too_long = "計".repeat(86);
    promised(
        &database,
        &[
            (&fits, 1, None),
            (&too_long, 1, Some("255 bytes")),
            ("😀", 1, None),
        ],
    );
    assert!(check(&database).contains("255 bytes"));
}

#[test]
fn a_text_column_holds_bytes_too() {
    let database = with_columns("tinytext", "bigint");
    let fits = "😀".repeat(63);
    let too_long = "😀".repeat(64);
    promised(
        &database,
        &[(&fits, u32::MAX, None), (&too_long, 1, Some("255 bytes"))],
    );
}

#[test]
fn a_value_that_the_column_does_not_hold_is_refused() {
    let database = with_columns("varchar(255)", "smallint");
    promised(
        &database,
        &[
            ("a", 32_767, None),
            ("a", 32_768, Some("0 to 32767")),
            ("a", u32::MAX, Some("0 to 32767")),
        ],
    );
    let said = check(&database);
    assert!(said.contains("warning") && said.contains("32767"), "{said}");
}

#[test]
fn a_character_set_holds_what_the_server_converts_to_it() {
    let database = with_columns("varchar(255) CHARACTER SET big5", "decimal(3,0)");
    promised(
        &database,
        &[
            ("計 a\\~", 999, None),
            ("計", 1_000, Some("0 to 999")),
            ("é", 1, Some("big5")),
            ("한", 1, Some("big5")),
            ("😀", 1, Some("big5")),
        ],
    );
    let said = check(&database);
    assert!(said.contains("warning") && said.contains("big5"), "{said}");
}

#[test]
fn a_cyrillic_column_takes_cyrillic_names() {
    let database = with_columns("varchar(255) CHARACTER SET koi8r", "int unsigned");
    promised(&database, &[("Ж", 1, None), ("計", 1, Some("koi8r"))]);
}

#[test]
fn a_value_as_text_has_as_many_digits_as_the_column() {
    let database = with_columns("varchar(255)", "varchar(3)");
    promised(
        &database,
        &[("a", 999, None), ("a", 1_000, Some("0 to 999"))],
    );
}

#[test]
fn a_view_is_bounded_by_its_table() {
    let database = DatabaseServer::start();
    database.run(
        "CREATE TABLE events (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, at datetime, \
         label varchar(5) NOT NULL, amount smallint, day date AS (CAST(at AS date))) DEFAULT CHARSET=utf8mb3",
    );
    database.run(
        "CREATE VIEW eventlog AS SELECT id, at, label AS name, amount AS value, day FROM events",
    );
    promised(
        &database,
        &[
            ("計計計計計", 32_767, None),
            ("計計計計計計", 1, Some("1 to 5 characters")),
            ("😀", 1, Some("U+FFFF")),
            ("a", 32_768, Some("0 to 32767")),
        ],
    );
}

#[test]
fn a_column_that_changes_is_noticed() {
    let database = with_columns("varchar(255) CHARACTER SET utf8mb3", "int unsigned");
    let hakaru = Settings::mysql(&database).flag("--linger=10ms").start();
    offer(hakaru.address, "😀", 1, Some("U+FFFF"));
    offer(hakaru.address, "a", 40_000, None);
    wait_until("it is stored", || database.count() == 1);
    database.run(
        "ALTER TABLE eventlog MODIFY value smallint unsigned, \
         MODIFY name varchar(255) CHARACTER SET utf8mb4 NOT NULL",
    );
    // No event is taken meanwhile: nothing but the time makes hakaru read the columns again.
    wait_until("the columns are read again", || {
        let path = "/hakaru?name=%F0%9F%98%80&value=65535";
        Client::connect(hakaru.address).get(path).status == 200
    });
    offer(hakaru.address, "a", 65_536, Some("0 to 65535"));
    hakaru.stop();
}
