//! Events in the body of a request: all of them are taken, or none.

use std::thread;

use serde_json::{Value, json};

use crate::support::{Answer, Client, DatabaseServer, Hakaru, Settings, wait_until};

/// A request with this body and these further fields.
pub fn post(fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST /hakaru HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// An array of events with these values.
pub fn array(values: impl IntoIterator<Item = u32>) -> String {
    let events = values
        .into_iter()
        .map(|value| json!({ "name": "a", "value": value }));
    Value::from_iter(events).to_string()
}

fn ask(hakaru: &Hakaru, fields: &str, body: &[u8]) -> Answer {
    let mut client = Client::connect(hakaru.address);
    client.send(&post(fields, body));
    client.answer()
}

/// Compresses with the program that users have.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut gzip = Command::new("gzip")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    let bytes = bytes.to_owned();
    let writer = thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const LINES: &str = "Content-Type: application/x-ndjson\r\n";
const LENIENT: &str = "Prefer: handling=lenient\r\n";

#[test]
fn each_format_is_stored() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database).start();
    let lines = b"{\"name\":\"a\",\"value\":7}\n\n{\"value\":\"8\",\"name\":\"\\u8a08\"}";
    for (fields, body, answer) in [
        (FORM, &b"value=1&name=a+%E8%A8%88"[..], ""),
        (
            "Content-Type: application/json\r\n",
            br#"{"name":"a","value":2}"#,
            "",
        ),
        (
            "Content-Type: text/plain;charset=UTF-8\r\n",
            br#"{"name":"a","value":"3"}"#,
            "",
        ),
        ("", array(4..7).as_bytes(), "{\"taken\":3}"),
        (LINES, lines, "{\"taken\":2}"),
        (
            "Content-Type: application/jsonl\r\nContent-Encoding: gzip\r\n",
            &gzip(lines),
            "{\"taken\":2}",
        ),
    ] {
        let answered = ask(&hakaru, fields, body);
        assert_eq!(
            (answered.status, &answered.body[..]),
            (200, answer),
            "{fields}"
        );
        assert_eq!(answered.field("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(answered.field("Cache-Control"), Some("no-store"));
    }
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.stored), (10, 10));
    let rows: Vec<(String, u32)> =
        database.query("SELECT name, value FROM eventlog ORDER BY value");
    let names: Vec<_> = rows.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(
        names,
        ["a 計", "a", "a", "a", "a", "a", "a", "a", "計", "計"]
    );
    assert_eq!(
        rows.iter().map(|(_, value)| value).sum::<u32>(),
        1 + 2 + 3 + 15 + 30
    );
}

#[test]
fn none_is_taken_where_one_is_wrong_unless_the_sender_is_lenient() {
    let hakaru = Settings::sqlite().start();
    let body =
        br#"[{"name":"a","value":1},{"name":"a"},{"name":"","value":2},{"name":"b","value":3}]"#;
    let strict = ask(&hakaru, "Origin: https://o\r\n", body);
    let reason = "value: missing; accepted: decimal digits, 0 to 4294967295";
    assert_eq!(strict.status, 400);
    assert_eq!(strict.field("X-Hakaru-Reason"), Some(reason));
    assert_eq!(
        strict.field("Access-Control-Allow-Origin"),
        Some("https://o")
    );
    let document: Value = serde_json::from_str(&strict.body).unwrap();
    assert_eq!(document, json!({ "error": reason, "event": 1 }));
    let lenient = ask(&hakaru, LENIENT, body);
    assert_eq!(lenient.status, 200);
    assert_eq!(
        lenient.field("Preference-Applied"),
        Some("handling=lenient")
    );
    let document: Value = serde_json::from_str(&lenient.body).unwrap();
    assert_eq!(document["taken"], 2);
    assert_eq!(
        document["rejected"][0],
        json!({ "event": 1, "error": reason })
    );
    assert_eq!(document["rejected"][1]["event"], 2);
    // All of them are wrong: the request is answered, and nothing waits for the disk.
    let none = ask(&hakaru, LENIENT, b"[7]");
    assert!(
        none.body
            .starts_with("{\"taken\":0,\"rejected\":[{\"event\":0,"),
        "{}",
        none.body
    );
    let identity = hakaru.stop();
    assert_eq!(
        (identity.received, identity.stored, identity.rejected),
        (2, 2, 4)
    );
    for reason in ["value_missing=2", "name_empty=1", "event_not_object=1"] {
        assert!(identity.rejected_by_reason.contains(reason), "{identity:?}");
    }
}

#[test]
fn of_a_body_that_is_cut_off_no_event_is_a_row_and_all_are_when_it_is_repeated() {
    let hakaru = Settings::sqlite().start();
    let request = post("", array(0..40).as_bytes());
    for length in (0..request.len()).step_by(10) {
        let mut client = Client::connect(hakaru.address);
        client.send(&request[..length]);
        client.shutdown_write();
        assert!(client.is_closed());
    }
    assert_eq!(hakaru.stats()["events"]["received"], 0);
    for _ in 0..3 {
        assert_eq!(ask(&hakaru, "", array(0..40).as_bytes()).status, 200);
    }
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.stored), (120, 120));
}

#[test]
fn ten_thousand_events_may_come_a_byte_at_a_time() {
    for io in ["--io=auto", "--io=epoll"] {
        let hakaru = Settings::sqlite().flag(io).start();
        let mut client = Client::connect(hakaru.address);
        for byte in post("", array(0..10_000).as_bytes()) {
            client.send(&[byte]);
        }
        assert_eq!(client.answer().body, "{\"taken\":10000}");
        // In chunks of one byte too.
        client.send(b"POST /hakaru HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        for byte in array(0..1_000).bytes() {
            client.send(format!("1\r\n{}\r\n", char::from(byte)).as_bytes());
        }
        client.send(b"0\r\n\r\n");
        assert_eq!(client.answer().body, "{\"taken\":1000}");
        assert_eq!(hakaru.stop().stored, 11_000);
    }
}

#[test]
fn the_events_of_a_request_are_one_promise_for_each_ack() {
    let database = DatabaseServer::start();
    for ack in ["received", "journaled", "stored"] {
        database.run("DROP TABLE IF EXISTS eventlog");
        let hakaru = Settings::mysql(&database)
            .flag(&format!("--ack={ack}"))
            .flag("--batch-events=100")
            .start();
        // Bodies, single events and one that is wrong, pipelined.
        let mut requests = Vec::new();
        for turn in 0..20 {
            requests.extend(post("", array(turn * 100..turn * 100 + 50).as_bytes()));
            requests.extend(b"GET /hakaru?name=a&value=1 HTTP/1.1\r\nHost: h\r\n\r\n");
            requests.extend(post("", b"[{\"name\":\"a\",\"value\":1},7]"));
        }
        let mut client = Client::connect(hakaru.address);
        client.send(&requests);
        for _ in 0..20 {
            assert_eq!(client.answer().body, "{\"taken\":50}");
            assert_eq!(client.answer().status, 200);
            assert_eq!(client.answer().status, 400);
        }
        if ack == "stored" {
            assert_eq!(database.count(), 20 * 51);
        }
        let identity = hakaru.stop();
        assert_eq!((identity.received, identity.stored), (1020, 1020), "{ack}");
        assert_eq!(database.count(), 1020, "{ack}");
    }
}

#[test]
fn with_ack_stored_a_refused_event_of_many_is_named() {
    let database = DatabaseServer::start();
    let hakaru = Settings::mysql(&database)
        .flag("--ack=stored")
        .flag("--cores=1")
        .start();
    wait_until("there is a table", || {
        !database
            .query::<String>("SHOW TABLES LIKE 'eventlog'")
            .is_empty()
    });
    database.run("ALTER TABLE eventlog ADD CONSTRAINT small CHECK (value < 1000)");
    let mut client = Client::connect(hakaru.address);
    let mut requests = post("", array([1, 2]).as_bytes());
    requests.extend(post("", array([3, 4000, 5, 6000]).as_bytes()));
    requests.extend(b"GET /hakaru?name=a&value=7 HTTP/1.1\r\nHost: h\r\n\r\n");
    client.send(&requests);
    assert_eq!(client.answer().body, "{\"taken\":2}");
    let refused = client.answer();
    assert_eq!(refused.status, 422);
    let document: Value = serde_json::from_str(&refused.body).unwrap();
    let error = document["error"].as_str().unwrap();
    assert!(error.contains("2 of 4 events were refused"), "{error}");
    assert_eq!(document["event"], 1);
    assert_eq!(client.answer().status, 200);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.dead_lettered), (5, 2));
}
