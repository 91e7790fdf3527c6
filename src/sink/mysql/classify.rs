//! What an error of the server or the driver means for the batch.
//!
//! Numbers are of the MySQL and MariaDB server error references.

use std::io;

use mysql_common::proto::codec::error::PacketCodecError;

use crate::sink::{Fault, FaultKind, SinkError};

/// What a failed statement says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A row of it cannot be stored; others can.
    RefusesRow(Fault),
    /// The attempt is over.
    Ends(SinkError),
}

/// The transaction lost against another, or a statement must be prepared again.
fn is_retry(code: u16) -> bool {
    matches!(
        code,
        1205 // lock wait timeout
        | 1213 // deadlock
        | 3572 // NOWAIT and a lock held
    )
}

/// The connection, or the server at its end, will not do; a new one may.
fn is_reconnect(code: u16) -> bool {
    matches!(
        code,
        1040 // too many connections
        | 1047 // Galera: node not ready
        | 1053 // shutdown in progress
        | 1077 | 1079 | 1080 // shutdown
        | 1153 // packet larger than the server takes; learned anew on connecting
        | 1152 | 1158
            ..=1161 | 1184 // connection aborted, network errors
        | 1203 // user has too many connections
        | 1226 // user has exceeded a resource
        | 1243 // unknown prepared statement: a proxy moved us
        | 1290 | 1792 | 1836 // read only, as after a failover
        | 1317 // query interrupted
        | 1615 // prepared statement needs to be re-prepared; a new connection prepares anew
        | 1927 // connection was killed
        | 1969 | 3024 // statement took longer than its limit
        | 4031 // disconnected for inactivity
    )
}

/// Whether an INSERT failed over a row: by SQLSTATE a data exception, a broken constraint or a
/// SIGNAL without a class of its own, or by one of the codes that the servers leave in `HY000`.
fn refuses_row(said: &mysql::MySqlError) -> bool {
    ["22", "23", "45"]
        .iter()
        .any(|class| said.state.starts_with(class))
        || is_about_a_row(said.code)
}

/// A value does not fit its column, or a constraint or trigger refuses the row.
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

/// Sorts the error of an INSERT.
pub(crate) fn verdict(error: mysql::Error) -> Verdict {
    match &error {
        mysql::Error::MySqlError(said) if refuses_row(said) => {
            Verdict::RefusesRow(server_fault(said))
        }
        _ => Verdict::Ends(sink_error(error)),
    }
}

/// Sorts the error of any other statement.
pub(crate) fn sink_error(error: mysql::Error) -> SinkError {
    match &error {
        mysql::Error::MySqlError(said) if is_retry(said.code) => {
            SinkError::Retry(server_fault(said))
        }
        mysql::Error::MySqlError(said) if is_reconnect(said.code) => {
            SinkError::Reconnect(server_fault(said))
        }
        // Rights, tables, disks: somebody must act.
        mysql::Error::MySqlError(said) => SinkError::Stop(server_fault(said)),
        mysql::Error::DriverError(mysql::DriverError::TlsNotSupported) => {
            let text = "the server offers no TLS, and tls is asked for";
            SinkError::Stop(Fault::of(FaultKind::Tls, text))
        }
        mysql::Error::TlsError(fault) => {
            SinkError::Stop(Fault::of(FaultKind::Tls, format!("TLS: {fault}")))
        }
        // How rustls refuses a peer in the middle of its handshake.
        mysql::Error::CodecError(PacketCodecError::Io(fault))
            if fault.kind() == io::ErrorKind::InvalidData =>
        {
            SinkError::Stop(Fault::of(FaultKind::Tls, format!("TLS: {fault}")))
        }
        // How Linux says that a timeout of the socket is over: `readTimeout` or `writeTimeout`.
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

/// Sorts the error of a COMMIT: only where the server itself says that it failed, it failed.
pub(super) fn commit_error(error: mysql::Error) -> SinkError {
    let is_said = matches!(&error, mysql::Error::MySqlError(said) if !is_reconnect(said.code));
    match sink_error(error) {
        SinkError::Retry(fault) | SinkError::Reconnect(fault) | SinkError::Stop(fault)
            if !is_said =>
        {
            SinkError::OutcomeUnknown(fault)
        }
        known => known,
    }
}

fn server_fault(said: &mysql::MySqlError) -> Fault {
    Fault::numbered(said.code, &said.message)
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
    fn errors_are_sorted_by_what_comes_next() {
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
    fn a_state_says_what_an_unknown_code_means() {
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
    fn only_the_server_can_say_that_a_commit_failed() {
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
    fn a_timeout_is_called_one() {
        let waited = PacketCodecError::Io(io::ErrorKind::WouldBlock.into());
        let fault = sink_error(mysql::Error::CodecError(waited));
        let no_answer = Fault::of(FaultKind::NoAnswer, "no answer in time");
        assert_eq!(fault, SinkError::Reconnect(no_answer));
    }

    #[test]
    fn a_fault_of_tls_is_known_whatever_its_words() {
        let refused = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate");
        for error in [
            mysql::Error::DriverError(mysql::DriverError::TlsNotSupported),
            mysql::Error::CodecError(PacketCodecError::Io(refused)),
        ] {
            let fault = sink_error(error);
            assert!(matches!(fault, SinkError::Stop(_)), "{fault}");
            assert_eq!(fault.fault().kind, FaultKind::Tls, "{fault}");
        }
        // A server may speak of TLS and mean something else.
        let denied = sink_error(mysql::Error::MySqlError(mysql::MySqlError {
            state: "28000".to_owned(),
            message: "Access denied for user 'TLS'@'%'".to_owned(),
            code: 1045,
        }));
        assert_eq!(denied.fault().kind, FaultKind::Other);
    }

    #[test]
    fn a_broken_connection_is_given_up() {
        let broken = mysql::Error::IoError(std::io::ErrorKind::BrokenPipe.into());
        assert!(matches!(sink_error(broken), SinkError::Reconnect(_)));
    }
}
