//! Classifies the errors of the server and the driver.

mod codes;

use std::io;

use mysql_common::proto::codec::error::PacketCodecError;

pub(super) use self::codes::is_about_a_row;
use self::codes::{
    PREPARED_STATEMENTS_USED_UP, is_of_the_table, is_reconnect, is_retry, refuses_row,
    repeats_primary_key,
};
use super::statement_size::STATEMENTS_MAX;
use crate::sink::{Fault, FaultKind, SinkError};

/// Advice for an account whose authentication plugin is not supported.
pub(crate) const OTHER_PLUGIN: &str = "give the account another: ALTER USER … IDENTIFIED WITH \
    caching_sha2_password BY '…' (MySQL), or IDENTIFIED VIA ed25519 USING PASSWORD('…') (MariaDB)";

/// What a failed INSERT means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server refuses one of its rows. Whether it takes others is not known.
    RefusesRow(Fault),
    /// A row has a primary key that exists. The server may have given it.
    RepeatsPrimaryKey(Fault),
    /// The transaction has failed.
    Ends(SinkError),
}

/// Classifies the error of an INSERT.
pub(crate) fn verdict(error: mysql::Error) -> Verdict {
    match &error {
        mysql::Error::MySqlError(reported) if is_of_the_table(reported) => {
            Verdict::Ends(SinkError::Stop(table_fault(reported)))
        }
        mysql::Error::MySqlError(reported) if repeats_primary_key(reported) => {
            Verdict::RepeatsPrimaryKey(server_fault(reported))
        }
        mysql::Error::MySqlError(reported) if refuses_row(reported) => {
            Verdict::RefusesRow(server_fault(reported))
        }
        _ => Verdict::Ends(sink_error(error)),
    }
}

/// Classifies the error of any other statement.
pub(crate) fn sink_error(error: mysql::Error) -> SinkError {
    match &error {
        mysql::Error::MySqlError(reported) if is_retry(reported) => {
            SinkError::Retry(server_fault(reported))
        }
        mysql::Error::MySqlError(reported) if is_reconnect(reported) => {
            SinkError::Reconnect(server_fault(reported))
        }
        mysql::Error::MySqlError(reported) if reported.code == PREPARED_STATEMENTS_USED_UP => {
            SinkError::Stop(prepared_statements_fault(reported))
        }
        // Rights, tables, disks: an operator must act.
        mysql::Error::MySqlError(reported) => SinkError::Stop(server_fault(reported)),
        mysql::Error::DriverError(mysql::DriverError::TlsNotSupported) => {
            let text = "the server offers no TLS, and tls is asked for";
            SinkError::Stop(Fault::of(FaultKind::Tls, text))
        }
        mysql::Error::TlsError(fault) => {
            SinkError::Stop(Fault::of(FaultKind::Tls, format!("TLS: {fault}")))
        }
        // rustls reports a refused certificate like this, in the handshake.
        mysql::Error::CodecError(PacketCodecError::Io(fault))
            if fault.kind() == io::ErrorKind::InvalidData =>
        {
            SinkError::Stop(Fault::of(FaultKind::Tls, format!("TLS: {fault}")))
        }
        // Linux reports an expired timeout of a socket like this: `readTimeout` or `writeTimeout`.
        mysql::Error::IoError(fault) | mysql::Error::CodecError(PacketCodecError::Io(fault))
            if fault.kind() == io::ErrorKind::WouldBlock =>
        {
            SinkError::Reconnect(Fault::of(FaultKind::NoAnswer, "no answer in time"))
        }
        mysql::Error::IoError(fault) => SinkError::Reconnect(Fault {
            code: fault.raw_os_error(),
            ..Fault::new(fault.to_string())
        }),
        mysql::Error::DriverError(mysql::DriverError::UnknownAuthPlugin(plugin)) => {
            SinkError::Stop(Fault::of(
                FaultKind::Login,
                format!(
                    "the authentication plugin of the account, `{plugin}`, is not supported; {OTHER_PLUGIN}"
                ),
            ))
        }
        mysql::Error::DriverError(mysql::DriverError::OldMysqlPasswordDisabled) => {
            let text = format!(
                "the account has a password of before MySQL 4.1, which is not supported; {OTHER_PLUGIN}"
            );
            SinkError::Stop(Fault::of(FaultKind::Login, text))
        }
        mysql::Error::DriverError(mysql::DriverError::CleartextPluginDisabled) => {
            let text = format!(
                "the account needs its password as clear text (`mysql_clear_password`); allow it with \
                 allowCleartextPasswords=true and tls=true in the datasource, or {OTHER_PLUGIN}"
            );
            SinkError::Stop(Fault::of(FaultKind::Login, text))
        }
        mysql::Error::DriverError(fault) => SinkError::Reconnect(Fault::new(fault.to_string())),
        other => SinkError::Reconnect(Fault::new(other.to_string())),
    }
}

/// Whether the server has no prepared statement to give at present.
pub(super) fn is_used_up(fault: &Fault) -> bool {
    fault.code == Some(PREPARED_STATEMENTS_USED_UP.into())
}

/// The fault for a panic of the driver.
pub(crate) fn panic_fault(message: &str) -> Fault {
    let text = format!("the driver panicked, which is a bug of the driver or of hakaru: {message}");
    Fault::of(FaultKind::Driver, text)
}

/// Classifies the error of a COMMIT. Its outcome is only known if the server itself reports that it failed.
pub(super) fn commit_error(error: mysql::Error) -> SinkError {
    let is_known = matches!(&error, mysql::Error::MySqlError(reported) if !is_reconnect(reported));
    match sink_error(error) {
        SinkError::Retry(fault) | SinkError::Reconnect(fault) | SinkError::Stop(fault)
            if !is_known =>
        {
            SinkError::OutcomeUnknown(fault)
        }
        certain => certain,
    }
}

/// Servers do not say which number has come to its end.
fn table_fault(reported: &mysql::MySqlError) -> Fault {
    let fault = server_fault(reported);
    if !matches!(reported.code, 167 | 1467) {
        return fault;
    }
    let text = format!(
        "{}; the numbers of the column `id` of eventlog are used up: ALTER TABLE eventlog MODIFY id bigint unsigned NOT NULL \
         AUTO_INCREMENT",
        fault.text
    );
    Fault { text, ..fault }
}

/// Says what to raise.
fn prepared_statements_fault(reported: &mysql::MySqlError) -> Fault {
    let fault = server_fault(reported);
    let text = format!(
        "{}; all clients of the server share them: SET GLOBAL max_prepared_stmt_count to more, or find who does not close \
         them (SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'); hakaru prepares at most {STATEMENTS_MAX} on each connection",
        fault.text
    );
    Fault { text, ..fault }
}

/// Classifies the error of a statement that a server may refuse to run at all: a CREATE TABLE, or SET.
pub(super) fn refusal(error: mysql::Error) -> SinkError {
    match sink_error(error) {
        // Vitess has no other number for it, as on a branch of PlanetScale with safe migrations.
        SinkError::Reconnect(fault) if fault.code == Some(1105) => SinkError::Stop(fault),
        other => other,
    }
}

fn server_fault(reported: &mysql::MySqlError) -> Fault {
    Fault::numbered(reported.code, &reported.message)
}

#[cfg(test)]
mod tests;
