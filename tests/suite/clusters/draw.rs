//! What a round on a cluster is, drawn from its seed.

use super::cluster::Kind;
use crate::torture::draw::Ack;

/// What happens to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// `kill -9`, and started again.
    Kill,
    /// Stopped as an operator does, and started again.
    Stop,
    /// SIGSTOP until the others have left it out, then SIGCONT.
    Freeze,
    /// Its network is unplugged until the others have left it out. Clients still reach it.
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    Member {
        blow: Blow,
        /// The one that hakaru writes to, or another one.
        is_writer: bool,
        /// `kill -9` of hakaru while the cluster is busy with it.
        and_hakaru: bool,
    },
    /// The writes go to another member, a few times in a row. With Group Replication it becomes the primary.
    Flip { and_hakaru: bool },
    /// `kill -9` of hakaru.
    KillHakaru,
}

/// Everything that a seed decides.
#[derive(Debug)]
pub struct Drawn {
    pub seed: u64,
    pub ack: Ack,
    /// Processes that store at the same time, by different members where the cluster has several that take writes.
    pub writers: usize,
    pub io: &'static str,
    pub cores: u8,
    pub batch_events: u32,
    pub linger: u8,
    /// Microseconds from an answer to the next request.
    pub pace: u64,
    pub troubles: Vec<Trouble>,
}

impl Drawn {
    pub fn of(seed: u64, kind: Kind) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut drawn = Self {
            seed,
            ack: *random
                .choice(&[Ack::Received, Ack::Journaled, Ack::Journaled, Ack::Stored])
                .unwrap(),
            writers: random.usize(1..=2),
            io: random.choice(&["io_uring", "epoll"]).unwrap(),
            cores: random.u8(1..=2),
            batch_events: *random.choice(&[50, 500, 5_000]).unwrap(),
            linger: random.u8(1..100),
            pace: *random.choice(&[5_000, 20_000]).unwrap(),
            troubles: Vec::new(),
        };
        if kind == Kind::GroupReplication && random.bool() {
            drawn.writers = 1;
        }
        for _ in 0..random.usize(1..=3) {
            drawn.troubles.push(trouble(&mut random));
        }
        drawn
    }
}

fn trouble(random: &mut fastrand::Rng) -> Trouble {
    let and_hakaru = random.u8(0..3) == 0;
    let blow = match random.u8(0..11) {
        0..=1 => Blow::Kill,
        2..=3 => Blow::Stop,
        4..=5 => Blow::Freeze,
        6..=7 => Blow::Split,
        8..=9 => return Trouble::Flip { and_hakaru },
        _ => return Trouble::KillHakaru,
    };
    Trouble::Member {
        blow,
        is_writer: random.u8(0..4) > 0,
        and_hakaru,
    }
}
