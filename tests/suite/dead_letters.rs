//! One row that the database refuses neither blocks nor loses the others.

use serde_json::Value;

use crate::support::{Client, MariaDb, Settings, wait_until};

#[test]
fn whatever_a_trigger_says_of_one_row_the_others_are_stored() {
    let database = MariaDb::start_with(&[
        "--log-bin=log".to_owned(),
        "--binlog-format=STATEMENT".to_owned(),
    ]);
    let hakaru = Settings::mysql(&database).flag("--linger=300ms").start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    // Every insert brings a note (1592, unsafe for statement-based replication); one row is refused
    // with a code of the trigger's own.
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
    let database = MariaDb::start();
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime, name varchar(255) NOT NULL, value int unsigned) ENGINE=MyISAM",
    );
    let hakaru = Settings::mysql(&database).start();
    let line = hakaru.wait_for_line("nothing can be stored until this is put right");
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
    let database = MariaDb::start();
    let hakaru = Settings::mysql(&database).flag("--linger=500ms").start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    // What validation cannot know: a constraint that came after the start.
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
        assert_eq!(letter["code"], 4025);
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
