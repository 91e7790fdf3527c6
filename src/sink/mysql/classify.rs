//! Classifies the errors of the server and the driver.
//!
//! The numbers are from the server error references of MySQL and MariaDB.

use std::io;

use mysql_common::proto::codec::error::PacketCodecError;

use crate::sink::{Fault, FaultKind, SinkError};

/// What a failed INSERT means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server refuses one of its rows.
    RefusesRow(Fault),
    /// The transaction has failed.
    Ends(SinkError),
}

/// The transaction failed because of another one.
fn is_retry(code: u16) -> bool {
    matches!(
        code,
        1205 // lock wait timeout
        | 1213 // deadlock
        | 3572 // NOWAIT and a lock held
    )
}

/// The connection or its server cannot be used. A new connection may work.
fn is_reconnect(code: u16) -> bool {
    matches!(
        code,
        1040 // too many connections
        | 1047 // Galera: node not ready
        | 1053 // shutdown in progress
        | 1077 | 1079 | 1080 // shutdown
        | 1153 // packet larger than the server takes; the limit is read again on connecting
        | 1152 | 1158
            ..=1161 | 1184 // connection aborted, network errors
        | 1203 // user has too many connections
        | 1226 // user has exceeded a resource
        | 1243 // unknown prepared statement: a proxy has changed the server
        | 1290 | 1792 | 1836 // read only, as after a failover
        | 1317 // query interrupted
        | 1615 // prepared statement needs to be re-prepared, which a new connection does
        | 1927 // connection was killed
        | 1969 | 3024 // statement took longer than its limit
        | 4031 // disconnected for inactivity
    )
}

/// Whether an INSERT failed because of a row. By SQLSTATE: a data exception (22), a violated constraint (23) or a
/// SIGNAL (45). Or by one of the codes that servers send with SQLSTATE `HY000`.
fn refuses_row(reported: &mysql::MySqlError) -> bool {
    ["22", "23", "45"]
        .iter()
        .any(|class| reported.state.starts_with(class))
        || is_about_a_row(reported.code)
}

/// Whether a value does not fit its column, or a constraint or trigger refuses the row.
pub(super) fn is_about_a_row(code: u16) -> bool {
    matches!(
        code,
        1048 // column cannot be null
        | 1062 // duplicate entry
        | 1264 // out of range
        | 1265 // data truncated
        | 1292 // incorrect value
        | 1366 // incorrect string or integer value
        | 1406 // data too long
        | 1452 // foreign key
        | 1526 // no partition for the value
        | 1644 // a trigger's SIGNAL
        | 1690 // out of range in an expression
        | 3819 | 4025 // check constraint
        | 3988 // no such character in the column's set
    )
}

/// Classifies the error of an INSERT.
pub(crate) fn verdict(error: mysql::Error) -> Verdict {
    match &error {
        mysql::Error::MySqlError(reported) if refuses_row(reported) => {
            Verdict::RefusesRow(server_fault(reported))
        }
        _ => Verdict::Ends(sink_error(error)),
    }
}

/// Classifies the error of any other statement.
pub(crate) fn sink_error(error: mysql::Error) -> SinkError {
    match &error {
        mysql::Error::MySqlError(reported) if is_retry(reported.code) => {
            SinkError::Retry(server_fault(reported))
        }
        mysql::Error::MySqlError(reported) if is_reconnect(reported.code) => {
            SinkError::Reconnect(server_fault(reported))
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
        mysql::Error::DriverError(fault) => SinkError::Reconnect(Fault::new(fault.to_string())),
        other => SinkError::Reconnect(Fault::new(other.to_string())),
    }
}

/// Classifies the error of a COMMIT. Its outcome is only known if the server itself reports that it failed.
pub(super) fn commit_error(error: mysql::Error) -> SinkError {
    let is_known =
        matches!(&error, mysql::Error::MySqlError(reported) if !is_reconnect(reported.code));
    match sink_error(error) {
        SinkError::Retry(fault) | SinkError::Reconnect(fault) | SinkError::Stop(fault)
            if !is_known =>
        {
            SinkError::OutcomeUnknown(fault)
        }
        certain => certain,
    }
}

fn server_fault(reported: &mysql::MySqlError) -> Fault {
    Fault::numbered(reported.code, &reported.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16) -> mysql::Error {
        mysql::Error::MySqlError(mysql::MySqlError {
            state: "HY000".to_owned(),
            message: "words".to_owned(),
            code,
        })
    }

    fn fault(code: i32) -> Fault {
        Fault::numbered(code, "words")
    }

    #[test]
    fn errors_are_classified_by_what_the_writer_does_next() {
        for code in [1205, 1213] {
            assert_eq!(
                sink_error(server(code)),
                SinkError::Retry(fault(code.into()))
            );
        }
        for code in [1040, 1047, 1053, 1203, 1226, 1290, 1615, 1792, 1836, 1927] {
            assert_eq!(
                sink_error(server(code)),
                SinkError::Reconnect(fault(code.into()))
            );
        }
        for code in [1044, 1045, 1142, 1146, 1021, 1114] {
            assert_eq!(
                sink_error(server(code)),
                SinkError::Stop(fault(code.into()))
            );
        }
        for code in [1048, 1264, 1292, 1366, 1406] {
            assert_eq!(
                verdict(server(code)),
                Verdict::RefusesRow(fault(code.into()))
            );
        }
    }

    #[test]
    fn an_unknown_code_is_classified_by_its_sqlstate() {
        let signal = |state: &str| {
            mysql::Error::MySqlError(mysql::MySqlError {
                state: state.to_owned(),
                message: "words".to_owned(),
                code: 30_001,
            })
        };
        assert_eq!(verdict(signal("45000")), Verdict::RefusesRow(fault(30_001)));
        assert_eq!(
            verdict(signal("HY000")),
            Verdict::Ends(SinkError::Stop(fault(30_001)))
        );
    }

    #[test]
    fn only_an_error_of_the_server_proves_that_a_commit_failed() {
        assert_eq!(commit_error(server(1213)), SinkError::Retry(fault(1213)));
        assert_eq!(commit_error(server(1021)), SinkError::Stop(fault(1021)));
        assert_eq!(
            commit_error(server(1053)),
            SinkError::OutcomeUnknown(fault(1053))
        );
        let broken = mysql::Error::IoError(io::ErrorKind::TimedOut.into());
        assert!(matches!(commit_error(broken), SinkError::OutcomeUnknown(_)));
    }

    #[test]
    fn a_timeout_has_its_own_kind() {
        let waited = PacketCodecError::Io(io::ErrorKind::WouldBlock.into());
        let fault = sink_error(mysql::Error::CodecError(waited));
        let no_answer = Fault::of(FaultKind::NoAnswer, "no answer in time");
        assert_eq!(fault, SinkError::Reconnect(no_answer));
    }

    #[test]
    fn a_tls_fault_is_recognized_by_its_kind_and_not_its_text() {
        let refused = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate");
        for error in [
            mysql::Error::DriverError(mysql::DriverError::TlsNotSupported),
            mysql::Error::CodecError(PacketCodecError::Io(refused)),
        ] {
            let fault = sink_error(error);
            assert!(matches!(fault, SinkError::Stop(_)), "{fault}");
            assert_eq!(fault.fault().kind, FaultKind::Tls, "{fault}");
        }
        // The text of another error may contain TLS.
        let denied = sink_error(mysql::Error::MySqlError(mysql::MySqlError {
            state: "28000".to_owned(),
            message: "Access denied for user 'TLS'@'%'".to_owned(),
            code: 1045,
        }));
        assert_eq!(denied.fault().kind, FaultKind::Other);
    }

    #[test]
    fn a_broken_connection_is_replaced() {
        let broken = mysql::Error::IoError(std::io::ErrorKind::BrokenPipe.into());
        assert!(matches!(sink_error(broken), SinkError::Reconnect(_)));
    }
}
