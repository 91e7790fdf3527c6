//! Common HTTP clients work without changes, and each of their events is a row.

use std::fs;

use crate::support::{Hakaru, Nginx, Settings, run};

fn start() -> Hakaru {
    Settings::sqlite().start()
}

#[test]
fn curl() {
    let hakaru = start();
    let url = format!("http://{}/hakaru?name=open&value=[1-20]", hakaru.address);
    let statuses = run(
        "curl",
        &["-sS", "-w", "%{http_code} %{num_connects}\n", &url],
    );
    assert_eq!(
        statuses,
        "200 1\n".to_owned() + &"200 0\n".repeat(19),
        "one connection, kept"
    );
    let expect = run(
        "curl",
        &[
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "POST",
            "-H",
            "Expect: 100-continue",
            "-d",
            "body",
            &format!("http://{}/hakaru", hakaru.address),
        ],
    );
    assert_eq!(expect, "400", "it has no name");
    assert_eq!(hakaru.stop().stored, 20);
}

#[test]
fn python() {
    let hakaru = start();
    let program = "
import http.client, sys, urllib.parse, urllib.request
host = sys.argv[1]
connection = http.client.HTTPConnection(host)
for value in range(50):
    query = urllib.parse.urlencode({'name': '計る & co', 'value': value})
    connection.request('GET', '/hakaru?' + query)
    response = connection.getresponse()
    assert response.status == 200 and response.read() == b'', response.status
with urllib.request.urlopen('http://' + host + '/hakaru?name=u&value=1') as response:
    assert response.status == 200
";
    run("python3", &["-c", program, &hakaru.address.to_string()]);
    assert_eq!(hakaru.stop().stored, 51);
}

#[test]
fn go() {
    let hakaru = start();
    let program = hakaru.path("send.go");
    fs::write(
        &program,
        r#"package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
)

func main() {
	var senders sync.WaitGroup
	for sender := 0; sender < 8; sender++ {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for value := 0; value < 100; value++ {
				query := url.Values{"name": {"open & shut"}, "value": {fmt.Sprint(value)}}
				response, err := http.Get("http://" + os.Args[1] + "/hakaru?" + query.Encode())
				if err != nil {
					panic(err)
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != 200 {
					panic(response.Status)
				}
			}
		}()
	}
	senders.Wait()
}
"#,
    )
    .unwrap();
    run(
        "go",
        &[
            "run",
            program.to_str().unwrap(),
            &hakaru.address.to_string(),
        ],
    );
    assert_eq!(hakaru.stop().stored, 800);
}

#[test]
fn ab_with_http_1_0_keep_alive() {
    let hakaru = start();
    let url = format!("http://{}/hakaru?name=open&value=1", hakaru.address);
    let report = run("ab", &["-k", "-q", "-n", "5000", "-c", "20", &url]);
    for words in [
        "Complete requests:      5000",
        "Failed requests:        0",
        "Keep-Alive requests:    5000",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(!report.contains("Non-2xx"), "{report}");
    assert_eq!(hakaru.stop().stored, 5_000);
}

#[test]
fn wrk() {
    let hakaru = start();
    let url = format!("http://{}/hakaru?name=open&value=1", hakaru.address);
    let report = run("wrk", &["-t1", "-c20", "-d1s", &url]);
    assert!(
        !report.contains("Non-2xx") && !report.contains("Socket errors"),
        "{report}"
    );
    let requests = report
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "));
    let answered: u64 = requests.unwrap().0.parse().unwrap();
    let stored = hakaru.stop().stored;
    // At its end wrk leaves at most one answer per connection unread.
    assert!(
        (answered..=answered + 20).contains(&stored),
        "{stored} stored, {answered} answered"
    );
}

#[test]
fn nginx_in_front_keeps_its_connections() {
    let hakaru = start();
    let nginx = Nginx::start(&hakaru, "");
    let url = format!(
        "http://127.0.0.1:{}/hakaru?name=open&value=[1-500]",
        nginx.port
    );
    let statuses = run("curl", &["-sS", "-w", "%{http_code}\n", &url]);
    assert_eq!(statuses, "200\n".repeat(500));
    let refused = format!("http://127.0.0.1:{}/hakaru?name=open&value=x", nginx.port);
    assert!(run("curl", &["-sS", "-i", &refused]).contains("X-Hakaru-Reason: value"));
    drop(nginx);
    assert_eq!(hakaru.stop().stored, 500);
}
