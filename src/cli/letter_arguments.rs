//! The flags of `hakaru dead-letters`, and the request they become.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::parsers::{Parsed, Refusal, moment};
use crate::commands::dead_letters::{LetterAction, LetterRequest};
use crate::commands::journal::Output;
use crate::commands::query::moment::{Moment, TimeSpan};
use crate::sink::dead_letters::replay::WithoutDatabase;

#[derive(Debug, Args)]
pub(super) struct DeadLettersArguments {
    #[command(subcommand)]
    action: Action,

    /// Only events received then or later: 2026-01-31T08:00:00Z, 2026-01-31, "2026-01-31 08:00" (UTC), or a
    /// time ago such as 15min, 1h, 7d
    #[arg(long, global = true, value_name = "TIME", value_parser = moment())]
    from: Option<Parsed<Moment>>,

    /// Only events received before
    #[arg(long, global = true, value_name = "TIME", value_parser = moment())]
    to: Option<Parsed<Moment>>,

    /// Only this name, byte for byte; may be repeated
    #[arg(long, global = true, value_name = "NAME")]
    name: Vec<String>,

    /// Only events refused with this error number of the database; may be repeated
    #[arg(long, global = true, value_name = "N")]
    code: Vec<i32>,

    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

/// What to do with the letters.
#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Shows the letters, each once
    List,
    /// Has the letters stored again, through the journal, each once, in the database that refused it; what is
    /// refused again is a letter again
    Replay {
        /// Also letters that name no database, as earlier versions wrote them: they go into the database that is
        /// served next
        #[arg(long)]
        any_database: bool,
    },
    /// Removes the letters: they are never stored. It needs --from, --to, --name or --code, or --all
    Drop {
        /// All letters. Not together with --from, --to, --name or --code
        #[arg(long)]
        all: bool,
    },
}

impl DeadLettersArguments {
    pub(super) fn request(self, data_dir: PathBuf) -> Result<LetterRequest, Refusal> {
        let is_filtered = self.from.is_some()
            || self.to.is_some()
            || !self.name.is_empty()
            || !self.code.is_empty();
        match self.action {
            Action::Drop { all: false } if !is_filtered => return Err(Refusal::UnfilteredDrop),
            Action::Drop { all: true } if is_filtered => return Err(Refusal::FilteredDropOfAll),
            _ => {}
        }
        Ok(LetterRequest {
            data_dir,
            action: match self.action {
                Action::List => LetterAction::List,
                Action::Replay { any_database: true } => {
                    LetterAction::Replay(WithoutDatabase::Replay)
                }
                Action::Replay {
                    any_database: false,
                } => LetterAction::Replay(WithoutDatabase::Leave),
                Action::Drop { .. } => LetterAction::Drop,
            },
            span: TimeSpan {
                from: self.from.transpose()?,
                to: self.to.transpose()?,
            },
            names: self.name,
            codes: self.code,
            output: if self.json {
                Output::Json
            } else {
                Output::Text
            },
        })
    }
}
