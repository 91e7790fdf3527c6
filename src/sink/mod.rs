//! Where batches end: one small trait, and what can go wrong, by what the writer does next.

pub mod dead_letters;
pub mod dsn;
pub mod mysql;
pub mod sqlite;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::NameRule;
use crate::event::batch::Batch;
use crate::event::position::{LaneId, Position};

/// A destination of batches. One writer thread owns each; every call may block.
///
/// A batch is one transaction: `insert` opens it and leaves it open, `commit` ends it. After an error
/// of either, `abandon` ends it without a trace, and the batch may be tried again.
pub trait Sink: Send {
    /// Makes sure there is a connection and a table; cheap while both are there.
    fn open(&mut self) -> Result<NameRule, SinkError>;

    /// Makes the process the owner of a lane: its epoch goes up by one, which fences every earlier owner.
    /// A lane that the database does not know begins at position 0.
    fn adopt(&mut self, lane: LaneId) -> Result<Checkpoint, SinkError>;

    /// Moves the lane's checkpoint as `step` says, first of all; then inserts every event of `batch`
    /// from the index `from` on that is not in `refused`. Events that the database refuses are found,
    /// left out, and added to `refused`, where they stay even if the insert then fails.
    fn insert(
        &mut self,
        batch: &Batch,
        from: usize,
        step: Step,
        refused: &mut Refused,
    ) -> Result<Inserted, SinkError>;

    /// Makes what was inserted durable and visible.
    fn commit(&mut self) -> Result<(), SinkError>;

    /// Proves that checkpoints and rows can be written, by writes that change nothing. It also keeps
    /// the connection from being taken for orphaned.
    fn prove(&mut self) -> Result<(), SinkError>;

    /// Undoes what was inserted and not committed; gives a connection up that cannot be trusted.
    fn abandon(&mut self, fault: &SinkError);
}

/// Without work it is tried this often whether the database takes writes.
pub const PROVE_EVERY: Duration = Duration::from_secs(15);

/// Counts the owners of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// How far a lane is stored, and which of its owners may store on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The owner.
    pub epoch: Epoch,
    /// The stored prefix.
    pub position: Position,
}

/// A compare-and-set of a checkpoint: what makes a batch stored once, whatever fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The lane.
    pub lane: LaneId,
    /// Its owner.
    pub epoch: Epoch,
    /// Where the checkpoint must be …
    pub old: Position,
    /// … to be moved here.
    pub new: Position,
}

/// What became of an insert.
#[derive(Debug, Clone, Copy)]
pub enum Inserted {
    /// The transaction is open, the rows are in it.
    Open(InsertTimes),
    /// The checkpoint was not where the step begins, and nothing was done. What there is; `None`: the
    /// database does not know the lane.
    Elsewhere(Option<Checkpoint>),
}

/// The statement that makes the table of checkpoints, for whoever may.
pub const CREATE_CHECKPOINTS: &str = "CREATE TABLE IF NOT EXISTS hakaru_checkpoint (\
    lane char(32) CHARACTER SET ascii NOT NULL PRIMARY KEY, epoch bigint unsigned NOT NULL, \
    position bigint unsigned NOT NULL) ENGINE=InnoDB";

/// Where the time of an insert went.
#[derive(Debug, Clone, Copy, Default)]
pub struct InsertTimes {
    /// Preparing statements.
    pub prepare: Duration,
    /// Sending rows and waiting for the answers.
    pub execute: Duration,
}

/// Events of one batch that the database refuses, by their index, with its words.
pub type Refused = BTreeMap<usize, Fault>;

/// What a database said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its error number, where it gave one.
    pub code: Option<i32>,
    /// What the sink knows of it beyond the number.
    pub kind: FaultKind,
    /// Its words, for people. Nothing is decided by them: they differ by version and by language.
    pub text: String,
}

/// The kinds of faults that need a reaction of their own and that no error number of the database identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Any other: what is known of it is its number.
    Other,
    /// The server did not answer in time.
    NoAnswer,
    /// No encrypted connection: the server offers none, or its certificate is refused.
    Tls,
    /// The table of checkpoints is missing and cannot be made.
    NoCheckpoints,
    /// A table has no transactions.
    NoTransactions,
}

impl Fault {
    /// Without a number.
    pub fn new(text: impl Into<String>) -> Self {
        Self::of(FaultKind::Other, text)
    }

    /// Of a certain kind, without a number.
    pub fn of(kind: FaultKind, text: impl Into<String>) -> Self {
        Self {
            code: None,
            kind,
            text: text.into(),
        }
    }

    /// With the database's number.
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

/// Why a batch is not stored, by what is done next. Each is tried again; none loses the batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The transaction lost against another: again, on the same connection.
    #[error("{0}")]
    Retry(Fault),
    /// The connection is of no use: again, on a new one.
    #[error("{0}")]
    Reconnect(Fault),
    /// The connection was lost during COMMIT, which may or may not have happened: again, on a new one,
    /// where the step says what is so.
    #[error("{0}")]
    OutcomeUnknown(Fault),
    /// Somebody must act: again, but slowly, and it is said.
    #[error("{0}")]
    Stop(Fault),
}

impl SinkError {
    /// What the database said.
    pub fn fault(&self) -> &Fault {
        match self {
            Self::Retry(fault)
            | Self::Reconnect(fault)
            | Self::OutcomeUnknown(fault)
            | Self::Stop(fault) => fault,
        }
    }
}
