//! What is decided about the checkpoint of a lane that is taken over.

use crate::event::position::Position;
use crate::journal::held_lane::Hold;

/// What the position of a checkpoint says.
pub(super) enum Verdict {
    /// The events before it are stored.
    Ours,
    /// It is ahead. The events before `from` are stored, those from `to` on are not, and rows decide about the others.
    Ahead {
        from: Position,
        to: Position,
        /// Where the lane ends at present.
        end: Position,
    },
    /// It is of another lane. The events before `from` are stored, and none after it.
    Forked {
        from: Position,
        /// Where the lane ends at present, if that is known.
        end: Option<Position>,
    },
    /// It is behind, since the database was restored.
    Behind {
        /// Whether the rows are known to be gone.
        is_checked: bool,
    },
    /// It is behind, and the events before `to` are stored.
    Stored { to: Position },
    /// Nobody can tell which events are stored.
    Doubtful(Hold),
}

impl Verdict {
    /// What it is counted as.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ours => "verdict: ours",
            Self::Ahead { .. } => "verdict: ahead",
            Self::Forked { .. } => "verdict: forked",
            Self::Behind { is_checked: true } => "verdict: behind, checked",
            Self::Behind { is_checked: false } => "verdict: behind, unchecked",
            Self::Stored { .. } => "verdict: stored",
            Self::Doubtful(_) => "verdict: doubtful",
        }
    }
}
