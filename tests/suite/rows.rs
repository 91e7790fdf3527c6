//! The rows of the table: each event once, as it was sent, with the time at which it was received.

use std::thread;

use crate::support::{Client, DatabaseServer, Settings, run, wait_until};

#[test]
fn each_event_is_one_row_as_it_was_sent() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).start();
    thread::scope(|scope| {
        for sender in 0..8 {
            let address = hakaru.address;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for value in 0..1_500 {
                    let target = format!("/hakaru?name=sender+{sender}&value={value}");
                    assert_eq!(client.get(&target).status, 200);
                }
            });
        }
    });
    let mut client = Client::connect(hakaru.address);
    assert_eq!(
        client
            .get("/hakaru?name=%E8%A8%88%E3%82%8B%26&value=4294967295")
            .status,
        200
    );
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.stored), (12_001, 12_001));
    let sent: Vec<(String, u64, u64, u64)> = database.query(
        "SELECT name, COUNT(*), COUNT(DISTINCT value), MAX(value) FROM eventlog \
         WHERE name LIKE 'sender %' GROUP BY name",
    );
    assert_eq!(sent.len(), 8);
    assert!(
        sent.iter()
            .all(|row| (row.1, row.2, row.3) == (1_500, 1_500, 1_499)),
        "{sent:?}"
    );
    let other: (String, u32) =
        database.query_one("SELECT name, value FROM eventlog WHERE name NOT LIKE 'sender %'");
    assert_eq!(other, ("計る&".to_owned(), u32::MAX));
}

#[test]
fn the_table_is_made_as_it_is_deployed() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    hakaru.stop();
    let columns: Vec<(String, String, String)> = database.query(
        "SELECT column_name, column_type, is_nullable FROM information_schema.columns \
         WHERE table_name = 'eventlog' ORDER BY ordinal_position",
    );
    let expected = [
        ("id", "bigint unsigned", "NO"),
        ("at", "datetime", "YES"),
        ("name", "varchar(255)", "NO"),
        ("value", "int unsigned", "YES"),
    ];
    let expected =
        expected.map(|(name, kind, null)| (name.to_owned(), kind.to_owned(), null.to_owned()));
    // MariaDB tells how many digits a number has.
    let columns = columns.into_iter().map(|(name, kind, null)| {
        let kind = kind
            .replace("bigint(20)", "bigint")
            .replace("int(10)", "int");
        (name, kind, null)
    });
    assert!(columns.eq(expected));
    let table: (String, String) = database.query_one(
        "SELECT engine, table_collation FROM information_schema.tables WHERE table_name = 'eventlog'",
    );
    assert_eq!(
        table,
        ("InnoDB".to_owned(), "utf8mb3_unicode_ci".to_owned())
    );
}

#[test]
fn session_variables_of_mysql_and_mariadb_are_accepted() {
    let database = DatabaseServer::start();
    for parameter in ["transaction_isolation", "tx_isolation"] {
        let dsn = format!("{}?{parameter}=%27READ-COMMITTED%27", database.dsn());
        let hakaru = Settings::datasource(&dsn).start();
        assert_eq!(
            Client::connect(hakaru.address)
                .get("/hakaru?name=a&value=1")
                .status,
            200
        );
        assert_eq!(hakaru.stop().stored, 1);
    }
}

#[test]
fn the_time_is_when_it_was_received_in_the_time_zone_of_the_session() {
    let database = DatabaseServer::start();
    database.run("SET GLOBAL time_zone = '+00:00'");
    let dsn = format!("{}?time_zone=%27%2B09:00%27", database.dsn());
    // Stored a second after it was received: the row has the time of the receipt.
    let hakaru = Settings::datasource(&dsn).flag("--linger=3s").start();
    let before: i64 = database.query_one("SELECT UNIX_TIMESTAMP()");
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a&value=1")
            .status,
        200
    );
    let after: i64 = database.query_one("SELECT UNIX_TIMESTAMP()");
    wait_until("the row is there", || database.count() == 1);
    let now: i64 = database.query_one("SELECT UNIX_TIMESTAMP()");
    let at: i64 = database.query_one("SELECT UNIX_TIMESTAMP(at - INTERVAL 9 HOUR) FROM eventlog");
    assert!(
        (before - 1..=after).contains(&at),
        "{before} <= {at} <= {after}"
    );
    assert!(now >= at + 2, "it lingered: {at}, stored by {now}");
}

#[test]
fn names_that_the_column_cannot_hold_are_refused() {
    let database = DatabaseServer::start();
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime DEFAULT NULL, name varchar(10) NOT NULL, value int unsigned) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
    );
    let hakaru = Settings::mysql(&database).start();
    let mut client = Client::connect(hakaru.address);
    assert_eq!(client.get("/hakaru?name=%F0%9F%98%80&value=1").status, 200);
    let refused = client.get("/hakaru?name=12345678901&value=1");
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("1 to 10 characters"),
        "{}",
        refused.body
    );
    assert_eq!(hakaru.stop().stored, 1);
    let name: String = database.query_one("SELECT name FROM eventlog");
    assert_eq!(name, "😀");
}

#[test]
fn an_emoji_is_refused_if_the_column_is_utf8mb3() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).start();
    let mut client = Client::connect(hakaru.address);
    let refused = client.get("/hakaru?name=%F0%9F%98%80&value=1");
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("U+FFFF"), "{}", refused.body);
    assert_eq!(client.get("/hakaru?name=%EF%BF%BF&value=1").status, 200);
    assert_eq!(hakaru.stop().stored, 1);
}

#[test]
fn without_settings_rows_go_to_sqlite() {
    let hakaru = Settings::default().start();
    assert_eq!(
        Client::connect(hakaru.address)
            .get("/hakaru?name=a+b&value=7")
            .status,
        200
    );
    let file = hakaru.path("hakaru-data/eventlog.db");
    let path = file.to_str().unwrap().to_owned();
    let rows = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                print(c.execute('select id, at is not null, name, value from eventlog').fetchall())";
    wait_until("the row is there", || {
        run("python3", &["-c", rows, &path]) == "[(1, 1, 'a b', 7)]\n"
    });
    hakaru.stop();
}

#[test]
fn fewer_connections_than_shards_store_everything() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--db-connections=1")
        .flag("--batch-events=10")
        .start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(hakaru.address);
                for value in 0..100 {
                    assert_eq!(
                        client.get(&format!("/hakaru?name=a&value={value}")).status,
                        200
                    );
                }
            });
        }
    });
    let connections: u64 = database.query_one(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'hakaru' AND command = 'Sleep'",
    );
    assert!(connections <= 1, "{connections}");
    assert_eq!(hakaru.stop().stored, 800);
    assert_eq!(database.count(), 800);
}
