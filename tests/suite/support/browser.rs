//! A real browser.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{DEADLINE, wait_until};

/// What a browser has of a page after three seconds of virtual time.
pub struct Seen {
    pub dom: String,
    /// The lines of its console.
    pub console: Vec<String>,
}

fn chromium(directory: &Path) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "120", "chromium", "--headless"])
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .args(["--disable-quic", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", directory.display()));
    command
}

pub fn open(url: &str) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let output = chromium(directory.path())
        .args(["--virtual-time-budget=3000", "--dump-dom", url])
        .output()
        .expect("chromium, from Debian's package of that name");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let lines = log.lines().filter(|line| line.contains("CONSOLE"));
    Seen {
        dom: String::from_utf8(output.stdout).unwrap(),
        console: lines.map(str::to_owned).collect(),
    }
}

/// A browser that runs in real time, with tabs that can be closed.
pub struct Browser {
    child: Child,
    port: u16,
    console: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

/// A tab of a browser.
pub struct Tab(String);

impl Browser {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = chromium(directory.path())
            .args(["--remote-debugging-port=0", "about:blank"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium, from Debian's package of that name");
        let console = Arc::new(Mutex::new(Vec::new()));
        let log = BufReader::new(child.stderr.take().unwrap());
        let seen = Arc::clone(&console);
        let reader = thread::spawn(move || {
            let lines = log.lines().map_while(Result::ok);
            for line in lines.filter(|line| line.contains("CONSOLE")) {
                seen.lock().unwrap().push(line);
            }
        });
        let file = directory.path().join("DevToolsActivePort");
        let mut port = None;
        wait_until("the browser can be controlled", || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            port = text.lines().next().and_then(|line| line.parse().ok());
            port.is_some()
        });
        Self {
            child,
            port: port.unwrap(),
            console,
            reader: Some(reader),
            _directory: directory,
        }
    }

    /// Returns the body of the answer. The browser keeps the connection open, whatever it is asked for.
    fn control(&self, method: &str, target: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        .unwrap();
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Opens a page in a new tab.
    pub fn open(&self, url: &str) -> Tab {
        let document = self.control("PUT", &format!("/json/new?{url}"));
        let document: Value = serde_json::from_str(&document).unwrap();
        Tab(document["id"].as_str().unwrap().to_owned())
    }

    /// Closes a tab as its user would.
    pub fn close(&self, tab: &Tab) {
        let answer = self.control("GET", &format!("/json/close/{}", tab.0));
        assert_eq!(answer, "Target is closing");
    }

    /// Waits until a tab has this title.
    pub fn wait_for_title(&self, tab: &Tab, title: &str) {
        wait_until(title, || {
            let tabs: Value = serde_json::from_str(&self.control("GET", "/json/list")).unwrap();
            let mut tabs = tabs.as_array().unwrap().iter();
            tabs.any(|other| other["id"] == tab.0[..] && other["title"] == title)
        });
    }

    /// Ends it. Returns the lines of its console.
    pub fn stop(mut self) -> Vec<String> {
        self.end();
        self.console.lock().unwrap().clone()
    }

    fn end(&mut self) {
        // `timeout` passes the signal on to the browser.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        if matches!(self.child.try_wait(), Ok(None)) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        }
        self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.end();
    }
}

/// Serves pages by their paths until the process ends. `None`: 404.
pub fn serve(pages: impl Fn(&str) -> Option<String> + Send + 'static) -> String {
    use std::io::Write;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            // A browser may also open a connection that it never uses.
            let Some(first) = lines.next() else { continue };
            if !lines.any(|line| line.is_empty()) {
                continue;
            }
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (status, page) = match pages(path) {
                Some(page) => ("200 OK", page),
                None => ("404 Not Found", String::new()),
            };
            let length = page.len();
            // The browser may have gone.
            let sent = write!(
                &stream,
                "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
            drop(sent);
        }
    });
    url
}
