//! MySQL, MariaDB and other servers with their protocol: prepared multi-value inserts, one transaction per batch.

mod at;
pub(crate) mod checkpoint_rows;
pub(crate) mod classify;
pub(crate) mod columns;
pub(crate) mod connect;
mod database_row;
pub(crate) mod engine;
mod gaps;
pub(crate) mod id_column;
pub(crate) mod id_refusal;
mod known_rows;
pub mod panic_guard;
mod route;
mod rows;
mod session_settings;
mod statement_kind;
mod statement_size;
pub(crate) mod trial;

use std::time::Instant;

use mysql::prelude::Queryable;
use mysql::{Conn, Statement};

use self::at::{At, LateTimes};
pub(crate) use self::classify::sink_error;
pub(crate) use self::connect::connect;
use self::gaps::gaps;
use self::id_column::{FoundColumn, IdColumn, NO_SUCH_COLUMN};
use self::rows::Insertion;
pub use self::rows::{bind, statement_bytes_max};
use self::session_settings::SessionSettings;
use self::statement_kind::{Columns, StatementKind};
use self::statement_size::StatementSizes;
use super::{
    Begin, Checkpoint, Fault, FoundRow, Inserted, InsertedRows, PROBE_EVERY, Refused, Sink,
    SinkError, Step,
};
use crate::event::Event;
use crate::event::batch::{Batch, BatchEvents};
use crate::event::database_id::DatabaseId;
use crate::event::position::LaneId;
use crate::event::rule::{EventRule, Ids};
use crate::sink::dsn::MySqlTarget;
use crate::sink::sealed_copy::FoundCheckpoint;
use crate::sink::trial::Content;

/// Most placeholders of one row: time, name, value, and an id where the table has a column for it.
const PLACEHOLDERS_PER_ROW_MAX: usize = 4;

/// The placeholders of one row. The server converts the time to the session's time zone, as `NOW()` does.
pub(crate) const ROW: &str = "(FROM_UNIXTIME(?),?,?)";

/// One connection to a MySQL server.
pub struct MySqlSink {
    target: MySqlTarget,
    events_max: BatchEvents,
    session: Option<Session>,
    /// A row that it has inserted.
    known: Option<Content>,
}

/// A connection, with what was read and prepared on it.
struct Session {
    connection: Conn,
    settings: SessionSettings,
    event_rule: EventRule,
    /// `None`: no ids are stored.
    ids: Option<IdColumn>,
    /// `None`: the columns must be read again at once.
    columns_read_at: Option<Instant>,
    /// A column was missing, and no row was inserted since.
    is_column_missed: bool,
    sizes: StatementSizes,
    /// Those of each kind.
    statements: [Vec<Option<Statement>>; StatementKind::COUNT],
    late_times: LateTimes,
    packet_bytes_max: usize,
    /// A row of the last insert: the index of its event, and its id.
    inserted: Option<(usize, u64)>,
    /// `None` until it is known.
    database: Option<DatabaseId>,
}

impl MySqlSink {
    /// A sink for batches of up to `events_max`. Does not connect yet.
    pub fn new(target: MySqlTarget, events_max: BatchEvents) -> Self {
        Self {
            target,
            events_max,
            session: None,
            known: None,
        }
    }

    fn session(&mut self) -> Result<&mut Session, SinkError> {
        let not_connected = || SinkError::Reconnect(Fault::new("not connected"));
        self.session.as_mut().ok_or_else(not_connected)
    }
}

impl Session {
    /// Reads what the columns take. Ids are stored if there is a column for them, and the statement that fills it can be
    /// prepared: it needs the right to UPDATE `eventlog`.
    fn read_columns(&mut self) -> Result<(), SinkError> {
        let rule = connect::find_table(&mut self.connection)?;
        let had_ids = self.ids.is_some();
        self.ids = match id_column::find(&mut self.connection)? {
            FoundColumn::Usable(column) => self.can_store_ids()?.then_some(column),
            FoundColumn::Missing | FoundColumn::Unusable(_) => None,
        };
        if had_ids && self.ids.is_none() {
            // The statements with ids are of no use any more, and count for the server.
            self.close_statements()?;
        }
        let ids = match self.ids {
            Some(_) => Ids::Stored,
            None => Ids::Ignored,
        };
        self.event_rule = EventRule { ids, ..rule };
        self.columns_read_at = Some(Instant::now());
        Ok(())
    }

    /// Whether the server prepares the statement with ids.
    fn can_store_ids(&mut self) -> Result<bool, SinkError> {
        let with_id = StatementKind {
            at: At::Usual,
            columns: Columns::WithId,
        };
        match self.prepared(with_id, self.sizes.fitting(1)) {
            Ok(_) => return Ok(true),
            Err(SinkError::Stop(_)) => {}
            Err(fault) => return Err(fault),
        }
        let Some(fault) = id_refusal::refusal(&mut self.connection)? else {
            return Ok(true);
        };
        log::debug!("eventlog has a column event_id that is not used: {fault}");
        Ok(false)
    }

    /// The same error. If it says that a column is gone, and ids were stored, the columns are read before the next attempt,
    /// which comes at once. If that fails too, it is another column, such as one that a trigger names.
    fn without_column(&mut self, fault: SinkError) -> SinkError {
        match fault {
            SinkError::Stop(fault)
                if self.ids.is_some()
                    && fault.code == Some(NO_SUCH_COLUMN)
                    && !self.is_column_missed =>
            {
                self.is_column_missed = true;
                self.columns_read_at = None;
                SinkError::Retry(fault)
            }
            other => other,
        }
    }

    fn insert_rows(
        &mut self,
        batch: &Batch,
        from: usize,
        known: Option<Content>,
        refused: &mut Refused,
    ) -> Result<(InsertedRows, Option<Content>), SinkError> {
        let mut insertion = Insertion::new(self, batch, known);
        for rows in gaps(from..batch.len(), refused) {
            insertion.insert(rows, refused)?;
        }
        insertion.finish(refused)
    }

    /// Begins a transaction with the settings of the session.
    fn begin(&mut self) -> Result<(), SinkError> {
        self.connection
            .query_drop("START TRANSACTION")
            .map_err(sink_error)?;
        let checked = self.settings.check(&mut self.connection);
        checked.or_else(|fault| self.roll_back(Err(fault)))
    }

    /// Ends the transaction, since the connection may be kept. One that has failed is closed, and need not answer again.
    fn roll_back<T>(&mut self, outcome: Result<T, SinkError>) -> Result<T, SinkError> {
        if !matches!(outcome, Err(SinkError::Reconnect(_))) {
            self.connection.query_drop("ROLLBACK").map_err(sink_error)?;
        }
        outcome
    }

    /// Asks for something that depends on the settings of the session.
    fn with_settings<T>(
        &mut self,
        ask: impl FnOnce(&mut Conn) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        if !self.settings.may_change() {
            return ask(&mut self.connection);
        }
        self.begin()?;
        let answer = ask(&mut self.connection);
        self.roll_back(answer)
    }
}

impl Sink for MySqlSink {
    fn open(&mut self) -> Result<EventRule, SinkError> {
        if let Some(session) = &mut self.session {
            let read_at = session.columns_read_at;
            if read_at.is_none_or(|at| at.elapsed() >= PROBE_EVERY) {
                session.read_columns()?;
            }
            return Ok(session.event_rule);
        }
        let (mut connection, settings) = connect::connect_session(&self.target)?;
        connect::find_table(&mut connection)?;
        connect::find_checkpoints(&mut connection)?;
        let bounds = connect::statement_bounds(&mut connection, &self.target)?;
        let sizes = StatementSizes::new(self.events_max, bounds.engine);
        let statements = [(); StatementKind::COUNT].map(|()| vec![None; sizes.len()]);
        let mut session = Session {
            connection,
            settings,
            event_rule: EventRule::DEPLOYED,
            ids: None,
            columns_read_at: None,
            is_column_missed: false,
            sizes,
            statements,
            late_times: LateTimes::default(),
            packet_bytes_max: bounds.packet_bytes_max,
            inserted: None,
            database: None,
        };
        session.read_columns()?;
        let event_rule = session.event_rule;
        self.session = Some(session);
        Ok(event_rule)
    }

    fn database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        let session = self.session()?;
        if session.database.is_none() {
            session.database = database_row::read(&mut session.connection)?;
        }
        Ok(session.database)
    }

    fn name_database(&mut self, id: DatabaseId) -> Result<DatabaseId, SinkError> {
        database_row::insert(&mut self.session()?.connection, id)?;
        self.database()?.ok_or_else(super::id_not_kept)
    }

    fn restore_database_id(&mut self, id: DatabaseId) -> Result<(), SinkError> {
        let session = self.session()?;
        session.database = None;
        database_row::replace(&mut session.connection, id)
    }

    fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError> {
        self.session()?.database = None;
        self.database()
    }

    fn checkpoint(&mut self, lane: LaneId) -> Result<Option<Checkpoint>, SinkError> {
        checkpoint_rows::read_locked(&mut self.session()?.connection, lane)
    }

    fn look(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        checkpoint_rows::look(&mut self.session()?.connection, lane, begin)
    }

    fn adopt(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError> {
        checkpoint_rows::adopt(&mut self.session()?.connection, lane, begin)
    }

    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError> {
        let known = self.known.clone();
        let session = self.session()?;
        session.inserted = None;
        session.begin()?;
        if !checkpoint_rows::take_step(&mut session.connection, step)? {
            let found = checkpoint_rows::read_locked(&mut session.connection, step.lane)?;
            session
                .connection
                .query_drop("ROLLBACK")
                .map_err(sink_error)?;
            return Ok(Inserted::CheckpointMismatch(found));
        }
        let inserted = session.insert_rows(batch, from, known, refused);
        let (rows, known) = inserted.map_err(|fault| session.without_column(fault))?;
        session.is_column_missed = false;
        self.known = known;
        Ok(Inserted::Open(rows))
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        let committed = self.session()?.connection.query_drop("COMMIT");
        committed.map_err(classify::commit_error)
    }

    fn inserted_row(&self) -> Option<(usize, u64)> {
        self.session.as_ref()?.inserted
    }

    fn is_row_of(&mut self, id: u64, event: Event<'_>) -> Result<bool, SinkError> {
        let session = self.session()?;
        let ids = session.ids;
        session.with_settings(|connection| known_rows::is_row_of(connection, ids, id, event))
    }

    fn has_row_after(&mut self, after: u64, event: Event<'_>) -> Result<FoundRow, SinkError> {
        let session = self.session()?;
        let ids = session.ids;
        session.with_settings(|connection| known_rows::has_row_after(connection, ids, after, event))
    }

    fn probe(&mut self) -> Result<(), SinkError> {
        let connection = &mut self.session()?.connection;
        for write in PROBES {
            connection.query_drop(write).map_err(sink_error)?;
        }
        Ok(())
    }

    fn abandon(&mut self, fault: &SinkError) {
        let rolled_back = match (&mut self.session, fault) {
            (Some(session), SinkError::Retry(_)) => {
                session.connection.query_drop("ROLLBACK").is_ok()
            }
            _ => false,
        };
        if !rolled_back {
            self.session = None;
        }
    }
}

/// Writes that change nothing, but that a read-only server refuses, and any server if the user lacks the rights.
const PROBES: [&str; 2] = [
    "UPDATE hakaru_checkpoint SET position = position WHERE lane = ''",
    "INSERT INTO eventlog (at, name, value) SELECT NULL, '', 0 FROM DUAL WHERE FALSE",
];
