//! What a round is: settings, and a few troubles one after the other, all drawn from its seed.

use nix::unistd::geteuid;

use crate::support::NetworkFault;

/// What a 200 promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    Received,
    Journaled,
    Stored,
}

impl Ack {
    pub fn flag(self) -> &'static str {
        match self {
            Self::Received => "--ack=received",
            Self::Journaled => "--ack=journaled",
            Self::Stored => "--ack=stored",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Server,
    Sqlite,
}

/// How a backup of the database is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backup {
    /// By SQL: to restore it removes the younger rows, and puts the checkpoints back.
    Statements,
    /// `mariadb-dump --single-transaction`. SQLite: `VACUUM INTO`.
    Dump,
    /// MariaDB: a copy of the directory of the server.
    Files,
}

/// Something that goes wrong, or that an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `kill -9`, and another process on the same data directory.
    Kill,
    /// SIGTERM, and another process.
    End,
    /// `kill -9` of MariaDB.
    KillDatabase {
        and_hakaru: bool,
    },
    /// All connections to MariaDB are cut.
    Cut,
    Network {
        fault: NetworkFault,
        and_hakaru: bool,
    },
    /// A second process shares the data directory, and the first one drains.
    Overlap,
    /// SIGHUP.
    Reload {
        then_kill: bool,
    },
    /// SIGSTOP. A second process shares the data directory. The first one is revived.
    Freeze {
        then_kill: bool,
    },
    /// SIGSTOP. A second process takes the lanes over from a copy of the data directory. The first one is revived,
    /// and both serve.
    FreezeAndCopy,
    /// A copy of the data directory is served: by a second process beside the first, or instead of it.
    Copy {
        beside: bool,
    },
    TakeBackup(Backup),
    Restore {
        while_running: bool,
    },
    /// Another database answers at the address, until hakaru has met it.
    Repoint,
    /// hakaru is started with another database, which gets its events, and then with the first one again.
    ServeOther {
        kill: bool,
    },
    /// `hakaru dead-letters replay`, killed after so many microseconds.
    Replay {
        killed_after: Option<u64>,
    },
    /// The disk of the data directory is full.
    FullDisk,
    /// The table takes no row at all.
    RefuseAll,
    /// Senders pause until everything is stored, and everything is checked.
    Quiet,
}

/// Everything that a seed decides.
#[derive(Debug)]
pub struct Drawn {
    pub seed: u64,
    pub ack: Ack,
    pub io: &'static str,
    pub kind: Kind,
    pub cores: u8,
    pub batch_events: u32,
    pub linger: u8,
    /// Microseconds from an answer to the next request.
    pub pace: u64,
    /// Another database was served before, and is no new one.
    pub other_has_id: bool,
    pub troubles: Vec<Trouble>,
}

impl Drawn {
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut drawn = Self {
            seed,
            ack: *random
                .choice(&[Ack::Received, Ack::Journaled, Ack::Journaled, Ack::Stored])
                .unwrap(),
            io: random.choice(&["io_uring", "epoll"]).unwrap(),
            kind: *random
                .choice(&[Kind::Server, Kind::Server, Kind::Sqlite])
                .unwrap(),
            cores: random.u8(1..=2),
            // So that a refused row is among few or among thousands.
            batch_events: *random.choice(&[50, 500, 5_000]).unwrap(),
            linger: random.u8(1..100),
            pace: *random.choice(&[100, 300, 2_000]).unwrap(),
            other_has_id: random.bool(),
            troubles: Vec::new(),
        };
        let count = random.usize(3..=6);
        while drawn.troubles.len() < count {
            drawn.draw(&mut random);
        }
        drawn
    }

    /// The disk of the data directory can be filled.
    pub fn has_small_disk(&self) -> bool {
        self.troubles.contains(&Trouble::FullDisk)
    }

    fn draw(&mut self, random: &mut fastrand::Rng) {
        let is_server = self.kind == Kind::Server;
        let trouble = match random.u8(0..29) {
            0..=2 => Trouble::Kill,
            3 => Trouble::End,
            4..=5 if is_server => Trouble::KillDatabase {
                and_hakaru: random.bool(),
            },
            6 if is_server => Trouble::Cut,
            7..=9 if is_server => Trouble::Network {
                fault: NetworkFault::ALL[random.usize(1..NetworkFault::ALL.len())],
                and_hakaru: random.bool(),
            },
            10 => Trouble::Overlap,
            11..=12 => Trouble::Reload {
                then_kill: random.bool(),
            },
            13..=14 => Trouble::Freeze {
                then_kill: random.bool(),
            },
            15..=16 => Trouble::FreezeAndCopy,
            17..=18 => Trouble::Copy {
                beside: random.bool(),
            },
            19..=22 => self.draw_restore(random),
            23 if is_server => Trouble::Repoint,
            24 => Trouble::ServeOther {
                kill: random.bool(),
            },
            25 => Trouble::Replay {
                killed_after: random.bool().then(|| random.u64(1_000..15_000)),
            },
            26 if geteuid().is_root() => Trouble::FullDisk,
            27 => Trouble::RefuseAll,
            28 => Trouble::Quiet,
            _ => return,
        };
        self.troubles.push(trouble);
    }

    /// A restore, with a backup at a moment before.
    fn draw_restore(&mut self, random: &mut fastrand::Rng) -> Trouble {
        let kinds = match self.kind {
            Kind::Server => &[Backup::Statements, Backup::Dump, Backup::Files][..],
            Kind::Sqlite => &[Backup::Statements, Backup::Dump],
        };
        let backup = *random.choice(kinds).unwrap();
        let at = random.usize(0..=self.troubles.len());
        self.troubles.insert(at, Trouble::TakeBackup(backup));
        Trouble::Restore {
            while_running: random.bool(),
        }
    }
}
