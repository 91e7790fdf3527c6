//! The status page in a browser, with any statistics of the server, and without an answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::browser::{self, Seen};
use crate::support::{Client, Settings, wait_until};

const PAGE: &str = include_str!("../../src/admin/page.html");

/// The page as the browser has it after three seconds of virtual time.
fn open(url: &str) -> String {
    let Seen { dom, console } = browser::open(url);
    // Errors of the page's script, and violations of the content security policy.
    let is_fault = |line: &&String| !line.contains("Failed to load resource");
    let faults: Vec<_> = console.iter().filter(is_fault).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    dom
}

/// Serves the page until the process ends, and the given statistics `times` times.
fn serve(stats: &Value, times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (stats, left) = (stats.to_string(), Arc::new(AtomicUsize::new(times)));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (stats, left) = (stats.clone(), Arc::clone(&left));
            thread::spawn(move || answer(stream, &stats, &left));
        }
    });
    url
}

/// Answers one request. A browser may also open a connection that it never uses.
fn answer(stream: TcpStream, stats: &str, left: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next()?.ok()?;
    lines
        .find(|line| line.as_ref().map_or(true, String::is_empty))?
        .ok()?;
    let (kind, body) = if request.starts_with("GET /stats.json ") {
        let less = |left: usize| left.checked_sub(1);
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok()?;
        ("application/json", stats)
    } else {
        ("text/html; charset=utf-8", PAGE)
    };
    let length = body.len();
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .ok()
}

/// The text of the element with this id, which must have no child elements.
fn text<'a>(dom: &'a str, id: &str) -> &'a str {
    let (_, rest) = dom.split_once(&format!("id=\"{id}\"")).expect(id);
    let (_, inside) = rest.split_once('>').unwrap();
    inside.split_once('<').unwrap().0
}

#[test]
fn the_page_shows_the_events_of_a_server_and_shows_names_as_text() {
    let hakaru = Settings::sqlite().flag("--linger=20ms").start();
    let mut client = Client::connect(hakaru.address);
    // It would change the title, if it became an element.
    let name = "%3Cimg+id%3Dinjected+src%3Dx+onerror%3Ddocument.title%3D%27owned%27%3E";
    for _ in 0..64 {
        let answer = client.get(&format!("/hakaru?name={name}&value=1"));
        assert_eq!(answer.status, 200);
    }
    assert_eq!(client.get("/hakaru?name=&value=1").status, 400);
    wait_until("the events are stored", || {
        let stats = Client::connect(hakaru.admin()).get("/stats.json").body;
        serde_json::from_str::<Value>(&stats).unwrap()["events"]["stored"] == 64
    });
    let dom = open(&format!("http://{}/", hakaru.admin()));
    for (id, expected) in [
        ("state", "✓ ready"),
        ("sum-received", "64"),
        ("sum-stored", "64"),
        ("sum-dead", "0"),
        ("sum-pending", "0"),
        ("sum-verdict", "✓ every event is accounted for"),
        ("rejected-total", "1 in all"),
        ("database-state", "✓ takes writes"),
    ] {
        assert_eq!(text(&dom, id), expected, "{id}\n{dom}");
    }
    let shown = ">&lt;img id=injected src=x onerror=document.title='owned'&gt;</span>";
    assert!(dom.contains(shown), "{dom}");
    // The attributes of an element would have quotation marks.
    assert!(!dom.contains("<img id=\"injected\""), "{dom}");
    assert!(!dom.contains("<title>owned"), "{dom}");
    assert!(dom.contains("ready – hakaru</title>"), "{dom}");
    hakaru.stop();
}

#[test]
fn missing_or_strange_statistics_do_not_affect_others() {
    let empty = open(&serve(&json!({}), usize::MAX));
    assert_eq!(text(&empty, "state"), "? unknown");
    assert_eq!(text(&empty, "sum-received"), "–");
    let nothing = json!({
        "state": null, "events": null, "http": null, "journal": null, "queue": null, "database": null,
        "latency_seconds": null, "top_names": null, "process": null, "history": null,
    });
    let nothing = open(&serve(&nothing, usize::MAX));
    assert_eq!(text(&nothing, "state"), "? unknown");
    let strange = json!({
        "state": "shedding", "reason": "<b id=reason>", "data_dir_warning": "<b id=directory>", "node": "<b id=node>", "ack": "<b id=ack>",
        "promise": "<b id=promise>", "events": { "received": 1e19, "rejected": { "<b id=why>": 7 } },
        "http": 7, "journal": [], "queue": "full", "latency_seconds": { "<b id=time>": {} },
        "database": {
            "healthy": false, "reason": "<b id=trouble>", "address": "<b id=address>", "writers": 7,
            "errors": [null, {}, { "at": 1.5, "class": "<b id=class>", "code": "<b id=code>", "text": "<b id=text>" }],
        },
        "top_names": { "names": [null, {}, { "name": "\u{202e}evil\u{200b}", "share": 2.0 }, { "name": " " }] },
        "history": { "received_per_second": ["many", null, 1e300], "journal_bytes": [-1, 0, 1] },
    });
    let strange = open(&serve(&strange, usize::MAX));
    assert_eq!(text(&strange, "state"), "! shedding");
    assert_eq!(text(&strange, "sum-received"), "10,000,000,000,000,000,000");
    assert_eq!(text(&strange, "database-reason"), "&lt;b id=trouble&gt;");
    assert!(
        strange.contains("Data directory &lt;b id=directory&gt;."),
        "{strange}"
    );
    for id in [
        "reason",
        "directory",
        "why",
        "time",
        "trouble",
        "address",
        "class",
        "code",
        "text",
        "ack",
    ] {
        assert!(
            !strange.contains(&format!("<b id=\"{id}\"")),
            "{id}\n{strange}"
        );
    }
    // Characters that change the text direction or are invisible are shown as codes.
    assert!(
        !strange.contains('\u{202e}') && strange.contains("\\u{202e}"),
        "{strange}"
    );
    assert!(strange.contains("\\u{20}"), "{strange}");
}

#[test]
fn a_server_that_does_not_answer_is_shown() {
    let stats = json!({ "state": "ready", "node": "one", "events": { "received": 7 } });
    let dom = open(&serve(&stats, 1));
    assert_eq!(text(&dom, "state"), "? no answer");
    assert!(
        dom.contains("<title>? one no answer – hakaru</title>"),
        "{dom}"
    );
    let shown = text(&dom, "lost-what");
    let since = "No answer from this server since ";
    assert!(
        shown.contains(since) && shown.ends_with(": no connection."),
        "{shown}"
    );
    // The last known figures are still shown.
    assert_eq!(text(&dom, "sum-received"), "7");
    let never = open(&serve(&stats, 0));
    let shown = text(&never, "lost-what");
    assert!(shown.contains("since this page was opened at "), "{shown}");
}

#[test]
fn the_page_is_one_small_file_that_loads_no_others() {
    assert!(PAGE.len() < 60 * 1024);
    let outside = PAGE.replace("http://www.w3.org/2000/svg", "");
    for refused in [
        "://",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!outside.contains(refused), "{refused}");
    }
}
