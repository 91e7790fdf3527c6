//! The databases of a round, read over SQL, with backups and restores as an operator makes them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;
use rusqlite::Connection;

use super::draw::Backup;
use super::history::Id;
use crate::support::{DATABASE, DEADLINE, DatabaseServer, run};

/// The deployed table, which refuses some values.
const SERVER_TABLE: &str = "CREATE TABLE eventlog (
    id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, at datetime DEFAULT NULL,
    name varchar(255) NOT NULL, value int unsigned, CONSTRAINT poison CHECK (value % 50 <> 49)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8 COLLATE=utf8_unicode_ci";
const SQLITE_TABLE: &str = "CREATE TABLE eventlog (
    id integer PRIMARY KEY AUTOINCREMENT, at datetime DEFAULT NULL,
    name varchar(255) NOT NULL, value int unsigned, CONSTRAINT poison CHECK (value % 50 <> 49))";

/// Numbers as text: SQLite has signed ones.
const CHECKPOINTS: &str =
    "SELECT lane, CAST(epoch AS CHAR), CAST(position AS CHAR) FROM hakaru_checkpoint";

/// Whether the table refuses an event.
pub fn is_poison(id: Id) -> bool {
    id.1 % 50 == 49
}

/// A moment of a database, rows and checkpoints together.
pub enum Moment {
    /// Rows are only added, so that the highest id says which there were.
    Statements {
        highest_id: u64,
        checkpoints: Vec<(String, String, String)>,
    },
    Dump(PathBuf),
    Files(PathBuf),
}

pub enum Database<'a> {
    Server(&'a mut DatabaseServer),
    Sqlite(PathBuf),
}

impl Database<'_> {
    /// An empty one.
    pub fn reset(&self) {
        match self {
            Self::Server(server) => {
                let mut session = server.connect("").expect("the server answers");
                for sql in [
                    "DROP DATABASE hakaru",
                    "CREATE DATABASE hakaru",
                    "USE hakaru",
                    SERVER_TABLE,
                ] {
                    session.query_drop(sql).unwrap();
                }
            }
            Self::Sqlite(_) => self.run(SQLITE_TABLE),
        }
    }

    /// Gives it an id, as if it had been served before. Without a lane nothing else is in this table.
    pub fn name(&self, id: (u32, u32)) {
        self.run(
            "CREATE TABLE hakaru_checkpoint (lane char(32) NOT NULL PRIMARY KEY, \
             epoch bigint unsigned NOT NULL, position bigint unsigned NOT NULL)",
        );
        let (epoch, position) = id;
        self.run(&format!(
            "INSERT INTO hakaru_checkpoint VALUES ('database', {epoch}, {position})"
        ));
    }

    pub fn dsn(&self) -> String {
        match self {
            Self::Server(server) => server.dsn(),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    pub fn run(&self, sql: &str) {
        match self {
            Self::Server(server) => server.run(sql),
            Self::Sqlite(path) => sqlite(path).execute_batch(sql).unwrap(),
        }
    }

    /// Names and values of all rows.
    pub fn rows(&self) -> Vec<(String, u32)> {
        const SQL: &str = "SELECT name, value FROM eventlog";
        match self {
            Self::Server(server) => server.query(SQL),
            Self::Sqlite(path) => {
                let file = sqlite(path);
                let mut query = file.prepare(SQL).unwrap();
                let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
                rows.unwrap().map(Result::unwrap).collect()
            }
        }
    }

    pub fn ids(&self) -> HashSet<Id> {
        let rows = self.rows();
        rows.iter()
            .filter_map(|(name, value)| id(name, *value))
            .collect()
    }

    /// Kills the server and starts it again.
    pub fn crash(&mut self, meanwhile: impl FnOnce(&mut DatabaseServer)) {
        let Self::Server(server) = self else {
            panic!("SQLite is no server");
        };
        server.crash();
        meanwhile(server);
        server.resume();
    }

    /// Makes a backup below `directory`.
    pub fn back_up(&self, how: Backup, directory: &Path) -> Moment {
        let file = directory.join(format!("backup-{}", fastrand::u64(..)));
        let place = file.display();
        match (self, how) {
            (Self::Server(server), Backup::Statements) => {
                let mut session = locked(server, "READ");
                let highest: Option<Option<u64>> =
                    session.query_first("SELECT MAX(id) FROM eventlog").unwrap();
                Moment::Statements {
                    highest_id: highest.flatten().unwrap_or(0),
                    checkpoints: session.query(CHECKPOINTS).unwrap(),
                }
            }
            (Self::Sqlite(path), Backup::Statements) => {
                let mut file = sqlite(path);
                let session = file.transaction().unwrap();
                let highest: Option<i64> = session
                    .query_row("SELECT MAX(id) FROM eventlog", (), |row| row.get(0))
                    .unwrap();
                let mut query = session.prepare(CHECKPOINTS).unwrap();
                let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                Moment::Statements {
                    highest_id: highest.unwrap_or(0).cast_unsigned(),
                    checkpoints: rows.unwrap().map(Result::unwrap).collect(),
                }
            }
            (Self::Server(server), Backup::Dump) => {
                let server = client("mariadb-dump", server);
                let dump = format!("{server} --single-transaction {DATABASE} > {place}");
                run("sh", &["-c", &dump]);
                Moment::Dump(file)
            }
            (Self::Sqlite(_), Backup::Dump) => {
                self.run(&format!("VACUUM INTO '{place}'"));
                Moment::Dump(file)
            }
            (Self::Server(server), Backup::Files) => {
                server.copy_files(&file);
                Moment::Files(file)
            }
            (Self::Sqlite(_), Backup::Files) => panic!("not drawn"),
        }
    }

    /// Restores a backup. Returns the events that have a row then. A dump is loaded while hakaru is stopped.
    pub fn restore(&mut self, moment: &Moment) -> HashSet<Id> {
        match (&mut *self, moment) {
            (
                Self::Server(server),
                Moment::Statements {
                    highest_id,
                    checkpoints,
                },
            ) => {
                let mut session = locked(server, "WRITE");
                for sql in statements(*highest_id, checkpoints) {
                    session.query_drop(sql).unwrap();
                }
                let rows: Vec<(String, u32)> =
                    session.query("SELECT name, value FROM eventlog").unwrap();
                session.query_drop("COMMIT").unwrap();
                session.query_drop("UNLOCK TABLES").unwrap();
                return rows
                    .iter()
                    .filter_map(|(name, value)| id(name, *value))
                    .collect();
            }
            (
                Self::Sqlite(path),
                Moment::Statements {
                    highest_id,
                    checkpoints,
                },
            ) => {
                let sql = statements(*highest_id, checkpoints).join(";\n");
                let file = sqlite(path);
                file.execute_batch(&format!("BEGIN IMMEDIATE;\n{sql};\nCOMMIT"))
                    .unwrap();
            }
            (Self::Server(server), Moment::Dump(file)) => {
                let server = client("mariadb", server);
                run(
                    "sh",
                    &["-c", &format!("{server} {DATABASE} < {}", file.display())],
                );
            }
            (Self::Sqlite(path), Moment::Dump(file)) => {
                for end in ["-wal", "-shm"] {
                    drop(std::fs::remove_file(format!("{}{end}", path.display())));
                }
                std::fs::copy(file, path).unwrap();
            }
            (_, Moment::Files(files)) => self.crash(|server| server.replace_files(files)),
        }
        self.ids()
    }
}

fn statements(highest_id: u64, checkpoints: &[(String, String, String)]) -> Vec<String> {
    let mut all = vec![
        format!("DELETE FROM eventlog WHERE id > {highest_id}"),
        "DELETE FROM hakaru_checkpoint".to_owned(),
    ];
    for (lane, epoch, position) in checkpoints {
        all.push(format!(
            "INSERT INTO hakaru_checkpoint (lane, epoch, position) VALUES ('{lane}', {epoch}, {position})"
        ));
    }
    all
}

/// The event of a row or letter. `None`: no sender has sent such a one.
pub fn id(name: &str, value: u32) -> Option<Id> {
    let sender = name.strip_prefix("sender")?.parse().ok()?;
    Some((sender, value))
}

fn sqlite(path: &Path) -> Connection {
    let file = Connection::open(path).unwrap();
    file.busy_timeout(Duration::from_secs(DEADLINE.as_secs()))
        .unwrap();
    file
}

fn client(program: &str, server: &DatabaseServer) -> String {
    format!(
        "{program} --no-defaults --host=127.0.0.1 --port={} --user=root",
        server.port()
    )
}

/// Both tables locked by one session: no transaction is under way.
fn locked(server: &DatabaseServer, lock: &str) -> Conn {
    let mut session = server.connect(DATABASE).expect("the server answers");
    let sql = format!("LOCK TABLES eventlog {lock}, hakaru_checkpoint {lock}");
    session.query_drop("SET autocommit = 0").unwrap();
    session.query_drop(sql).unwrap();
    session
}
