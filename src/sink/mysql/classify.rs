//! Classifies the errors of the server and the driver.
//!
//! The numbers are from the server error references of MySQL and MariaDB.

use std::io;

use mysql_common::proto::codec::error::PacketCodecError;

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

/// The server rolled the transaction back, as a rule because of another one. The same transaction may succeed now.
fn is_retry(reported: &mysql::MySqlError) -> bool {
    // 40000 is a rollback, 40001 one that another transaction caused.
    reported.state.starts_with("40")
        || matches!(
            reported.code,
            1020 // record has changed since the last read (MariaDB, innodb_snapshot_isolation)
            | 1205 // lock wait timeout
            | 1206 // no memory left for locks, which other transactions give back
            | 1213 // deadlock
            | 1297 // NDB: temporary error
            | 1412 // table definition has changed, retry transaction
            | 1637 // too many active transactions
            | 3572 // NOWAIT and a lock held
            | 8002 | 8022 | 8028 | 9007 // TiDB: write conflict, commit to be retried, schema changed
        )
}

/// The connection or its server cannot be used. A new connection may work.
fn is_reconnect(reported: &mysql::MySqlError) -> bool {
    // Faults of the account or the protocol, which a new connection has too.
    let is_for_a_person = matches!(reported.code, 1043 | 1251);
    // 08: a connection exception. From 2000: errors of a client, passed on by a proxy or by a storage engine that is a
    // client itself.
    (reported.state.starts_with("08") && !is_for_a_person)
        || matches!(
            reported.code,
            1040 // too many connections
            | 1047 // Galera: node not ready
            | 1053 // shutdown in progress
            | 1077 | 1079 | 1080 // shutdown
            | 1135 // no thread for the connection
            | 1153 // packet larger than the server takes; the limit is read again on connecting
            | 1152 | 1156
                ..=1161 | 1184 // connection aborted, packets out of order, network errors
            | 1203 // user has too many connections
            | 1226 // user has exceeded a resource
            | 1243 // unknown prepared statement: a proxy has changed the server
            | 1290 | 1792 | 1836 // read only, as after a failover
            | 1317 // query interrupted
            | 1429 | 1430 // the server of a federated table is unreachable
            | 1615 // prepared statement needs to be re-prepared, which a new connection does
            | 1835 // malformed packet
            | 1927 // connection was killed
            | 1969 | 3024 // statement took longer than its limit
            | 2000..=2999 // such as 2006, server has gone away, and 2013, connection lost
            | 3032 | 3168 // server is offline, or is not available
            | 3100 // group replication: the group accepts no transaction now
            | 3169 // session was killed
            | 4031 // disconnected for inactivity
            | 8027 | 8501 | 9001..=9005 // TiDB: schema, storage or outcome unknown or unreachable. ProxySQL
                                        // uses the same numbers for a server that is unreachable.
        )
}

/// The table takes no row of that id or time, whatever else is in it. Servers send these with the SQLSTATE of a refused
/// row.
fn is_of_the_table(reported: &mysql::MySqlError) -> bool {
    // A SIGNAL may have any code.
    !reported.state.starts_with("45")
        && matches!(
            reported.code,
            167 // MariaDB: the ids of the column are used up
            | 1467 // the next id cannot be read: they are used up
            | 1526 // no partition for the value
        )
}

/// Whether a row repeats a primary key. The name of that key is the same in each language, and ends the message.
fn repeats_primary_key(reported: &mysql::MySqlError) -> bool {
    matches!(reported.code, 1062 | 1586) && reported.message.trim_end().ends_with("PRIMARY'")
}

/// Whether an INSERT failed because of a row. By SQLSTATE: a data exception (22), a violated constraint (23) or a
/// SIGNAL (45). Or by one of the codes that servers send with SQLSTATE `HY000`.
fn refuses_row(reported: &mysql::MySqlError) -> bool {
    match reported.state.get(..2) {
        Some("22" | "23" | "45") => true,
        // A SIGNAL with one of these has the same code as one with 45: 1644.
        Some("08" | "40") => false,
        _ => is_about_a_row(reported.code),
    }
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
        | 1644 // a trigger's SIGNAL
        | 1690 // out of range in an expression
        | 3819 | 4025 // check constraint
        | 3988 // no such character in the column's set
    )
}

/// Classifies the error of an INSERT.
pub(crate) fn verdict(error: mysql::Error) -> Verdict {
    match &error {
        mysql::Error::MySqlError(reported) if is_of_the_table(reported) => {
            Verdict::Ends(SinkError::Stop(server_fault(reported)))
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
        for code in [1020, 1205, 1213, 1412, 9007] {
            assert_eq!(
                sink_error(server(code)),
                SinkError::Retry(fault(code.into()))
            );
        }
        for code in [
            1040, 1047, 1053, 1203, 1226, 1290, 1615, 1792, 1836, 1927, 2006, 2013, 3169,
        ] {
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
        let numbered = |state: &str, code| {
            mysql::Error::MySqlError(mysql::MySqlError {
                state: state.to_owned(),
                message: "words".to_owned(),
                code,
            })
        };
        let signal = |state| numbered(state, 30_001);
        assert_eq!(verdict(signal("45000")), Verdict::RefusesRow(fault(30_001)));
        // A trigger may set any code.
        let own = verdict(numbered("45000", 2013));
        assert_eq!(own, Verdict::RefusesRow(fault(2013)));
        assert_eq!(
            verdict(signal("HY000")),
            Verdict::Ends(SinkError::Stop(fault(30_001)))
        );
        // A SIGNAL without a code has 1644.
        for (state, code) in [("40001", 1644), ("40000", 3101)] {
            let retried = Verdict::Ends(SinkError::Retry(fault(code.into())));
            assert_eq!(verdict(numbered(state, code)), retried);
        }
        let lost = Verdict::Ends(SinkError::Reconnect(fault(1644)));
        assert_eq!(verdict(numbered("08S01", 1644)), lost);
        // A new connection does not help a client that is too old for the account.
        assert_eq!(
            sink_error(numbered("08004", 1251)),
            SinkError::Stop(fault(1251))
        );
    }

    #[test]
    fn what_refuses_every_row_of_an_id_or_time_is_no_fault_of_a_row() {
        let reported = |code, state: &str, message: &str| {
            mysql::Error::MySqlError(mysql::MySqlError {
                state: state.to_owned(),
                message: message.to_owned(),
                code,
            })
        };
        for (code, state) in [(167, "22003"), (1467, "HY000"), (1526, "HY000")] {
            let stopped = Verdict::Ends(SinkError::Stop(fault(code.into())));
            assert_eq!(verdict(reported(code, state, "words")), stopped);
        }
        // A SIGNAL.
        let signal = verdict(reported(1526, "45000", "words"));
        assert_eq!(signal, Verdict::RefusesRow(fault(1526)));
        for (message, is_primary) in [
            ("Duplicate entry '7' for key 'PRIMARY'", true),
            ("Duplicate entry '7' for key 'eventlog.PRIMARY'", true),
            ("Дублирующаяся запись '7' по ключу 'PRIMARY'", true),
            ("Duplicate entry 'PRIMARY' for key 'name'", false),
        ] {
            let found = verdict(reported(1062, "23000", message));
            assert_eq!(matches!(found, Verdict::RepeatsPrimaryKey(_)), is_primary);
        }
    }

    #[test]
    fn only_an_error_of_the_server_proves_that_a_commit_failed() {
        assert_eq!(commit_error(server(1213)), SinkError::Retry(fault(1213)));
        assert_eq!(commit_error(server(1021)), SinkError::Stop(fault(1021)));
        assert_eq!(
            commit_error(server(1053)),
            SinkError::OutcomeUnknown(fault(1053))
        );
        assert_eq!(
            commit_error(server(2013)),
            SinkError::OutcomeUnknown(fault(2013))
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
