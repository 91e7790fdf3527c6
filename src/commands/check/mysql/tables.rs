//! Checks the two tables and the rights on them. Missing tables are not made, and no row stays.

use mysql::prelude::Queryable;
use mysql::{Params, Value};

use super::Server;
use crate::commands::check::Observation;
use crate::event::position::{LaneId, Position};
use crate::event::{NAME_CHARS_MAX, NameRule, Repertoire, UnixMillis};
use crate::sink::mysql::classify::{Verdict, sink_error, verdict};
use crate::sink::mysql::{ROW, adopt_statement, checkpoint_query, connect, step_statement};
use crate::sink::{CREATE_CHECKPOINTS, Epoch, Fault, FaultKind, SinkError, Step};

/// The columns that the user may see; no rows if there is no table.
const COLUMNS: &str = "SELECT column_name, column_type, is_nullable, column_default, extra \
    FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'eventlog' \
    ORDER BY ordinal_position";

/// A column as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    /// Such as `int(10) unsigned`.
    kind: String,
    may_be_null: bool,
    has_default: bool,
    /// `auto_increment`, or how it is generated.
    extra: String,
}

impl Column {
    /// Whether an insert that does not name it fails.
    fn must_be_given(&self) -> bool {
        let is_filled = self.extra.contains("auto_increment") || self.extra.contains("GENERATED");
        !self.may_be_null && !self.has_default && !is_filled
    }
}

fn columns(server: &mut Server<'_>) -> Result<Vec<Column>, SinkError> {
    let rows: Vec<(String, String, String, Option<String>, String)> =
        server.connection.query(COLUMNS).map_err(sink_error)?;
    let column =
        |(name, kind, nullable, default, extra): (_, _, String, Option<String>, _)| Column {
            name,
            kind,
            may_be_null: nullable == "YES",
            has_default: default.is_some(),
            extra,
        };
    Ok(rows.into_iter().map(column).collect())
}

/// Whether `eventlog` exists and can hold events.
pub(super) fn eventlog(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let columns = columns(server)?;
    if columns.is_empty() {
        return missing(server, "eventlog", connect::CREATE_TABLE);
    }
    connect::has_transactions(&mut server.connection, "eventlog")?;
    let rule = connect::name_rule(&mut server.connection)?;
    Ok(judge(&columns, rule))
}

/// Judges a table with these columns.
fn judge(columns: &[Column], rule: Option<NameRule>) -> Observation {
    let kind_of = |name: &str| {
        let found = columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name));
        found.map(|column| column.kind.to_ascii_lowercase())
    };
    let (Some(at), Some(value), Some(rule)) = (kind_of("at"), kind_of("value"), rule) else {
        let there: Vec<_> = columns.iter().map(|column| &column.name[..]).collect();
        let advice = "it must have `at datetime`, `name varchar(255)` and `value int unsigned`: ALTER TABLE eventlog ADD";
        return Observation::new(format!("has only the columns {}", there.join(", ")))
            .error(advice);
    };
    let (chars, repertoire) = (rule.chars_max, characters(rule.repertoire));
    let found = Observation::new(format!(
        "at {at}; name: {chars} characters, {repertoire}; value {value}"
    ));
    let ours = ["at", "name", "value"];
    let is_ours = |name: &str| ours.iter().any(|our| our.eq_ignore_ascii_case(name));
    let other = columns
        .iter()
        .find(|column| column.must_be_given() && !is_ours(&column.name));
    if let Some(Column { name, .. }) = other {
        return found.error(format!(
            "each insert fails, since column `{name}` is NOT NULL and has no default: \
             ALTER TABLE eventlog ALTER `{name}` SET DEFAULT …, or MODIFY it to be NULL"
        ));
    }
    let holds_every_value =
        value.starts_with("bigint") || value.starts_with("int") && value.contains("unsigned");
    if !holds_every_value {
        return found.warning(
            "values that the column does not take go to the dead letters: \
             ALTER TABLE eventlog MODIFY value int unsigned",
        );
    }
    if !at.starts_with("datetime") && !at.starts_with("timestamp") {
        return found.warning(
            "the column may change the times that are stored in it: ALTER TABLE eventlog MODIFY at datetime",
        );
    }
    if chars < NAME_CHARS_MAX {
        return found.warning(
            "longer names are answered 400: ALTER TABLE eventlog MODIFY name varchar(255) NOT NULL",
        );
    }
    found
}

fn characters(repertoire: Repertoire) -> &'static str {
    match repertoire {
        Repertoire::Unicode => "all of Unicode",
        Repertoire::Bmp => "up to U+FFFF (no emoji)",
        Repertoire::Ascii => "ASCII",
        Repertoire::Latin1 => "Latin-1",
    }
}

/// Whether hakaru may make a missing table, as it does at its start. The statement is prepared and not executed: a
/// server refuses to prepare a statement that the user may not execute.
fn missing(server: &mut Server<'_>, table: &str, create: &str) -> Result<Observation, SinkError> {
    let prepared = server.connection.prep(create).map_err(sink_error).map(drop);
    let found = Observation::new(match &prepared {
        Ok(()) => "missing; it will be made when hakaru starts".to_owned(),
        Err(fault) => format!("missing, or hidden from this user; it cannot be made: {fault}"),
    });
    // One line, to be pasted into a client.
    let create = create.split_whitespace().collect::<Vec<_>>().join(" ");
    let database = &server.target.database;
    match prepared {
        Ok(()) if is_mariadb(server)? => Ok(found),
        // MySQL checks the right to create only when it executes.
        Ok(()) => Ok(Observation::new("missing; it will be made when hakaru starts, if the user may CREATE").warning(
            format!("if the user may not, run as another user, in `{database}`: {create}"),
        )),
        Err(SinkError::Stop(_)) => Ok(found.error(format!(
            "run as another user, in `{database}`: {create}; {}; or: GRANT CREATE ON `{database}`.{table} TO {}",
            server.grants(),
            server.user
        ))),
        Err(other) => Err(other),
    }
}

fn is_mariadb(server: &mut Server<'_>) -> Result<bool, SinkError> {
    let version: Option<String> = server.first("SELECT VERSION()")?;
    Ok(version.is_some_and(|version| version.contains("MariaDB")))
}

/// Whether a row can be stored: inserts one and rolls it back. If the table is missing, checks whether an insert would
/// be allowed.
pub(super) fn insert(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let columns = columns(server)?;
    let insert = format!("INSERT INTO eventlog (at, name, value) VALUES {ROW}");
    if columns.is_empty() {
        return would_be_allowed(server, &[insert]);
    }
    if !is_transactional(server, "eventlog")? {
        return Ok(not_tried());
    }
    let now = UnixMillis::now().seconds();
    let values = vec![
        Value::UInt(now),
        Value::Bytes(b"a".to_vec()),
        Value::UInt(0),
    ];
    let connection = &mut server.connection;
    connection
        .query_drop("START TRANSACTION")
        .map_err(sink_error)?;
    let stored = connection.exec_drop(insert, Params::Positional(values));
    connection.query_drop("ROLLBACK").map_err(sink_error)?;
    match stored.map_err(verdict) {
        // A rollback does not give back the id, also not when a batch is tried again.
        Ok(()) => Ok(Observation::new(
            "a row was inserted and rolled back; its id is skipped",
        )),
        Err(Verdict::RefusesRow(Fault { text, .. })) => {
            let found = Observation::new(format!("a row with the name `a` is refused: {text}"));
            Ok(found
                .warning("refused rows go to the dead letters: check that other rows are accepted"))
        }
        Err(Verdict::Ends(fault)) => Err(fault),
    }
}

/// Whether a change of the table can be rolled back.
fn is_transactional(server: &mut Server<'_>, table: &str) -> Result<bool, SinkError> {
    match connect::has_transactions(&mut server.connection, table) {
        Err(fault) if fault.fault().kind == FaultKind::NoTransactions => Ok(false),
        asked => asked.map(|()| true),
    }
}

/// For a table without transactions.
fn not_tried() -> Observation {
    let found = Observation::new("not tried: the row could not be rolled back");
    found.warning("fix the table first")
}

/// Whether checkpoints can be kept.
pub(super) fn checkpoints(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    if !connect::has_checkpoints(&mut server.connection)? {
        return missing(server, "hakaru_checkpoint", CREATE_CHECKPOINTS);
    }
    connect::has_transactions(&mut server.connection, "hakaru_checkpoint")?;
    let lanes: Option<u64> = server.first("SELECT COUNT(*) FROM hakaru_checkpoint")?;
    Ok(Observation::new(format!(
        "{} lanes",
        lanes.unwrap_or_default()
    )))
}

/// Whether a checkpoint can be made, moved and read. Does so for a new lane, and rolls it back.
pub(super) fn step(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let lane = LaneId::random().map_err(|fault| {
        SinkError::Stop(Fault::new(format!("the kernel's randomness: {fault}")))
    })?;
    let step = Step {
        lane,
        epoch: Epoch(1),
        old: Position::START,
        new: Position(1),
    };
    let statements = [
        adopt_statement(lane, Position::START),
        step_statement(step),
        checkpoint_query(lane),
    ];
    if !connect::has_checkpoints(&mut server.connection)? {
        return would_be_allowed(server, &statements);
    }
    if !is_transactional(server, "hakaru_checkpoint")? {
        return Ok(not_tried());
    }
    let connection = &mut server.connection;
    connection
        .query_drop("START TRANSACTION")
        .map_err(sink_error)?;
    let tried = statements
        .iter()
        .try_for_each(|statement| connection.query_drop(statement));
    connection.query_drop("ROLLBACK").map_err(sink_error)?;
    tried.map_err(sink_error)?;
    Ok(Observation::new(
        "a checkpoint was made, moved and read, and rolled back",
    ))
}

/// Whether statements on a missing table would be allowed. A server checks the rights before it checks that the table
/// exists.
fn would_be_allowed(
    server: &mut Server<'_>,
    statements: &[String],
) -> Result<Observation, SinkError> {
    const NO_SUCH_TABLE: i32 = 1146;
    for statement in statements {
        match server.connection.prep(statement).map_err(sink_error) {
            Err(fault) if fault.fault().code != Some(NO_SUCH_TABLE) => return Err(fault),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(Observation::new("allowed, once the table exists"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;

    fn column(name: &str, kind: &str) -> Column {
        Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            may_be_null: false,
            has_default: false,
            extra: String::new(),
        }
    }

    fn table() -> Vec<Column> {
        let id = Column {
            extra: "auto_increment".to_owned(),
            ..column("id", "bigint(20) unsigned")
        };
        vec![
            id,
            column("at", "datetime"),
            column("name", "varchar(255)"),
            column("value", "int(10) unsigned"),
        ]
    }

    #[test]
    fn the_deployed_table_is_ok() {
        let found = judge(&table(), Some(NameRule::DEPLOYED));
        assert_eq!(found.level, Level::Ok, "{found:?}");
        assert!(found.text.contains("no emoji"), "{found:?}");
    }

    #[test]
    fn a_table_that_cannot_hold_every_event_is_a_warning_or_an_error() {
        let short = NameRule {
            chars_max: 20,
            ..NameRule::DEPLOYED
        };
        let with = |column: Column| {
            let others = table()
                .into_iter()
                .filter(|other| other.name != column.name);
            others.chain([column.clone()]).collect::<Vec<_>>()
        };
        let filled = Column {
            has_default: true,
            ..column("extra", "int")
        };
        for (columns, rule, level, words) in [
            (table(), short, Level::Warning, "longer names"),
            (
                with(column("value", "int(11)")),
                NameRule::DEPLOYED,
                Level::Warning,
                "dead letters",
            ),
            (
                with(column("at", "date")),
                NameRule::DEPLOYED,
                Level::Warning,
                "datetime",
            ),
            (
                with(column("extra", "int")),
                NameRule::DEPLOYED,
                Level::Error,
                "`extra`",
            ),
            (
                table()[..3].to_vec(),
                NameRule::DEPLOYED,
                Level::Error,
                "ADD",
            ),
        ] {
            let found = judge(&columns, Some(rule));
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.advice.as_ref().unwrap().contains(words), "{found:?}");
        }
        let found = judge(&with(filled), Some(NameRule::DEPLOYED));
        assert_eq!(found.level, Level::Ok, "{found:?}");
    }
}
