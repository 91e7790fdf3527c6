//! The commands on a journal, and the questions they become.

use crate::commands::journal::JournalQuestion;
use crate::journal::held_lane::Decision;

/// The commands on a journal.
#[derive(Debug, clap::Subcommand)]
pub(super) enum JournalQuestions {
    /// Lists the lanes: whether a process owns them, and how much they hold
    List,
    /// Writes every event of a lane to standard output
    Dump {
        /// The lane, as `list` shows it
        lane: String,
    },
    /// Reads all lanes and reports what is damaged (exit code 1 if anything is)
    Verify,
    /// Decides about a lane of which nobody can tell what is stored (`lane_held`)
    Settle {
        /// The lane, as `list` shows it
        lane: String,
        /// Its events in question are rows already
        #[arg(long, conflicts_with = "refill", required_unless_present = "refill")]
        stored: bool,
        /// Its events in question are no rows, and are to be stored
        #[arg(long)]
        refill: bool,
    },
    /// Allows a lane that was written for another database to be stored in the one that is served
    Adopt {
        /// The lane, as `list` shows it
        lane: String,
    },
}

impl From<JournalQuestions> for JournalQuestion {
    fn from(asked: JournalQuestions) -> Self {
        match asked {
            JournalQuestions::List => Self::List,
            JournalQuestions::Dump { lane } => Self::Dump { lane },
            JournalQuestions::Verify => Self::Verify,
            JournalQuestions::Settle { lane, stored, .. } => Self::Settle {
                lane,
                decision: if stored {
                    Decision::Stored
                } else {
                    Decision::Refill
                },
            },
            JournalQuestions::Adopt { lane } => Self::Adopt { lane },
        }
    }
}
