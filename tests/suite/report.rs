//! `hakaru report` reports the stored events by name and over time, exactly, with any names.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Client, DatabaseServer, Settings, ask, run};

/// Names that would break a terminal, a CSV file or a query.
const HOSTILE: [(&str, &str); 5] = [
    // Most collations treat it as equal to "open".
    ("open+", "open "),
    ("a%0Ab%1B%5B2J", "a\nb\u{1b}[2J"),
    ("x%2C%22y%22%27%5C", "x,\"y\"'\\"),
    ("%F0%9F%98%80", "😀"),
    ("%E8%A8%88%E3%82%8B", "計る"),
];

/// A database whose names may have any character.
pub fn database() -> DatabaseServer {
    let database = DatabaseServer::start();
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime DEFAULT NULL, name varchar(255) NOT NULL, value int unsigned) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci",
    );
    database
}

/// Sends `open` ten times, `Open` three times, and each hostile name once, and waits until they are rows.
fn send(settings: Settings) {
    let hakaru = settings.start();
    let mut client = Client::connect(hakaru.address);
    let mut get = |name: &str, value: u32| {
        let answer = client.get(&format!("/hakaru?name={name}&value={value}"));
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    };
    (0..10).for_each(|value| get("open", value));
    (0..3).for_each(|_| get("Open", u32::MAX));
    HOSTILE.iter().for_each(|(name, _)| get(name, 7));
    assert_eq!(hakaru.stop().stored, 18);
}

fn names(document: &Value) -> Vec<&str> {
    let names = document["names"].as_array().unwrap().iter();
    names.map(|row| row["name"].as_str().unwrap()).collect()
}

/// Checks every format of the report on the events of [`send`].
fn check_all_formats(directory: &Path, dsn: &str) {
    let asked = ask(directory, dsn, &["report", "--json"]);
    assert_eq!((asked.code, asked.err.as_str()), (Some(0), ""));
    let document = asked.json();
    let mut hostile: Vec<&str> = HOSTILE.map(|(_, name)| name).to_vec();
    hostile.sort_unstable();
    // Names that differ in case are different names, with any collation.
    assert_eq!(names(&document)[..2], ["open", "Open"]);
    assert_eq!(names(&document)[2..], hostile);
    let open = &document["names"][0];
    assert_eq!(
        [
            &open["events"],
            &open["sum"],
            &open["minimum"],
            &open["maximum"],
            &open["average"]
        ],
        [&json!(10), &json!("45"), &json!(0), &json!(9), &json!(4.5)]
    );
    assert_eq!(
        document["names"][1]["sum"],
        (u64::from(u32::MAX) * 3).to_string()
    );
    assert_eq!(document["total"]["events"], 18);
    let columns = document["timeline"]["columns"].as_array().unwrap();
    let events = columns
        .iter()
        .map(|column| column["events"].as_u64().unwrap());
    assert_eq!(events.sum::<u64>(), 18);

    // Names that are not listed are summed.
    let asked = ask(directory, dsn, &["report", "--json", "--top=1"]);
    let document = asked.json();
    assert_eq!(names(&document), ["open"]);
    let others = &document["others"];
    assert_eq!(
        (&others["names"], &others["events"], &others["minimum"]),
        (&json!(6), &json!(8), &json!(7))
    );

    let csv = ask(directory, dsn, &["report", "--csv"]).out;
    assert!(
        csv.starts_with("row,name,events,sum,minimum,maximum,average,first,last\r\n"),
        "{csv}"
    );
    let rows = parse_csv(directory, &csv);
    assert_eq!(rows.len(), 1 + 7 + 1);
    let read: Vec<&str> = rows[3..8].iter().map(|row| row[1].as_str()).collect();
    assert_eq!(read, hostile);
    assert_eq!(rows[8][..3], ["total", "", "18"]);

    let text = ask(directory, dsn, &["report"]).out;
    assert!(
        text.contains("a\\nb\\u{1b}[2J") && text.contains("計る"),
        "{text}"
    );
    assert!(
        text.lines().all(|line| !line.contains(char::is_control)),
        "{text:?}"
    );

    // By name and by pattern, byte for byte.
    for (arguments, events) in [
        (&["--name=open"][..], 10),
        (&["--name=open", "--name=a\nb\u{1b}[2J", "--name=none"], 11),
        (&["--name=x,\"y\"'\\"], 1),
        (&["--like=o%"], 11),
        (&["--like=_pen"], 13),
        (&["--like=%'%"], 1),
        (&["--like=😀"], 1),
        (&["--like=o\\%"], 0),
    ] {
        let arguments = [&["report", "--json"], arguments].concat();
        let asked = ask(directory, dsn, &arguments);
        assert_eq!(
            asked.json()["total"]["events"],
            events,
            "{arguments:?}: {asked:?}"
        );
    }
}

/// The rows, as parsed by another program.
fn parse_csv(directory: &Path, csv: &str) -> Vec<Vec<String>> {
    let file = directory.join("report.csv");
    std::fs::write(&file, csv).unwrap();
    let program = "import csv, json, sys; \
                   print(json.dumps(list(csv.reader(open(sys.argv[1], newline='', encoding='utf-8')))))";
    serde_json::from_str(&run("python3", &["-c", program, file.to_str().unwrap()])).unwrap()
}

#[test]
fn mariadb_and_sqlite_give_the_same_report() {
    let database = database();
    let directory = tempfile::tempdir().unwrap();
    send(Settings::mysql(&database).directory(directory.path()));
    check_all_formats(directory.path(), &database.dsn());
    // In another directory, because kept segments would be stored again in another database.
    let directory = tempfile::tempdir().unwrap();
    send(Settings::sqlite().directory(directory.path()));
    check_all_formats(directory.path(), "sqlite:eventlog.db");
}

#[test]
fn a_range_contains_its_start_and_not_its_end() {
    let database = database();
    let directory = tempfile::tempdir().unwrap();
    database.run(
        "INSERT INTO eventlog (at, name, value) VALUES ('2026-01-01 23:59:59', 'a', 1), \
         ('2026-01-02 00:00:00', 'a', 2), ('2026-01-02 12:00:00', 'a', 4), ('2026-01-02 12:00:59', 'b', NULL), \
         ('2026-01-03 00:00:00', 'a', 8), (NULL, 'a', 16)",
    );
    // Nine hours ahead of UTC: an instant is converted to the time zone of the session.
    let dsn = format!("{}?time_zone=%27%2B09:00%27", database.dsn());
    let sum = |arguments: &[&str]| {
        let arguments = [&["report", "--json"], arguments].concat();
        let asked = ask(directory.path(), &dsn, &arguments);
        let document = asked.json();
        assert_eq!(document["time_zone"], "+09:00");
        (
            document["total"]["sum"].as_str().unwrap().to_owned(),
            document,
        )
    };
    for (arguments, expected) in [
        (&[][..], "31"),
        (&["--from=2026-01-02"], "14"),
        (&["--to=2026-01-02"], "1"),
        (&["--from=2026-01-02", "--to=2026-01-03"], "6"),
        (
            &["--from=2026-01-02 12:00", "--to=2026-01-02 12:00:00.5"],
            "4",
        ),
        (
            &["--from=2026-01-01T15:00:00Z", "--to=2026-01-01T15:00:01Z"],
            "2",
        ),
        (
            &[
                "--from=2026-01-02T00:00:00+09:00",
                "--to=2026-01-03T00:00:00+09:00",
            ],
            "6",
        ),
        (&["--from=2026-01-02T00:00:00Z", "--to=2026-01-03"], "4"),
    ] {
        assert_eq!(sum(arguments).0, expected, "{arguments:?}");
    }
    let (_, document) = sum(&["--from=2026-01-02", "--to=2026-01-03"]);
    assert_eq!(
        (&document["from"], &document["to"]),
        (&json!("2026-01-02 00:00:00"), &json!("2026-01-03 00:00:00"))
    );
    let timeline = &document["timeline"];
    let columns = timeline["columns"].as_array().unwrap();
    assert_eq!(
        (&timeline["column_seconds"], columns.len()),
        (&json!(1800), 48)
    );
    assert_eq!(
        columns[24],
        json!({ "at": "2026-01-02 12:00:00", "events": 2, "sum": "4" })
    );
    let b = &document["names"][1];
    assert_eq!(
        (&b["events"], &b["sum"], &b["average"]),
        (&json!(1), &json!("0"), &Value::Null)
    );
    let text = ask(directory.path(), &dsn, &["report"]).out;
    assert!(
        text.contains("all rows, times in the time zone +09:00"),
        "{text}"
    );
    assert!(text.contains("1 rows have no time"), "{text}");
}

#[test]
fn a_time_ago_is_relative_to_now() {
    let directory = tempfile::tempdir().unwrap();
    send(Settings::sqlite().directory(directory.path()));
    for (arguments, events) in [
        (&["--from=1h"][..], 18),
        (&["--from=7d ago", "--to=1h ago"], 0),
        (&["--from=now"], 0),
    ] {
        let arguments = [arguments, &["report", "--json"]].concat();
        // The flags of a subcommand must come after it.
        let arguments = [
            &arguments[arguments.len() - 2..],
            &arguments[..arguments.len() - 2],
        ]
        .concat();
        let asked = ask(directory.path(), "sqlite:eventlog.db", &arguments);
        assert_eq!(asked.json()["total"]["events"], events, "{asked:?}");
    }
}

#[test]
fn sums_that_a_float_cannot_hold_are_exact() {
    let database = database();
    let directory = tempfile::tempdir().unwrap();
    database.run("ALTER TABLE eventlog MODIFY value bigint unsigned");
    database.run(
        "INSERT INTO eventlog (at, name, value) VALUES (NOW(), 'a', 9007199254740993), \
         (NOW(), 'a', 9223372036854775807), (NOW(), 'b', 9223372036854775807)",
    );
    let document = ask(directory.path(), &database.dsn(), &["report", "--json"]).json();
    assert_eq!(document["total"]["sum"], "18455751272964292607");
    let csv = ask(directory.path(), &database.dsn(), &["report", "--csv"]).out;
    assert!(csv.contains(",9232379236109516800,"), "{csv}");
}

#[test]
fn bars_on_a_terminal_use_characters_that_it_can_show() {
    let directory = tempfile::tempdir().unwrap();
    send(Settings::sqlite().directory(directory.path()));
    let on_terminal = |locale: &str| {
        // `script` gives it a terminal.
        let hakaru = env!("CARGO_BIN_EXE_hakaru");
        let command = format!(
            "cd {} && COLUMNS=80 LC_ALL={locale} '{hakaru}' --datasource sqlite:eventlog.db report 2>/dev/null",
            directory.path().display()
        );
        run(
            "script",
            &["--quiet", "--return", "--command", &command, "/dev/null"],
        )
        .replace("\r\n", "\n")
    };
    let shown = on_terminal("C.UTF-8");
    let open = shown.lines().find(|line| line.starts_with("open")).unwrap();
    assert!(
        open.contains("████") && open.chars().count() <= 80,
        "{shown}"
    );
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with('|') && line.contains('█')),
        "{shown}"
    );
    assert!(shown.contains("計る"), "{shown}");

    let shown = on_terminal("C");
    assert!(shown.is_ascii(), "{shown}");
    assert!(
        shown.contains("####") && shown.contains("\\u{1f600}"),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    // No terminal, no bars.
    let text = ask(directory.path(), "sqlite:eventlog.db", &["report"]).out;
    assert!(
        text.lines()
            .find(|line| line.starts_with("open"))
            .unwrap()
            .ends_with("4.50"),
        "{text}"
    );
}
