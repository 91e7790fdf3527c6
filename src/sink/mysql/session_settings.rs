//! The settings of a session: what hakaru sets, and whether that is still in effect. A proxy may give each transaction another
//! session of the server.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::classify::{refusal, sink_error};
use crate::sink::dsn::MySqlTarget;
use crate::sink::{Fault, SinkError};

/// In strict mode a row that does not fit is an error. Without it, the server alters the row.
const STRICT: &str = "STRICT_ALL_TABLES";

/// Four-byte UTF-8 instead of the server's default: any other character set could alter names.
const NAMES: &str = "SET NAMES utf8mb4";

/// A statement outside of a transaction is committed at once.
const AUTOCOMMIT: &str = "SET SESSION autocommit = 1";

/// Settings without which hakaru works, where a server does not have them: it soon ends a session whose client is lost,
/// which releases its locks; a wait for a lock soon ends; and COMMIT neither ends the session nor begins another
/// transaction.
const OPTIONAL: [(&str, &str); 3] = [
    ("wait_timeout", "60"),
    ("innodb_lock_wait_timeout", "10"),
    ("completion_type", "0"),
];

/// The number of the session on the server, and what decides which rows are stored.
const READ: &str = "SELECT CONNECTION_ID(), @@SESSION.sql_mode, @@SESSION.time_zone, \
    @@SESSION.character_set_client";

/// The settings of a session.
pub(super) struct SessionSettings {
    /// They were read within a transaction, for a connection on which sessions may change. `None`: they cannot.
    shared: Option<Kept>,
    /// What sets them.
    statements: Vec<String>,
}

/// What decides which rows are stored.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    is_strict: bool,
    time_zone: String,
    character_set: String,
}

/// What must be set first, on the new connection.
pub(super) fn first_statements(target: &MySqlTarget) -> Vec<String> {
    let mut statements = vec![AUTOCOMMIT.to_owned()];
    statements.extend(required(target));
    statements
}

fn required(target: &MySqlTarget) -> Vec<String> {
    let mut statements = vec![NAMES.to_owned()];
    for (variable, value) in &target.session {
        match *variable {
            "sql_mode" => statements.insert(0, format!("SET SESSION sql_mode = {value}")),
            // MySQL and MariaDB name this variable differently, but both have this statement.
            "transaction_isolation" | "tx_isolation" => {
                let level = value.trim_matches(['\'', '"']).replace('-', " ");
                statements.push(format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}"));
            }
            _ => statements.push(format!("SET SESSION {variable} = {value}")),
        }
    }
    statements
}

impl SessionSettings {
    /// Sets what is left on a connection on which [`first_statements`] were run.
    pub(super) fn set(connection: &mut Conn, target: &MySqlTarget) -> Result<Self, SinkError> {
        for (variable, value) in OPTIONAL {
            if !target.session.iter().any(|(known, _)| *known == variable) {
                set_optional(connection, variable, value)?;
            }
        }
        let (id, found) = read(connection)?;
        make_strict(connection, &found.modes)?;
        let mut settings = Self {
            shared: None,
            statements: required(target),
        };
        // The handshake has the lower half of the number. It is that of a proxy where there is one.
        if id & u64::from(u32::MAX) != u64::from(connection.connection_id()) {
            log::debug!("the connection is to a proxy: the settings of its sessions are checked");
            run(connection, "START TRANSACTION")?;
            settings.restore(connection)?;
            let (_, found) = read(connection)?;
            settings.shared = Some(found.kept());
            run(connection, "COMMIT")?;
        }
        Ok(settings)
    }

    /// Whether the session may be another one in each transaction.
    pub(super) fn may_change(&self) -> bool {
        self.shared.is_some()
    }

    /// Makes sure that they are in effect. Must be called in a transaction: no proxy changes the session in it.
    pub(super) fn check(&self, connection: &mut Conn) -> Result<(), SinkError> {
        let Some(expected) = &self.shared else {
            return Ok(());
        };
        if read(connection)?.1.kept() == *expected {
            return Ok(());
        }
        self.restore(connection)?;
        let found = read(connection)?.1.kept();
        if found == *expected {
            return Ok(());
        }
        Err(SinkError::Stop(Fault::new(format!(
            "the session has other settings than hakaru has set ({found:?} instead of {expected:?}), and setting them again \
             has no effect: a proxy between hakaru and the server drops SET"
        ))))
    }

    /// Sets them again in a session that may not have them. Those that are optional are left out.
    fn restore(&self, connection: &mut Conn) -> Result<(), SinkError> {
        for statement in &self.statements {
            run(connection, statement)?;
        }
        let (_, found) = read(connection)?;
        make_strict(connection, &found.modes)
    }
}

fn run(connection: &mut Conn, statement: &str) -> Result<(), SinkError> {
    connection.query_drop(statement).map_err(sink_error)
}

/// Leaves out what the server does not know or not allow.
fn set_optional(connection: &mut Conn, variable: &str, value: &str) -> Result<(), SinkError> {
    let set = connection.query_drop(format!("SET SESSION {variable} = {value}"));
    match set.map_err(refusal) {
        Err(SinkError::Stop(fault)) => {
            log::debug!("{variable} cannot be set: {fault}");
            Ok(())
        }
        other => other,
    }
}

/// What is in effect.
struct Found {
    modes: String,
    time_zone: String,
    character_set: String,
}

impl Found {
    fn kept(self) -> Kept {
        Kept {
            is_strict: with_strict(&self.modes).is_none(),
            time_zone: self.time_zone,
            character_set: self.character_set,
        }
    }
}

/// The number of the session, and what is in effect.
fn read(connection: &mut Conn) -> Result<(u64, Found), SinkError> {
    type Row = (u64, Option<String>, Option<String>, Option<String>);
    let row: Option<Row> = connection.query_first(READ).map_err(sink_error)?;
    let (id, modes, time_zone, character_set) = row.unwrap_or_default();
    let found = Found {
        modes: modes.unwrap_or_default(),
        time_zone: time_zone.unwrap_or_default(),
        character_set: character_set.unwrap_or_default(),
    };
    Ok((id, found))
}

/// Adds the strict mode to the modes of the session. The statement names each of them: a proxy that remembers what a
/// session has set understands no expressions.
fn make_strict(connection: &mut Conn, modes: &str) -> Result<(), SinkError> {
    match with_strict(modes) {
        Some(modes) => run(connection, &format!("SET SESSION sql_mode = '{modes}'")),
        None => Ok(()),
    }
}

/// `None`: it is among them.
fn with_strict(modes: &str) -> Option<String> {
    let names = modes.split(',').filter(|name| !name.is_empty());
    if names.clone().any(|name| name == STRICT) {
        return None;
    }
    Some(names.chain([STRICT]).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strict_mode_is_added_to_the_others() {
        let added = |modes| with_strict(modes).unwrap();
        assert_eq!(added(""), "STRICT_ALL_TABLES");
        assert_eq!(added("ANSI_QUOTES"), "ANSI_QUOTES,STRICT_ALL_TABLES");
        assert_eq!(with_strict("ANSI_QUOTES,STRICT_ALL_TABLES"), None);
    }
}
