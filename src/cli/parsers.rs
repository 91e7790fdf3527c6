//! Parses the text of a setting into a value. An error is one line that names the setting, the text and what is
//! accepted. The names and the default of a setting are those of its clap argument.

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, Command};
use jiff::SignedDuration;

use crate::commands::query::moment::{Moment, NotAMoment};
use crate::event::batch::BatchEvents;
use crate::http::paths::{EventPath, NotAnEventPath};
use crate::http::{BODY_LIMIT_MAX, BODY_LIMIT_MIN};
use crate::server::config::AdminListen;
use crate::sink::dsn::files::FilesError;
use crate::sink::dsn::{DataSource, DsnError};
use crate::units;

/// The shortest duration of a setting that cannot be zero.
pub(super) const DURATION_MIN: Duration = Duration::from_millis(1);

/// The longest duration of settings that something waits for.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// The longest duration of settings for how long something is kept.
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A text that a setting does not accept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The text is not a value of the setting.
    #[error("{setting}: {text:?} is not accepted; {accepted}")]
    Value {
        /// Flag and variable.
        setting: String,
        /// As written, or `***` if it could hold a password.
        text: String,
        /// The values that the setting accepts.
        accepted: String,
    },
    /// The setting has no default, and is not given.
    #[error("{setting}: missing; {accepted}")]
    Missing {
        /// Flag and variable.
        setting: String,
        /// The values that the setting accepts.
        accepted: String,
    },
    /// The datasource is wrong. It is not quoted, because it may hold a password.
    #[error("{setting}: {fault}")]
    DataSource {
        /// Flag and variable.
        setting: String,
        /// What is wrong with it.
        fault: DsnError,
    },
    /// Files of the connections to the database do not fit the datasource.
    #[error(transparent)]
    Files(FilesError),
    /// All letters would be dropped, and nobody asked for that.
    #[error(
        "dead-letters drop: it removes letters for good, so it must be told which; --from, --to, --name or --code \
         choose some, --all is all of them"
    )]
    UnfilteredDrop,
    /// All letters would be dropped, or some of them.
    #[error(
        "dead-letters drop: --all is all letters, and --from, --to, --name or --code choose some; both are not \
         accepted together"
    )]
    FilteredDropOfAll,
}

/// The result of parsing a setting. It is kept until the setting is used, so that a command does not fail because of
/// settings that it does not use.
pub(super) type Parsed<T> = Result<T, Refusal>;

/// The text that a [`Setting`] is parsed from.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    /// As written, or the default if that is empty.
    pub(super) given: &'a str,
    default: &'a str,
    is_default: bool,
}

/// Parses the text of a setting with a function whose error is the text of what is accepted.
#[derive(Clone)]
pub(super) struct Setting<F>(F);

pub(super) fn setting<T, F>(parse: F) -> Setting<F>
where
    F: Fn(Text<'_>) -> Result<T, String>,
{
    Setting(parse)
}

impl<T, F> TypedValueParser for Setting<F>
where
    T: Clone + Send + Sync + 'static,
    F: Fn(Text<'_>) -> Result<T, String> + Clone + Send + Sync + 'static,
{
    type Value = Parsed<T>;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        self.parse_ref_(command, argument, value, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        _: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<Self::Value, clap::Error> {
        let is_default = value.is_empty() || source == ValueSource::DefaultValue;
        let value = or_default(argument, value);
        let parsed = match value.to_str() {
            Some(given) => (self.0)(Text {
                given,
                default: default_of(argument).to_str().unwrap_or_default(),
                is_default,
            }),
            None => Err("accepted: UTF-8".to_owned()),
        };
        Ok(parsed.map_err(|accepted| {
            let setting = name_of(argument);
            if value.is_empty() && source == ValueSource::DefaultValue {
                return Refusal::Missing { setting, accepted };
            }
            let text = value.to_string_lossy().into_owned();
            Refusal::Value {
                setting,
                // It could be a datasource with a password, given for the wrong setting.
                text: if text.contains('@') {
                    "***".to_owned()
                } else {
                    text
                },
                accepted,
            }
        }))
    }
}

/// Flag and variable, as shown in messages.
pub(super) fn name_of(argument: Option<&Arg>) -> String {
    let flag = argument.and_then(Arg::get_long);
    let variable = argument.and_then(Arg::get_env).map(OsStr::to_string_lossy);
    match (flag, variable) {
        (Some(flag), Some(variable)) => format!("--{flag} ({variable})"),
        (Some(flag), None) => format!("--{flag}"),
        (None, variable) => variable.unwrap_or_default().into_owned(),
    }
}

/// The default of a setting; empty if it has none.
fn default_of(argument: Option<&Arg>) -> &OsStr {
    let default = argument.and_then(|argument| argument.get_default_values().first());
    default.map_or(OsStr::new(""), |default| default.as_os_str())
}

/// An empty value counts as unset, because deployment files leave variables empty.
fn or_default<'a>(argument: Option<&'a Arg>, value: &'a OsStr) -> &'a OsStr {
    if value.is_empty() {
        default_of(argument)
    } else {
        value
    }
}

/// Parses a setting that may be unset. An empty text, which must be its default, is `None`.
#[derive(Clone)]
pub(super) struct Optional<P>(pub(super) P);

impl<T, P> TypedValueParser for Optional<P>
where
    T: Clone + Send + Sync + 'static,
    P: TypedValueParser<Value = Parsed<T>>,
{
    type Value = Parsed<Option<T>>;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        if value.is_empty() {
            return Ok(Ok(None));
        }
        Ok(self.0.parse_ref(command, argument, value)?.map(Some))
    }
}

/// Parses the datasource. An empty one is refused: if a secret was not set, rows must not go to a local file.
#[derive(Clone)]
pub(super) struct DataSourceSetting;

impl TypedValueParser for DataSourceSetting {
    type Value = Parsed<DataSource>;

    fn parse_ref(
        &self,
        _: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let text = value.to_str().ok_or(DsnError::Form("not UTF-8"));
        Ok(text
            .and_then(str::parse)
            .map_err(|fault| Refusal::DataSource {
                setting: name_of(argument),
                fault,
            }))
    }
}

/// Accepts any path.
#[derive(Clone)]
pub(super) struct Directory;

impl TypedValueParser for Directory {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        _: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<PathBuf, clap::Error> {
        Ok(or_default(argument, value).into())
    }
}

/// Accepts any path.
pub(super) fn file() -> impl TypedValueParser<Value = Parsed<PathBuf>> {
    PathBufValueParser::new().map(Ok)
}

pub(super) fn listen() -> impl TypedValueParser<Value = Parsed<SocketAddr>> {
    setting(|text| address(text, ""))
}

pub(super) fn admin_listen() -> impl TypedValueParser<Value = Parsed<AdminListen>> {
    setting(|text| match text.given {
        "off" => Ok(AdminListen::Off),
        _ if text.is_default => address(text, "").map(AdminListen::Default),
        _ => address(text, ", or off").map(AdminListen::At),
    })
}

/// Parses `HOST:PORT`. As in Go programs, the host may be left out; then it is the host of the default.
fn address(text: Text<'_>, or: &str) -> Result<SocketAddr, String> {
    let host = match text.default.rsplit_once(':') {
        Some((host, _)) if text.given.starts_with(':') => host,
        _ => "",
    };
    let mut addresses = format!("{host}{}", text.given)
        .to_socket_addrs()
        .map_err(|fault| {
            format!(
                "accepted: ADDRESS:PORT, such as {}{or} ({fault})",
                text.default
            )
        })?;
    addresses
        .next()
        .ok_or_else(|| "the name has no address".to_owned())
}

pub(super) fn count(most: usize) -> impl TypedValueParser<Value = Parsed<usize>> {
    setting(move |text| match text.given.parse() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(format!("accepted: a number, 1 to {most}")),
    })
}

pub(super) fn batch_events() -> impl TypedValueParser<Value = Parsed<BatchEvents>> {
    setting(|text| {
        let events = text.given.parse().ok().and_then(BatchEvents::new);
        let (least, most) = BatchEvents::RANGE.into_inner();
        events.ok_or_else(|| format!("accepted: a number, {least} to {most}"))
    })
}

pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl TypedValueParser<Value = Parsed<Duration>> {
    setting(move |text| match units::duration(text.given) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => {
            let as_written = |bound| SignedDuration::try_from(bound).unwrap_or_default();
            let (least, most) = (as_written(*range.start()), as_written(*range.end()));
            Err(format!(
                "accepted: a duration such as 500ms, 30s or 10min, {least:#} to {most:#}"
            ))
        }
    })
}

pub(super) fn event_path() -> impl TypedValueParser<Value = Parsed<EventPath>> {
    setting(|text| {
        let path = text.given.parse();
        path.map_err(|fault: NotAnEventPath| fault.to_string())
    })
}

pub(super) fn body_limit() -> impl TypedValueParser<Value = Parsed<usize>> {
    setting(|text| {
        let bytes = units::size(text.given).and_then(|bytes| usize::try_from(bytes).ok());
        match bytes {
            Some(bytes) if (BODY_LIMIT_MIN..=BODY_LIMIT_MAX).contains(&bytes) => Ok(bytes),
            _ => Err("accepted: a size such as 64KiB or 1MiB, 1KiB to 2MiB".to_owned()),
        }
    })
}

/// The smallest limit of the journal and of the dead letters, in bytes.
const DISK_BYTES_MIN: u64 = 1024 * 1024;

pub(super) fn disk_limit() -> impl TypedValueParser<Value = Parsed<u64>> {
    setting(|text| match units::size(text.given) {
        Some(bytes) if bytes >= DISK_BYTES_MIN => Ok(bytes),
        _ => Err("accepted: a size such as 64MiB or 4GiB, at least 1MiB".to_owned()),
    })
}

/// Parses one of the words as which `all` are displayed.
pub(super) fn one_of<T>(all: &'static [T]) -> impl TypedValueParser<Value = Parsed<T>>
where
    T: Copy + Display + Send + Sync,
{
    setting(|text| {
        let words: Vec<_> = all.iter().map(T::to_string).collect();
        match words.iter().position(|word| word == text.given) {
            Some(index) => Ok(all[index]),
            None => Err(format!("accepted: {}", words.join(", "))),
        }
    })
}

pub(super) fn moment() -> impl TypedValueParser<Value = Parsed<Moment>> {
    setting(|text| {
        text.given
            .parse()
            .map_err(|fault: NotAMoment| fault.to_string())
    })
}

pub(super) fn log_filter() -> impl TypedValueParser<Value = Parsed<String>> {
    setting(|text| {
        // The error is not shown, because it quotes a part of the text.
        match env_filter::Builder::new().try_parse(text.given) {
            Ok(_) => Ok(text.given.to_owned()),
            Err(_) => Err("accepted: a level or target=level, as env_logger reads it".to_owned()),
        }
    })
}
