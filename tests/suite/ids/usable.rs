//! Whether ids can be stored: what the server and the user of the database must allow, and what `check` says of it.

use super::{ADD_COLUMN, ids, send, server_with, settings, wait_for_end};
use crate::support::{DatabaseServer, Settings, ask};

/// The datasource of a user who has these rights to `eventlog`, and all that hakaru needs otherwise.
fn dsn_of_user(database: &DatabaseServer, rights: &str) -> String {
    database.run(hakaru::sink::CREATE_CHECKPOINTS);
    database.run("CREATE USER app@'%' IDENTIFIED BY 'secret'");
    database.run(&format!("GRANT {rights} ON hakaru.eventlog TO app@'%'"));
    database.run("GRANT CREATE ON hakaru.* TO app@'%'");
    database.run("GRANT SELECT, INSERT, UPDATE ON hakaru.hakaru_checkpoint TO app@'%'");
    database.dsn().replace("root@", "app:secret@")
}

/// Without the right to update the column nothing stops, and ids are ignored.
#[test]
fn a_user_who_may_not_update_the_column_stores_no_ids() {
    let database = server_with(ADD_COLUMN);
    let dsn = dsn_of_user(&database, "SELECT, INSERT");
    let start = || Settings::datasource(&dsn).flag("--linger=20ms").start();
    let check = || ask(tempfile::tempdir().unwrap().path(), &dsn, &["check"]).out;
    let hakaru = start();
    send(&hakaru, "a", 1, "a");
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 2);
    assert_eq!(hakaru.stop().stored, 2);
    let said = check();
    assert!(
        said.contains("GRANT UPDATE ON `hakaru`.eventlog TO 'app'@'%'"),
        "{said}"
    );
    database.run("GRANT UPDATE ON hakaru.eventlog TO app@'%'");
    let said = check();
    assert!(
        said.contains("column event_id: an event whose id the table has is no second row"),
        "{said}"
    );
    let hakaru = start();
    send(&hakaru, "a", 1, "a");
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 2);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.duplicate), (1, 1));
}

#[test]
fn ids_are_kept_while_the_server_has_no_prepared_statement_to_give() {
    let database = server_with(ADD_COLUMN);
    let allowed: u64 = database.query_one("SELECT @@GLOBAL.max_prepared_stmt_count");
    database.run("SET GLOBAL max_prepared_stmt_count = 0");
    let hakaru = settings(&database).start();
    hakaru.wait_for_event("storing_stopped");
    let check = ask(
        tempfile::tempdir().unwrap().path(),
        &database.dsn(),
        &["check"],
    );
    assert!(
        check.out.contains("max_prepared_stmt_count") && !check.out.contains("ids of events"),
        "{}",
        check.out
    );
    send(&hakaru, "a", 1, "a");
    database.run(&format!("SET GLOBAL max_prepared_stmt_count = {allowed}"));
    wait_for_end(&hakaru, 1);
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 2);
    assert_eq!(ids(&database), ["a"]);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.duplicate), (1, 1));
}

#[test]
fn ids_are_kept_while_nothing_may_be_inserted() {
    let database = server_with(ADD_COLUMN);
    let dsn = dsn_of_user(&database, "SELECT, UPDATE");
    let hakaru = Settings::datasource(&dsn).flag("--linger=20ms").start();
    hakaru.wait_for_event("storing_stopped");
    send(&hakaru, "a", 1, "a");
    database.run("GRANT INSERT ON hakaru.eventlog TO app@'%'");
    wait_for_end(&hakaru, 1);
    send(&hakaru, "a", 1, "a");
    wait_for_end(&hakaru, 2);
    assert_eq!(ids(&database), ["a"]);
    assert_eq!(hakaru.stop().duplicate, 1);
}

#[test]
fn the_check_says_whether_ids_are_stored_and_what_to_do() {
    let said = |alter: &str| {
        let database = server_with(alter);
        let asked = ask(
            tempfile::tempdir().unwrap().path(),
            &database.dsn(),
            &["check"],
        );
        let line = asked
            .out
            .lines()
            .find(|line| line.contains("column event_id"));
        line.unwrap_or_else(|| panic!("{}", asked.out)).to_owned()
    };
    let line = said("");
    assert!(
        line.starts_with("ok") && line.contains(ADD_COLUMN),
        "{line}"
    );
    let line = said(ADD_COLUMN);
    assert!(
        line.starts_with("ok") && line.contains("no second row"),
        "{line}"
    );
    let line = said("ALTER TABLE eventlog ADD COLUMN event_id varbinary(64)");
    assert!(
        line.starts_with("warning") && line.contains("ADD UNIQUE KEY"),
        "{line}"
    );
    let line = said(
        "ALTER TABLE eventlog ADD COLUMN event_id varbinary(64), ADD UNIQUE KEY (event_id, value)",
    );
    assert!(
        line.starts_with("warning") && line.contains("ADD UNIQUE KEY"),
        "{line}"
    );
    let line = said("ALTER TABLE eventlog ADD COLUMN event_id char(64), ADD UNIQUE KEY (event_id)");
    assert!(
        line.starts_with("warning") && line.contains("MODIFY event_id"),
        "{line}"
    );
    let line = said("ALTER TABLE eventlog PARTITION BY HASH (id) PARTITIONS 4");
    assert!(
        line.starts_with("ok") && line.contains("partitioned"),
        "{line}"
    );
}
