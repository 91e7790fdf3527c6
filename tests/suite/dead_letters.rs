//! One row that the database refuses neither blocks nor loses the others.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Client, DatabaseServer, Settings, engine, exchange, wait_until};

#[test]
fn a_row_that_a_trigger_refuses_does_not_block_others() {
    let database = DatabaseServer::start_with(&[
        "--log-bin=log".to_owned(),
        "--binlog-format=STATEMENT".to_owned(),
    ]);
    let hakaru = Settings::mysql(&database).flag("--linger=300ms").start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    // Every insert returns a note (1592, unsafe for statement-based replication). One row is refused with an error
    // code of the trigger.
    database.run("CREATE TABLE copies (id int AUTO_INCREMENT PRIMARY KEY, name varchar(255))");
    database.run(
        "CREATE TRIGGER picky AFTER INSERT ON eventlog FOR EACH ROW BEGIN \
           INSERT INTO copies (name) VALUES (NEW.name); \
           IF NEW.name = 'bad' THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 30001; END IF; \
         END",
    );
    let mut client = Client::connect(hakaru.address);
    for name in ["a", "bad", "b", "c"] {
        assert_eq!(
            client.get(&format!("/hakaru?name={name}&value=1")).status,
            200
        );
    }
    wait_until("the others are stored", || database.count() == 3);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (3, 1));
}

#[test]
fn a_table_without_transactions_is_refused_with_what_to_do() {
    let database = DatabaseServer::start();
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime, name varchar(255) NOT NULL, value int unsigned) ENGINE=MyISAM",
    );
    let hakaru = Settings::mysql(&database).start();
    let line = hakaru.wait_for_event("storing_stopped");
    assert!(
        line["message"].as_str().unwrap().contains("ENGINE=InnoDB"),
        "{line}"
    );
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=1")
            .status,
        200
    );
    database.run("ALTER TABLE eventlog ENGINE=InnoDB");
    wait_until("it is stored", || database.count() == 1);
    hakaru.stop();
}

#[test]
fn refused_rows_go_to_the_dead_letters_and_all_others_to_the_table() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).flag("--linger=500ms").start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    // A constraint that hakaru does not know.
    database.run("ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)");
    let mut client = Client::connect(hakaru.address);
    for value in 0..300 {
        let value = if value % 100 == 50 {
            value + 1_000
        } else {
            value
        };
        assert_eq!(
            client
                .get(&format!("/hakaru?name=%22n%0A&value={value}"))
                .status,
            200
        );
    }
    let file = hakaru.path("hakaru-data/dead-letters.ndjson");
    let lines = || {
        std::fs::read_to_string(&file)
            .unwrap_or_default()
            .lines()
            .count()
    };
    wait_until("the dead letters are written", || lines() == 3);
    wait_until("the others are stored", || database.count() == 297);
    let text = std::fs::read_to_string(&file).unwrap();
    let identity = hakaru.stop();
    assert_eq!(
        (identity.received, identity.stored, identity.dead_lettered),
        (300, 297, 3)
    );
    let letters: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut values: Vec<u64> = letters
        .iter()
        .map(|letter| letter["value"].as_u64().unwrap())
        .collect();
    values.sort_unstable();
    assert_eq!(values, [1_050, 1_150, 1_250]);
    for letter in &letters {
        assert_eq!(letter["name"], "\"n\n");
        assert_eq!(letter["code"], engine().check_violated());
        assert!(
            letter["error"].as_str().unwrap().contains("small"),
            "{letter}"
        );
        assert!(
            letter["received_at"].as_str().unwrap().ends_with('Z'),
            "{letter}"
        );
    }
    assert_eq!(database.count(), 297);
}

#[test]
fn with_ack_stored_a_refused_event_is_answered_422() {
    let database = DatabaseServer::start();
    for io in ["--io=auto", "--io=epoll"] {
        database.run("DROP TABLE IF EXISTS eventlog");
        let hakaru = Settings::mysql(&database)
            .flag("--ack=stored")
            .flag("--cores=1")
            .flag(io)
            .start();
        wait_until("there is a table", || {
            !database
                .query::<String>("SHOW TABLES LIKE 'eventlog'")
                .is_empty()
        });
        database.run("ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)");
        // Refused events among others in a turn, and alone. The connection is kept.
        let mut client = Client::connect(hakaru.address);
        for values in [&[1, 2000, 3, 4000, 5][..], &[6000], &[7]] {
            let requests = values.iter().map(|value| {
                format!("GET /hakaru?name=%22n%22&value={value} HTTP/1.1\r\nHost: h\r\nOrigin: https://o\r\n\r\n")
            });
            client.send(requests.collect::<String>().as_bytes());
            for &value in values {
                let answer = client.answer();
                assert_eq!(
                    answer.field("Access-Control-Allow-Origin"),
                    Some("https://o")
                );
                if value < 1000 {
                    assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{value}");
                    continue;
                }
                assert_eq!(answer.status, 422, "{value}");
                let reason = "database: the event was refused and is kept as a dead letter";
                assert_eq!(answer.field("X-Hakaru-Reason"), Some(reason));
                let body: Value = serde_json::from_str(&answer.body).unwrap();
                assert_eq!(body["error"], reason);
            }
        }
        let metrics = exchange(hakaru.admin(), b"GET /metrics HTTP/1.0\r\n\r\n");
        for count in [",code=\"200\"} 4", ",code=\"422\"} 3"] {
            assert!(metrics.contains(count), "{count}: {metrics}");
        }
        let identity = hakaru.stop();
        assert_eq!((identity.stored, identity.dead_lettered), (4, 3));
    }
}

#[test]
fn at_the_limit_of_the_dead_letters_storing_stops_and_no_event_is_lost() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--dead-letter-limit=1MiB")
        .flag("--linger=20ms")
        .start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    database.run("ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)");
    let file = hakaru.path("hakaru-data/dead-letters.ndjson");
    std::fs::write(&file, "\n".repeat(1 << 20)).unwrap();
    let mut client = Client::connect(hakaru.address);
    for value in [1, 2000, 3] {
        let path = format!("/hakaru?name=a&value={value}");
        assert_eq!(client.get(&path).status, 200);
    }
    let line = hakaru.wait_for_event("storing_stopped");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("--dead-letter-limit"), "{message}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 1 << 20);
    std::fs::write(&file, "").unwrap();
    wait_until("the others are stored", || database.count() == 2);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (2, 1));
}

/// The last field `event` of a line of text. It comes after the message, which can hold any text.
fn event(line: &str) -> &str {
    let (_, name) = line.rsplit_once(" event=").expect(line);
    name.split(' ').next().unwrap()
}

#[test]
fn a_name_in_a_database_error_cannot_forge_a_log_line() {
    let database = DatabaseServer::start();
    let mut hakaru = Settings::mysql(&database)
        .flag("--cores=1")
        .flag("--io=epoll")
        .flag("--linger=10ms")
        .variable("HAKARU_LOG", "info")
        .variable("HAKARU_LOG_FORMAT", "text")
        .spawn();
    wait_until("it listens", || hakaru.log().contains("event=listening"));
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    database.run("ALTER TABLE eventlog ADD UNIQUE (name)");
    let log = hakaru.log();
    let (_, rest) = log.split_once(" address=").unwrap();
    let (_, rest) = rest.split_once(" address=").unwrap();
    let address = rest.split([' ', '\n']).next().unwrap();
    let mut client = Client::connect(address.parse().unwrap());
    let name = "%0A2026-01-31T08:00:00.000Z%20ERROR%20lost%20event=panic%1B[2J%C2%9B%E2%80%AE";
    for _ in 0..2 {
        let path = format!("/hakaru?name={name}&value=1");
        assert_eq!(client.get(&path).status, 200);
    }
    wait_until("the second is refused", || {
        hakaru.log().contains("event=dead_letters_written")
    });
    hakaru.signal(Signal::SIGTERM);
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
    let log = hakaru.log();
    let events: Vec<_> = log.lines().map(event).collect();
    let expected = [
        "bounds",
        "admin_listening",
        "listening",
        "dead_letters_written",
        "signal_received",
        "ended",
    ];
    assert_eq!(events, expected, "{log}");
    let forged = "2026-01-31T08:00:00.000Z ERROR lost event=panic";
    assert!(log.contains(&format!("'\\n{forged}")), "{log}");
    // The server escapes ESC and CSI in a key itself; hakaru escapes the rest.
    assert!(log.contains("\\u{202e}' for key"), "{log}");
    let is_control = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!log.contains(is_control), "{log:?}");
}
