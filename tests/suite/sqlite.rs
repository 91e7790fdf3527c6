//! SQLite on a disk that is full.

use crate::support::{Client, Settings, SmallDisk, run, wait_until};

#[test]
fn a_full_disk_is_logged_and_no_event_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let disk = SmallDisk::mount(&small, "1m");
    let hakaru = Settings::datasource("sqlite:small/eventlog.db")
        .directory(directory.path())
        .flag("--cores=1")
        .flag("--linger=10ms")
        .start();
    let mut client = Client::connect(hakaru.address);
    let mut answered = 0;
    let path = format!("/hakaru?name={}&value=1", "n".repeat(255));
    while hakaru.events("storing_stopped").is_empty() {
        assert_eq!(client.get(&path).status, 200);
        answered += 1;
    }
    // Each further attempt takes the lane over again.
    wait_until("it was tried again", || {
        let stopped = hakaru.admin();
        Client::connect(stopped)
            .get("/metrics")
            .body
            .lines()
            .filter(|line| line.starts_with("hakaru_database_errors_total"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum::<u64>()
            >= 4
    });
    disk.resize("64m");
    let rows = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                print(c.execute('select count(*) from eventlog').fetchone()[0])";
    let file = small.join("eventlog.db");
    let file = file.to_str().unwrap();
    wait_until("all are stored", || {
        run("python3", &["-c", rows, file]).trim() == answered.to_string()
    });
    let stopped = hakaru.events("storing_stopped");
    for line in &stopped {
        // SQLITE_FULL or SQLITE_IOERR.
        let code = line["code"].as_i64().unwrap_or(0) & 0xFF;
        assert!([10, 13].contains(&code), "{line}");
    }
    assert_eq!(hakaru.events("lane_epoch_changed").len(), 0);
    assert_eq!(hakaru.stop().pending, 0);
}
