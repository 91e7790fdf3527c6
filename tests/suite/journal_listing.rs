//! Lanes are listed, dumped and verified, and the directory of lanes cannot be listed for a while.

use std::fs;

use crate::support::{Settings, ask, wait_until};

/// It is tried again every second. A line a second would hide the others.
#[test]
fn a_journal_that_cannot_be_listed_is_logged_once_for_each_outage() {
    let hakaru = Settings::sqlite().flag("--linger=10ms").start();
    let (journal, moved) = (hakaru.path("hakaru-data/journal"), hakaru.path("moved"));
    let uptime = || hakaru.stats()["uptime_seconds"].as_f64().unwrap();
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

#[test]
fn lanes_are_listed_dumped_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    let hakaru = Settings::sqlite()
        .directory(directory.path())
        .flag("--ack=journaled")
        .flag("--cores=1")
        .flag("--linger=1h")
        .start();
    hakaru.send(0..20);
    let inspect = |arguments: &[&str]| {
        let asked = ask(directory.path(), "", &[&["journal"], arguments].concat());
        (asked.code, asked.out)
    };
    let (code, list) = inspect(&["list", "--json"]);
    let lane: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        (code, &lane["owned"], &lane["end"]),
        (Some(0), &true.into(), &20.into())
    );
    let lane = lane["lane"].as_str().unwrap().to_owned();
    hakaru.crash();

    let (code, text) = inspect(&["list"]);
    assert_eq!(code, Some(0));
    assert!(
        text.lines()
            .nth(1)
            .unwrap()
            .starts_with(&format!("{lane}  no ")),
        "{text}"
    );
    let (code, dump) = inspect(&["dump", &lane, "--json"]);
    assert_eq!((code, dump.lines().count()), (Some(0), 20));
    let event: serde_json::Value = serde_json::from_str(dump.lines().nth(7).unwrap()).unwrap();
    assert_eq!(
        (&event["position"], &event["value"], &event["name"]),
        (&7.into(), &7.into(), &"a".into())
    );
    assert_eq!(inspect(&["verify"]).0, Some(0));
    assert_eq!(inspect(&["dump", "nonsense"]).0, Some(1));

    // One wrong bit in the middle, in both places of the last block, is reported, with place and positions.
    let segment = directory.path().join(format!(
        "hakaru-data/journal/{lane}/0000000000000000.segment"
    ));
    let mut bytes = std::fs::read(&segment).unwrap();
    for block in [4096, 2 * 4096] {
        bytes[block + 5 * 64 + 60] ^= 1;
    }
    std::fs::write(&segment, bytes).unwrap();
    let (code, text) = inspect(&["verify"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("DAMAGED") && text.contains("events are unreadable, positions"),
        "{text}"
    );
}
