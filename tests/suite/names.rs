//! The name of a database: all of its addresses are tried, and it is looked up for each connection.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::support::{Client, DatabaseServer, Proxy, Settings, StopWhenDropped, wait_until};

/// A file that a process finds in place of `/etc/hosts`.
struct Hosts(PathBuf);

impl Hosts {
    /// `addresses` are those of the name `db.test`.
    fn new(directory: &Path, addresses: &[&str]) -> Self {
        let hosts = Self(directory.join("hosts"));
        hosts.point_to(addresses);
        hosts
    }

    /// Changes the file in place, since it is mounted.
    fn point_to(&self, addresses: &[&str]) {
        let lines = addresses
            .iter()
            .map(|address| format!("{address} db.test\n"));
        std::fs::write(&self.0, lines.collect::<String>()).unwrap();
    }

    fn settings(&self, dsn: &str) -> Settings {
        const MOUNT: &str = "exec unshare --mount sh -c 'mount --bind \"$HOSTS\" /etc/hosts && exec \"$0\" \"$@\"' \"$0\" \"$@\"";
        let settings = Settings::datasource(dsn).shell_before(MOUNT);
        settings.variable("HOSTS", self.0.to_str().unwrap())
    }
}

#[test]
fn every_address_of_a_name_is_tried() {
    let database = DatabaseServer::start();
    let dsn = format!("root@tcp(db.test:{})/hakaru", database.port());
    // The server listens at 127.0.0.1 alone.
    for (value, addresses) in [
        ["::1", "127.0.0.1"].as_slice(),
        &["127.0.0.1", "::1"],
        &["127.0.0.7", "127.0.0.1"],
        &["127.0.0.7", "::1", "127.0.0.1"],
    ]
    .into_iter()
    .enumerate()
    {
        let directory = tempfile::tempdir().unwrap();
        let hosts = Hosts::new(directory.path(), addresses);
        let hakaru = hosts.settings(&dsn).start();
        let mut client = Client::connect(hakaru.address);
        let target = format!("/hakaru?name=a&value={value}");
        assert_eq!(client.get(&target).status, 200);
        wait_until("it is stored", || {
            database.values().contains(&(value as u32))
        });
        assert_eq!(hakaru.stop().stored, 1);
    }
    let directory = tempfile::tempdir().unwrap();
    let hosts = Hosts::new(directory.path(), &["127.0.0.7", "::1"]);
    let hakaru = hosts.settings(&dsn).start();
    let line = hakaru.wait_for_event("database_unreachable").to_string();
    for words in ["127.0.0.7:", "[::1]:", "refused"] {
        assert!(line.contains(words), "{line}");
    }
    hosts.point_to(&[]);
    wait_until("the name is not known", || {
        let lines = hakaru.log();
        lines.contains("`db.test` cannot be looked up")
    });
    // What is mended is found without a restart.
    hosts.point_to(&["127.0.0.1"]);
    let mut client = Client::connect(hakaru.address);
    assert_eq!(client.get("/hakaru?name=a&value=99").status, 200);
    wait_until("it is stored", || database.values().contains(&99));
}

/// The server that answered until now takes no writes any more, and the name leads to its replica, which lacks the last
/// rows.
#[test]
fn a_name_that_leads_to_another_server_is_followed() {
    let (first, mut second) = (DatabaseServer::start(), DatabaseServer::start());
    first.run("CREATE USER app@'%' IDENTIFIED BY 's3cret'");
    first.run("GRANT ALL ON hakaru.* TO app@'%'");
    let directory = tempfile::tempdir().unwrap();
    let hosts = Hosts::new(directory.path(), &["127.0.0.1"]);
    let port = first.port();
    let dsn = format!("app:s3cret@tcp(db.test:{port})/hakaru");
    let hakaru = hosts.settings(&dsn).start();
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let _stopped = StopWhenDropped(&stop);
        scope.spawn(|| {
            let mut client = Client::connect(hakaru.address);
            while !stop.load(Ordering::Relaxed) {
                let value = answered.load(Ordering::Relaxed);
                let target = format!("/hakaru?name=a&value={value}");
                assert_eq!(client.get(&target).status, 200);
                answered.store(value + 1, Ordering::Relaxed);
            }
        });
        wait_until("rows are stored", || first.count() > 100);
        let copy = directory.path().join("copy");
        first.copy_files(&copy);
        second.stop();
        second.replace_files(&copy);
        second.resume();
        let copied = first.count();
        wait_until("more rows are stored", || first.count() > copied + 100);
        let _front = Proxy::start_at(&format!("127.0.0.2:{port}"), second.port());
        first.run("SET GLOBAL read_only = 1");
        hosts.point_to(&["127.0.0.2"]);
        let rows = second.count();
        wait_until("rows are stored there", || second.count() > rows + 100);
    });
    let answered = answered.into_inner();
    wait_until("all is stored", || second.count() >= answered.into());
    assert!(second.values().into_iter().eq(0..answered));
    assert_eq!(hakaru.stop().pending, 0);
}
