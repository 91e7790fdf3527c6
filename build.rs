//! Finds the revision that is built and hands it to `src/lib.rs`.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::path::Path;
use std::process::Command;

/// How many characters of the commit are shown.
const LENGTH: &str = "--short=8";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HAKARU_REVISION");
    // A package is built from an archive, and knows better.
    let given = std::env::var("HAKARU_REVISION").unwrap_or_default();
    let revision = Some(given)
        .filter(|given| !given.is_empty())
        .or_else(from_git)
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=HAKARU_REVISION={revision}");
}

/// The commit that is checked out. Asks to be run again when that is another one.
fn from_git() -> Option<String> {
    // An archive that was unpacked inside another repository is none of its revisions. In a worktree
    // `.git` is a file.
    if !Path::new(".git").exists() {
        return None;
    }
    let revision = git(&["rev-parse", LENGTH, "HEAD"])?;
    // A branch may be packed, and its file appear with the next commit: the log of HEAD grows with
    // every one. A path that does not exist would have cargo build again each time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let watched = [Some("HEAD"), Some("logs/HEAD"), branch.as_deref()];
    for path in watched.into_iter().flatten() {
        if let Some(path) = git(&["rev-parse", "--git-path", path])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    Some(revision)
}

/// What git says, if there is a git and it says something.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !said.trim().is_empty()).then(|| said.trim().to_owned())
}
