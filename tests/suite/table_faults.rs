//! What refuses every row is a fault of the table: storing stops, and no event becomes a dead letter.

use crate::support::{Client, DatabaseServer, Hakaru, Settings, ask, exchange, wait_until};

/// The deployed table with another `id` and more to say.
fn table(id: &str, more: &str) -> DatabaseServer {
    let database = DatabaseServer::start();
    database.run(&format!(
        "CREATE TABLE eventlog (id {id} NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime DEFAULT NULL, name varchar(255) NOT NULL, value int unsigned) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8 COLLATE=utf8_unicode_ci {more}"
    ));
    database
}

/// A server that stores often, or in batches of all that is sent within a second.
fn start(database: &DatabaseServer, linger: &str) -> Hakaru {
    Settings::mysql(database)
        .flag(&format!("--linger={linger}"))
        .flag("--batch-events=5000")
        .flag("--cores=1")
        .flag("--admin-listen=127.0.0.1:0")
        .start()
}

/// Sends events with the values of `values`, each answered 200.
fn send(hakaru: &Hakaru, name: &str, values: std::ops::Range<u32>) {
    let count = values.len();
    let mut requests: String = values
        .map(|value| format!("GET /hakaru?name={name}&value={value} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    requests.push_str("GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answers = exchange(hakaru.address, requests.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), count + 1);
}

/// The body of `/sink-health`, when storing has stopped.
fn stopped(hakaru: &Hakaru) -> String {
    let mut body = String::new();
    wait_until("storing stops, and says so", || {
        let health = Client::connect(hakaru.admin()).get("/sink-health");
        body = health.body;
        health.status == 503 && !hakaru.events("storing_stopped").is_empty()
    });
    body
}

/// Mends the table, and sees each of `events` values become one row and none a dead letter.
fn mended(database: &DatabaseServer, hakaru: Hakaru, mend: &str, events: u64) {
    assert!(!hakaru.path("hakaru-data/dead-letters.ndjson").exists());
    database.run(mend);
    wait_until("all are stored", || database.count() >= events);
    wait_until("the health is good again", || {
        let health = Client::connect(hakaru.admin()).get("/sink-health");
        health.status == 200
    });
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (events, 0));
    let distinct: u64 = database.query_one("SELECT COUNT(DISTINCT value) FROM eventlog");
    assert_eq!((database.count(), distinct), (events, events));
}

/// The number of dead letters in the file.
fn letters(hakaru: &Hakaru) -> usize {
    let file = hakaru.path("hakaru-data/dead-letters.ndjson");
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .count()
}

#[test]
fn no_partition_for_the_next_ids() {
    let partitions = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (1000))";
    let database = table("bigint unsigned", partitions);
    let hakaru = start(&database, "20ms");
    send(&hakaru, "a", 0..100);
    wait_until("the first are stored", || database.count() == 100);
    send(&hakaru, "a", 100..3_000);
    assert!(stopped(&hakaru).contains("partition"));
    let mend = "ALTER TABLE eventlog ADD PARTITION (PARTITION p1 VALUES LESS THAN MAXVALUE)";
    mended(&database, hakaru, mend, 3_000);
}

#[test]
fn the_ids_are_used_up() {
    let database = table("tinyint unsigned", "");
    let hakaru = start(&database, "20ms");
    send(&hakaru, "a", 0..100);
    wait_until("the first are stored", || database.count() == 100);
    send(&hakaru, "a", 100..1_000);
    let body = stopped(&hakaru);
    assert!(body.contains("id"), "{body}");
    let mend = "ALTER TABLE eventlog MODIFY id bigint unsigned NOT NULL AUTO_INCREMENT";
    mended(&database, hakaru, mend, 1_000);
}

#[test]
fn a_trigger_that_refuses_every_row() {
    let database = table("bigint unsigned", "");
    database.run(
        "CREATE TRIGGER closed BEFORE INSERT ON eventlog FOR EACH ROW \
         SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed for the night'",
    );
    let directory = tempfile::tempdir().unwrap();
    let checked = ask(directory.path(), &database.dsn(), &["check", "--json"]);
    let line = checked
        .out
        .lines()
        .find(|line| line.contains("\"insert into eventlog\""));
    let line = line.unwrap();
    assert!(
        line.contains("\"error\"") && line.contains("closed for the night"),
        "{line}"
    );

    let hakaru = start(&database, "20ms");
    // One event on a quiet server, and many.
    send(&hakaru, "a", 0..1);
    assert!(stopped(&hakaru).contains("closed for the night"));
    send(&hakaru, "a", 1..2_000);
    mended(&database, hakaru, "DROP TRIGGER closed", 2_000);
}

#[test]
fn a_constraint_that_nothing_meets() {
    let database = table("bigint unsigned", "");
    database.run("ALTER TABLE eventlog ADD CONSTRAINT never CHECK (length(name) > 1000)");
    let hakaru = start(&database, "20ms");
    send(&hakaru, "a", 0..500);
    assert!(stopped(&hakaru).contains("never"));
    let mend = "ALTER TABLE eventlog DROP CONSTRAINT never";
    mended(&database, hakaru, mend, 500);
}

#[test]
fn a_table_that_closes_at_a_time_of_day_refuses_no_row_for_itself() {
    // Nothing of what is stored before tells of the rows that are received later.
    let database = table("bigint unsigned", "");
    let hakaru = start(&database, "20ms");
    send(&hakaru, "a", 0..100);
    wait_until("the first are stored", || database.count() == 100);
    database.run(
        "CREATE TRIGGER closed BEFORE INSERT ON eventlog FOR EACH ROW \
         IF NEW.at > '2020-01-01' THEN SIGNAL SQLSTATE '45000'; END IF",
    );
    send(&hakaru, "a", 100..200);
    stopped(&hakaru);
    mended(&database, hakaru, "DROP TRIGGER closed", 200);
}

#[test]
fn one_bad_event_on_a_quiet_server_is_a_dead_letter() {
    let database = table("bigint unsigned", "");
    database.run(
        "CREATE TRIGGER picky BEFORE INSERT ON eventlog FOR EACH ROW \
         IF NEW.name = 'bad' THEN SIGNAL SQLSTATE '45000'; END IF",
    );
    let hakaru = start(&database, "20ms");
    send(&hakaru, "bad", 0..1);
    wait_until("it is a dead letter", || letters(&hakaru) == 1);
    send(&hakaru, "good", 1..4);
    wait_until("the others are stored", || database.count() == 3);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (3, 1));
}

#[test]
fn a_trial_row_is_not_refused_for_its_own_content() {
    for (constraint, bad) in [
        ("ADD UNIQUE (name)", "app.first"),
        ("ADD UNIQUE (value), ADD CHECK (name <> 'bad')", "bad"),
        ("ADD CHECK (name LIKE 'app.%')", "bad"),
        ("ADD CHECK (name LIKE 'app.%' AND value > 0)", "bad"),
    ] {
        let database = table("bigint unsigned", "");
        database.run(&format!("ALTER TABLE eventlog {constraint}"));
        database.run("INSERT INTO eventlog (at, name, value) VALUES (NOW(), 'app.first', 1000000)");
        let hakaru = start(&database, "20ms");
        // The first event of the process is the one that is refused.
        send(&hakaru, bad, 1..2);
        wait_until("it is a dead letter", || letters(&hakaru) == 1);
        send(&hakaru, "app.second", 2..3);
        wait_until("the other is stored", || database.count() == 2);
        let identity = hakaru.stop();
        let ends = (identity.stored, identity.dead_lettered);
        assert_eq!(ends, (1, 1), "{constraint}");
        let trials: u64 =
            database.query_one("SELECT COUNT(*) FROM eventlog WHERE name NOT LIKE 'app.%'");
        assert_eq!(trials, 0, "{constraint}");
    }
}

/// The statements that each of hakaru's connections executed, beginning with the most.
fn executed(database: &DatabaseServer) -> Vec<u64> {
    database.query(
        "SELECT COUNT(*) AS executed FROM mysql.general_log WHERE command_type = 'Execute' \
         GROUP BY thread_id ORDER BY executed DESC",
    )
}

#[test]
fn a_batch_that_is_refused_as_a_whole_costs_few_statements_an_attempt() {
    let database = table("bigint unsigned", "");
    database.run(
        "CREATE TRIGGER closed BEFORE INSERT ON eventlog FOR EACH ROW SIGNAL SQLSTATE '45000'",
    );
    database.run("SET GLOBAL log_output = 'TABLE'");
    database.run("SET GLOBAL general_log = 1");
    let hakaru = start(&database, "1s");
    send(&hakaru, "a", 0..5_000);
    wait_until("it is tried again", || {
        executed(&database)
            .iter()
            .filter(|&&count| count > 4)
            .count()
            >= 2
    });
    let most = executed(&database)[0];
    assert!(most <= 12, "{most} statements");
    mended(&database, hakaru, "DROP TRIGGER closed", 5_000);
}

#[test]
fn bad_rows_before_a_fault_of_the_table_are_the_only_dead_letters() {
    // Each row of the batch is refused: the first ones for themselves, and from an id on all.
    let database = table("bigint unsigned", "");
    database.run(
        "CREATE TRIGGER closed AFTER INSERT ON eventlog FOR EACH ROW \
         IF NEW.name = 'bad' OR NEW.id > 2500 THEN SIGNAL SQLSTATE '45000'; END IF",
    );
    let hakaru = start(&database, "1s");
    send(&hakaru, "bad", 0..5_000);
    stopped(&hakaru);
    database.run("DROP TRIGGER closed");
    wait_until("the rest is stored", || {
        database.count() + letters(&hakaru) as u64 == 5_000
    });
    let identity = hakaru.stop();
    assert!(identity.dead_lettered < 2_500, "{identity:?}");
    assert_eq!(identity.stored + identity.dead_lettered, 5_000);
    assert_eq!(database.count(), identity.stored);
}

#[test]
fn an_id_that_exists_is_given_again() {
    // As by an AUTO_INCREMENT below the highest id: some ids are taken, and others are free.
    let database = table("bigint unsigned", "");
    database.run("INSERT INTO eventlog (id, name, value) VALUES (7, 'b', 1000000)");
    database.run(
        "CREATE TRIGGER again BEFORE INSERT ON eventlog FOR EACH ROW \
         IF NEW.name = 'a' THEN SET NEW.id = 7; END IF",
    );
    let hakaru = start(&database, "20ms");
    send(&hakaru, "a", 0..3);
    assert!(stopped(&hakaru).contains("AUTO_INCREMENT"));
    database.run("DELETE FROM eventlog");
    mended(&database, hakaru, "DROP TRIGGER again", 3);
}

#[test]
fn a_repeated_primary_key_that_the_event_brings_is_its_own_fault() {
    let database = table("bigint unsigned", "");
    database.run("ALTER TABLE eventlog DROP PRIMARY KEY, ADD PRIMARY KEY (name), ADD KEY (id)");
    let hakaru = start(&database, "20ms");
    send(&hakaru, "a", 0..2);
    wait_until("one is a dead letter", || letters(&hakaru) == 1);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (1, 1));
}

/// A trigger keeps names in a table of its own, once each.
#[test]
fn a_primary_key_that_a_trigger_repeats_is_the_fault_of_its_event() {
    let database = table("bigint unsigned", "");
    database.run(
        "CREATE TABLE seen (name varchar(255) PRIMARY KEY); \
         CREATE TRIGGER see AFTER INSERT ON eventlog FOR EACH ROW INSERT INTO seen VALUES (NEW.name)",
    );
    let hakaru = start(&database, "10ms");
    send(&hakaru, "once", 0..1);
    wait_until("the first one is stored", || database.count() == 1);
    send(&hakaru, "once", 1..2);
    wait_until("the second one is a dead letter", || letters(&hakaru) == 1);
    // A name that is an id of a row.
    send(&hakaru, "1", 2..3);
    wait_until("another one is stored", || database.count() == 2);
    send(&hakaru, "1", 3..4);
    wait_until("its second one is a dead letter", || letters(&hakaru) == 2);
    send(&hakaru, "twice", 4..5);
    wait_until("another one is stored", || database.count() == 3);
    assert_eq!(hakaru.stop().pending, 0);
}

/// The table loses its transactions while it is connected: a statement that fails would leave rows behind, and each
/// attempt would store them again.
#[test]
fn a_table_that_loses_its_transactions_stops_storing_before_rows_are_searched() {
    let database = table("bigint unsigned", "");
    database.run(
        "CREATE TRIGGER no_bad BEFORE INSERT ON eventlog FOR EACH ROW \
         IF NEW.name = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'bad'; END IF",
    );
    let hakaru = start(&database, "10ms");
    send(&hakaru, "good", 0..1);
    wait_until("the first one is stored", || database.count() == 1);
    database.run("ALTER TABLE eventlog ENGINE = MyISAM");
    send(&hakaru, "bad", 1..2);
    assert!(stopped(&hakaru).contains("no transactions"));
    assert_eq!((database.count(), letters(&hakaru)), (1, 0));
    database.run("ALTER TABLE eventlog ENGINE = InnoDB");
    wait_until("the event is a dead letter", || letters(&hakaru) == 1);
    send(&hakaru, "good", 2..3);
    wait_until("another one is stored", || database.count() == 2);
    assert_eq!(hakaru.stop().pending, 0);
}
