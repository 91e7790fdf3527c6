//! A data directory on a file system that may lose what is promised is said to be one, wherever people look.

use serde_json::Value;

use crate::support::{Client, Settings};

/// Linux keeps this directory in memory.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn warning(settings: Settings) -> (Vec<Value>, Value) {
    let hakaru = settings.start();
    let body = Client::connect(hakaru.admin()).get("/stats.json").body;
    let stats: Value = serde_json::from_str(&body).unwrap();
    let logged = hakaru.events("data_dir_at_risk");
    assert!(hakaru.events("data_dir_locks_fail").is_empty());
    hakaru.stop();
    (logged, stats["data_dir_warning"].clone())
}

#[test]
fn memory_that_is_taken_for_a_disk_is_a_warning() {
    let directory = in_memory();
    let data_dir = format!("--data-dir={}/data", directory.path().display());
    let (logged, shown) = warning(Settings::sqlite().flag(&data_dir));
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0]["level"], "warn");
    let message = logged[0]["message"].as_str().unwrap();
    assert!(message.contains("tmpfs is memory"), "{message}");
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("/data: tmpfs is memory"), "{shown}");

    // In memory is all that this promises.
    let received = Settings::sqlite().flag(&data_dir).flag("--ack=received");
    assert_eq!(warning(received), (vec![], Value::Null));
}

#[test]
fn a_check_says_the_same_and_leaves_nothing_behind() {
    let directory = in_memory();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let settings = Settings::sqlite().flag(&data_dir).flag("check");
    let elsewhere = tempfile::tempdir().unwrap();
    let output = settings.run_in(elsewhere.path());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains(" data directory: "));
    let line = line.unwrap();
    assert!(
        line.starts_with("warning ") && line.contains("tmpfs is memory"),
        "{line}"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
