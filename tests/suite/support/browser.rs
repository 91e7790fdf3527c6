//! A real browser.

use std::process::Command;

/// What a browser has of a page after three seconds of virtual time.
pub struct Seen {
    pub dom: String,
    /// The lines of its console.
    pub console: Vec<String>,
}

pub fn open(url: &str) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=5", "60", "chromium", "--headless"])
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .args(["--disable-quic", "--enable-logging=stderr"])
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", directory.path().display()))
        .arg(url)
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
