//! Inserting the rows of a batch into the open transaction.

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::id_column::{self, FoundColumn, IdColumn};
use super::statement::{Inserts, inserts};
use super::trial;
use super::{classify, describe, is_about_the_row, no_row_stored, signed};
use crate::event::Event;
use crate::event::batch::Batch;
use crate::event::event_id::EventId;
use crate::sink::trial::{Content, takes_no_row};
use crate::sink::{Fault, Refused, SinkError};

/// What became of the rows.
#[derive(Debug)]
pub(super) enum Rows {
    /// All but the refused ones are inserted.
    Inserted {
        /// The index and the id of one, and its content.
        last: Option<(usize, i64, Content)>,
        /// How many made no row, since the table has their ids.
        duplicates: u64,
    },
    /// The transaction was rolled back, by a trigger or because of one. The rows at fault are refused.
    RolledBack,
}

/// What became of a row.
enum Row {
    Inserted,
    Duplicate,
    Refused(Fault),
}

/// Inserts the events of `batch` from the index `from` on, without those in `refused`.
///
/// A trigger may roll the transaction back for a row, or leave the refused row in the table, with RAISE(FAIL): then it is
/// rolled back here. The rows after it are tried as well, in transactions that are rolled back: a batch with many such
/// rows is then stored in two passes, and not in one for each of them.
pub(super) fn insert(
    connection: &Connection,
    batch: &Batch,
    from: usize,
    refused: &mut Refused,
    known: Option<&Content>,
) -> Result<Rows, SinkError> {
    let mut last = None;
    let (mut duplicates, mut is_whole) = (0, true);
    // In the transaction that inserts, so that it holds for it.
    let column = id_column(connection)?;
    let mut insertion = Insertion::new(connection)?;
    for (index, event) in batch.events().enumerate().skip(from) {
        if refused.contains_key(&index) {
            continue;
        }
        let id = column.zip(event.id);
        let changes = connection.total_changes();
        match insertion.insert(event, id)? {
            Row::Inserted => last = Some((index, connection.last_insert_rowid(), event)),
            Row::Duplicate => duplicates += 1,
            Row::Refused(fault) => {
                if !connection.is_autocommit() && connection.total_changes() != changes {
                    connection.execute_batch("ROLLBACK").map_err(classify)?;
                }
                let taken = last.map(|(_, _, event)| Content::of(event));
                let taken = taken.or_else(|| known.cloned());
                let seconds = signed(event.received_at.seconds());
                let column = id.map(|(column, _)| column);
                if trial::refusal(connection, seconds, column, taken)?.is_some() {
                    return Err(takes_no_row(fault));
                }
                refused.insert(index, fault);
                if connection.is_autocommit() {
                    is_whole = false;
                    begin(connection)?;
                }
            }
        }
    }
    drop(insertion);
    if !is_whole {
        connection.execute_batch("ROLLBACK").map_err(classify)?;
        return Ok(Rows::RolledBack);
    }
    let last = last.map(|(index, id, event)| (index, id, Content::of(event)));
    Ok(Rows::Inserted { last, duplicates })
}

/// The column for ids, if they are stored.
pub(super) fn id_column(connection: &Connection) -> Result<Option<IdColumn>, SinkError> {
    Ok(match id_column::find(connection)? {
        FoundColumn::Usable(column) => Some(column),
        FoundColumn::Missing | FoundColumn::Unusable(_) => None,
    })
}

/// Inserts row by row.
struct Insertion<'a> {
    connection: &'a Connection,
    inserts: Inserts,
    plain: CachedStatement<'a>,
    /// Prepared when it is first needed.
    with_id: Option<CachedStatement<'a>>,
    /// Look for an id, one for each collation of a unique index. Prepared at the first row that is not inserted.
    by_id: Vec<CachedStatement<'a>>,
}

impl<'a> Insertion<'a> {
    fn new(connection: &'a Connection) -> Result<Self, SinkError> {
        let inserts = inserts(connection)?;
        let plain = connection.prepare_cached(inserts.plain);
        Ok(Self {
            connection,
            inserts,
            plain: plain.map_err(classify)?,
            with_id: None,
            by_id: Vec::new(),
        })
    }

    fn insert(
        &mut self,
        event: Event<'_>,
        id: Option<(IdColumn, EventId<'_>)>,
    ) -> Result<Row, SinkError> {
        let seconds = signed(event.received_at.seconds());
        let Event { name, value, .. } = event;
        let inserted = match id {
            None => self.plain.execute(params![seconds, name, value]),
            Some((column, id)) => {
                let statement = match &mut self.with_id {
                    Some(statement) => statement,
                    none => none.insert(
                        (self.connection.prepare_cached(self.inserts.with_id)).map_err(classify)?,
                    ),
                };
                statement.execute(params![seconds, name, value, column.stored(id)])
            }
        };
        match (inserted, id) {
            (Ok(0), Some((column, id))) => self.repeats(column, id),
            // As with a trigger that raises IGNORE.
            (Ok(0), None) => Err(no_row_stored()),
            (Ok(_), _) => Ok(Row::Inserted),
            (Err(fault), _) if is_about_the_row(&fault) => Ok(Row::Refused(describe(&fault))),
            (Err(fault), _) => Err(classify(fault)),
        }
    }

    /// Why a row with an id was not inserted: its id is that of another row; or only to the collation of a unique index;
    /// or a trigger has left it out.
    fn repeats(&mut self, column: IdColumn, id: EventId<'_>) -> Result<Row, SinkError> {
        let found = self.same_to_an_index(column, id);
        match found.map_err(classify)? {
            Some(true) => Ok(Row::Duplicate),
            Some(false) => Ok(Row::Refused(Fault::new(format!(
                "the id {} is equal to that of another row, by the collation of a unique index of event_id",
                id.as_str()
            )))),
            None => Err(no_row_stored()),
        }
    }

    /// Whether a row has this id, or (`false`) one that is the same to a unique index.
    fn same_to_an_index(
        &mut self,
        column: IdColumn,
        id: EventId<'_>,
    ) -> rusqlite::Result<Option<bool>> {
        if self.by_id.is_empty() {
            for collation in id_column::collations(self.connection)? {
                let query = format!(
                    "SELECT CAST(event_id AS blob) = CAST(?1 AS blob) FROM eventlog \
                     WHERE event_id = ?1 COLLATE \"{collation}\" ORDER BY 1 DESC LIMIT 1"
                );
                self.by_id.push(self.connection.prepare_cached(&query)?);
            }
        }
        let mut found = None;
        for query in &mut self.by_id {
            let row = query.query_row(params![column.stored(id)], |row| row.get(0));
            found = found.max(row.optional()?);
        }
        Ok(found)
    }
}

/// Begins a transaction that writes.
pub(super) fn begin(connection: &Connection) -> Result<(), SinkError> {
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(classify)
}

#[cfg(test)]
mod tests {
    use crate::event::batch::{Batch, BatchEvents};
    use crate::event::event_id::EventId;
    use crate::event::position::{LaneId, Position};
    use crate::event::rule::Ids;
    use crate::event::{Event, UnixMillis};
    use crate::sink::sqlite::SqliteSink;
    use crate::sink::{FoundRow, Inserted, Refused, Sink, SinkError, Step};
    use rusqlite::Connection;

    fn event<'a>(id: &'a str, value: u32) -> Event<'a> {
        Event {
            name: "a",
            value,
            received_at: UnixMillis(1_700_000_000_000),
            id: EventId::new(id).ok(),
        }
    }

    /// A sink on a table to which these statements were applied, and a second connection.
    fn sink_with(statements: &str) -> (SqliteSink, Connection, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eventlog.db");
        let mut sink = SqliteSink::new(path.clone());
        sink.open().unwrap();
        let other = Connection::open(path).unwrap();
        other.execute_batch(statements).unwrap();
        (sink, other, directory)
    }

    /// Stores events with these ids, where the empty one is none. Returns how many were duplicates, and which were
    /// refused.
    fn store(sink: &mut SqliteSink, ids: &[&str]) -> Result<(u64, Vec<usize>), SinkError> {
        let mut batch = Batch::new(BatchEvents::new(100).unwrap());
        for (value, id) in (0..).zip(ids) {
            batch.push(event(id, value)).unwrap();
        }
        let lane = LaneId::random().unwrap();
        let found = sink.adopt(lane, Position::START.into())?.checkpoint;
        let step = Step {
            lane,
            epoch: found.epoch,
            old: found.position,
            new: found.position.plus(ids.len()),
            last: None,
        };
        let mut refused = Refused::new();
        let Inserted::Open(rows) = sink.insert(&batch, 0, step, &mut refused)? else {
            panic!("the step is the next one")
        };
        sink.commit()?;
        Ok((rows.duplicates, refused.into_keys().collect()))
    }

    fn stored(other: &Connection) -> Vec<Option<String>> {
        let mut rows = other
            .prepare("SELECT CAST(event_id AS text) FROM eventlog ORDER BY id")
            .unwrap();
        let ids = rows.query_map([], |row| row.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    }

    const INDEX: &str = "CREATE UNIQUE INDEX own ON eventlog (event_id)";

    #[test]
    fn an_id_is_one_row_however_often_it_comes() {
        for kind in ["text", "varbinary(64)", "varchar(64)"] {
            let column = format!("ALTER TABLE eventlog ADD COLUMN event_id {kind}; {INDEX}");
            let (mut sink, other, _directory) = sink_with(&column);
            assert_eq!(sink.open().unwrap().ids, Ids::Stored);
            let ids = ["7", "", "a", "7", "", "07", "A", "7.0", "a "];
            assert_eq!(store(&mut sink, &ids), Ok((1, vec![])), "{kind}");
            assert_eq!(store(&mut sink, &["a", "b"]), Ok((1, vec![])));
            let ids = ["7", "", "a", "", "07", "A", "7.0", "a ", "b"];
            let ids = ids.map(|id| Some(id.to_owned()).filter(|id| !id.is_empty()));
            assert_eq!(stored(&other), ids, "{kind}");
            // Which row it is.
            assert_eq!(sink.is_row_of(1, event("7", 0)), Ok(true));
            assert_eq!(sink.is_row_of(1, event("8", 0)), Ok(false));
            assert_eq!(sink.is_row_of(1, event("", 0)), Ok(true));
            let found = |sink: &mut SqliteSink, id, value| sink.has_row_after(0, event(id, value));
            assert_eq!(found(&mut sink, "7", 99), Ok(FoundRow::Repeatable));
            assert_eq!(found(&mut sink, "8", 0), Ok(FoundRow::Missing));
            assert_eq!(found(&mut sink, "", 0), Ok(FoundRow::There));
            // A row from before there was a column for ids.
            assert_eq!(found(&mut sink, "8", 1), Ok(FoundRow::There));
        }
    }

    #[test]
    fn what_is_only_equal_by_a_collation_or_repeats_another_key_is_refused() {
        let column = "ALTER TABLE eventlog ADD COLUMN event_id text COLLATE NOCASE; \
             CREATE UNIQUE INDEX own ON eventlog (event_id); CREATE UNIQUE INDEX other ON eventlog (value)";
        let (mut sink, other, _directory) = sink_with(column);
        assert_eq!(store(&mut sink, &["a", "A", "a"]), Ok((1, vec![1])));
        // The value is repeated, and not the id.
        assert_eq!(store(&mut sink, &["b", "c"]), Ok((0, vec![0])));
        assert_eq!(stored(&other), [Some("a".to_owned()), Some("c".to_owned())]);
    }

    #[test]
    fn what_is_only_equal_by_the_collation_of_an_index_is_refused() {
        for (collation, ids) in [("NOCASE", ["a", "A", "a"]), ("RTRIM", ["a", "a ", "a"])] {
            let column = format!(
                "ALTER TABLE eventlog ADD COLUMN event_id text; \
                 CREATE UNIQUE INDEX own ON eventlog (event_id COLLATE {collation})"
            );
            let (mut sink, other, _directory) = sink_with(&column);
            assert_eq!(store(&mut sink, &ids), Ok((1, vec![1])), "{collation}");
            assert_eq!(stored(&other), [Some("a".to_owned())]);
        }
        // The index tells apart what the column does not.
        let column = "ALTER TABLE eventlog ADD COLUMN event_id text COLLATE NOCASE; \
             CREATE UNIQUE INDEX own ON eventlog (event_id COLLATE BINARY)";
        let (mut sink, _other, _directory) = sink_with(column);
        assert_eq!(store(&mut sink, &["a", "A", "A", "a"]), Ok((2, vec![])));
    }

    #[test]
    fn a_row_that_a_trigger_leaves_out_is_no_duplicate() {
        let column = format!(
            "ALTER TABLE eventlog ADD COLUMN event_id text; {INDEX}; CREATE TRIGGER out BEFORE INSERT ON eventlog \
             WHEN NEW.value = 1 BEGIN SELECT RAISE(IGNORE); END"
        );
        let (mut sink, _other, _directory) = sink_with(&column);
        assert_eq!(store(&mut sink, &["a"]), Ok((0, vec![])));
        assert!(matches!(
            store(&mut sink, &["a", "b"]),
            Err(SinkError::Stop(_))
        ));
    }

    #[test]
    fn an_id_that_a_constraint_refuses_is_refused_alone() {
        let known = "CREATE TABLE known (id text PRIMARY KEY); INSERT INTO known VALUES ('good 1'), ('good 2')";
        for constraint in [
            "CHECK (length(event_id) = 6)",
            "REFERENCES known (id)",
            "CHECK (event_id IS NULL OR event_id LIKE 'good %')",
        ] {
            let column = format!(
                "{known}; ALTER TABLE eventlog ADD COLUMN event_id text {constraint}; {INDEX}"
            );
            let (mut sink, other, _directory) = sink_with(&column);
            assert_eq!(store(&mut sink, &["bad"]), Ok((0, vec![0])), "{constraint}");
            let ids = ["good 1", "bad", "good 2", "good 1", "worse", ""];
            assert_eq!(store(&mut sink, &ids), Ok((1, vec![1, 4])), "{constraint}");
            // No trial row stays.
            let ids = ["good 1", "good 2"].map(|id| Some(id.to_owned()));
            assert_eq!(stored(&other)[..2], ids);
            assert_eq!(stored(&other)[2..], [None]);
        }
        // Neither other ids are taken, nor none.
        let column = format!(
            "ALTER TABLE eventlog ADD COLUMN event_id text CHECK (event_id IS 'never'); {INDEX}"
        );
        let (mut sink, _other, _directory) = sink_with(&column);
        let refused = store(&mut sink, &["bad"]);
        assert!(matches!(refused, Err(SinkError::Stop(_))), "{refused:?}");
    }

    #[test]
    fn a_column_that_comes_and_goes_is_noticed() {
        let (mut sink, other, _directory) = sink_with("");
        assert_eq!(sink.open().unwrap().ids, Ids::Ignored);
        assert_eq!(store(&mut sink, &["a", "a"]), Ok((0, vec![])));
        let column = format!("ALTER TABLE eventlog ADD COLUMN event_id text; {INDEX}");
        other.execute_batch(&column).unwrap();
        assert_eq!(sink.open().unwrap().ids, Ids::Stored);
        assert_eq!(store(&mut sink, &["a", "a"]), Ok((1, vec![])));
        other.execute_batch("DROP INDEX own").unwrap();
        assert_eq!(sink.open().unwrap().ids, Ids::Ignored);
        other
            .execute_batch("ALTER TABLE eventlog DROP COLUMN event_id")
            .unwrap();
        assert_eq!(store(&mut sink, &["a"]), Ok((0, vec![])));
        assert_eq!(
            other.query_row("SELECT count(*) FROM eventlog", [], |row| row.get(0)),
            Ok(4)
        );
    }
}
