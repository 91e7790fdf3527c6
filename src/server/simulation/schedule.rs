//! Which troubles a seed has. It draws some of them, so that rare ones meet each other too.

use super::troubles::Trouble;

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
const FAMILIES: [&[Trouble]; 10] = [
    &[],
    &[
        Trouble::DiskFails,
        Trouble::DiskFull,
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
];

/// Families that do not meet, by their first troubles, and why.
const APART: [(Trouble, &[Trouble], &str); 5] = [
    (
        Trouble::LettersReplayed,
        &[Trouble::MachineCopied, Trouble::MachineReverted],
        "each copy has the letters, and whoever replays them in both has each of them stored twice",
    ),
    (
        Trouble::AllCheckpointsAltered,
        &[Trouble::MachineCopied, Trouble::MachineReverted],
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
        ],
        "as with all checkpoints altered",
    ),
    (
        Trouble::Backup,
        &[Trouble::MachineCopied, Trouble::MachineReverted],
        "a fault that is not mended: a copy that has another key stores what a restore took under that key, also what was \
         stored under the first one before, and so do the other copies",
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
            Trouble::Repointed,
        ];
        self.all.iter().any(|trouble| takes.contains(trouble))
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
