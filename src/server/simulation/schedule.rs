//! Which troubles a seed has. It draws some of them, so that rare ones meet each other too.

use std::time::Duration;

use super::process::Settings;
use super::troubles::{MACHINES_MAX, Trouble};
use crate::event::ack::Ack;

/// Troubles that may meet any others.
const COMMON: [Trouble; 13] = [
    Trouble::Kill,
    Trouble::CutPower,
    Trouble::Drain,
    Trouble::Upgrade,
    Trouble::Freeze,
    Trouble::DatabaseDown,
    Trouble::DatabaseKilled,
    Trouble::DatabaseReadOnly,
    Trouble::ConnectionsLost,
    Trouble::TableRefusesAll,
    Trouble::TimePasses,
    Trouble::OtherSettings,
    Trouble::MuchIsSent,
];

/// Troubles of which what is promised depends on who caused them. Most seeds have one family, others two.
const FAMILIES: [&[Trouble]; 12] = [
    &[],
    &[
        Trouble::DiskFails,
        Trouble::DiskFull,
        Trouble::Unreadable,
        Trouble::OneWriteFails,
        // Rarely enough happens what these lead to.
        Trouble::Unreadable,
        Trouble::OneWriteFails,
        Trouble::BlockDamaged,
    ],
    &[
        Trouble::Backup,
        Trouble::Restore,
        Trouble::RowsDeleted,
        Trouble::RestoredInQuiet,
        Trouble::LanesSettled,
    ],
    &[
        Trouble::CheckpointSetBack,
        Trouble::CheckpointSetForward,
        Trouble::LanesSettled,
    ],
    &[Trouble::AllCheckpointsAltered, Trouble::LanesSettled],
    &[Trouble::DecisionsOutdated, Trouble::LanesSettled],
    &[Trouble::LettersReplayed],
    &[Trouble::Repointed],
    &[Trouble::MachineCopied],
    &[Trouble::MachineReverted],
    &[Trouble::MemoryCopied],
    &[Trouble::MemoryReverted],
];

/// The families by which machines have the same journal, by their first troubles.
const COPIES: [Trouble; 4] = [
    Trouble::MachineCopied,
    Trouble::MachineReverted,
    Trouble::MemoryCopied,
    Trouble::MemoryReverted,
];

/// Families that do not meet, by their first troubles, and why.
const APART: [(Trouble, &[Trouble], &str); 6] = [
    (
        Trouble::LettersReplayed,
        &COPIES,
        "each copy has the letters, and whoever replays them in both has each of them stored twice",
    ),
    (
        Trouble::AllCheckpointsAltered,
        &COPIES,
        "without a true checkpoint nothing tells a copy what the others store at the same time",
    ),
    (
        Trouble::AllCheckpointsAltered,
        &[Trouble::Backup, Trouble::DecisionsOutdated],
        "neither the checkpoints nor what the journal has noted say then what the database has lost",
    ),
    (
        Trouble::DecisionsOutdated,
        &[
            Trouble::Backup,
            Trouble::MachineCopied,
            Trouble::MachineReverted,
            Trouble::MemoryCopied,
            Trouble::MemoryReverted,
        ],
        "as with all checkpoints altered",
    ),
    (
        Trouble::CheckpointSetBack,
        &[Trouble::MemoryCopied, Trouble::MemoryReverted],
        "an altered copy of a checkpoint does not say whose events that counts",
    ),
    (
        Trouble::DiskFails,
        &[Trouble::MemoryCopied, Trouble::MemoryReverted],
        "blocks that cannot be read do not say whose events a checkpoint counts",
    ),
];

/// Whether `next` and one of `drawn` do not meet.
fn are_apart(next: Trouble, drawn: &[Trouble]) -> bool {
    APART.iter().any(|(one, others, _)| {
        *one == next && others.iter().any(|other| drawn.contains(other))
            || others.contains(&next) && drawn.contains(one)
    })
}

/// The troubles of one seed.
pub(super) struct Troubles {
    all: Vec<Trouble>,
    /// The first ones of the families among them.
    pub(super) families: Vec<Trouble>,
}

impl Troubles {
    /// Senders and starts are in all seeds, the troubles of [`COMMON`] each in a third of them, and those of one family.
    /// `HAKARU_SIM_TROUBLES` names those that are left, separated by commas.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let mut drawn = vec![Trouble::Senders, Trouble::Start];
        drawn.extend(COMMON.into_iter().filter(|_| random.u32(0..3) == 0));
        let mut families = Vec::new();
        for _ in 0..random.usize(1..=2) {
            let family = FAMILIES[random.usize(0..FAMILIES.len())];
            let Some(first) = family.first() else {
                continue;
            };
            if !families.contains(first) && !are_apart(*first, &families) {
                drawn.extend(family);
                families.push(*first);
            }
        }
        if let Ok(only) = std::env::var("HAKARU_SIM_TROUBLES") {
            let only: Vec<&str> = only.split(',').collect();
            let is_known =
                |name: &&str| Trouble::ALL.iter().any(|trouble| trouble.name() == **name);
            let unknown = only.iter().find(|name| !is_known(name));
            assert_eq!(unknown, None, "HAKARU_SIM_TROUBLES: no such trouble");
            drawn = Trouble::ALL
                .into_iter()
                .filter(|trouble| {
                    matches!(trouble, Trouble::Senders | Trouble::Start)
                        || only.contains(&trouble.name().as_str()) && random.u32(0..3) == 0
                })
                .collect();
        }
        Self {
            all: drawn,
            families,
        }
    }

    /// Whether some of them take rows away that were stored.
    pub(super) fn take_rows_away(&self) -> bool {
        let takes = [
            Trouble::Restore,
            Trouble::RestoredInQuiet,
            Trouble::RowsDeleted,
            Trouble::AllCheckpointsAltered,
            Trouble::DecisionsOutdated,
            Trouble::CheckpointSetBack,
            Trouble::CheckpointSetForward,
            Trouble::MachineReverted,
            Trouble::MemoryReverted,
            Trouble::Repointed,
        ];
        self.all.iter().any(|trouble| takes.contains(trouble))
    }

    /// Whether a checkpoint may be that of another lane.
    pub(super) fn may_fork(&self, ack: Ack) -> bool {
        // Nothing tells a later backup that is restored after an earlier one from another lane, where there is no journal.
        let has_no_journal = ack == Ack::Received && self.has(Trouble::Backup);
        let alter = [Trouble::CheckpointSetBack, Trouble::CheckpointSetForward];
        COPIES
            .iter()
            .chain(&alter)
            .any(|trouble| self.has(*trouble))
            || self.alter_all_checkpoints()
            || has_no_journal
    }

    /// Whether processes may go on with the memory of an earlier moment.
    pub(super) fn bring_memory_back(&self) -> bool {
        self.has(Trouble::MemoryCopied) || self.has(Trouble::MemoryReverted)
    }

    /// Whether senders may repeat events: each of them goes into one database, and no machine goes on with the memory or
    /// the journal of another one.
    pub(super) fn may_repeat(&self) -> bool {
        let is_copy = |trouble: &Trouble| self.has(*trouble);
        !COPIES.iter().any(is_copy) && !self.has(Trouble::Repointed)
    }

    /// How many machines there may be. Where the disk of one loses events, each of the others that goes on with its lane under
    /// a key of its own stores them, which is the fault of [`EACH_ITS_KEY`].
    pub(super) fn machines_max(&self) -> usize {
        let loses_events = self.has(Trouble::BlockDamaged) || self.has(Trouble::Unreadable);
        if loses_events { 2 } else { MACHINES_MAX }
    }

    pub(super) fn has(&self, trouble: Trouble) -> bool {
        self.all.contains(&trouble)
    }

    /// Whether some of them give all checkpoints another position.
    pub(super) fn alter_all_checkpoints(&self) -> bool {
        self.has(Trouble::AllCheckpointsAltered) || self.has(Trouble::DecisionsOutdated)
    }

    /// What happens next, if anything.
    pub(super) fn next(&self, random: &mut fastrand::Rng) -> Option<Trouble> {
        match random.u32(0..100) {
            0..30 => Some(Trouble::Senders),
            30..40 => Some(self.all[random.usize(0..self.all.len())]),
            _ => None,
        }
    }
}

/// How the first process is started.
pub(super) fn draw_settings(random: &mut fastrand::Rng, troubles: &Troubles) -> Settings {
    let ack = match random.u32(0..10) {
        // Without a journal nothing but the checkpoint says what is stored.
        0 if !troubles.alter_all_checkpoints() => Ack::Received,
        1..=3 => Ack::Stored,
        _ => Ack::Journaled,
    };
    Settings {
        ack,
        shards: random.usize(1..=3),
        writers: random.usize(1..=3),
        found_max: if random.bool() { 1 } else { 64 },
        batch_events: random.u32(1..12),
        linger: Duration::from_millis(random.u64(1..2000)),
        // What is older cannot be stored again after the database went back.
        keep: Duration::from_secs(match random.u32(0..4) > 0 && !troubles.take_rows_away() {
            true => random.u64(0..60),
            false => random.u64(3600..7200),
        }),
        journal_limit: random.u64(100_000..400_000),
        letters_limit: 1 << 20,
        address: "mysql://db:3306/h".to_owned(),
        adopts_any: false,
    }
}
