//! An error at the start is one line that describes what to do, and the documented exit code.

use std::net::TcpListener;

use crate::support::{DatabaseServer, Hakaru, Settings};

/// Starts hakaru and waits for its end. Returns the exit code and standard error.
fn outcome(settings: Settings) -> (Option<i32>, String) {
    let mut hakaru: Hakaru = settings.spawn();
    let code = hakaru.wait().code();
    (code, hakaru.log())
}

#[test]
fn a_wrong_setting_is_one_line_and_exit_code_2() {
    for (settings, words) in [
        (
            Settings::sqlite().flag("--linger=soon"),
            "--linger (HAKARU_LINGER): \"soon\"",
        ),
        (
            Settings::sqlite().variable("HAKARU_CORES", "0"),
            "--cores (HAKARU_CORES): \"0\"",
        ),
        (
            Settings::sqlite().flag("--cores=999"),
            "--cores (HAKARU_CORES): 999",
        ),
        (
            Settings::sqlite().flag("--ack=committed"),
            "accepted: received, journaled, stored",
        ),
        (Settings::sqlite().flag("--no-such-flag"), "--no-such-flag"),
        (
            Settings::sqlite().variable("HAKARU_LOG", "hakaru=loud"),
            "HAKARU_LOG",
        ),
        (
            Settings::datasource("root:s3cret@tcp(h:3306"),
            "HAKARU_DATASOURCENAME",
        ),
        (
            Settings::datasource(""),
            "--datasource (HAKARU_DATASOURCENAME): no slash",
        ),
        (
            Settings::sqlite().flag("root:s3cret@tcp(h:3306)/d"),
            "see hakaru --help",
        ),
        (
            Settings::sqlite().flag("--cores=root:s3cret@tcp(h:3306)/d"),
            "--cores (HAKARU_CORES)",
        ),
        (
            Settings::datasource("root:s3cret@/d?tls=custom"),
            "parameter `tls`: `custom`",
        ),
    ] {
        let (code, log) = outcome(settings);
        assert_eq!(code, Some(2), "{log}");
        assert!(
            log.contains(words) && log.lines().count() == 1,
            "{words}: {log}"
        );
        assert!(
            log.starts_with("hakaru: ") && !log.contains("s3cret"),
            "{log}"
        );
    }
}

#[test]
fn an_empty_variable_is_unset() {
    let hakaru = Settings::sqlite()
        .variable("HAKARU_CORES", "")
        .variable("HAKARU_LINGER", "")
        .variable("HAKARU_LOG", "")
        .variable("HAKARU_LOG_FORMAT", "")
        .start();
    // JSON, since standard error is no terminal.
    hakaru.wait_for_line("listening on");
}

#[test]
fn what_the_system_refuses_is_one_line_and_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let quiet = || Settings::sqlite().variable("HAKARU_LOG", "off");
    for (settings, words) in [
        (quiet().flag(&format!("--listen={address}")), "in use"),
        (
            quiet().flag("--data-dir=/proc/nowhere"),
            "--data-dir (HAKARU_DATA_DIR): /proc/nowhere",
        ),
    ] {
        let (code, log) = outcome(settings);
        assert_eq!((code, log.lines().count()), (Some(2), 1), "{log}");
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[test]
fn a_second_server_on_the_same_port_is_refused() {
    let first = Settings::sqlite().start();
    let (code, log) = outcome(Settings::sqlite().flag(&format!("--listen={}", first.address)));
    assert_eq!(code, Some(2));
    assert!(
        log.contains(&format!("--listen (HAKARU_LISTEN): {}", first.address)),
        "{log}"
    );
}

#[test]
fn the_start_logs_its_address_its_promise_and_its_memory_bounds() {
    let database = DatabaseServer::start();
    let dsn = format!("root:s3cret@tcp(127.0.0.1:{})/hakaru", database.port());
    database.run("ALTER USER root@localhost IDENTIFIED BY ''");
    let hakaru = Settings::datasource(&dsn).flag("--cores=1").start();
    let line = hakaru.wait_for_event("listening");
    let message = line["message"].as_str().unwrap();
    for words in [
        hakaru.address.to_string(),
        "1 shard, io_uring".to_owned(),
        format!(
            "rows go to mysql://root@127.0.0.1:{}/hakaru",
            database.port()
        ),
        "a 200 promises `journaled`".to_owned(),
    ] {
        assert!(message.contains(&words), "{words}: {message}");
    }
    let bounds = hakaru.wait_for_event("bounds");
    let count = |name: &str| bounds[name].as_u64().unwrap();
    let parts = [
        "batches",
        "journals",
        "writers",
        "connections",
        "bodies",
        "others",
    ];
    let sum: u64 = parts
        .map(|part| count(&format!("{part}_bytes_max")))
        .iter()
        .sum();
    assert_eq!(count("memory_bytes_max"), sum);
    assert!(!hakaru.log().contains("s3cret"));
}

#[test]
fn a_password_given_as_a_flag_is_not_in_the_process_list() {
    let database = DatabaseServer::start();
    database.run("CREATE USER app@'%' IDENTIFIED BY 's3cret'");
    database.run("GRANT ALL ON hakaru.* TO app@'%'");
    let dsn = format!("app:s3cret@tcp(127.0.0.1:{})/hakaru", database.port());
    let hakaru = Settings::sqlite().flag("--datasource").flag(&dsn).start();
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", hakaru.pid())).unwrap();
    assert!(title.contains("app:******@tcp("), "{title}");
    let stored = {
        let mut client = crate::support::Client::connect(hakaru.address);
        assert_eq!(client.get("/hakaru?name=a&value=1").status, 200);
        hakaru.stop().stored
    };
    assert_eq!((stored, database.count()), (1, 1));
}
