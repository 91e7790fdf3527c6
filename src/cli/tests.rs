//! Settings as they are given, and what becomes of them.

use std::path::PathBuf;

use super::*;
use crate::event::ack::Ack;
use crate::os::io_driver::IoChoice;

fn read(arguments: &[&str]) -> Result<Config, ConfigError> {
    let arguments = std::iter::once("hakaru").chain(arguments.iter().copied());
    super::read(Arguments::read(arguments)?, String::new())
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
fn an_empty_value_is_the_default() {
    let config = read(&["--listen=", "--linger=", "--data-dir=", "--cores="]).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:8081");
    assert_eq!(config.data_dir, PathBuf::from("hakaru-data"));
    assert_eq!(config.linger, Duration::from_secs(1));
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
    let arguments = Arguments::read(["hakaru"]).unwrap();
    let error = super::read(arguments, "hakaru=loud".to_owned())
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("HAKARU_LOG: \"hakaru=loud\""), "{error}");
}

#[test]
fn a_go_style_listen_address_is_every_address() {
    assert_eq!(
        read(&["--listen=:9000"]).unwrap().listen.to_string(),
        "0.0.0.0:9000"
    );
}

#[test]
fn a_wrong_command_line_is_told_in_one_line_with_what_is_accepted_and_without_values() {
    for (arguments, expected) in [
        (&["completions", "ksh"][..], "accepted: bash, "),
        (&["journal", "dump"], "<LANE>: missing"),
        (&["--linger", "-1s"], "--flag=VALUE"),
        (&["--datasorce=u:secret@tcp(h)/d"], "--datasorce: "),
        (&["report", "--json", "--csv"], "--json: "),
    ] {
        let said = read(arguments).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains('\n') && !said.contains("secret"), "{said}");
    }
}
