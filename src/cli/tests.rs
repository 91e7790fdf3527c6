//! Command lines, and the values or errors that they give.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::event::ack::Ack;
use crate::os::io_driver::IoChoice;
use crate::os::logging::LogFormat;
use crate::server::config::AdminListen;

fn arguments(words: &[&str]) -> Result<Arguments, ConfigError> {
    let words = std::iter::once("hakaru").chain(words.iter().copied());
    Ok(Arguments::read(words)?)
}

fn read(words: &[&str]) -> Result<Config, ConfigError> {
    Ok(arguments(words)?.config(Variables::of(""))?)
}

fn report(words: &[&str]) -> Result<Report, ConfigError> {
    let mut arguments = arguments(&[&["report"], words].concat())?;
    match arguments.command.take() {
        Some(Command::Report(given)) => Ok(given.report(arguments.places()?.0)?),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_the_contract() {
    let config = read(&[]).unwrap();
    assert_eq!(
        config.datasource.to_string(),
        "sqlite:hakaru-data/eventlog.db"
    );
    assert_eq!(config.listen.to_string(), "0.0.0.0:8081");
    assert_eq!(
        (config.ack, config.journal_limit),
        (Ack::Journaled, 4 << 30)
    );
    assert_eq!(config.journal_keep, Duration::from_secs(600));
    assert_eq!(config.data_dir, PathBuf::from("hakaru-data"));
    assert_eq!(
        (config.cores, config.db_connections, config.max_connections),
        (None, None, None)
    );
    assert_eq!(
        (config.linger, config.drain_timeout),
        (Duration::from_secs(1), Duration::from_secs(30))
    );
    assert_eq!((config.io, config.log_format), (IoChoice::Auto, None));
    assert_eq!(config.log_filter, "info");
    assert!((1000..=10_000).contains(&config.batch_events.get()));
}

#[test]
fn an_empty_value_is_the_default_and_no_datasource() {
    let unset = format!("{:?}", read(&[]).unwrap());
    let flags = settings();
    let flags = flags.iter().filter_map(clap::Arg::get_long);
    for flag in flags.filter(|flag| *flag != "datasource") {
        let empty = format!("--{flag}=");
        let config = read(&[&empty]).unwrap();
        assert_eq!(format!("{config:?}"), unset, "{flag}");
    }
    let error = read(&["--datasource="]).unwrap_err().to_string();
    assert!(
        error.starts_with("--datasource (HAKARU_DATASOURCENAME): no slash"),
        "{error}"
    );
}

#[test]
fn an_admin_address_that_is_asked_for_is_not_the_default() {
    let address = "127.0.0.1:9081".parse().unwrap();
    for (words, expected) in [
        (&[][..], AdminListen::Default(address)),
        (&["--admin-listen="], AdminListen::Default(address)),
        (&["--admin-listen=127.0.0.1:9081"], AdminListen::At(address)),
        (&["--admin-listen=:9081"], AdminListen::At(address)),
        (&["--admin-listen=off"], AdminListen::Off),
    ] {
        assert_eq!(read(words).unwrap().admin_listen, expected, "{words:?}");
    }
}

#[test]
fn each_choice_is_read_as_it_is_displayed() {
    for ack in Ack::ALL {
        assert_eq!(read(&[&format!("--ack={ack}")]).unwrap().ack, ack);
    }
    for io in IoChoice::ALL {
        assert_eq!(read(&[&format!("--io={io}")]).unwrap().io, io);
    }
    for format in LogFormat::ALL {
        let config = read(&[&format!("--log-format={format}")]).unwrap();
        assert_eq!(config.log_format, Some(format));
    }
}

#[test]
fn the_last_of_a_repeated_flag_wins_and_settings_are_accepted_before_and_after_a_command() {
    let config = read(&["--linger=soon", "--linger=2s"]).unwrap();
    assert_eq!(config.linger, Duration::from_secs(2));
    for words in [
        &["--cores=7", "check", "--linger=2s"][..],
        &["check", "--cores=7", "--linger=2s"],
        &["--cores=7", "--linger=2s", "check"],
    ] {
        let config = read(words).unwrap();
        let given = (config.cores, config.linger);
        assert_eq!(given, (Some(7), Duration::from_secs(2)), "{words:?}");
    }
}

#[test]
fn a_command_fails_only_because_of_settings_that_it_uses() {
    assert!(arguments(&["--linger=soon", "--datasource=", "journal", "list"]).is_ok());
    assert!(report(&["--linger=soon", "--listen=nowhere"]).is_ok());
    assert!(report(&["--datasource="]).is_err());
}

#[test]
fn a_wrong_value_of_a_command_is_reported_the_same_way() {
    for (argument, accepted) in [
        ("--from=noon", "accepted: 2026-01-31T08:00:00Z, "),
        ("--to=", "now, or a time ago such as 15min"),
        ("--timeout=25h", "1ms to 24h"),
        ("--top=0", "accepted: a number, 1 to 100000"),
    ] {
        let (flag, value) = argument.split_once('=').unwrap();
        let error = report(&[argument]).unwrap_err().to_string();
        let start = format!("{flag}: {value:?} is not accepted; ");
        assert!(
            error.starts_with(&start) && error.contains(accepted),
            "{error}"
        );
    }
    assert_eq!(report(&["--top="]).unwrap().top, 20);
}

#[test]
fn a_wrong_value_is_one_line_that_names_setting_value_and_what_is_accepted() {
    for (argument, setting, accepted) in [
        ("--listen=nowhere", "HAKARU_LISTEN", "0.0.0.0:8081"),
        ("--cores=0", "HAKARU_CORES", "1 to"),
        ("--cores=x", "HAKARU_CORES", "1 to"),
        (
            "--ack=committed",
            "HAKARU_ACK",
            "received, journaled, stored",
        ),
        ("--journal-limit=4", "HAKARU_JOURNAL_LIMIT", "64MiB"),
        ("--journal-keep=long", "HAKARU_JOURNAL_KEEP", "10min"),
        (
            "--batch-events=100001",
            "HAKARU_BATCH_EVENTS",
            "1 to 100000",
        ),
        ("--journal-keep=8761h", "HAKARU_JOURNAL_KEEP", "0s to 8760h"),
        ("--linger=0s", "HAKARU_LINGER", "1ms to 1h"),
        ("--linger=5", "HAKARU_LINGER", "500ms"),
        ("--db-connections=-1", "HAKARU_DB_CONNECTIONS", "1 to"),
        ("--max-connections=many", "HAKARU_MAX_CONNECTIONS", "1 to"),
        ("--drain-timeout=2h", "HAKARU_DRAIN_TIMEOUT", "1ms to 1h"),
        ("--log-format=xml", "HAKARU_LOG_FORMAT", "text, json"),
        ("--io=kqueue", "HAKARU_IO", "auto, io_uring, epoll"),
    ] {
        let error = read(&[argument]).unwrap_err().to_string();
        let (flag, value) = argument.split_once('=').unwrap();
        for part in [flag, setting, value, accepted] {
            assert!(error.contains(part), "{argument}: {error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_wrong_filter_is_refused() {
    let read = |filter| {
        Arguments::read(["hakaru"])?
            .config(Variables::of(filter))
            .map_err(ConfigError::from)
    };
    let error = read("hakaru=loud").unwrap_err().to_string();
    assert!(error.starts_with("HAKARU_LOG: \"hakaru=loud\""), "{error}");
    assert_eq!(read("hakaru=debug").unwrap().log_filter, "hakaru=debug");
}

#[test]
fn a_value_that_could_hold_a_password_is_not_shown() {
    let flags = settings();
    for flag in flags.iter().filter_map(clap::Arg::get_long) {
        // Paths.
        if flag == "data-dir" || flag == "db-password-file" || flag.starts_with("db-tls-") {
            continue;
        }
        let argument = format!("--{flag}=root:s3cret@tcp(h)d");
        let error = read(&[&argument]).unwrap_err().to_string();
        let named = error.starts_with(&format!("--{flag} (HAKARU"));
        assert!(named && !error.contains("s3cret"), "{error}");
    }
    let filter = Variables::of("root=s3cret@tcp(h)d");
    let arguments = arguments(&[]).unwrap();
    let error = arguments.config(filter).unwrap_err().to_string();
    assert!(error.starts_with("HAKARU_LOG: \"***\""), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn a_text_that_is_not_utf_8_is_refused_by_name() {
    for (argument, expected) in [
        (
            &b"--linger=\xff"[..],
            "--linger (HAKARU_LINGER): \"\u{fffd}\" is not accepted",
        ),
        (
            b"--datasource=\xff",
            "--datasource (HAKARU_DATASOURCENAME): not UTF-8",
        ),
    ] {
        let words = [OsStr::new("hakaru"), OsStr::from_bytes(argument)];
        let arguments = Arguments::read(words).unwrap();
        let error = arguments.config(Variables::of("")).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_go_style_listen_address_is_every_address() {
    assert_eq!(
        read(&["--listen=:9000"]).unwrap().listen.to_string(),
        "0.0.0.0:9000"
    );
}

#[test]
fn a_missing_list_of_expected_events_is_said_to_be_missing() {
    for (words, start) in [
        (
            &["reconcile"][..],
            "--expected: missing; accepted: a number",
        ),
        (
            &["reconcile", "--expected="],
            "--expected: \"\" is not accepted; accepted: a number",
        ),
    ] {
        let mut arguments = arguments(words).unwrap();
        let Some(Command::Reconcile(given)) = arguments.command.take() else {
            panic!("{words:?}");
        };
        let (datasource, data_dir) = arguments.places().unwrap();
        let error = given.reconciliation(datasource, data_dir).unwrap_err();
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

#[test]
fn the_help_of_reconcile_names_all_that_a_list_may_have() {
    let Err(ConfigError::Help(help)) = arguments(&["reconcile", "--help"]) else {
        panic!("no help");
    };
    let help = help
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for words in [
        r#"{"name":…,"value":…,"at":…,"id":…}"#,
        "columns, of name, value, at and id",
    ] {
        assert!(help.contains(words), "{help}");
    }
}

#[test]
fn a_wrong_command_line_is_reported_in_one_line_with_what_is_accepted_and_without_values() {
    for (arguments, expected) in [
        (&["completions", "ksh"][..], "accepted: bash, "),
        (&["journal", "dump"], "<LANE>: missing"),
        (&["--linger", "-1s"], "--flag=VALUE"),
        (&["--datasorce=u:secret@tcp(h)/d"], "--datasorce: "),
        (&["report", "--json", "--csv"], "--json: "),
    ] {
        let error = read(arguments).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(
            !error.contains('\n') && !error.contains("secret"),
            "{error}"
        );
    }
}
