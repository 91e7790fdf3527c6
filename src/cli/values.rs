//! Each setting's own text, read into its value or refused by name.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::arguments::Arguments;
use crate::event::ack::Ack;
use crate::event::batch::BatchEvents;
use crate::os::io_driver::IoChoice;
use crate::os::logging::LogFormat;
use crate::server::config::{AdminListen, DEFAULT_ADMIN_LISTEN};
use crate::units;

/// An empty variable, as deployment files leave them, is as good as none.
pub(super) fn or_default(argument: &'static str, given: &str) -> String {
    if given.is_empty() {
        default_of(argument)
    } else {
        given.to_owned()
    }
}

/// The default in the table of arguments.
pub(super) fn default_of(argument: &str) -> String {
    let command = <Arguments as clap::CommandFactory>::command();
    let found = command
        .get_arguments()
        .find(|known| known.get_id() == argument);
    let value = found.and_then(|argument| argument.get_default_values().first());
    value
        .map(|value| value.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub(super) fn data_dir(given: OsString) -> PathBuf {
    if given.is_empty() {
        default_of("data_dir").into()
    } else {
        given.into()
    }
}

pub(super) fn refused(
    setting: &'static str,
    value: &str,
    accepted: impl Into<String>,
) -> ConfigError {
    // A DSN in the wrong place has a password in it.
    let value = if value.contains('@') { "***" } else { value };
    ConfigError::Value {
        setting,
        value: value.to_owned(),
        accepted: accepted.into(),
    }
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, ConfigError> {
    address("--listen (HAKARU_LISTEN)", text, "0.0.0.0:8081", "")
}

pub(super) fn admin_listen(text: &str) -> Result<AdminListen, ConfigError> {
    const SETTING: &str = "--admin-listen (HAKARU_ADMIN_LISTEN)";
    let read = |text| address(SETTING, text, DEFAULT_ADMIN_LISTEN, ", or off");
    match text {
        "" => read(DEFAULT_ADMIN_LISTEN).map(AdminListen::Default),
        "off" => Ok(AdminListen::Off),
        _ => read(text).map(AdminListen::At),
    }
}

/// Reads `HOST:PORT`. Go programs leave the host out, which stands for that of `usual` then.
fn address(
    setting: &'static str,
    text: &str,
    usual: &str,
    or: &str,
) -> Result<SocketAddr, ConfigError> {
    let whole = if text.starts_with(':') {
        let host = usual.rsplit_once(':').map_or(usual, |(host, _)| host);
        format!("{host}{text}")
    } else {
        text.to_owned()
    };
    match whole
        .to_socket_addrs()
        .map(|mut addresses| addresses.next())
    {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(refused(setting, text, "the name has no address")),
        Err(fault) => {
            let accepted = format!("accepted: ADDRESS:PORT, such as {usual}{or} ({fault})");
            Err(refused(setting, text, accepted))
        }
    }
}

pub(super) fn optional_count(
    setting: &'static str,
    text: &str,
    most: usize,
) -> Result<Option<usize>, ConfigError> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(count) if (1..=most).contains(&count) => Ok(Some(count)),
        _ => Err(refused(
            setting,
            text,
            format!("accepted: a number, 1 to {most}"),
        )),
    }
}

pub(super) fn batch_events(text: &str) -> Result<BatchEvents, ConfigError> {
    text.parse().ok().and_then(BatchEvents::new).ok_or_else(|| {
        let (least, most) = BatchEvents::RANGE.into_inner();
        let accepted = format!("accepted: a number, {least} to {most}");
        refused("--batch-events (HAKARU_BATCH_EVENTS)", text, accepted)
    })
}

pub(super) fn duration(
    setting: &'static str,
    text: &str,
    range: std::ops::RangeInclusive<Duration>,
    accepted: &'static str,
) -> Result<Duration, ConfigError> {
    match units::duration(text) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(refused(setting, text, accepted)),
    }
}

/// Least bytes of a journal: one segment is taken at once.
const JOURNAL_BYTES_MIN: u64 = 1024 * 1024;

pub(super) fn size(setting: &'static str, text: &str) -> Result<u64, ConfigError> {
    match units::size(text) {
        Some(bytes) if bytes >= JOURNAL_BYTES_MIN => Ok(bytes),
        _ => Err(refused(
            setting,
            text,
            "accepted: a size such as 64MiB or 4GiB, at least 1MiB",
        )),
    }
}

pub(super) fn ack(text: &str) -> Result<Ack, ConfigError> {
    match text {
        "received" => Ok(Ack::Received),
        "journaled" => Ok(Ack::Journaled),
        "stored" => Ok(Ack::Stored),
        _ => Err(refused(
            "--ack (HAKARU_ACK)",
            text,
            "accepted: received, journaled, stored",
        )),
    }
}

pub(super) fn log_format(text: &str) -> Result<Option<LogFormat>, ConfigError> {
    match text {
        "" => Ok(None),
        "text" => Ok(Some(LogFormat::Text)),
        "json" => Ok(Some(LogFormat::Json)),
        _ => Err(refused(
            "--log-format (HAKARU_LOG_FORMAT)",
            text,
            "accepted: text, json",
        )),
    }
}

pub(super) fn io(text: &str) -> Result<IoChoice, ConfigError> {
    match text {
        "auto" => Ok(IoChoice::Auto),
        "io_uring" => Ok(IoChoice::IoUring),
        "epoll" => Ok(IoChoice::Epoll),
        _ => Err(refused(
            "--io (HAKARU_IO)",
            text,
            "accepted: auto, io_uring, epoll",
        )),
    }
}
