//! The examples of docs/sending.md, as they are there, with the address of a server in the place of the example's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::browser::{self, Browser};
use crate::support::{DatabaseServer, Hakaru, Settings, run, wait_until};

/// The language and the text of each fenced block, in order.
fn examples() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sending.md");
    let text = fs::read_to_string(path).unwrap();
    let mut examples = Vec::new();
    for fenced in text.split("\n```").skip(1).step_by(2) {
        let (language, block) = fenced.split_once('\n').unwrap();
        examples.push((language.to_owned(), format!("{block}\n")));
    }
    examples
}

fn of<'e>(examples: &'e [(String, String)], languages: &[&str]) -> Vec<(&'e str, &'e str)> {
    let all = examples.iter();
    let all = all.map(|(language, block)| (&language[..], &block[..]));
    all.filter(|(language, _)| languages.contains(language))
        .collect()
}

/// The statement of the document, on the table as hakaru makes it.
fn database_with_ids(examples: &[(String, String)]) -> DatabaseServer {
    let database = DatabaseServer::start();
    database.run(
        "CREATE TABLE eventlog (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         at datetime DEFAULT NULL, name varchar(255) NOT NULL, value int unsigned) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8 COLLATE=utf8_unicode_ci",
    );
    let statements = of(examples, &["sql"]);
    assert_eq!(statements.len(), 1);
    database.run(statements[0].1);
    database
}

/// The words of a command that runs an example, with hakaru at this address, and ends it where it hangs.
fn example_command(
    hakaru: &Hakaru,
    language: &str,
    block: &str,
    address: SocketAddr,
) -> Vec<String> {
    let block = block.replace("https://events.example", &format!("http://{address}"));
    let (program, arguments, file) = match language {
        "console" => ("bash", &["-euo", "pipefail"][..], "example.sh"),
        "js" => ("node", &[][..], "example.mjs"),
        "python" => ("python3", &[][..], "example.py"),
        "go" => ("go", &["run"][..], "example.go"),
        other => panic!("nobody knows how to run {other}"),
    };
    let file = hakaru.path(&format!("{}-{file}", address.port()));
    fs::write(&file, block).unwrap();
    let file = file.to_str().unwrap();
    let words = [&["timeout", "120", program], arguments, &[file]].concat();
    words.into_iter().map(str::to_owned).collect()
}

/// Runs an example to its end, with hakaru at this address.
fn run_example(hakaru: &Hakaru, language: &str, block: &str, address: SocketAddr) {
    let words = example_command(hakaru, language, block, address);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(words[0], &words[1..]);
}

/// How many rows there are of each name, and how many of them have an id.
fn rows(database: &DatabaseServer) -> BTreeMap<String, (u64, u64)> {
    let rows: Vec<(String, u64, u64)> =
        database.query("SELECT name, COUNT(*), COUNT(event_id) FROM eventlog GROUP BY name");
    rows.into_iter()
        .map(|(name, all, with_id)| (name, (all, with_id)))
        .collect()
}

fn expected(rows: &[(&str, u64, u64)]) -> BTreeMap<String, (u64, u64)> {
    let rows = rows.iter();
    rows.map(|&(name, all, with_id)| (name.to_owned(), (all, with_id)))
        .collect()
}

const PROGRAMS: [&str; 4] = ["console", "js", "python", "go"];

#[test]
fn each_program_of_the_document_stores_its_events() {
    let examples = examples();
    let database = database_with_ids(&examples);
    let hakaru = Settings::mysql(&database).start();
    let programs = of(&examples, &PROGRAMS);
    let others = of(&examples, &["html", "sql"]).len();
    assert_eq!(programs.len() + others, examples.len());
    for (language, block) in programs {
        run_example(&hakaru, language, block, hakaru.address);
    }
    let identity = hakaru.stop();
    assert_eq!((identity.duplicate, identity.rejected), (0, 1));
    assert_eq!(
        rows(&database),
        expected(&[
            ("go", 2, 2),
            ("lenient", 2, 0),
            ("node", 2, 2),
            ("python", 2, 2),
            ("shell-form", 1, 1),
            ("shell-get", 1, 0),
            ("shell-lines", 3, 0),
        ])
    );
}

#[test]
fn an_event_that_is_refused_is_sent_once_and_its_reason_is_shown() {
    let examples = examples();
    let hakaru = Settings::sqlite().start();
    let mut refused = 0;
    for (language, block) in of(&examples, &PROGRAMS) {
        if block.contains("lenient") {
            continue;
        }
        let mut nameless = block.to_owned();
        for name in ["shell-get", "shell-form", "shell-lines"] {
            nameless = nameless.replace(name, "");
        }
        for name in ["'node'", "\"python\"", "\"go\""] {
            nameless = nameless.replace(name, "\"\"");
        }
        assert_ne!(nameless, block, "{language}");
        let words = example_command(&hakaru, language, &nameless, hakaru.address);
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8_lossy(&shown);
        // 124 is the status of `timeout`.
        let is_failed = !output.status.success() && output.status.code() != Some(124);
        assert!(is_failed, "{language}: {}: {shown}", output.status);
        assert!(
            shown.contains("name: empty; accepted: "),
            "{language}: {shown}"
        );
        refused += 1;
    }
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.rejected), (0, refused));
}

/// The list of two events in an example, and one of three with ids of all kinds and 10,001 with this name.
fn lists(language: &str, name: &str) -> (&'static str, String) {
    match language {
        "js" => (
            "[{ name: 'node', value: 1 }, { name: 'node', value: 2 }]",
            format!(
                "[{{ name: 'node', value: 1, id: 'js-1' }}, {{ name: 'node', value: 2, id: null }}, \
                 {{ name: 'node', value: 3, id: undefined }}, \
                 ...Array.from({{ length: 10001 }}, () => ({{ name: '{name}', value: 1 }}))]"
            ),
        ),
        "python" => (
            r#"[{"name": "python", "value": 1}, {"name": "python", "value": 2}]"#,
            format!(
                r#"[{{"name": "python", "value": 1, "id": "python-1"}}, {{"name": "python", "value": 2, "id": None}},
                 {{"name": "python", "value": 3, "id": ""}},
                 *({{"name": "{name}", "value": 1}} for _ in range(10001))]"#
            ),
        ),
        "go" => (
            r#"[]event{{Name: "go", Value: 1}, {Name: "go", Value: 2}}"#,
            format!(
                r#"func() []event {{
                 list := []event{{{{ID: "go-1", Name: "go", Value: 1}}, {{Name: "go", Value: 2}}, {{Name: "go", Value: 3}}}}
                 for i := 0; i < 10001; i++ {{ list = append(list, event{{Name: "{name}", Value: 1}}) }}
                 return list }}()"#
            ),
        ),
        other => panic!("{other} has no list"),
    }
}

#[test]
fn a_long_list_is_sent_in_parts_and_each_event_has_an_id() {
    let examples = examples();
    let database = database_with_ids(&examples);
    let hakaru = Settings::mysql(&database).start();
    // 10,001 events in 6 MB: above both bounds.
    let name = "\u{8a08}".repeat(200);
    for (language, block) in of(&examples, &["js", "python", "go"]) {
        let (two, many) = lists(language, &name);
        assert!(block.contains(two), "{language}");
        run_example(
            &hakaru,
            language,
            &block.replace(two, &many),
            hakaru.address,
        );
    }
    let identity = hakaru.stop();
    assert_eq!((identity.duplicate, identity.rejected), (0, 0));
    assert_eq!(
        rows(&database),
        expected(&[
            ("go", 3, 3),
            ("node", 3, 3),
            ("python", 3, 3),
            (&name, 30_003, 30_003)
        ])
    );
    let kept: Vec<String> =
        database.query("SELECT event_id FROM eventlog WHERE event_id LIKE '%-1' ORDER BY event_id");
    assert!(
        ["go-1", "js-1", "python-1"]
            .iter()
            .all(|id| kept.iter().any(|kept| kept == id)),
        "{kept:?}"
    );
}

#[test]
fn each_page_of_the_document_stores_its_events() {
    let examples = examples();
    let database = database_with_ids(&examples);
    let hakaru = Settings::mysql(&database).flag("--linger=20ms").start();
    let browser = Browser::start();
    for (_, block) in of(&examples, &["html"]) {
        let block = block.replace(
            "https://events.example",
            &format!("http://{}", hakaru.address),
        );
        let page = format!("<link rel=icon href=data:,><title>ready</title>{block}");
        let address = browser::serve(move |path| (path == "/").then(|| page.clone()));
        let tab = browser.open(&address);
        browser.wait_for_title(&tab, "ready");
        wait_until("the page has loaded what it loads", || {
            block.contains("pagehide") || has_row(&database, &block)
        });
        browser.close(&tab);
    }
    wait_until("all are stored", || {
        rows(&database)
            == expected(&[
                ("page-beacon", 1, 0),
                ("page-fetch", 2, 0),
                ("page-image", 1, 0),
                ("page-script", 1, 1),
            ])
    });
    assert_eq!(browser.stop(), [""; 0]);
    assert_eq!(hakaru.stop().rejected, 0);
}

/// Whether there is a row with a name that this example sends.
fn has_row(database: &DatabaseServer, block: &str) -> bool {
    rows(database).keys().any(|name| block.contains(&name[..]))
}

/// A front that fails its first connections, each in another way, and then passes all on.
fn failing_front(behind: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let connections = Arc::clone(&count);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            match connections.fetch_add(1, Ordering::Relaxed) {
                // It is not answered.
                0 => {
                    read_request(&client);
                }
                // It is stored, and the answer is lost.
                1 => drop(ask(behind, &read_request(&client))),
                2 => {
                    read_request(&client);
                    let shed = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    (&client).write_all(shed).unwrap();
                }
                // The answer is cut off.
                3 => {
                    let answer = ask(behind, &read_request(&client));
                    (&client).write_all(&answer[..10]).unwrap();
                }
                _ => {
                    let answer = ask(behind, &read_request(&client));
                    (&client).write_all(&answer).unwrap();
                }
            }
            client.shutdown(Shutdown::Both).unwrap_or_default();
        }
    });
    (address, count)
}

/// Reads a request with a `Content-Length`.
fn read_request(mut client: &TcpStream) -> Vec<u8> {
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let length = client.read(&mut piece).unwrap();
        request.extend(&piece[..length]);
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let field = head.split("content-length: ").nth(1).unwrap_or("0");
            let length: usize = field.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                return request;
            }
        }
        assert!(length > 0, "{text}");
    }
}

/// Sends a request, which the server answers and closes, and returns the answer.
fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut server = TcpStream::connect(address).unwrap();
    server.write_all(request).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn the_programs_of_the_document_repeat_until_they_are_answered() {
    let examples = examples();
    let database = database_with_ids(&examples);
    let hakaru = Settings::mysql(&database).start();
    let mut repeating = of(&examples, &["js", "python", "go"]);
    let with_id = of(&examples, &["console"])
        .into_iter()
        .filter(|(_, block)| block.contains("--retry "));
    repeating.extend(with_id);
    assert_eq!(repeating.len(), 4);
    thread::scope(|scope| {
        for (language, block) in repeating {
            let hakaru = &hakaru;
            scope.spawn(move || {
                let (front, connections) = failing_front(hakaru.address);
                run_example(hakaru, language, block, front);
                assert_eq!(connections.load(Ordering::Relaxed), 5, "{language}");
            });
        }
    });
    // Three of the five attempts of each arrive.
    let identity = hakaru.stop();
    assert_eq!((identity.received, identity.duplicate), (21, 14));
    assert_eq!(
        rows(&database),
        expected(&[
            ("go", 2, 2),
            ("node", 2, 2),
            ("python", 2, 2),
            ("shell-form", 1, 1)
        ])
    );
}
