//! A cluster of three servers, and what may happen to each.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::member::Member;
use super::network::Network;
use super::{galera, group_replication};

/// Servers of a cluster.
pub const MEMBERS: usize = 3;

/// Most time until a member has what it missed, on a busy machine.
const WHOLE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MariaDB 10.11 with Galera: each node takes writes.
    Galera,
    /// MySQL 9.7 with Group Replication: the primary takes writes.
    GroupReplication,
}

/// What a server says of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// It is no part of the cluster, or of one without a majority.
    Outside,
    /// It is a whole part of the cluster. The server that takes its writes, as it says: with Galera, itself.
    Inside { primary: Option<usize> },
}

/// Three servers. They are ended when it is dropped, and when the test is killed.
pub struct Cluster {
    pub kind: Kind,
    pub members: Vec<Member>,
    network: Network,
    directory: TempDir,
}

impl Cluster {
    /// `None`, with a line that says why: this machine cannot run one.
    pub fn start(kind: Kind) -> Option<Self> {
        if !geteuid().is_root() {
            let line = "clusters: only root can make networks, not run\n";
            // `cargo test` does not capture this.
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |member: usize| directory.path().join(format!("member-{member}"));
        let members = (0..MEMBERS).map(|member| Member::new(path(member)));
        let mut cluster = Self {
            kind,
            members: members.collect(),
            network: Network::new(MEMBERS),
            directory,
        };
        match kind {
            Kind::Galera => galera::begin(&mut cluster),
            Kind::GroupReplication => group_replication::begin(&mut cluster),
        }
        cluster.make_whole();
        Some(cluster)
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn sockets(&self) -> Vec<PathBuf> {
        self.members.iter().map(Member::socket).collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self, member: usize) {
        self.members[member].end(Signal::SIGKILL);
    }

    /// Stops a server as an operator does.
    pub fn stop(&mut self, member: usize) {
        if self.kind == Kind::GroupReplication {
            group_replication::leave(&self.members[member]);
        }
        self.members[member].end(Signal::SIGTERM);
    }

    /// Asks each running server for its part, and does what an operator does, until all are whole parts of the cluster.
    pub fn make_whole(&mut self) {
        assert!(
            self.is_whole_within(WHOLE),
            "the cluster is not whole again"
        );
    }

    /// The same. Whether it is whole in time.
    pub fn is_whole_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.is_whole() {
            for member in 0..MEMBERS {
                if !self.members[member].is_running() {
                    match self.kind {
                        Kind::Galera => galera::start(self, member),
                        Kind::GroupReplication => group_replication::start(self, member),
                    }
                } else if self.kind == Kind::GroupReplication {
                    group_replication::rejoin(self, member);
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        true
    }

    fn is_whole(&self) -> bool {
        let inside = |member: &Member| {
            let connection = member.connect();
            connection.is_some_and(|mut connection| match self.kind {
                Kind::Galera => galera::is_whole(&mut connection),
                Kind::GroupReplication => group_replication::is_whole(&mut connection),
            })
        };
        self.members.iter().all(inside)
    }

    /// Whether the others go on without a member.
    pub fn is_without(&self, member: usize) -> bool {
        let others = self.members.iter().enumerate();
        let mut others = others.filter(|(other, _)| *other != member);
        others.all(|(_, other)| {
            let connection = other.connect();
            connection.is_some_and(|mut connection| match self.kind {
                Kind::Galera => galera::is_without_one(&mut connection),
                Kind::GroupReplication => group_replication::is_without(&mut connection, member),
            })
        })
    }

    /// Empties the database. The cluster is whole.
    pub fn reset(&self) {
        let primary = self.members.iter().find(|member| {
            let connection = member.connect();
            connection.is_some_and(|mut connection| match self.kind {
                Kind::Galera => true,
                Kind::GroupReplication => group_replication::is_primary(&mut connection),
            })
        });
        let primary = primary.expect("a member that takes writes");
        for sql in [
            "DROP DATABASE IF EXISTS hakaru",
            "CREATE DATABASE hakaru",
            "DROP DATABASE IF EXISTS beats",
            "CREATE DATABASE beats",
            "CREATE TABLE beats.beat (writer int PRIMARY KEY, beats bigint NOT NULL) ENGINE=InnoDB",
            "INSERT INTO beats.beat VALUES (0, 0), (1, 0)",
        ] {
            primary.try_run(sql).expect(sql);
        }
    }
}
