//! The flags of the subcommands that query the database.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::TypedValueParser;

use super::parsers::{
    DURATION_MIN, Optional, Parsed, Refusal, YEAR, count, duration, moment, setting,
};
use crate::commands::journal::Output;
use crate::commands::query::moment::{Moment, TimeSpan};
use crate::commands::reconcile::{Expectation, Reconciliation};
use crate::commands::report::{Format, Report};
use crate::sink::dsn::DataSource;

/// Most names that a report may list, and most events of each kind that a comparison may list.
const LISTED_MAX: usize = 100_000;

/// Longest `--timeout`.
const LIMIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// When rows were received, and how long a query may take.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Only events received then or later: 2026-01-31T08:00:00Z, 2026-01-31, "2026-01-31 08:00" (in the
    /// time zone of `at`), or a time ago such as 15min, 1h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment())]
    from: Option<Parsed<Moment>>,

    /// Only events received before this time, in the same forms as `--from`
    #[arg(long, value_name = "TIME", value_parser = moment())]
    to: Option<Parsed<Moment>>,

    /// Longest time that the database may take for each query
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1min",
        value_parser = duration(DURATION_MIN..=LIMIT_MAX)
    )]
    timeout: Parsed<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    #[command(flatten)]
    selection: Selection,

    /// Only this name, byte for byte; may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,

    /// Only names that match this pattern: % is any text, _ any character
    #[arg(long, value_name = "PATTERN", conflicts_with = "name")]
    like: Option<String>,

    /// Number of names to list, those with the most events; the others are summed
    #[arg(long, value_name = "N", default_value = "20", value_parser = count(LISTED_MAX))]
    top: Parsed<usize>,

    /// One JSON document as output; sums are strings of decimal digits
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// CSV as output
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReconcileArguments {
    /// The expected events: a number; or a file, NDJSON {"name":…,"value":…,"at":…,"id":…} or CSV name,value,at,
    /// or with a first line that names the columns, of name, value, at and id. The time `at` and the `id` may be
    /// missing; events with the same id are one. - is standard input
    #[arg(
        long,
        value_name = "N|FILE",
        default_value = "",
        hide_default_value = true,
        value_parser = expectation()
    )]
    expected: Parsed<Expectation>,

    #[command(flatten)]
    selection: Selection,

    /// An event is late if its row was received more than this before or after its `at`
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1s",
        value_parser = duration(Duration::ZERO..=YEAR)
    )]
    late: Parsed<Duration>,

    /// Count rows with names that are not in the list as unexpected too
    #[arg(long)]
    strict: bool,

    /// Connections of the load generator: with a number of events, up to this many additional rows agree
    #[arg(
        long,
        value_name = "N",
        default_value = "",
        hide_default_value = true,
        value_parser = Optional(count(1_000_000))
    )]
    connections: Parsed<Option<usize>>,

    /// Number of events of each kind to list
    #[arg(long, value_name = "N", default_value = "10", value_parser = count(LISTED_MAX))]
    list: Parsed<usize>,

    /// One JSON document as output
    #[arg(long)]
    json: bool,
}

impl Selection {
    fn span_and_limit(self) -> Result<(TimeSpan, Duration), Refusal> {
        let span = TimeSpan {
            from: self.from.transpose()?,
            to: self.to.transpose()?,
        };
        Ok((span, self.timeout?))
    }
}

impl ReportArguments {
    pub(super) fn report(self, datasource: DataSource) -> Result<Report, Refusal> {
        let (span, limit) = self.selection.span_and_limit()?;
        Ok(Report {
            datasource,
            span,
            limit,
            names: self.name,
            like: self.like,
            top: self.top?,
            format: match (self.json, self.csv) {
                (true, _) => Format::Json,
                (false, true) => Format::Csv,
                (false, false) => Format::Text,
            },
        })
    }
}

impl ReconcileArguments {
    pub(super) fn reconciliation(
        self,
        datasource: DataSource,
        data_dir: PathBuf,
    ) -> Result<Reconciliation, Refusal> {
        let (span, limit) = self.selection.span_and_limit()?;
        Ok(Reconciliation {
            datasource,
            data_dir,
            expected: self.expected?,
            span,
            limit,
            late: self.late?,
            is_strict: self.strict,
            connections: self.connections?.unwrap_or_default() as u64,
            listed_max: self.list?,
            output: if self.json {
                Output::Json
            } else {
                Output::Text
            },
        })
    }
}

fn expectation() -> impl TypedValueParser<Value = Parsed<Expectation>> {
    setting(|text| match text.given {
        "" => Err(
            "accepted: a number of events, a file of events, or - for standard input".to_owned(),
        ),
        "-" => Ok(Expectation::List(None)),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(count) => Ok(Expectation::Count(count)),
            Err(_) => {
                Err("accepted: a number below 2^64; a file of that name is ./NUMBER".to_owned())
            }
        },
        path => Ok(Expectation::List(Some(path.into()))),
    })
}
