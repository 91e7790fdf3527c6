//! A clock set to a time that the server's FROM_UNIXTIME does not know: no event is refused for it.

use hakaru::event::batch::{Batch, BatchEvents};
use hakaru::event::position::{LaneId, Position};
use hakaru::event::{Event, UnixMillis};
use hakaru::sink::dsn::DataSource;
use hakaru::sink::mysql::MySqlSink;
use hakaru::sink::{Inserted, Refused, Sink, SinkError, Step};

use mysql::prelude::Queryable;

use crate::support::{DatabaseServer, run};

/// 2039-02-01 00:00:00 UTC.
const LATE: u64 = 2_180_131_200;

/// 2023-11-14 22:13:20 UTC.
const USUAL: u64 = 1_700_000_000;

/// Stores an event of each of `seconds` in a session of this time zone.
fn store(database: &DatabaseServer, zone: &str, seconds: &[u64]) -> Result<(), SinkError> {
    let zone = zone.replace('+', "%2B").replace('/', "%2F");
    let dsn = format!("{}?time_zone=%27{zone}%27", database.dsn());
    let Ok(DataSource::MySql(target)) = dsn.parse() else {
        panic!("{dsn}");
    };
    let events_max = BatchEvents::new(100).unwrap();
    let mut sink = MySqlSink::new(*target, events_max);
    let mut batch = Batch::new(events_max);
    for seconds in seconds {
        let received_at = UnixMillis(seconds * 1000 + 999);
        let event = Event {
            name: "a",
            value: 1,
            received_at,
            id: None,
        };
        batch.push(event).unwrap();
    }
    sink.open()?;
    let lane = LaneId::random().unwrap();
    let checkpoint = sink.adopt(lane, Position::START.into())?.checkpoint;
    let step = Step {
        lane,
        epoch: checkpoint.epoch,
        old: checkpoint.position,
        new: checkpoint.position.plus(batch.len()),
        last: None,
    };
    let mut refused = Refused::new();
    let inserted = sink.insert(&batch, 0, step, &mut refused);
    assert!(refused.is_empty(), "{refused:?}");
    assert!(matches!(inserted?, Inserted::Open(_)));
    sink.commit()
}

fn times(database: &DatabaseServer) -> Vec<String> {
    database.query("SELECT CAST(at AS char) FROM eventlog ORDER BY id")
}

#[test]
fn the_time_is_as_exact_as_before_where_the_zone_has_one_offset() {
    let database = DatabaseServer::start();
    for (zone, expected) in [
        ("+00:00", ["2039-02-01 00:00:00", "2023-11-14 22:13:20"]),
        ("+09:00", ["2039-02-01 09:00:00", "2023-11-15 07:13:20"]),
    ] {
        store(&database, zone, &[LATE, USUAL]).unwrap();
        assert_eq!(times(&database), expected);
        // In the session that has just stored such a time, an ordinary batch is stored as ever.
        database.run("DELETE FROM eventlog");
    }
}

/// As of a machine whose clock has no battery. MariaDB 11.8 knows no second 0.
#[test]
fn a_clock_that_is_set_to_1970_is_no_fault_of_a_row() {
    let database = DatabaseServer::start();
    store(&database, "+00:00", &[USUAL, 0, 1]).unwrap();
    assert_eq!(
        times(&database),
        [
            "2023-11-14 22:13:20",
            "1970-01-01 00:00:00",
            "1970-01-01 00:00:01"
        ]
    );
}

/// Teaches a server a time zone.
pub fn load_zone(database: &DatabaseServer, zone: &str) {
    let file = format!("/usr/share/zoneinfo/{zone}");
    let mut server = database.connect("mysql").unwrap();
    for statement in run("mariadb-tzinfo-to-sql", &[&file, zone]).split(";\n") {
        // What is beside the rows is for replicated servers, and may fail here.
        drop(server.query_drop(statement));
    }
}

#[test]
fn where_the_clock_changes_twice_a_year_it_stops_and_says_what_to_do() {
    let database = DatabaseServer::start();
    load_zone(&database, "Europe/Berlin");
    let stored = store(&database, "Europe/Berlin", &[USUAL, LATE]);
    // MySQL converts these times since 8.0.28, MariaDB since 11.5.
    let late = format!("SELECT FROM_UNIXTIME({}) IS NOT NULL", LATE);
    if database.query::<bool>(&late) == [true] {
        stored.unwrap();
        assert_eq!(
            times(&database),
            ["2023-11-14 23:13:20", "2039-02-01 01:00:00"]
        );
        return;
    }
    let stopped = stored.unwrap_err();
    assert!(matches!(stopped, SinkError::Stop(_)), "{stopped:?}");
    let words = stopped.to_string();
    assert!(
        words.contains("2038") && words.contains("time_zone"),
        "{words}"
    );
    assert_eq!(times(&database), [""; 0]);
    store(&database, "Europe/Berlin", &[USUAL]).unwrap();
    store(&database, "+01:00", &[LATE]).unwrap();
    assert_eq!(
        times(&database),
        ["2023-11-14 23:13:20", "2039-02-01 01:00:00"]
    );
}
