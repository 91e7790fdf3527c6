//! A moment of the database to which it is restored: rows and checkpoints together, as from a backup.

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::MariaDb;

/// Rows are only added, so that the highest id says which there were.
pub struct Snapshot {
    highest_id: u64,
    checkpoints: Vec<(String, u64, u64)>,
}

/// Both tables locked by one session: no transaction is under way.
fn locked(database: &MariaDb, lock: &str) -> Conn {
    let mut session = database
        .connect(crate::support::DATABASE)
        .expect("MariaDB answers");
    let sql = format!("LOCK TABLES eventlog {lock}, hakaru_checkpoint {lock}");
    session.query_drop("SET autocommit = 0").unwrap();
    session.query_drop(sql).unwrap();
    session
}

impl Snapshot {
    pub fn take(database: &MariaDb) -> Self {
        let mut session = locked(database, "READ");
        let highest: Option<Option<u64>> =
            session.query_first("SELECT MAX(id) FROM eventlog").unwrap();
        let sql = "SELECT lane, epoch, position FROM hakaru_checkpoint";
        Self {
            highest_id: highest.flatten().unwrap_or(0),
            checkpoints: session.query(sql).unwrap(),
        }
    }

    /// Restores it. Returns how many rows are gone.
    pub fn restore(&self, database: &MariaDb) -> u64 {
        let mut session = locked(database, "WRITE");
        let sql = format!("DELETE FROM eventlog WHERE id > {}", self.highest_id);
        session.query_drop(sql).unwrap();
        let gone = session.affected_rows();
        session.query_drop("DELETE FROM hakaru_checkpoint").unwrap();
        let rows: Vec<_> = self
            .checkpoints
            .iter()
            .map(|(lane, epoch, position)| format!("('{lane}', {epoch}, {position})"))
            .collect();
        let sql = format!("INSERT INTO hakaru_checkpoint VALUES {}", rows.join(", "));
        session.query_drop(sql).unwrap();
        session.query_drop("COMMIT").unwrap();
        session.query_drop("UNLOCK TABLES").unwrap();
        gone
    }
}
