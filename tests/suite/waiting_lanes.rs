//! A lane that cannot be taken over or read waits and is tried again. The other lanes of its writer go on, and the
//! server says that one waits.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::disk_faults::faults;
use crate::support::{
    Client, DatabaseServer, Hakaru, NetworkFault, Proxy, Settings, ask, wait_until,
};

fn settings(database: &DatabaseServer, directory: &Path) -> Settings {
    Settings::mysql(database)
        .directory(directory)
        .flag("--linger=10ms")
        .flag("--db-connections=1")
}

/// Sends events on a connection each, so that they come to all shards.
fn send(address: SocketAddr, from: u32, to: u32) {
    for value in from..to {
        wait_until("the event is taken", || {
            let mut client = Client::connect(address);
            let status = client.get(&format!("/hakaru?name=a&value={value}")).status;
            assert!([200, 503].contains(&status), "{status}");
            status == 200
        });
    }
}

fn check_rows(database: &DatabaseServer, count: u32) {
    wait_until("all is stored", || database.count() >= u64::from(count));
    assert_eq!(database.values(), (0..count).collect::<Vec<_>>());
}

fn journal(directory: &Path) -> PathBuf {
    directory.join("hakaru-data/journal")
}

/// The lanes of a journal and where each ends.
fn lanes(directory: &Path) -> Vec<(String, u64)> {
    let listed = ask(directory, "", &["journal", "list", "--json"]);
    let lanes = listed.out.lines().map(|line| {
        let lane: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = lane["lane"].as_str().unwrap().to_owned();
        (name, lane["end"].as_u64().unwrap_or(0))
    });
    lanes.collect()
}

/// Of one lane, the epoch and the position of its checkpoint.
fn checkpoint(database: &DatabaseServer, lane: &str) -> (u64, u64) {
    let found: Vec<(u64, u64)> = database.query(&format!(
        "SELECT epoch, position FROM hakaru_checkpoint WHERE lane = '{lane}'"
    ));
    found.first().copied().unwrap_or_default()
}

/// The key under which the copy of a lane's checkpoint is. One that is altered with it proves nothing.
fn copy_of(lane: &str) -> String {
    format!("{:032x}", !u128::from_str_radix(lane, 16).unwrap())
}

/// The epoch of each checkpoint whose key is not the name of a lane.
fn given_keys(database: &DatabaseServer, directory: &Path) -> Vec<u64> {
    let found: Vec<(String, u64)> = database.query(
        "SELECT lane, epoch FROM hakaru_checkpoint WHERE lane <> 'database' AND epoch < 4294967296",
    );
    let given = found
        .into_iter()
        .filter(|(key, _)| !journal(directory).join(key).exists());
    given.map(|(_, epoch)| epoch).collect()
}

fn check_health(hakaru: &Hakaru, status: u16) {
    let admin = hakaru.admin();
    wait_until("the health is as expected", || {
        Client::connect(admin).get("/sink-health").status == status
    });
    let waiting = u64::from(status != 200);
    let metrics = Client::connect(admin).get("/metrics").body;
    let gauge = format!("\nhakaru_journal_waiting_lanes {waiting}\n");
    assert!(metrics.contains(&gauge), "{metrics}");
    let stats = hakaru.stats();
    assert_eq!(stats["database"]["waiting_lanes"], waiting, "{stats}");
}

/// Events received, stored, lost and pending.
fn identity(hakaru: &Hakaru) -> [u64; 4] {
    let stats = hakaru.stats();
    ["received", "stored", "lost", "pending"].map(|name| stats["events"][name].as_u64().unwrap())
}

/// A server with two lanes of one writer, both of them stored so far.
struct TwoLanes {
    hakaru: Hakaru,
    database: DatabaseServer,
    directory: TempDir,
    /// How many events were sent.
    sent: u32,
    /// The lane that the test is about.
    lane: String,
    other: String,
}

impl TwoLanes {
    fn start() -> Self {
        let database = DatabaseServer::start();
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&database, directory.path());
        let mut lanes = Self {
            hakaru: settings.flag("--cores=2").start(),
            database,
            directory,
            sent: 0,
            lane: String::new(),
            other: String::new(),
        };
        wait_until("both shards have events", || {
            lanes.send(10);
            // A batch for each ten events, so that rows of each are known.
            lanes.check_rows();
            let found = self::lanes(lanes.directory.path());
            found.iter().filter(|(_, end)| *end > 20).count() == 2
        });
        let found = self::lanes(lanes.directory.path());
        let names: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
        [lanes.lane, lanes.other] = names.try_into().unwrap();
        lanes
    }

    fn send(&mut self, events: u32) {
        send(self.hakaru.address, self.sent, self.sent + events);
        self.sent += events;
    }

    fn check_rows(&self) {
        check_rows(&self.database, self.sent);
    }

    /// Keeps a note of the lane from being written, as a full disk does: no file can take the name of a directory.
    fn block_note(&self, name: &str) -> PathBuf {
        let obstacle = journal(self.directory.path()).join(&self.lane).join(name);
        std::fs::create_dir(&obstacle).unwrap();
        obstacle
    }

    /// Alters the checkpoint of the lane together with its copy.
    fn alter(&self, change: &str) {
        let (lane, copy) = (&self.lane, copy_of(&self.lane));
        self.database.run(&format!(
            "UPDATE hakaru_checkpoint SET {change} WHERE lane IN ('{lane}', '{copy}')"
        ));
    }

    fn checkpoint(&self) -> (u64, u64) {
        checkpoint(&self.database, &self.lane)
    }

    fn other_position(&self) -> u64 {
        checkpoint(&self.database, &self.other).1
    }

    fn given_keys(&self) -> Vec<u64> {
        given_keys(&self.database, self.directory.path())
    }
}

#[test]
fn a_fork_that_cannot_be_noted_waits_and_adds_one_key() {
    let mut lanes = TwoLanes::start();
    let obstacle = lanes.block_note("keys.new");
    // Further than the lane will get.
    lanes.alter("position = position + 1000000");
    wait_until("the lane waits", || {
        lanes.send(10);
        !lanes.hakaru.events("lane_not_noted").is_empty()
    });
    let line = lanes.hakaru.wait_for_event("lane_not_noted");
    assert_eq!(line["lane"], lanes.lane.as_str());
    let before = lanes.other_position();
    wait_until("the other lane is stored", || {
        lanes.send(1);
        lanes.other_position() > before
    });
    check_health(&lanes.hakaru, 503);
    // Each attempt raises the epoch of the lane.
    let epoch = lanes.checkpoint().0;
    wait_until("it was tried again", || lanes.checkpoint().0 >= epoch + 2);
    assert!(lanes.given_keys().is_empty());
    assert!(lanes.hakaru.events("lane_forked").is_empty());
    std::fs::remove_dir(&obstacle).unwrap();
    lanes.hakaru.wait_for_event("lane_forked");
    lanes.check_rows();
    assert_eq!(lanes.hakaru.events("lane_not_noted").len(), 1);
    assert!(lanes.hakaru.events("storing_stopped").is_empty());
    assert_eq!(lanes.given_keys().len(), 1);
    check_health(&lanes.hakaru, 200);
    assert_eq!(lanes.hakaru.stop().pending, 0);
}

#[test]
fn a_hold_that_cannot_be_noted_waits_and_stores_nothing() {
    let mut lanes = TwoLanes::start();
    let obstacle = lanes.block_note("held.new");
    let position = lanes.checkpoint().1;
    // The older half: both lanes have rows before and after it.
    let half = lanes.sent / 2;
    lanes
        .database
        .run(&format!("DELETE FROM eventlog ORDER BY id LIMIT {half}"));
    lanes.alter("position = 0");
    let before = lanes.other_position();
    wait_until("the other lane goes on, and this one waits", || {
        lanes.send(1);
        let waits = !lanes.hakaru.events("lane_not_noted").is_empty();
        waits && lanes.other_position() > before
    });
    check_health(&lanes.hakaru, 503);
    let epoch = lanes.checkpoint().0;
    wait_until("it was tried again", || lanes.checkpoint().0 >= epoch + 2);
    assert_eq!(lanes.checkpoint().1, 0, "{position}");
    assert_eq!(lanes.hakaru.events("lane_not_noted").len(), 1);
    assert!(lanes.hakaru.events("storing_stopped").is_empty());
    std::fs::remove_dir(&obstacle).unwrap();
    let line = lanes.hakaru.wait_for_event("lane_held");
    assert_eq!(line["events"], position);
    lanes.hakaru.stop();
}

/// A disk that does not read a lane from its third block of records on: what is known of it is pending.
#[test]
fn a_lane_that_is_not_read_is_pending_and_unhealthy() {
    let database = DatabaseServer::start();
    let directory = tempfile::tempdir().unwrap();
    let library = faults(directory.path());
    let away = directory.path().join("away");
    let start = |linger: &str| {
        let settings = Settings::mysql(&database).directory(directory.path());
        let settings = settings.flag("--cores=1").flag(linger);
        let settings = settings.variable("LD_PRELOAD", &library);
        let settings = settings.variable("UNREADABLE_WHILE", away.to_str().unwrap());
        settings.variable("UNREADABLE", "16384").start()
    };
    let first = start("--linger=1h");
    first.send(0..300);
    first.crash();
    std::fs::write(&away, "").unwrap();
    let second = start("--linger=10ms");
    second.wait_for_event("journal_read_failed");
    check_health(&second, 503);
    let reason = Client::connect(second.admin()).get("/sink-health").body;
    assert!(reason.contains("cannot be taken over or read"), "{reason}");
    // A block has 64 records.
    assert_eq!(identity(&second), [128, 0, 0, 128]);
    std::fs::remove_file(&away).unwrap();
    wait_until("all is stored", || {
        let [received, stored, lost, pending] = identity(&second);
        assert_eq!(received, stored + lost + pending);
        stored == 300
    });
    check_health(&second, 200);
    assert_eq!(second.stop().pending, 0);
    check_rows(&database, 300);
}

/// How far lanes are stored, as their processes have noted.
fn noted(directory: &Path) -> Vec<u64> {
    let lanes = std::fs::read_dir(journal(directory)).unwrap();
    let notes = lanes.filter_map(|lane| {
        let note = std::fs::read_to_string(lane.ok()?.path().join("stored"));
        note.ok()?.trim().parse().ok()
    });
    notes.collect()
}

/// A process was killed before it had noted what it stored last. The next one takes its lane over and asks for rows, and
/// loses the connection: it takes the lane over once more, from itself.
#[test]
fn a_lane_that_is_taken_over_twice_is_not_held() {
    let database = DatabaseServer::start();
    let proxy = Proxy::start(database.port());
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let settings = Settings::datasource(&proxy.dsn()).directory(directory.path());
        settings.flag("--cores=1").flag("--linger=1ms").start()
    };
    let mut sent = 0;
    // The note may have come in between.
    while sent == 0 || !proxy.is_injected() {
        let hakaru = start();
        send(hakaru.address, sent, sent + 10);
        wait_until("it is noted", || noted(directory.path()).contains(&10));
        send(hakaru.address, sent + 10, sent + 20);
        sent += 20;
        check_rows(&database, sent);
        hakaru.crash();
        // As a lane of an older version: its checkpoint does not say whose events it counts, so rows are asked for.
        database
            .run("DELETE FROM hakaru_checkpoint WHERE lane <> 'database' AND epoch > 4294967295");
        proxy.inject(NetworkFault::CutAtQuestion);
        let hakaru = start();
        wait_until("the lane is judged", || {
            let notes = noted(directory.path());
            let judged = notes.iter().filter(|note| **note == 20).count();
            !hakaru.errors().is_empty() || judged as u32 * 20 == sent
        });
        assert!(hakaru.errors().is_empty(), "{}", hakaru.log());
        assert_eq!(hakaru.stop().pending, 0);
    }
    check_rows(&database, sent);
}
