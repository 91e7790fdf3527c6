//! What a person does about a lane that is held: looks whether its events in question are rows or letters, and says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checker::{Found, letters};
use super::database::id;
use super::history::History;
use super::node::data_dir;
use crate::support::ask;

/// Why a lane is held, and its events in question, by their positions. `None`: it is not held, or the decision is made
/// already.
fn hold(lane: &Path) -> Option<(String, u64, u64)> {
    let text = std::fs::read_to_string(lane.join("held")).ok()?;
    let number = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.parse().ok())
    };
    let is_decided = lane.join("settled").exists();
    let (from, to) = (number("from ")?, number("to ")?);
    Some((text, from, to)).filter(|_| !is_decided)
}

/// Decides about each lane that is held below `directory`, once for each reason.
pub fn settle(
    directory: &Path,
    found: &Found,
    decided: &mut BTreeSet<(PathBuf, String)>,
    history: &History,
) {
    let data_dir = data_dir(directory);
    let letters = letters(&data_dir);
    let lanes = std::fs::read_dir(data_dir.join("journal"));
    for lane in lanes.into_iter().flatten().flatten() {
        let Some((text, from, to)) = hold(&lane.path()) else {
            continue;
        };
        if !decided.insert((lane.path(), text)) {
            continue;
        }
        let name = lane.file_name().into_string().unwrap();
        let dump = ask(directory, "", &["journal", "dump", &name, "--json"]);
        let events = dump.out.lines().filter_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let value = event["value"].as_u64()?.try_into().ok()?;
            let position = event["position"].as_u64()?;
            // hakaru knows its letters, which are no rows.
            let is_letter = letters.contains_key(&(name.clone(), position));
            let is_asked = (from..to).contains(&position) && !is_letter;
            id(event["name"].as_str()?, value).filter(|_| is_asked)
        });
        let (stored, missing): (Vec<_>, Vec<_>) = events.partition(|id| found.has(*id));
        let counts = format!("{} stored, {} missing", stored.len(), missing.len());
        let text = format!("lane {name} is held, events {from} to {to}: {counts}");
        if !stored.is_empty() && !missing.is_empty() {
            history.accuse(
                text,
                stored
                    .into_iter()
                    .take(2)
                    .chain(missing.into_iter().take(2)),
            );
            continue;
        }
        history.note(text);
        let decision = if missing.is_empty() {
            "--stored"
        } else {
            "--refill"
        };
        let asked = ask(directory, "", &["journal", "settle", &name, decision]);
        history.note(format!("settle {name} {decision}: {:?}", asked.code));
    }
}
