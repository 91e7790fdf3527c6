//! What a round with senders that repeat is: settings, and a few troubles, all drawn from its seed.

use nix::unistd::geteuid;

use crate::support::NetworkFault;
use crate::torture::draw::{Backup, Drawn, Kind};

/// One of the two servers.
pub type Side = usize;

/// Something that goes wrong, or that an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `kill -9`, and another process on the same data directory.
    Kill(Side),
    /// `kill -9` of both. Each comes back after the other has gone.
    KillBoth,
    /// SIGTERM, and another process.
    End(Side),
    /// SIGHUP.
    Reload(Side),
    /// `kill -9` of MariaDB, and of hakaru too.
    KillDatabase(Option<Side>),
    /// All threads of MariaDB stop, and go on.
    FreezeDatabase,
    /// All connections to MariaDB are cut.
    Cut,
    Network(NetworkFault, Option<Side>),
    /// SIGSTOP, then SIGCONT: its senders have repeated at the other server meanwhile.
    Freeze(Side),
    /// SIGSTOP, and a second process on the same data directory. The frozen one is revived, and drains or is killed.
    TakeOver(Side, bool),
    /// The disk of the first server is full.
    FullDisk,
    TakeBackup(Backup),
    /// MariaDB goes back to the backup, while both servers run.
    Restore,
    /// The senders pause until everything is stored, and everything is checked.
    Quiet,
}

/// Settings, which both servers have, and the troubles.
pub fn draw(seed: u64) -> (Drawn, Vec<Trouble>) {
    let mut drawn = Drawn {
        kind: Kind::Server,
        ..Drawn::of(seed)
    };
    drawn.troubles.clear();
    let mut random = fastrand::Rng::with_seed(!seed);
    let mut troubles = Vec::new();
    let count = random.usize(3..=6);
    while troubles.len() < count {
        draw_one(&mut troubles, &mut random);
    }
    (drawn, troubles)
}

fn draw_one(troubles: &mut Vec<Trouble>, random: &mut fastrand::Rng) {
    let side = random.usize(0..2);
    let and_hakaru = random.bool().then_some(side);
    let trouble = match random.u8(0..22) {
        0..=3 => Trouble::Kill(side),
        4 => Trouble::KillBoth,
        5 => Trouble::End(side),
        6 => Trouble::Reload(side),
        7..=8 => Trouble::KillDatabase(and_hakaru),
        9 => Trouble::FreezeDatabase,
        10 => Trouble::Cut,
        11..=13 => {
            let fault = NetworkFault::ALL[random.usize(1..NetworkFault::ALL.len())];
            Trouble::Network(fault, and_hakaru)
        }
        14..=15 => Trouble::Freeze(side),
        16..=17 => Trouble::TakeOver(side, random.bool()),
        18 if geteuid().is_root() => Trouble::FullDisk,
        19..=20 => {
            let backup = *random.choice(&[Backup::Statements, Backup::Files]).unwrap();
            let at = random.usize(0..=troubles.len());
            troubles.insert(at, Trouble::TakeBackup(backup));
            Trouble::Restore
        }
        21 => Trouble::Quiet,
        _ => return,
    };
    troubles.push(trouble);
}
