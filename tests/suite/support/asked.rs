//! A subcommand of the binary, run to its end.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The exit code and output of a subcommand.
#[derive(Debug)]
pub struct Asked {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Asked {
    /// Its standard output, which must be one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }
}

/// Runs `hakaru` in `directory`, with the data source in the environment and an empty standard input.
pub fn ask(directory: &Path, dsn: &str, arguments: &[&str]) -> Asked {
    ask_with(directory, dsn, arguments, "")
}

/// Runs `hakaru` with `input` as its standard input.
pub fn ask_with(directory: &Path, dsn: &str, arguments: &[&str], input: &str) -> Asked {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hakaru"))
        .current_dir(directory)
        .env("HAKARU_DATASOURCENAME", dsn)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading its input.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    Asked {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
