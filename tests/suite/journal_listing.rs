//! The directory of lanes cannot be listed for a while.

use std::fs;

use crate::support::{Client, Settings, wait_until};

/// It is tried again every second. A line a second would hide the others.
#[test]
fn a_journal_that_cannot_be_listed_is_logged_once_for_each_outage() {
    let hakaru = Settings::sqlite().flag("--linger=10ms").start();
    let (journal, moved) = (hakaru.path("hakaru-data/journal"), hakaru.path("moved"));
    let uptime = || {
        let stats = Client::connect(hakaru.admin()).get("/stats.json").body;
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        stats["uptime_seconds"].as_f64().unwrap()
    };
    let passes = |seconds: f64| {
        let since = uptime();
        wait_until("the janitor has tried again", || {
            uptime() >= since + seconds
        });
    };
    for outages in 1..=2 {
        fs::rename(&journal, &moved).unwrap();
        fs::write(&journal, "").unwrap();
        wait_until("it is logged", || {
            hakaru.events("journal_not_listed").len() >= outages
        });
        passes(4.0);
        assert_eq!(hakaru.events("journal_not_listed").len(), outages);
        fs::remove_file(&journal).unwrap();
        fs::rename(&moved, &journal).unwrap();
        passes(3.0);
    }
    hakaru.stop();
}
