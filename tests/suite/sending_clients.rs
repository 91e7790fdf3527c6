//! Common HTTP clients send events in bodies, and each event is one row.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::bodies::{array, gzip, post};
use crate::support::{Client, Hakaru, Nginx, Settings, run};

fn start() -> Hakaru {
    Settings::sqlite().start()
}

/// Runs a program, whose first argument is the server's address.
fn run_program(hakaru: &Hakaru, program: &[&str], name: &str, text: &str) -> String {
    let file = hakaru.path(name);
    fs::write(&file, text).unwrap();
    let address = hakaru.address.to_string();
    let arguments = [&program[1..], &[file.to_str().unwrap(), &address[..]]].concat();
    run(program[0], &arguments)
}

#[test]
fn node() {
    let hakaru = start();
    let program = "
const url = `http://${process.argv[2]}/hakaru`;
const send = async sender => {
  for (let turn = 0; turn < 20; turn++) {
    const events = Array.from({length: 50}, (_, i) => ({name: 'node 計', value: sender * 1000 + i}));
    const answer = await fetch(url, {method: 'POST', body: JSON.stringify(events)});
    const {taken} = await answer.json();
    if (answer.status !== 200 || taken !== 50) throw new Error(answer.status);
    const form = await fetch(url, {method: 'POST', body: new URLSearchParams({name: 'a & b', value: turn})});
    if (form.status !== 200 || await form.text() !== '') throw new Error(form.status);
    // A body whose length is not known before is sent in chunks.
    const body = new Blob([JSON.stringify(events)]).stream();
    const chunked = await fetch(url, {method: 'POST', body, duplex: 'half'});
    if (chunked.status !== 200 || (await chunked.json()).taken !== 50) throw new Error(chunked.status);
  }
  const wrong = await fetch(url, {method: 'POST', body: '[{\"name\":\"a\",\"value\":1},{}]'});
  if (wrong.status !== 400 || (await wrong.json()).event !== 1) throw new Error(wrong.status);
};
await Promise.all([...Array(8).keys()].map(send));
";
    run_program(&hakaru, &["node"], "send.mjs", program);
    let identity = hakaru.stop();
    assert_eq!((identity.stored, identity.rejected), (8 * 20 * 101, 8));
}

#[test]
fn python() {
    let hakaru = start();
    let program = "
import gzip, http.client, json, sys, urllib.parse, urllib.request
url = 'http://' + sys.argv[1] + '/hakaru'
events = json.dumps([{'name': '計', 'value': value} for value in range(50)]).encode()
for body, fields in [
    (events, {'Content-Type': 'application/json'}),
    (gzip.compress(events), {'Content-Type': 'application/json', 'Content-Encoding': 'gzip'}),
    (urllib.parse.urlencode({'name': 'a&b', 'value': 1}).encode(), {}),
    # An iterator is sent in chunks.
    ((line.encode() + b'\\n' for line in ['{\"name\":\"a\",\"value\":1}'] * 50), {'Content-Type': 'application/x-ndjson'}),
]:
    with urllib.request.urlopen(urllib.request.Request(url, body, fields)) as answer:
        assert answer.status == 200, answer.status
connection = http.client.HTTPConnection(sys.argv[1])
for _ in range(20):
    connection.request('POST', '/hakaru', events, {'Content-Type': 'application/json'})
    answer = connection.getresponse()
    assert json.load(answer) == {'taken': 50}
";
    run_program(&hakaru, &["python3"], "send.py", program);
    assert_eq!(hakaru.stop().stored, 50 + 50 + 1 + 50 + 1_000);
}

#[test]
fn python_requests_where_it_is_installed() {
    let found = Command::new("python3")
        .args(["-c", "import requests"])
        .output();
    if !found.unwrap().status.success() {
        return;
    }
    let hakaru = start();
    let program = "
import requests, sys
url = 'http://' + sys.argv[1] + '/hakaru'
with requests.Session() as session:
    for value in range(50):
        answer = session.post(url, json=[{'name': 'a', 'value': value}, {'name': 'b', 'value': value}], timeout=30)
        assert answer.json() == {'taken': 2}, answer.text
        assert session.post(url, data={'name': 'form 計', 'value': value}, timeout=30).status_code == 200
    assert session.post(url, files={'name': 'a'}, timeout=30).status_code == 415
";
    run_program(&hakaru, &["python3"], "send.py", program);
    assert_eq!(hakaru.stop().stored, 150);
}

#[test]
fn go() {
    let hakaru = start();
    let program = r#"package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
)

func main() {
	address := "http://" + os.Args[1] + "/hakaru"
	var lines, compressed bytes.Buffer
	for value := 0; value < 50; value++ {
		fmt.Fprintf(&lines, "{\"name\":\"go\",\"value\":%d}\n", value)
	}
	writer := gzip.NewWriter(&compressed)
	writer.Write(lines.Bytes())
	writer.Close()
	post := func(body io.Reader, media, coding string) {
		request, _ := http.NewRequest("POST", address, body)
		request.Header.Set("Content-Type", media)
		if coding != "" {
			request.Header.Set("Content-Encoding", coding)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			panic(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != 200 || string(text) != `{"taken":50}` {
			panic(response.Status + string(text))
		}
	}
	var senders sync.WaitGroup
	for sender := 0; sender < 8; sender++ {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for turn := 0; turn < 10; turn++ {
				post(bytes.NewReader(lines.Bytes()), "application/x-ndjson", "")
				post(bytes.NewReader(compressed.Bytes()), "application/jsonl", "gzip")
				// Of unknown length: in chunks.
				post(io.MultiReader(bytes.NewReader(lines.Bytes())), "application/x-ndjson", "")
				response, err := http.PostForm(address, url.Values{"name": {"a & b"}, "value": {"1"}})
				if err != nil || response.StatusCode != 200 {
					panic(err)
				}
				response.Body.Close()
			}
		}()
	}
	senders.Wait()
}
"#;
    run_program(&hakaru, &["go", "run"], "send.go", program);
    assert_eq!(hakaru.stop().stored, 8 * 10 * 151);
}

/// An array of events that is larger than the default bound, by blanks.
fn large_array(bytes: usize) -> String {
    let events = array(0..10);
    let blanks = " ".repeat(bytes - events.len());
    events + &blanks
}

#[test]
fn curl() {
    let hakaru = start();
    let url = format!("http://{}/hakaru", hakaru.address);
    let file = |name: &str, bytes: &[u8]| {
        let path = hakaru.path(name);
        fs::write(&path, bytes).unwrap();
        format!("@{}", path.display())
    };
    let lines = "{\"name\":\"a\",\"value\":1}\n".repeat(100);
    let lines = [
        file("lines", lines.as_bytes()),
        file("lines.gz", &gzip(lines.as_bytes())),
    ];
    let large = file("large", large_array(1 << 20).as_bytes());
    let too_large = file("too-large", large_array((1 << 20) + 1).as_bytes());
    let media = "Content-Type: application/x-ndjson";
    let json = "Content-Type: application/json";
    let expect = "Expect: 100-continue";
    let coding = "Content-Encoding: gzip";
    for (arguments, answer) in [
        (
            &["-d", "name=a", "--data-urlencode", "value=1"][..],
            " 200 0",
        ),
        (
            &["-H", media, "--data-binary", &lines[0]],
            "{\"taken\":100} 200 0",
        ),
        (
            &["-H", media, "-H", coding, "--data-binary", &lines[1]],
            "{\"taken\":100} 200 0",
        ),
        // `-d` removes line ends: what was lines is one line then.
        (&["-o", "/dev/null", "-H", media, "-d", &lines[0]], " 400 0"),
        (
            &["-H", json, "-H", expect, "--data-binary", &large],
            "{\"taken\":10} 200 1048576",
        ),
        // It is refused before any of it is sent.
        (
            &[
                "-o",
                "/dev/null",
                "-H",
                expect,
                "--data-binary",
                &too_large[..],
            ],
            " 413 0",
        ),
    ] {
        let mut all = vec!["-sS", "--expect100-timeout", "30"];
        all.extend(["-w", " %{http_code} %{size_upload}", &url[..]]);
        all.extend(arguments);
        let (found, answer) = (run("curl", &all), answer.to_owned());
        let counts_upload = arguments.contains(&expect);
        let found = found.rsplit_once(' ').unwrap();
        let wanted = answer.rsplit_once(' ').unwrap();
        assert_eq!(found.0, wanted.0, "{arguments:?}");
        assert!(!counts_upload || found.1 == wanted.1, "{found:?}");
    }
    assert_eq!(hakaru.stop().stored, 1 + 100 + 100 + 10);
}

#[test]
fn ab() {
    let hakaru = start();
    let body = hakaru.path("body");
    fs::write(&body, array(0..10)).unwrap();
    let url = format!("http://{}/hakaru", hakaru.address);
    let arguments = [
        "-k",
        "-q",
        "-n",
        "2000",
        "-c",
        "20",
        "-T",
        "application/json",
    ];
    let file = ["-p", body.to_str().unwrap(), &url];
    let report = run("ab", &[&arguments[..], &file].concat());
    for words in [
        "Complete requests:      2000",
        "Failed requests:        0",
        "Keep-Alive requests:    2000",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(!report.contains("Non-2xx"), "{report}");
    assert_eq!(hakaru.stop().stored, 20_000);
}

#[test]
fn wrk() {
    let hakaru = start();
    let script = hakaru.path("post.lua");
    fs::write(
        &script,
        "wrk.method = 'POST'\n\
         wrk.headers['Content-Type'] = 'application/x-ndjson'\n\
         wrk.body = string.rep('{\"name\":\"wrk\",\"value\":1}\\n', 20)\n",
    )
    .unwrap();
    let url = format!("http://{}/hakaru", hakaru.address);
    let script = script.to_str().unwrap();
    let report = run("wrk", &["-t1", "-c20", "-d1s", "-s", script, &url]);
    assert!(
        !report.contains("Non-2xx") && !report.contains("Socket errors"),
        "{report}"
    );
    let mut lines = report.lines();
    let requests = lines.find_map(|line| line.trim().split_once(" requests in "));
    let answered: u64 = requests.unwrap().0.parse().unwrap();
    let stored = hakaru.stop().stored;
    // At its end wrk leaves at most one answer per connection unread. No request is stored by half.
    assert_eq!(stored % 20, 0);
    assert!(
        (answered..=answered + 20).contains(&(stored / 20)),
        "{stored} stored, {answered} answered"
    );
}

#[test]
fn nginx_passes_bodies_on_whether_it_keeps_them_first_or_not() {
    for buffering in [
        "proxy_request_buffering on;",
        "proxy_request_buffering off;",
    ] {
        let hakaru = start();
        let nginx = Nginx::start(&hakaru, buffering);
        let address = ([127, 0, 0, 1], nginx.port).into();
        let large = large_array(1 << 20);
        let mut client = Client::connect(address);
        // At once, slowly, in chunks, too large, and one more on the connection to hakaru.
        client.send(&post("", large.as_bytes()));
        assert_eq!(client.answer().body, "{\"taken\":10}", "{buffering}");
        for piece in post("", large.as_bytes()).chunks(64 << 10) {
            client.send(piece);
            thread::park_timeout(Duration::from_millis(20));
        }
        assert_eq!(client.answer().body, "{\"taken\":10}", "{buffering}");
        client.send(b"POST /hakaru HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in large.as_bytes().chunks(30_000) {
            client.send(format!("{:x}\r\n", piece.len()).as_bytes());
            client.send(piece);
            client.send(b"\r\n");
        }
        client.send(b"0\r\n\r\n");
        assert_eq!(client.answer().body, "{\"taken\":10}", "{buffering}");
        let mut other = Client::connect(address);
        other.send_further(&post("", large_array((1 << 20) + 1).as_bytes()));
        assert_eq!(other.answer().status, 413, "{buffering}");
        client.send(&post("", array(0..7).as_bytes()));
        assert_eq!(client.answer().body, "{\"taken\":7}", "{buffering}");
        // A sender that goes away in the middle.
        let request = post("", array(0..10_000).as_bytes());
        let mut gone = Client::connect(address);
        gone.send(&request[..request.len() - 1]);
        gone.shutdown_write();
        drop(gone);
        client.send(&post("", array(0..3).as_bytes()));
        assert_eq!(client.answer().body, "{\"taken\":3}", "{buffering}");
        drop(nginx);
        let identity = hakaru.stop();
        assert_eq!(
            (identity.received, identity.stored),
            (40, 40),
            "{buffering}"
        );
    }
}
