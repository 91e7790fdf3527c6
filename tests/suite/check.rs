//! `hakaru check` checks all settings, changes nothing, and describes what to do.

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use crate::late_clock::load_zone;
use crate::support::{Client, DatabaseServer, Family, Settings, engine};

/// A password that no output may show.
const PASSWORD: &str = "s3cret";

/// The output of a check.
pub struct Checked {
    code: Option<i32>,
    lines: Vec<Value>,
    errors: String,
}

fn check_in(directory: &Path, settings: Settings) -> Checked {
    let output = settings.flag("check").flag("--json").run_in(directory);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        !text.contains(PASSWORD) && !errors.contains(PASSWORD),
        "{text}{errors}"
    );
    Checked {
        code: output.status.code(),
        lines: text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        errors,
    }
}

/// Checks in an empty directory, and sees that nothing is left there.
pub fn check(settings: Settings) -> Checked {
    let directory = tempfile::tempdir().unwrap();
    let checked = check_in(directory.path(), settings);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    checked
}

impl Checked {
    /// The line of a thing.
    pub fn line(&self, thing: &str) -> &Value {
        let line = self.lines.iter().find(|line| line["thing"] == thing);
        line.unwrap_or_else(|| panic!("{thing}: {:#?}", self.lines))
    }

    /// Asserts that what was found contains `words`. The level may depend on this machine.
    fn mentions(&self, thing: &str, words: &str) {
        let line = self.line(thing);
        assert!(line["found"].as_str().unwrap().contains(words), "{line}");
    }

    /// Asserts that a thing has this level, and that what was found or advised contains `words`.
    pub fn has(&self, thing: &str, level: &str, words: &str) {
        let line = self.line(thing);
        assert_eq!(line["level"], level, "{line}");
        assert!(line.to_string().contains(words), "{words}: {line}");
        assert_eq!(line["advice"].is_string(), level != "ok", "{line}");
    }

    /// Asserts that these things and no others are errors.
    pub fn fails_over(&self, things: &[&str]) {
        let errors = self.lines.iter().filter(|line| line["level"] == "error");
        let found: Vec<_> = errors.map(|line| line["thing"].as_str().unwrap()).collect();
        assert_eq!(found, things, "{:#?}", self.lines);
        let code = if things.is_empty() { 0 } else { 1 };
        assert_eq!(self.code, Some(code), "{}", self.errors);
    }
}

fn user(database: &DatabaseServer, rights: &str) -> Settings {
    database.run(&format!("CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'"));
    database.run(&format!("GRANT {rights} ON hakaru.* TO app@'%'"));
    login(database, PASSWORD)
}

fn login(database: &DatabaseServer, password: &str) -> Settings {
    let port = database.port();
    Settings::datasource(&format!("app:{password}@tcp(127.0.0.1:{port})/hakaru"))
}

#[test]
fn a_suitable_database_is_not_changed() {
    let database = DatabaseServer::start();
    let first = check(user(&database, "ALL"));
    first.fails_over(&[]);
    first.has("connection", "ok", "app@%");
    // MySQL checks this right only when a statement is executed.
    let level = match engine().family {
        Family::MariaDb => "ok",
        Family::MySql => "warning",
    };
    first.has("table eventlog", level, "will be made");
    first.has("insert into eventlog", "ok", "allowed");
    first.has("table hakaru_checkpoint", level, "will be made");
    assert_eq!(database.query::<String>("SHOW TABLES"), [""; 0]);

    let hakaru = login(&database, PASSWORD).start();
    let mut client = Client::connect(hakaru.address);
    assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
    assert_eq!(hakaru.stop().stored, 1);
    let state = || {
        let lanes = "SELECT COUNT(*) FROM hakaru_checkpoint WHERE lane <> 'database'";
        // A copy has a large number in place of its epoch.
        let positions = "SELECT SUM(position) + SUM(epoch % 1000) FROM hakaru_checkpoint WHERE lane <> 'database'";
        let lanes: u64 = database.query_one(lanes);
        let positions: u64 = database.query_one(positions);
        (database.count(), lanes, positions)
    };
    let before = state();
    let second = check(login(&database, PASSWORD));
    second.fails_over(&[]);
    second.has("table eventlog", "ok", "255 characters, up to U+FFFF");
    second.has("insert into eventlog", "ok", "rolled back");
    second.has("table hakaru_checkpoint", "ok", "1 lanes");
    second.has("rights on hakaru_checkpoint", "ok", "rolled back");
    second.has("sql_mode", "ok", "STRICT_ALL_TABLES");
    second.has("autocommit", "ok", "completion_type=NO_CHAIN");
    second.has("innodb_flush_log_at_trx_commit", "ok", "1");
    second.has("database connections", "ok", "66 allowed");
    second.has("encryption", "ok", "none");
    second.has("server version", "ok", &engine().version());
    assert_eq!(state(), before);
}

#[test]
fn a_failed_login_has_its_reason_and_the_rest_is_checked() {
    let database = DatabaseServer::start_without_tls();
    drop(user(&database, "ALL"));
    let wrong = check(login(&database, "other-s3cret"));
    wrong.fails_over(&["connection"]);
    wrong.has("connection", "error", "1045");
    wrong.mentions("durable write", "p99");

    let nowhere = format!("root@tcp(127.0.0.1:{})/nowhere", database.port());
    check(Settings::datasource(&nowhere)).has("connection", "error", "CREATE DATABASE `nowhere`");

    // A server that accepts connections and sends nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let dsn = format!("root@tcp(127.0.0.1:{port})/hakaru?timeout=200ms&readTimeout=200ms");
    let unanswered = check(Settings::datasource(&dsn));
    unanswered.fails_over(&["connection"]);
    unanswered.has("connection", "error", "no answer in time");
    unanswered.has("connection", "error", "stopped or overloaded");

    let port = database.port();
    let encrypted = format!("app:{PASSWORD}@tcp(127.0.0.1:{port})/hakaru?tls=skip-verify");
    let plain = check(Settings::datasource(&encrypted));
    plain.has("connection", "error", "check `tls` in the datasource");
}

#[test]
fn a_server_that_does_not_take_the_writes_is_an_error() {
    let database = DatabaseServer::start();
    let alone = check(Settings::mysql(&database));
    alone.has("role", "ok", "no replica");
    check(user(&database, "SELECT")).has("role", "ok", "may not see");
    database.run("SET GLOBAL read_only = 1");
    check(Settings::mysql(&database)).has("role", "error", "read-only");
    database.run("SET GLOBAL read_only = 0");
    database.run(match engine().family {
        Family::MariaDb => "CHANGE MASTER TO MASTER_HOST = '127.0.0.9', MASTER_USER = 'a'",
        Family::MySql => {
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.9', SOURCE_USER = 'a'"
        }
    });
    let replica = check(Settings::mysql(&database));
    replica.fails_over(&["role"]);
    replica.has("role", "error", "a replica of 127.0.0.9");
}

#[test]
fn an_id_that_comes_to_its_end_and_a_zone_with_two_offsets_are_warnings() {
    let database = DatabaseServer::start();
    database.run(
        "CREATE TABLE eventlog (id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, at timestamp NULL, \
         name varchar(255) NOT NULL, value int unsigned)",
    );
    database.run("INSERT INTO eventlog (id, name) VALUES (4294967000, 'a')");
    let found = check(Settings::mysql(&database));
    found.has("column id", "warning", "295 numbers are left");
    found.has("column id", "warning", "MODIFY `id` bigint unsigned");
    database.run("ALTER TABLE eventlog MODIFY id bigint unsigned NOT NULL AUTO_INCREMENT");
    let dsn = |zone: &str| format!("{}?time_zone=%27{zone}%27", database.dsn());
    let found = check(Settings::datasource(&dsn("%2B09:00")));
    found.has("column id", "ok", "numbers are left");
    found.has("time zone", "ok", "+09:00");
    load_zone(&database, "Europe/Berlin");
    let changing = dsn("Europe%2FBerlin");
    let found = check(Settings::datasource(&changing));
    found.has("time zone", "warning", "time_zone=%27%2B00:00%27");
    database.run("ALTER TABLE eventlog MODIFY at datetime");
    check(Settings::datasource(&changing)).has("time zone", "ok", "Europe/Berlin");
}

#[test]
fn missing_rights_are_reported_with_the_statements_to_run() {
    let database = DatabaseServer::start();
    let without_tables = check(user(&database, "SELECT"));
    without_tables.fails_over(&[
        "table eventlog",
        "insert into eventlog",
        "table hakaru_checkpoint",
        "rights on hakaru_checkpoint",
    ]);
    without_tables.has(
        "table eventlog",
        "error",
        "CREATE TABLE IF NOT EXISTS eventlog ( id bigint",
    );
    without_tables.has("table hakaru_checkpoint", "error", "lane char(32)");

    // The statements of the advice, run as root.
    for thing in ["table eventlog", "table hakaru_checkpoint"] {
        let advice = without_tables.line(thing)["advice"]
            .as_str()
            .unwrap()
            .to_owned();
        let create = advice.split("`hakaru`: ").nth(1).unwrap();
        database.run(create.split("; ").next().unwrap());
    }
    let without_rights = check(login(&database, PASSWORD));
    without_rights.fails_over(&["insert into eventlog", "rights on hakaru_checkpoint"]);
    let advice = without_rights.line("insert into eventlog")["advice"]
        .as_str()
        .unwrap();
    for grant in advice.split("; ") {
        assert!(grant.starts_with("GRANT "), "{advice}");
        database.run(grant);
    }
    check(login(&database, PASSWORD)).fails_over(&[]);
}

#[test]
fn unsuitable_tables_and_servers_are_reported() {
    let database = DatabaseServer::start_with(&["--innodb-flush-log-at-trx-commit=2".to_owned()]);
    database.run("CREATE TABLE eventlog (at datetime, name varchar(20), value int) ENGINE=MyISAM");
    let checked = check(
        Settings::mysql(&database)
            .flag("--cores=1")
            .flag("--db-connections=1"),
    );
    checked.fails_over(&["table eventlog"]);
    checked.has(
        "table eventlog",
        "error",
        "ALTER TABLE eventlog ENGINE=InnoDB",
    );
    checked.has("insert into eventlog", "warning", "not tried");
    assert_eq!(database.count(), 0);
    checked.has("innodb_flush_log_at_trx_commit", "warning", "SET GLOBAL");

    database.run("ALTER TABLE eventlog ENGINE=InnoDB");
    check(Settings::mysql(&database)).has("table eventlog", "warning", "answered 400");
    database.run("ALTER TABLE eventlog MODIFY value int unsigned, ADD source int NOT NULL");
    let checked = check(Settings::mysql(&database));
    checked.fails_over(&["table eventlog", "insert into eventlog"]);
    checked.has("table eventlog", "error", "`source`");
    checked.has("insert into eventlog", "error", "1364");

    database.run("ALTER TABLE eventlog DROP source, ADD CHECK (name <> 'a')");
    check(Settings::mysql(&database)).has("insert into eventlog", "ok", "rolled back");
    database.run("ALTER TABLE eventlog ADD CONSTRAINT never CHECK (length(name) > 30)");
    check(Settings::mysql(&database)).has("insert into eventlog", "error", "never");
}

#[test]
fn a_sqlite_file_is_tried_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let checked = check(Settings::sqlite());
    checked.fails_over(&[]);
    checked.has(
        "directory of the file",
        "ok",
        "journal_mode=wal, synchronous=2",
    );
    checked.has("SQLite file", "ok", "will be made");
    checked.mentions("data directory", "will be made");

    let hakaru = Settings::sqlite().directory(directory.path()).start();
    let mut client = Client::connect(hakaru.address);
    assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
    assert_eq!(hakaru.stop().stored, 1);
    let file = directory.path().join("eventlog.db");
    let before = std::fs::read(&file).unwrap();
    let checked = check_in(directory.path(), Settings::sqlite());
    checked.fails_over(&[]);
    checked.has("SQLite file", "ok", "rolled back");
    checked.mentions("data directory", "hakaru-data");
    assert!(std::fs::read(&file).unwrap() == before);

    let table = rusqlite::Connection::open(&file).unwrap();
    let trigger = "CREATE TRIGGER closed BEFORE INSERT ON eventlog \
        BEGIN SELECT RAISE(ROLLBACK, 'closed for the night'); END";
    table.execute_batch(trigger).unwrap();
    let checked = check_in(directory.path(), Settings::sqlite());
    checked.fails_over(&["SQLite file"]);
    checked.has("SQLite file", "error", "triggers and constraints");
    let query = "SELECT (SELECT COUNT(*) FROM eventlog), (SELECT COUNT(*) FROM hakaru_checkpoint)";
    let counts = table.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)));
    // The event of above, its lane and the copy of that, and the id of the database.
    assert_eq!(counts, Ok((1, 3)));
}

#[test]
fn directories_that_cannot_be_written_are_errors() {
    // Tests run as root, who may write everywhere, but not below a file.
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let settings = Settings::datasource("sqlite:file/eventlog.db").flag("--data-dir=file/deep");
    let checked = check_in(directory.path(), settings);
    checked.fails_over(&["directory of the file", "SQLite file", "data directory"]);
    checked.has("data directory", "error", "--data-dir");
    check(Settings::sqlite().flag("--data-dir=/proc/nowhere")).fails_over(&["data directory"]);
}

#[test]
fn flags_may_come_before_and_after_the_command_and_text_has_a_line_per_thing() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let settings = Settings::sqlite()
        .flag("--cores=1")
        .flag("check")
        .flag(&listen)
        .flag("--admin-listen=off");
    let output = settings.run_in(directory.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nok       cores: 1 of "), "{text}");
    assert!(text.contains("\nok       admin address: off"), "{text}");
    assert!(
        text.contains("\nwarning  listen address: 127.0.0.1:"),
        "{text}"
    );
    assert!(text.lines().all(|line| {
        ["ok ", "warning ", "error "]
            .iter()
            .any(|level| line.starts_with(level))
    }));
}

#[test]
fn settings_that_do_not_parse_are_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let dsn = format!("root:{PASSWORD}@tcp(h:3306");
    for settings in [
        Settings::datasource(&dsn).flag("check"),
        Settings::sqlite().flag("check").flag("--linger=soon"),
    ] {
        let output = settings.run_in(directory.path());
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{output:?}"
        );
        assert!(!String::from_utf8(output.stderr).unwrap().contains(PASSWORD));
    }
    let many = check(Settings::sqlite().flag("--cores=1000"));
    many.has("cores", "error", "--cores");
}

/// What such a clause does to rows is not what a billing table needs.
#[test]
fn a_conflict_clause_in_a_sqlite_table_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    Settings::sqlite()
        .directory(directory.path())
        .start()
        .stop();
    let file = rusqlite::Connection::open(directory.path().join("eventlog.db")).unwrap();
    let table = "DROP TABLE eventlog; CREATE TABLE eventlog (id integer PRIMARY KEY AUTOINCREMENT, \
                 at datetime, name varchar(255) NOT NULL UNIQUE ON CONFLICT REPLACE, value int)";
    file.execute_batch(table).unwrap();
    let checked = check_in(directory.path(), Settings::sqlite());
    checked.has("SQLite file", "warning", "ON CONFLICT");
}
