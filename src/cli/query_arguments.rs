//! The flags of the subcommands that ask the database, and the questions they become.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::ConfigError;
use super::values::{duration, optional_count, refused};
use crate::commands::journal::Output;
use crate::commands::query::moment::{ACCEPTED, Moment, TimeSpan};
use crate::commands::reconcile::{Expectation, Reconciliation};
use crate::commands::report::{Format, Report};
use crate::sink::dsn::DataSource;

/// Most names that a report lists, and most of each kind that a comparison lists.
const LISTED_MAX: usize = 100_000;

/// Longest time that the database may be asked to take.
const LIMIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// When rows were received, and how long the database may take.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only events received then or later: 2026-01-31T08:00:00Z, 2026-01-31, "2026-01-31 08:00" (in the
    /// time zone of `at`), or a time ago such as 15min, 1h, 7d
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Only events received before
    #[arg(long, value_name = "TIME")]
    to: Option<String>,

    /// Longest time that the database may take for each question
    #[arg(long, value_name = "DURATION", default_value = "1min")]
    timeout: String,
}

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    #[command(flatten)]
    which: Which,

    /// Only this name, byte for byte; may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,

    /// Only names that fit this pattern: % is any text, _ any character
    #[arg(long, value_name = "PATTERN", conflicts_with = "name")]
    like: Option<String>,

    /// How many names are listed, those with the most events; the rest is summed
    #[arg(long, value_name = "N", default_value = "20")]
    top: String,

    /// One JSON document; sums are decimal texts
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// CSV
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReconcileArguments {
    /// A number of events; or a file of them, NDJSON {"name":…,"value":…,"at":…} or CSV name,value,at, the
    /// time where it is known; - is standard input
    #[arg(
        long,
        value_name = "N|FILE",
        default_value = "",
        hide_default_value = true
    )]
    expected: String,

    #[command(flatten)]
    which: Which,

    /// An event is late if its row was received further than this from its `at`
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    late: String,

    /// Rows of names that are not in the list are unexpected too
    #[arg(long)]
    strict: bool,

    /// Connections of the load generator: with a number, so many rows more than expected agree
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true)]
    connections: String,

    /// How many of each kind are listed
    #[arg(long, value_name = "N", default_value = "10")]
    list: String,

    /// One JSON document
    #[arg(long)]
    json: bool,
}

impl Which {
    fn span(&self) -> Result<TimeSpan, ConfigError> {
        let moment = |setting, text: &Option<String>| -> Result<Option<Moment>, ConfigError> {
            let Some(text) = text else {
                return Ok(None);
            };
            let read = text.parse().ok().map(Some);
            read.ok_or_else(|| refused(setting, text, ACCEPTED))
        };
        Ok(TimeSpan {
            from: moment("--from", &self.from)?,
            to: moment("--to", &self.to)?,
        })
    }

    fn limit(&self) -> Result<Duration, ConfigError> {
        duration(
            "--timeout",
            &self.timeout,
            Duration::from_millis(1)..=LIMIT_MAX,
            "accepted: a duration such as 30s or 5min, 1ms to 24h",
        )
    }
}

impl ReportArguments {
    pub(super) fn read(self, datasource: DataSource) -> Result<Report, ConfigError> {
        Ok(Report {
            datasource,
            span: self.which.span()?,
            limit: self.which.limit()?,
            names: self.name,
            like: self.like,
            top: optional_count("--top", &self.top, LISTED_MAX)?.unwrap_or(LISTED_MAX),
            format: match (self.json, self.csv) {
                (true, _) => Format::Json,
                (false, true) => Format::Csv,
                (false, false) => Format::Text,
            },
        })
    }
}

impl ReconcileArguments {
    pub(super) fn read(
        self,
        datasource: DataSource,
        data_dir: PathBuf,
    ) -> Result<Reconciliation, ConfigError> {
        let is_number = self.expected.bytes().all(|byte| byte.is_ascii_digit());
        let expected = match self.expected.as_str() {
            "" => {
                let accepted =
                    "accepted: a number of events, a file of them, or - for standard input";
                return Err(refused("--expected", "", accepted));
            }
            "-" => Expectation::List(None),
            digits if is_number => Expectation::Count(digits.parse().ok().ok_or_else(|| {
                refused(
                    "--expected",
                    digits,
                    "accepted: a number below 2^64; a file of that name is ./NUMBER",
                )
            })?),
            path => Expectation::List(Some(path.into())),
        };
        let connections = optional_count("--connections", &self.connections, 1_000_000)?;
        Ok(Reconciliation {
            datasource,
            data_dir,
            expected,
            span: self.which.span()?,
            limit: self.which.limit()?,
            late: duration(
                "--late",
                &self.late,
                Duration::ZERO..=Duration::from_secs(365 * 24 * 3600),
                "accepted: a duration such as 1s or 5min, 0 to 8760h",
            )?,
            is_strict: self.strict,
            connections: connections.unwrap_or_default() as u64,
            listed_max: optional_count("--list", &self.list, LISTED_MAX)?.unwrap_or_default(),
            output: if self.json {
                Output::Json
            } else {
                Output::Text
            },
        })
    }
}
