//! The destination of batches: the trait [`Sink`], and its errors by what the writer does next.

pub mod dead_letters;
pub mod dsn;
pub mod mysql;
pub mod sealed_copy;
pub mod sqlite;
pub(crate) mod trial;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Event;
use crate::event::batch::Batch;
use crate::event::database_id::DatabaseId;
use crate::event::fingerprint::Fingerprint;
use crate::event::position::{LaneId, Position};
use crate::event::rule::EventRule;
use crate::sink::sealed_copy::FoundCheckpoint;

/// A destination of batches. One writer thread owns each; every call may block.
///
/// A batch is one transaction: `insert` begins it and leaves it open, `commit` ends it. After an error of
/// either, `abandon` must be called, and the batch may be tried again.
pub trait Sink: Send {
    /// Connects and creates missing tables, unless there is a connection. Returns what the columns take, as they
    /// were read less than [`PROBE_EVERY`] ago.
    fn open(&mut self) -> Result<EventRule, SinkError>;

    /// The id of the database that the present connection is to; `None` where it has none. Cheap once it
    /// was found.
    fn database(&mut self) -> Result<Option<DatabaseId>, SinkError>;

    /// Gives the database an id, unless it has one; the id that it has then.
    fn name_database(&mut self, id: DatabaseId) -> Result<DatabaseId, SinkError>;

    /// Gives the database the id that it had, where its row was removed or altered.
    fn restore_database_id(&mut self, id: DatabaseId) -> Result<(), SinkError>;

    /// The id of the database, read anew.
    fn reread_database(&mut self) -> Result<Option<DatabaseId>, SinkError>;

    /// The checkpoint of a lane; `None` where the database has none. Another process may still move it.
    fn checkpoint(&mut self, lane: LaneId) -> Result<Option<Checkpoint>, SinkError>;

    /// What [`Self::adopt`] would find. Nothing is changed: who owns the lane may still store more of it.
    fn look(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError>;

    /// Makes this process the owner of a lane: increments its epoch, so that no earlier owner can store any more.
    /// A lane without a checkpoint gets that of `begin`. The copy of the checkpoint follows if it belongs to it.
    fn adopt(&mut self, lane: LaneId, begin: Begin) -> Result<FoundCheckpoint, SinkError>;

    /// Begins a transaction, moves the lane's checkpoint and its copy by `step`, and inserts the events of `batch` from the
    /// index `from` on, without those in `refused`. An event that the database refuses is left out and added to
    /// `refused`, where it stays even if the insert fails later. But only once the database has taken another row
    /// at the same second: if it takes none, that is [`SinkError::Stop`].
    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError>;

    /// Commits the transaction.
    fn commit(&mut self) -> Result<(), SinkError>;

    /// A row of the last [`Self::insert`]: the index of its event in the batch, and its `id`. `None` where the table
    /// gives rows no `id`, or where none of them is known to be new.
    fn inserted_row(&self) -> Option<(usize, u64)>;

    /// Whether the row with this `id` is that of `event`. It may lack the id that the sender has given the event.
    fn is_row_of(&mut self, id: u64, event: Event<'_>) -> Result<bool, SinkError>;

    /// Whether a row of `event` has a greater `id` than `after`.
    fn has_row_after(&mut self, after: u64, event: Event<'_>) -> Result<FoundRow, SinkError>;

    /// Checks that checkpoints and rows can be written, by writes that change nothing. Also keeps the server from
    /// closing an idle connection.
    fn probe(&mut self) -> Result<(), SinkError>;

    /// Rolls back the open transaction. Closes the connection unless `fault` is [`SinkError::Retry`].
    fn abandon(&mut self, fault: &SinkError);
}

/// Time between two probes of the database while there is no work.
pub const PROBE_EVERY: Duration = Duration::from_secs(15);

/// Most ids that are searched for a row of an event.
const SEARCHED_ROWS_MAX: u64 = 1_000_000;

/// What a search for a row of an event finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundRow {
    /// There is one.
    There,
    /// There is none.
    Missing,
    /// A row has the id that its sender has given the event. Which lane has stored it is not known: the sender may
    /// have repeated the event elsewhere. To store it again adds no row.
    Repeatable,
    /// There are too many rows to be searched.
    Unsearched,
}

impl FoundRow {
    /// What the search by content has found. `None`: there are too many rows.
    pub(crate) fn by_content(is_there: Option<bool>) -> Self {
        match is_there {
            Some(true) => Self::There,
            Some(false) => Self::Missing,
            None => Self::Unsearched,
        }
    }
}

/// The number of a lane's owner. Each new owner increments it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// That of the first owner.
    pub const FIRST: Self = Self(1);
}

/// How far a lane is stored, and which owner may store more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The owner.
    pub epoch: Epoch,
    /// The events before it are stored.
    pub position: Position,
}

/// Where the checkpoint of a lane begins that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The events before it are stored under another key, or the lane never had them.
    pub position: Position,
    /// The last events before it, if they are known.
    pub last: Option<Fingerprint>,
}

impl From<Position> for Begin {
    fn from(position: Position) -> Self {
        Self {
            position,
            last: None,
        }
    }
}

/// A compare-and-set of a checkpoint. It is in the transaction of the rows, so that each event is stored once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The lane.
    pub lane: LaneId,
    /// Its owner.
    pub epoch: Epoch,
    /// The position that the checkpoint must have.
    pub old: Position,
    /// The position to which it is moved.
    pub new: Position,
    /// The last events before the new position, if they are known.
    pub last: Option<Fingerprint>,
}

impl Step {
    /// The checkpoint after the step.
    pub fn checkpoint(self) -> Checkpoint {
        Checkpoint {
            epoch: self.epoch,
            position: self.new,
        }
    }

    /// The copy of the checkpoint after the step, as it is written.
    pub(crate) fn copy(self) -> Checkpoint {
        sealed_copy::seal(self.lane, self.checkpoint(), self.last)
    }
}

/// The result of an insert without an error.
#[derive(Debug, Clone, Copy)]
pub enum Inserted {
    /// The rows are inserted; the transaction is open.
    Open(InsertedRows),
    /// The checkpoint was not the one that the step expects, and nothing was changed. Holds the checkpoint that
    /// was found; `None`: the lane has none.
    CheckpointMismatch(Option<Checkpoint>),
}

/// What was inserted.
#[derive(Debug, Clone, Copy, Default)]
pub struct InsertedRows {
    /// The time that it took.
    pub times: InsertTimes,
    /// Events that made no row, since the table has their ids.
    pub duplicates: u64,
}

/// The row of the table of checkpoints that holds the id of the database, in place of a lane's name.
pub(crate) const DATABASE_ROW: &str = "database";

fn id_not_kept() -> SinkError {
    let text = "the id of the database is not in hakaru_checkpoint right after it was written";
    SinkError::Stop(Fault::new(text))
}

/// Creates the table of checkpoints. Also shown to operators, for a user with the right to run it.
pub const CREATE_CHECKPOINTS: &str = "CREATE TABLE IF NOT EXISTS hakaru_checkpoint (\
    lane char(32) CHARACTER SET ascii NOT NULL PRIMARY KEY, epoch bigint unsigned NOT NULL, \
    position bigint unsigned NOT NULL) ENGINE=InnoDB";

/// The time that an insert took.
#[derive(Debug, Clone, Copy, Default)]
pub struct InsertTimes {
    /// Preparing statements.
    pub prepare: Duration,
    /// Sending rows and waiting for the answers.
    pub execute: Duration,
}

/// Events of a batch that the database refuses: the error by the event's index.
pub type Refused = BTreeMap<usize, Fault>;

/// An error of the database, of its driver or of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The error number, if there is one.
    pub code: Option<i32>,
    /// The kind of fault.
    pub kind: FaultKind,
    /// The text, for people. No decision depends on it: it differs by version and by language.
    pub text: String,
}

/// The kinds of faults that need a reaction of their own and that no error number of the database identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Any other fault.
    Other,
    /// The server did not answer in time.
    NoAnswer,
    /// No encrypted connection: the server offers none, or its certificate is refused.
    Tls,
    /// The account has an authentication plugin that the driver does not support.
    Login,
    /// A file with a password or a certificate cannot be used.
    File,
    /// The driver panicked.
    Driver,
    /// The table of checkpoints is missing and cannot be created.
    NoCheckpoints,
    /// A table has no transactions.
    NoTransactions,
}

impl Fault {
    /// A fault without a number.
    pub fn new(text: impl Into<String>) -> Self {
        Self::of(FaultKind::Other, text)
    }

    /// A fault of a kind, without a number.
    pub fn of(kind: FaultKind, text: impl Into<String>) -> Self {
        Self {
            code: None,
            kind,
            text: text.into(),
        }
    }

    /// A fault with the database's number.
    pub fn numbered(code: impl Into<i32>, text: impl Into<String>) -> Self {
        Self {
            code: Some(code.into()),
            ..Self::new(text)
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(out, "error {code}: {}", self.text),
            None => out.write_str(&self.text),
        }
    }
}

/// Why a batch is not stored, by what the writer does next. It tries again after each: none loses the batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The transaction failed because of another one, such as in a deadlock. It is tried again on the same
    /// connection.
    #[error("{0}")]
    Retry(Fault),
    /// The connection cannot be used any more. The batch is tried again on a new one.
    #[error("{0}")]
    Reconnect(Fault),
    /// The connection was lost during COMMIT, which may have taken effect or not. The batch is tried again on a
    /// new one, where the checkpoint shows whether it is stored.
    #[error("{0}")]
    OutcomeUnknown(Fault),
    /// An operator must act, such as for a missing right or a full disk. The batch is tried again slowly.
    #[error("{0}")]
    Stop(Fault),
}

impl SinkError {
    /// The error itself.
    pub fn fault(&self) -> &Fault {
        match self {
            Self::Retry(fault)
            | Self::Reconnect(fault)
            | Self::OutcomeUnknown(fault)
            | Self::Stop(fault) => fault,
        }
    }
}
