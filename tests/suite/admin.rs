//! The admin port: metrics, readiness, the state of the sink, the statistics of the page.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Answer, Client, DatabaseServer, Hakaru, Settings, wait_until};

fn get(hakaru: &Hakaru, path: &str) -> Answer {
    Client::connect(hakaru.admin()).get(path)
}

fn stats(hakaru: &Hakaru) -> Value {
    let answer = get(hakaru, "/stats.json");
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    serde_json::from_str(&answer.body).unwrap()
}

/// The sum of all samples of a metric whose labels hold `label`.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let samples = metrics.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    });
    samples
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Sends every kind of request once.
fn send_some_of_each(hakaru: &Hakaru) {
    let mut client = Client::connect(hakaru.address);
    for _ in 0..5 {
        assert_eq!(client.get("/hakaru?name=purchase&value=120").status, 200);
    }
    assert_eq!(client.get("/hakaru?name=&value=1").status, 400);
    assert_eq!(client.get("/hakaru?name=a&value=-1").status, 400);
    assert_eq!(client.get("/nowhere").status, 404);
    assert_eq!(client.get("/ok").status, 200);
}

#[test]
fn metrics_are_in_the_text_format_of_prometheus() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).flag("--linger=20ms").start();
    send_some_of_each(&hakaru);
    wait_until("the events are stored", || {
        sum(
            &get(&hakaru, "/metrics").body,
            "hakaru_events_stored_total",
            "",
        ) == 5.0
    });
    let answer = get(&hakaru, "/metrics");
    let media_type = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.field("Content-Type"), Some(media_type));
    let metrics = answer.body;
    for (name, label, expected) in [
        ("hakaru_events_received_total", "shard=\"", 5.0),
        ("hakaru_events_stored_total", "writer=\"", 5.0),
        ("hakaru_events_dead_lettered_total", "", 0.0),
        ("hakaru_events_lost_total", "", 0.0),
        ("hakaru_events_shed_total", "", 0.0),
        ("hakaru_events_pending", "", 0.0),
        ("hakaru_events_rejected_total", "", 2.0),
        ("hakaru_events_rejected_total", "reason=\"name_empty\"", 1.0),
        ("hakaru_http_requests_total", "code=\"200\"", 6.0),
        ("hakaru_http_requests_total", "code=\"400\"", 2.0),
        ("hakaru_http_requests_total", "code=\"404\"", 1.0),
        ("hakaru_event_age_at_store_seconds_count", "", 5.0),
        (
            "hakaru_event_age_at_store_seconds_bucket",
            "le=\"+Inf\"",
            5.0,
        ),
        ("hakaru_batch_events_sum", "", 5.0),
        (
            "hakaru_journal_limit_bytes",
            "",
            4.0 * 1024.0 * 1024.0 * 1024.0,
        ),
        ("hakaru_journal_oldest_age_seconds", "", 0.0),
        ("hakaru_build_info", "version=\"", 1.0),
    ] {
        assert_eq!(
            sum(&metrics, name, label),
            expected,
            "{name} {label}\n{metrics}"
        );
    }
    for name in [
        "hakaru_journal_sync_duration_seconds_count",
        "hakaru_store_duration_seconds_count",
        "hakaru_batch_seal_total",
        "hakaru_database_connected",
        "hakaru_http_connections_limit",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(sum(&metrics, name, "") > 0.0, "{name}\n{metrics}");
    }
    check_by_promtool(&metrics);
    hakaru.stop();
}

/// promtool must find no fault in the format.
fn check_by_promtool(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).unwrap();
    drop(input);
    let found = promtool.wait_with_output().unwrap();
    let output = [found.stdout, found.stderr].concat();
    let text = String::from_utf8_lossy(&output);
    assert!(found.status.success() && text.is_empty(), "{text}");
}

#[test]
fn the_sink_is_healthy_if_a_write_was_proven_and_otherwise_has_a_reason() {
    let mut database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).start();
    // Without any event.
    wait_until("a write is proven", || {
        get(&hakaru, "/sink-health").status == 200
    });
    assert_eq!(stats(&hakaru)["database"]["healthy"], true);
    database.stop();
    Client::connect(hakaru.address).get("/hakaru?name=a&value=1");
    wait_until("the loss is noticed", || {
        get(&hakaru, "/sink-health").status == 503
    });
    let reason = get(&hakaru, "/sink-health").body;
    assert!(reason.starts_with("writer "), "{reason}");
    let metrics = get(&hakaru, "/metrics").body;
    assert!(
        sum(
            &metrics,
            "hakaru_database_errors_total",
            "class=\"reconnect\""
        ) > 0.0,
        "{metrics}"
    );
    let stats = stats(&hakaru);
    assert_eq!(stats["database"]["healthy"], false);
    assert!(
        stats["database"]["errors"][0]["text"].is_string(),
        "{stats}"
    );
    // Requests are still answered.
    assert_eq!(get(&hakaru, "/ready").status, 200);
    database.resume();
    wait_until("it stores again", || {
        get(&hakaru, "/sink-health").status == 200
    });
    hakaru.stop();
}

#[test]
fn a_database_that_takes_no_writes_is_noticed_before_an_event_arrives() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).start();
    wait_until("a write is proven", || {
        get(&hakaru, "/sink-health").status == 200
    });
    hakaru.stop();
    database.run("CREATE USER 'reader'@'127.0.0.1'");
    database
        .run("GRANT SELECT, UPDATE, INSERT ON hakaru.hakaru_checkpoint TO 'reader'@'127.0.0.1'");
    database.run("GRANT SELECT ON hakaru.eventlog TO 'reader'@'127.0.0.1'");
    let dsn = database.dsn().replace("root@", "reader@");
    let hakaru = Settings::datasource(&dsn).start();
    wait_until("it is noticed", || {
        let health = get(&hakaru, "/sink-health");
        health.status == 503 && health.body.contains("1142")
    });
    hakaru.stop();
}

#[test]
fn the_reason_is_one_line_without_control_characters() {
    let hakaru = Settings::datasource("sqlite:/proc/a\n\x1b[2J/eventlog.db").start();
    let mut reason = String::new();
    wait_until("it is noticed", || {
        let health = get(&hakaru, "/sink-health");
        reason = health.body;
        health.status == 503 && reason.contains("/proc/")
    });
    assert!(reason.contains("/proc/a\\n\\u{1b}[2J"), "{reason:?}");
    assert_eq!(reason.find(char::is_control), Some(reason.len() - 1));
    hakaru.stop();
}

#[test]
fn a_server_that_sheds_or_drains_is_not_ready() {
    let mut database = DatabaseServer::start();
    let mut hakaru = Settings::mysql(&database)
        .flag("--ack=received")
        .flag("--batch-events=1")
        .flag("--cores=1")
        .start();
    assert_eq!(get(&hakaru, "/ready").body, "ok\n");
    database.stop();
    let mut client = Client::connect(hakaru.address);
    while client.get("/hakaru?name=a&value=1").status == 200 {}
    let answer = get(&hakaru, "/ready");
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("shedding: "), "{}", answer.body);
    assert_eq!(stats(&hakaru)["state"], "shedding");
    let admin = hakaru.admin();
    hakaru.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until("it drains", || {
        let answer = Client::connect(admin).get("/ready");
        answer.status == 503 && answer.body.starts_with("draining: ")
    });
    database.resume();
    assert_eq!(hakaru.wait().code(), Some(0), "{}", hakaru.log());
}

#[test]
fn the_statistics_hold_what_the_page_shows() {
    let hakaru = Settings::sqlite().flag("--linger=20ms").start();
    send_some_of_each(&hakaru);
    let mut client = Client::connect(hakaru.address);
    for _ in 0..64 {
        client.get("/hakaru?name=%3Cb%3E&value=1");
    }
    wait_until("the events are stored", || {
        stats(&hakaru)["events"]["stored"] == 69
    });
    let stats = stats(&hakaru);
    for (pointer, expected) in [
        ("/state", "ready"),
        ("/ack", "journaled"),
        ("/database/kind", "SQLite"),
        ("/top_names/names/0/name", "<b>"),
    ] {
        assert_eq!(stats.pointer(pointer).unwrap(), expected, "{stats}");
    }
    for (pointer, expected) in [
        ("/events/pending", 0),
        ("/events/rejected/name_empty", 1),
        ("/http/requests/200", 70),
        ("/latency_seconds/event_age_at_store/count", 69),
    ] {
        assert_eq!(stats.pointer(pointer).unwrap(), expected, "{stats}");
    }
    for series in stats["history"].as_object().unwrap().values() {
        let Some(points) = series.as_array() else {
            continue;
        };
        assert_eq!(points.len(), 180);
    }
    hakaru.stop();
}

#[test]
fn an_address_in_use_is_refused_and_the_port_can_be_switched_off() {
    let first = Settings::sqlite().start();
    let taken = first.admin().to_string();
    let mut second = Settings::sqlite()
        .variable("HAKARU_ADMIN_LISTEN", &taken)
        .spawn();
    assert_eq!(second.wait().code(), Some(2));
    let log = second.log();
    assert!(
        log.contains("HAKARU_ADMIN_LISTEN") && log.contains(&taken),
        "{log}"
    );
    let off = Settings::sqlite()
        .variable("HAKARU_ADMIN_LISTEN", "off")
        .start();
    assert!(off.events("admin_listening").is_empty());
    off.stop();
    first.stop();
}

#[test]
fn unknown_requests_to_the_admin_port_are_refused() {
    let hakaru = Settings::sqlite().start();
    let mut client = Client::connect(hakaru.admin());
    assert_eq!(client.get("/nowhere").status, 404);
    client.send(b"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok");
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.field("Allow")),
        (405, Some("GET, HEAD"))
    );
    client.send(b"rubbish\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    // Events are not taken here.
    assert_eq!(
        Client::connect(hakaru.admin())
            .get("/hakaru?name=a&value=1")
            .status,
        404
    );
    let page = get(&hakaru, "/");
    let policy = page.field("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(hakaru.stop().received, 0);
}
