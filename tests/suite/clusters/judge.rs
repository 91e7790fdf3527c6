//! What the members have at the end of a round, compared with the history.

use std::collections::{HashMap, HashSet};

use super::cluster::Cluster;
use super::member::Member;
use crate::support::wait_until;
use crate::torture::database::id;
use crate::torture::history::{History, Id, Outcome};

/// Waits until all members have the same rows and checkpoints.
pub fn wait_until_equal(cluster: &Cluster) {
    wait_until("all members are equal", || {
        let mut sums = cluster.members.iter().map(checksums);
        let first = sums.next().unwrap();
        first.is_some() && sums.all(|sum| sum == first)
    });
}

fn checksums(member: &Member) -> Option<Vec<(String, u64)>> {
    member.query("CHECKSUM TABLE hakaru.eventlog, hakaru.hakaru_checkpoint")
}

/// Whether a member has every event that was answered 200 and cannot be lost.
pub fn has_all(member: &Member, history: &History, is_in_memory: bool) -> bool {
    let Some(rows) = rows(member) else {
        return false;
    };
    let rows: HashSet<Id> = rows
        .iter()
        .filter_map(|(name, value)| id(name, *value))
        .collect();
    let invocations = history.invocations(is_in_memory);
    let mut promised = invocations
        .iter()
        .filter(|invocation| invocation.outcome == Outcome::Ok && !invocation.may_be_lost);
    promised.all(|invocation| rows.contains(&invocation.id))
}

fn rows(member: &Member) -> Option<Vec<(String, u32)>> {
    member.query("SELECT name, value FROM hakaru.eventlog")
}

/// Accuses what is wrong on any member.
pub fn judge(cluster: &Cluster, history: &History, is_in_memory: bool) {
    let invocations = history.invocations(is_in_memory);
    let sent: HashSet<Id> = invocations.iter().map(|invocation| invocation.id).collect();
    for (number, member) in cluster.members.iter().enumerate() {
        let rows = rows(member).expect("the member answers");
        let mut counts: HashMap<Id, u32> = HashMap::new();
        for (name, value) in rows {
            match id(&name, value).filter(|id| sent.contains(id)) {
                Some(id) => *counts.entry(id).or_default() += 1,
                None => history.accuse(
                    format!("member {number} has a row that nobody sent: {name:?}, {value}"),
                    [],
                ),
            }
        }
        for invocation in &invocations {
            let rows = counts.get(&invocation.id).copied().unwrap_or(0);
            let wrong = match (invocation.outcome, rows) {
                (_, 2..) => "is stored twice",
                (Outcome::Ok, 0) if !invocation.may_be_lost => "was answered 200, and is no row",
                (Outcome::Shed, 1) => "was answered 503, and is stored",
                (Outcome::Cut, 1) => "was cut by its sender, and is stored",
                (Outcome::Refused, _) => "was answered 422",
                _ => continue,
            };
            let text = format!("{:?} {wrong}, by member {number}", invocation.id);
            history.accuse(text, [invocation.id]);
        }
    }
}
