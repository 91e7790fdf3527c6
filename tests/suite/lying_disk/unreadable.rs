//! A block that cannot be read delays its lane and costs nothing, if it can be read again. If it is replaced by zeros,
//! as a disk or `ddrescue` does, it costs the events that `hakaru journal verify` names, and no more.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::Database;
use super::content::BLOCK_BYTES;
use super::mount::LyingDisk;
use crate::support::{Client, Hakaru, Settings, ask, wait_until};

/// Events that wait in the lane of which a block is damaged.
const EVENTS: u32 = 300;

/// An event that comes later.
const LATER: u32 = 1000;

/// The head of a segment, the spare block, the blocks with records, and one after them.
const BLOCKS: std::ops::Range<u64> = 0..8;

/// A data directory with one lane, and which of its blocks cannot be read.
struct Case<'a> {
    disk: &'a LyingDisk,
    block: u64,
    directory: TempDir,
    lane: String,
}

impl<'a> Case<'a> {
    /// Writes the lane, and damages the block.
    fn new(disk: &'a LyingDisk, block: u64) -> Self {
        let mut new = Self {
            disk,
            block,
            directory: tempfile::tempdir().unwrap(),
            lane: String::new(),
        };
        let hakaru = new.start("1h");
        let mut client = Client::connect(hakaru.address);
        for value in 0..EVENTS {
            let answer = client.get(&format!("/hakaru?name=a&value={value}"));
            assert_eq!(answer.status, 200);
        }
        hakaru.crash();
        let mut lanes = fs::read_dir(new.data_dir().join("journal")).unwrap();
        let lane = lanes.next().unwrap().unwrap().file_name();
        new.lane = lane.into_string().unwrap();
        let path = format!("case-{block}/journal/{}/{SEGMENT}", new.lane);
        let mut disk = disk.lock();
        let segment = disk.find(&path).unwrap();
        disk.damage(segment, block);
        drop(disk);
        new
    }

    fn data_dir(&self) -> PathBuf {
        self.disk.path().join(format!("case-{}", self.block))
    }

    fn start(&self, linger: &str) -> Hakaru {
        Settings::sqlite()
            .directory(self.directory.path())
            .flag(&format!("--data-dir={}", self.data_dir().display()))
            .flag("--ack=journaled")
            .flag("--cores=1")
            .flag("--journal-keep=1h")
            .flag(&format!("--linger={linger}"))
            .start()
    }

    fn values(&self) -> BTreeSet<u32> {
        let file = self.directory.path().join("eventlog.db");
        let rows = Database::Sqlite(file).rows(0);
        let values: BTreeSet<u32> = rows.iter().map(|row| row.0).collect();
        assert_eq!(values.len(), rows.len(), "rows are doubled");
        values
    }

    /// Starts it while the block cannot be read: other lanes go on, and nothing is given up.
    fn wait_with_it(&self) -> Hakaru {
        let hakaru = self.start("20ms");
        let mut client = Client::connect(hakaru.address);
        let answer = client.get(&format!("/hakaru?name=a&value={LATER}"));
        assert_eq!(answer.status, 200);
        wait_until("the later event is stored", || {
            self.values().contains(&LATER)
        });
        wait_until("the lane is read, or cannot be", || {
            let names = ["lane_recovered", "journal_read_failed"];
            names.iter().any(|name| !hakaru.events(name).is_empty())
        });
        assert_eq!(lost(&hakaru), 0, "{}", hakaru.log());
        hakaru
    }

    /// Puts zeros in the place of the block.
    fn replace(&self) {
        let path = self.data_dir().join("journal").join(&self.lane);
        let segment = File::options().write(true).open(path.join(SEGMENT));
        let offset = self.block * BLOCK_BYTES as u64;
        let zeros = [0; BLOCK_BYTES];
        segment.unwrap().write_all_at(&zeros, offset).unwrap();
    }

    /// What `hakaru journal verify` says: the events that are readable, and the positions of those that are not.
    fn verify(&self) -> (u64, Vec<u32>) {
        let data_dir = format!("--data-dir={}", self.data_dir().display());
        let asked = ask(
            self.directory.path(),
            "",
            &["journal", "verify", "--json", &data_dir],
        );
        let mut lanes = asked
            .out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lane = lanes.find(|line| line["lane"] == *self.lane).unwrap();
        let damages = lane["damages"].as_array().unwrap();
        let missing = damages.iter().flat_map(|damage| {
            let text = damage.as_str().unwrap();
            let range = text
                .rsplit_once("positions ")
                .and_then(|range| range.1.split_once(" to "));
            range.map_or(0..0, |(from, to)| {
                from.parse().unwrap()..to.parse::<u32>().unwrap() + 1
            })
        });
        (lane["events"].as_u64().unwrap(), missing.collect())
    }
}

const SEGMENT: &str = "0000000000000000.segment";

/// How many events it counts as lost.
fn lost(hakaru: &Hakaru) -> u64 {
    let stats = Client::connect(hakaru.admin()).get("/stats.json").body;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    stats["events"]["lost"].as_u64().unwrap()
}

#[test]
fn a_block_that_can_be_read_again_costs_nothing() {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let cases: Vec<_> = BLOCKS.map(|block| Case::new(&disk, block)).collect();
    let waiting: Vec<_> = cases.iter().map(Case::wait_with_it).collect();
    let failed = waiting
        .iter()
        .filter(|hakaru| !hakaru.events("journal_read_failed").is_empty());
    assert!(failed.count() >= 5, "blocks with records were read");
    disk.lock().mend();
    for (case, hakaru) in cases.iter().zip(waiting) {
        let expected: BTreeSet<u32> = (0..EVENTS).chain([LATER]).collect();
        wait_until("all is stored", || case.values() == expected);
        let identity = hakaru.stop();
        let numbers = (identity.received, identity.stored, identity.lost);
        assert_eq!(numbers, (301, 301, 0), "block {}", case.block);
    }
}

#[test]
fn a_block_that_is_replaced_by_zeros_costs_what_is_said_and_no_more() {
    let Some(disk) = LyingDisk::mount() else {
        return;
    };
    let cases: Vec<_> = BLOCKS.map(|block| Case::new(&disk, block)).collect();
    let waiting: Vec<_> = cases.iter().map(Case::wait_with_it).collect();
    waiting.into_iter().for_each(Hakaru::crash);
    for case in &cases {
        case.replace();
        let (readable, missing) = case.verify();
        let block = case.block;
        // Of a full block 64 events of this size. The last block is not full: the spare block has its events.
        let events_in_it = if (2..6).contains(&block) { 64 } else { 0 };
        assert_eq!(missing.len(), events_in_it, "block {block}: {missing:?}");
        // Only the last event may be gone without a trace: that its block was ever written is known from nothing else.
        let untold = u64::from(EVENTS) - readable - missing.len() as u64;
        assert!(untold <= 1, "block {block}: {untold} events are missing");
        let missing: BTreeSet<u32> = missing.into_iter().collect();
        let expected: BTreeSet<u32> = (0..EVENTS - untold as u32)
            .filter(|value| !missing.contains(value))
            .chain([LATER])
            .collect();
        let hakaru = case.start("20ms");
        wait_until("the rest is stored", || case.values() == expected);
        wait_until("what is missing is counted", || {
            lost(&hakaru) == missing.len() as u64
        });
        hakaru.stop();
        assert_eq!(case.values(), expected, "block {block}");
    }
}
