//! What must have become of events that were sent several times, with the same ids each time.

use std::collections::BTreeMap;

use crate::torture::checker::{Found, accuse_missing};
use crate::torture::database::is_poison;
use crate::torture::history::{History, Id, Invocation, Outcome};

/// What is wrong with the events at a moment.
#[derive(Debug, Default)]
pub struct Verdict {
    pub wrong: Vec<(Option<Id>, String)>,
    /// Answered 200 or 422, and nowhere yet.
    pub missing: Vec<Id>,
    /// Nowhere yet, and others of their requests are stored.
    pub halves: Vec<Id>,
    /// More than one row.
    pub doubled: u64,
}

impl Verdict {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.halves.is_empty()
    }

    pub fn accuse_missing(&self, history: &History) {
        accuse_missing(&self.missing, &self.halves, history);
    }
}

/// All attempts to send an event.
fn attempts(invocations: &[Invocation]) -> BTreeMap<Id, Vec<&Invocation>> {
    let mut all: BTreeMap<Id, Vec<&Invocation>> = BTreeMap::new();
    for invocation in invocations {
        all.entry(invocation.id).or_default().push(invocation);
    }
    all
}

/// `may_keep_shed`: an event that was answered 503 may be a row.
pub fn judge(found: &Found, invocations: &[Invocation], may_keep_shed: bool) -> Verdict {
    let mut verdict = Verdict::default();
    let strange = found.strange.iter().map(|text| (None, text.clone()));
    verdict.wrong.extend(strange);
    let all = attempts(invocations);
    for (&id, attempts) in &all {
        let rows = found.rows[0].get(&id).copied().unwrap_or(0);
        let letters = found.letters.contains_key(&id);
        let outcomes = || attempts.iter().map(|attempt| attempt.outcome);
        let may_be_taken = outcomes().any(|outcome| match outcome {
            Outcome::Sent | Outcome::Ok | Outcome::Refused | Outcome::NoAnswer => true,
            Outcome::Shed => may_keep_shed,
            Outcome::Rejected | Outcome::Cut => false,
        });
        let is_promised = attempts.iter().any(|attempt| {
            matches!(attempt.outcome, Outcome::Ok | Outcome::Refused) && !attempt.may_be_lost
        });
        let wrong = if rows > 1 {
            verdict.doubled += 1;
            "has more than one row"
        } else if !may_be_taken && (rows > 0 || letters) {
            "was never taken, and is stored"
        } else if is_poison(id) && rows > 0 {
            "is a row that the table refuses"
        } else if letters && !is_poison(id) {
            "is a dead letter, and the table takes it"
        } else {
            if is_promised && rows == 0 && !letters {
                verdict.missing.push(id);
            }
            continue;
        };
        let outcomes: Vec<_> = outcomes().collect();
        let text = format!("{id:?} {wrong}: {rows} rows, answers {outcomes:?}");
        verdict.wrong.push((Some(id), text));
    }
    for &id in found.rows[0].keys().chain(found.letters.keys()) {
        if !all.contains_key(&id) {
            verdict
                .wrong
                .push((Some(id), format!("{id:?} was never sent")));
        }
    }
    verdict
}
