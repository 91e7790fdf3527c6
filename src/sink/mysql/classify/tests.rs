//! Each error is of one class.

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
    for code in [1020, 1205, 1213, 1412, 8002, 8005, 8022, 8028, 8252, 9007] {
        assert_eq!(
            sink_error(server(code)),
            SinkError::Retry(fault(code.into()))
        );
    }
    for code in [
        1040, 1041, 1047, 1053, 1105, 1180, 1203, 1226, 1290, 1615, 1792, 1815, 1836, 1874, 1927,
        2006, 2013, 3100, 3169, 3796, 3799, 8027, 8120, 8176, 9001, 9002, 9005, 9006, 9008, 9010,
        9020, 9501,
    ] {
        assert_eq!(
            sink_error(server(code)),
            SinkError::Reconnect(fault(code.into()))
        );
    }
    for code in [
        1044, 1045, 1142, 1146, 1021, 1114, 8004, 8121, 8223, 8254, 9009, 9500,
    ] {
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
    // A new connection does not help a client that is too old for the account, or has no TLS where it is demanded.
    for code in [1251, 3159] {
        assert_eq!(
            sink_error(numbered("08004", code)),
            SinkError::Stop(fault(code.into()))
        );
    }
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
        let Verdict::Ends(SinkError::Stop(stopped)) = verdict(reported(code, state, "words"))
        else {
            panic!("{code}");
        };
        assert_eq!(stopped.code, Some(code.into()));
        assert_eq!(stopped.text.contains("MODIFY id"), code != 1526);
    }
    // A SIGNAL.
    let signal = verdict(reported(1526, "45000", "words"));
    assert_eq!(signal, Verdict::RefusesRow(fault(1526)));
    for (message, is_primary) in [
        ("Duplicate entry '7' for key 'PRIMARY'", true),
        ("Duplicate entry '7' for key 'eventlog.PRIMARY'", true),
        ("Дублирующаяся запись '7' по ключу 'PRIMARY'", true),
        ("Duplicate entry 'PRIMARY' for key 'name'", false),
        (
            "rpc error: desc = Duplicate entry '7' for key 'eventlog.PRIMARY' (errno 1062) (sqlstate 23000): Sql: \"…\"",
            true,
        ),
        (
            "rpc error: desc = Duplicate entry 'a' for key 'eventlog.name' (errno 1062) (sqlstate 23000): 'PRIMARY'",
            false,
        ),
    ] {
        let found = verdict(reported(1062, "23000", message));
        assert_eq!(matches!(found, Verdict::RepeatsPrimaryKey(_)), is_primary);
    }
}

#[test]
fn only_an_error_of_the_server_proves_that_a_commit_failed() {
    assert_eq!(commit_error(server(1213)), SinkError::Retry(fault(1213)));
    assert_eq!(commit_error(server(1021)), SinkError::Stop(fault(1021)));
    for code in [9007, 8022, 8028] {
        assert_eq!(
            commit_error(server(code)),
            SinkError::Retry(fault(code.into()))
        );
    }
    for code in [
        1047, 1053, 1105, 1180, 1290, 1317, 1815, 2013, 3100, 8027, 9001, 9002, 9005, 9501,
    ] {
        let unknown = SinkError::OutcomeUnknown(fault(code.into()));
        assert_eq!(commit_error(server(code)), unknown);
    }
    let broken = mysql::Error::IoError(io::ErrorKind::TimedOut.into());
    assert!(matches!(commit_error(broken), SinkError::OutcomeUnknown(_)));
}

#[test]
fn a_statement_that_is_refused_with_the_number_for_anything_waits_for_a_person() {
    assert_eq!(refusal(server(1105)), SinkError::Stop(fault(1105)));
    assert_eq!(refusal(server(2013)), SinkError::Reconnect(fault(2013)));
}

#[test]
fn prepared_statements_that_are_used_up_have_a_remedy() {
    let fault = sink_error(server(1461));
    assert!(matches!(fault, SinkError::Stop(_)), "{fault}");
    assert!(
        fault
            .fault()
            .text
            .contains("SET GLOBAL max_prepared_stmt_count")
    );
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
