//! Which troubles a seed has. It draws some of them, so that rare ones meet each other too.

use super::troubles::Trouble;

/// Troubles that may meet any others.
const COMMON: [Trouble; 12] = [
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
];

/// Troubles of which what is promised depends on who caused them. One family meets no other.
const FAMILIES: [&[Trouble]; 7] = [
    &[],
    &[Trouble::DiskFails, Trouble::DiskFull, Trouble::Unreadable],
    &[Trouble::Backup, Trouble::Restore, Trouble::RowsDeleted],
    &[Trouble::CheckpointSetBack, Trouble::CheckpointSetForward],
    &[Trouble::Repointed],
    &[Trouble::MachineCopied],
    &[Trouble::MachineReverted],
];

/// The troubles of one seed.
pub(super) struct Troubles(Vec<Trouble>);

impl Troubles {
    /// Senders and starts are in all seeds, the troubles of [`COMMON`] each in a third of them, and those of one family.
    /// `HAKARU_SIM_TROUBLES` names those that are left, separated by commas.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let mut drawn = vec![Trouble::Senders, Trouble::Start];
        drawn.extend(COMMON.into_iter().filter(|_| random.u32(0..3) == 0));
        drawn.extend(FAMILIES[random.usize(0..FAMILIES.len())]);
        if let Ok(only) = std::env::var("HAKARU_SIM_TROUBLES") {
            let only: Vec<&str> = only.split(',').collect();
            drawn = Trouble::ALL
                .into_iter()
                .filter(|trouble| {
                    matches!(trouble, Trouble::Senders | Trouble::Start)
                        || only.contains(&trouble.name().as_str()) && random.u32(0..3) == 0
                })
                .collect();
        }
        Self(drawn)
    }

    /// Whether some of them take rows away that were stored.
    pub(super) fn take_rows_away(&self) -> bool {
        let takes = [
            Trouble::Restore,
            Trouble::RowsDeleted,
            Trouble::CheckpointSetBack,
            Trouble::CheckpointSetForward,
            Trouble::MachineReverted,
            Trouble::Repointed,
        ];
        self.0.iter().any(|trouble| takes.contains(trouble))
    }

    /// What happens next, if anything.
    pub(super) fn next(&self, random: &mut fastrand::Rng) -> Option<Trouble> {
        match random.u32(0..100) {
            0..30 => Some(Trouble::Senders),
            30..40 => Some(self.0[random.usize(0..self.0.len())]),
            _ => None,
        }
    }
}
