//! `hakaru report` fails by one line that names the fault, shows no password, and ends at its timeout.

use crate::report::database;
use crate::support::{Asked, DatabaseServer, Settings, ask, run, wait_until};

#[test]
fn an_empty_table_is_an_answer_and_a_missing_one_is_not() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let report = |dsn: &str| ask(directory.path(), dsn, &["report"]);
    let is_fault = |asked: &Asked, words: &str| {
        assert_eq!((asked.code, asked.out.as_str()), (Some(1), ""), "{asked:?}");
        assert!(
            asked.err.contains(words) && asked.err.lines().count() == 1,
            "{asked:?}"
        );
    };
    is_fault(&report(&database.dsn()), "eventlog' doesn't exist");
    is_fault(
        &report("sqlite:eventlog.db"),
        "eventlog.db: no such file; --datasource or HAKARU_DATASOURCENAME must name",
    );
    assert!(
        !directory.path().join("eventlog.db").exists(),
        "it makes no file"
    );
    is_fault(&report("sqlite:no\n\x1b[2Jfile"), "no\\n\\u{1b}[2Jfile");
    std::fs::write(directory.path().join("empty.db"), "").unwrap();
    is_fault(&report("sqlite:empty.db"), "no such table: eventlog");

    Settings::sqlite()
        .directory(directory.path())
        .start()
        .stop();
    for arguments in [&["report"][..], &["report", "--json"], &["report", "--csv"]] {
        let asked = ask(directory.path(), "sqlite:eventlog.db", arguments);
        assert_eq!((asked.code, asked.err.as_str()), (Some(0), ""), "{asked:?}");
        assert!(asked.out.contains("total"), "{asked:?}");
    }
    // A strange file name is escaped in text, and as it is in JSON.
    let name = "a\n\x1b[2J.db";
    std::fs::rename(
        directory.path().join("eventlog.db"),
        directory.path().join(name),
    )
    .unwrap();
    let dsn = format!("sqlite:{name}");
    for arguments in [&["report"][..], &["reconcile", "--expected", "0"]] {
        let asked = ask(directory.path(), &dsn, arguments);
        let first = asked.out.lines().next().unwrap();
        assert_eq!(first, "eventlog in sqlite:a\\n\\u{1b}[2J.db", "{asked:?}");
    }
    let document = ask(directory.path(), &dsn, &["report", "--json"]).json();
    assert_eq!(document["datasource"], dsn);
}

#[test]
fn no_password_is_shown_and_the_datasource_may_come_before_or_after_the_command() {
    let database = database();
    database.run("CREATE USER app@'%' IDENTIFIED BY 's3cret'");
    database.run("GRANT SELECT ON hakaru.* TO app@'%'");
    let directory = tempfile::tempdir().unwrap();
    let place = format!("@tcp(127.0.0.1:{})/hakaru", database.port());
    let dsn = format!("--datasource=app:s3cret{place}");
    for arguments in [[&dsn, "report"], ["report", &dsn]] {
        // The right to read is enough.
        let asked = ask(directory.path(), "sqlite:other.db", &arguments);
        assert_eq!(asked.code, Some(0), "{asked:?}");
        assert!(
            asked.out.contains("eventlog in mysql://app@127.0.0.1"),
            "{asked:?}"
        );
        assert!(!asked.out.contains("s3cret"), "{asked:?}");
    }
    // The password is hidden from the process list while a query takes long.
    database.run("RENAME TABLE eventlog TO other");
    database.run("CREATE VIEW eventlog AS SELECT NOW() AS at, 'a' AS name, SLEEP(60) AS value");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hakaru"))
        .args(["report", &dsn])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let title = || std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    wait_until("the password is hidden", || {
        title().contains("app:******@tcp(")
    });
    child.kill().unwrap();
    child.wait().unwrap();

    let wrong = ask(
        directory.path(),
        &format!("app:s3cret2{place}"),
        &["report"],
    );
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.err.contains("Access denied") && !wrong.err.contains("s3cret"),
        "{wrong:?}"
    );
}

#[test]
fn a_query_that_takes_longer_than_its_timeout_is_ended() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    // Reading a row of this view takes ten seconds.
    database.run("CREATE VIEW eventlog AS SELECT NOW() AS at, 'a' AS name, SLEEP(10) AS value");
    let asked = ask(
        directory.path(),
        &database.dsn(),
        &["report", "--timeout=200ms"],
    );
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(asked.err.contains("--timeout"), "{asked:?}");

    let endless = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('''CREATE VIEW eventlog AS \
                   WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n) \
                   SELECT '2026-01-01' AS at, 'a' AS name, value FROM n''')";
    let file = directory.path().join("endless.db");
    run("python3", &["-c", endless, file.to_str().unwrap()]);
    let asked = ask(
        directory.path(),
        "sqlite:endless.db",
        &["report", "--timeout=200ms"],
    );
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(asked.err.contains("--timeout"), "{asked:?}");
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    Settings::sqlite()
        .directory(directory.path())
        .start()
        .stop();
    for (arguments, words) in [
        (&["--from=noon"][..], "--from: \"noon\""),
        (&["--to=2026-02-30"], "--to: \"2026-02-30\""),
        (&["--timeout=soon"], "--timeout: \"soon\""),
        (&["--top=0"], "--top: \"0\""),
        (&["--from=2026-01-02", "--to=2026-01-01"], "is not before"),
        (&["--json", "--csv"], "cannot be used with"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let arguments = [&["report"], arguments].concat();
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
    let asked = ask(directory.path(), "root:s3cret@tcp(h", &["report"]);
    assert_eq!(asked.code, Some(2));
    assert!(
        asked.err.contains("--datasource") && !asked.err.contains("s3cret"),
        "{asked:?}"
    );
}
