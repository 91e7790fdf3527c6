//! The version, the completions for shells and the manual pages.

use std::path::Path;

use crate::support::Settings;

/// Standard output with these arguments. A datasource with a password is set, which must not be shown.
fn stdout(words: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::datasource("root:s3cret@tcp(127.0.0.1:1)/d");
    let settings = words
        .iter()
        .fold(settings, |settings, word| settings.flag(word));
    let output = settings.run_in(directory.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    text
}

#[test]
fn the_version_names_the_revision_it_was_built_from() {
    let line = stdout(&["--version"]);
    let expected = format!(
        "hakaru {} ({}, ",
        env!("CARGO_PKG_VERSION"),
        hakaru::REVISION
    );
    assert!(line.starts_with(&expected), "{line}");
    assert_eq!(stdout(&["-V"]), line);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if package.join(".git").exists() && std::env::var_os("HAKARU_REVISION").is_none() {
        let package = package.to_str().unwrap();
        let commit = ["-C", package, "rev-parse", "--short=8", "HEAD"];
        assert_eq!(crate::support::run("git", &commit).trim(), hakaru::REVISION);
    }
}

#[test]
fn completions_have_commands_and_flags() {
    for (shell, comment) in [
        ("bash", "_hakaru()"),
        ("zsh", "#compdef hakaru"),
        ("fish", "complete -c hakaru"),
    ] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains(comment), "{script}");
        for word in ["datasource", "journal", "check"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("hakaru.bash");
    std::fs::write(&script, stdout(&["completions", "bash"])).unwrap();
    crate::support::run("bash", &["-n", script.to_str().unwrap()]);
}

#[test]
fn every_command_has_a_manual_page() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH hakaru 1 "), "{page}");
    for words in [
        ".SH SETTINGS",
        "journal\\-limit",
        "HAKARU_JOURNAL_LIMIT",
        "hakaru\\-check(1)",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(stdout(&["man", "check"]).contains(".TH hakaru-check 1 "));
    assert!(stdout(&["man", "journal", "list"]).contains(".TH hakaru-journal-list 1 "));
    let directory = tempfile::tempdir().unwrap();
    let nothing = Settings::sqlite()
        .flag("man")
        .flag("nothing")
        .run_in(directory.path());
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
}
