//! What must have become of each event. It shares no code with hakaru: it reads rows over SQL, the lines of
//! `dead-letters.ndjson`, and `/stats.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::database::{Database, id, is_poison};
use super::draw::Ack;
use super::history::{Counts, History, Id, Invocation, Outcome};

/// Where a letter is: its lane, and its position there. After a crash it may be in the file twice.
pub type Place = (String, u64);

/// Letters by their place: the event, and the line.
pub type Letters = BTreeMap<Place, (Option<Id>, String)>;

/// The lines of the file of dead letters in a data directory.
pub fn letters(data_dir: &Path) -> Letters {
    let text = std::fs::read_to_string(data_dir.join("dead-letters.ndjson")).unwrap_or_default();
    let letter = |line: &str| {
        let json: Value = serde_json::from_str(line).ok()?;
        let place = (
            json["lane"].as_str()?.to_owned(),
            json["position"].as_u64()?,
        );
        let value = json["value"].as_u64()?.try_into().ok()?;
        Some((place, (id(json["name"].as_str()?, value), line.to_owned())))
    };
    text.lines().filter_map(letter).collect()
}

/// What is stored at a moment.
#[derive(Default)]
pub struct Found {
    /// How many rows an event has in each database.
    pub rows: Vec<BTreeMap<Id, usize>>,
    pub letters: BTreeMap<Id, BTreeSet<Place>>,
    /// What no sender has sent.
    pub strange: Vec<String>,
}

impl Found {
    pub fn read(databases: &[Database<'_>], data_dirs: &[PathBuf]) -> Self {
        let mut found = Self::default();
        for database in databases {
            let mut counts = BTreeMap::new();
            for (name, value) in database.rows() {
                match id(&name, value) {
                    Some(id) => *counts.entry(id).or_default() += 1,
                    None => found.strange.push(format!("a row {name:?}, {value}")),
                }
            }
            found.rows.push(counts);
        }
        for (place, (id, line)) in data_dirs.iter().flat_map(|directory| letters(directory)) {
            match id {
                Some(id) => {
                    found.letters.entry(id).or_default().insert(place);
                }
                None => found.strange.push(format!("a letter {line}")),
            }
        }
        found
    }

    /// Whether the event is a row or a letter.
    pub fn has(&self, id: Id) -> bool {
        self.rows.iter().any(|rows| rows.contains_key(&id)) || self.letters.contains_key(&id)
    }

    /// What is wrong, and which events are missing, each with its database. `invocations` are of a later moment.
    pub fn judge(&self, invocations: &[Invocation], ack: Ack) -> Verdict {
        let mut verdict = Verdict {
            wrong: self
                .strange
                .iter()
                .map(|text| (None, text.clone()))
                .collect(),
            missing: Vec::new(),
            halves: self.halves(invocations),
        };
        let mut sent = BTreeSet::new();
        for invocation in invocations {
            sent.insert(invocation.id);
            self.judge_one(invocation, ack, &mut verdict);
        }
        let stored = self.rows.iter().flat_map(BTreeMap::keys);
        for &id in stored.chain(self.letters.keys()) {
            if !sent.contains(&id) {
                let text = format!("sender{}, value {} was never sent", id.0, id.1);
                verdict.wrong.push((Some(id), text));
            }
        }
        verdict
    }

    /// Events that are nowhere, of requests of which other events are stored.
    pub fn halves(&self, invocations: &[Invocation]) -> Vec<(Id, usize)> {
        let requests = invocations.chunk_by(|one, other| one.request == other.request);
        let mut halves = Vec::new();
        for request in requests.filter(|request| request.len() > 1) {
            let (stored, missing): (Vec<_>, Vec<_>) =
                request.iter().partition(|event| self.has(event.id));
            if !stored.is_empty() {
                let missing = missing.iter().filter(|event| !event.may_be_lost);
                halves.extend(missing.map(|event| (event.id, event.database)));
            }
        }
        halves
    }

    fn judge_one(&self, invocation: &Invocation, ack: Ack, verdict: &mut Verdict) {
        let id = invocation.id;
        let rows: Vec<usize> = self
            .rows
            .iter()
            .map(|rows| rows.get(&id).copied().unwrap_or(0))
            .collect();
        let letters = self.letters.get(&id).map_or(0, BTreeSet::len);
        let here = rows[invocation.database];
        let elsewhere = rows.iter().sum::<usize>() - here;
        let outcome = invocation.outcome;
        let wrong = if elsewhere > 0 {
            "is in another database"
        } else if here + letters > 1 {
            "is stored twice"
        } else if outcome == Outcome::Shed && here + letters > 0 {
            "was answered 503, and is stored"
        } else if outcome == Outcome::Cut && here + letters > 0 {
            "was cut by its sender, and is stored"
        } else if is_poison(id) && here > 0 {
            "is a row that the table refuses"
        } else if !is_poison(id) && letters > 0 {
            "is a dead letter, and the table takes it"
        } else if ack == Ack::Stored && invocation.with_poison && outcome == Outcome::Ok {
            "was answered 200 to --ack stored, and the table refuses it or one of its request"
        } else if outcome == Outcome::Refused && !(ack == Ack::Stored && invocation.with_poison) {
            "was answered 422, and the table takes it"
        } else {
            let is_promised = matches!(outcome, Outcome::Ok | Outcome::Refused);
            if is_promised && here + letters == 0 && !invocation.may_be_lost {
                verdict.missing.push((id, invocation.database));
            }
            return;
        };
        let text = format!(
            "sender{}, value {} (process {}, database {}) {wrong}: rows by database {rows:?}, letters {:?}",
            id.0,
            id.1,
            invocation.node,
            invocation.database,
            self.letters.get(&id)
        );
        verdict.wrong.push((Some(id), text));
    }
}

/// What is wrong at a moment.
pub struct Verdict {
    pub wrong: Vec<(Option<Id>, String)>,
    /// Promised, and nowhere yet.
    pub missing: Vec<(Id, usize)>,
    /// Nowhere yet, and others of their requests are stored.
    pub halves: Vec<(Id, usize)>,
}

impl Verdict {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.halves.is_empty()
    }

    pub fn accuse_missing(&self, history: &History) {
        let ids = |events: &[(Id, usize)]| events.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        accuse_missing(&ids(&self.missing), &ids(&self.halves), history);
    }
}

/// Accuses what is missing when nothing more can come.
pub fn accuse_missing(missing: &[Id], halves: &[Id], history: &History) {
    for (ids, what) in [
        (missing, "promised events are nowhere"),
        (
            halves,
            "events are nowhere, and others of their requests are stored",
        ),
    ] {
        if !ids.is_empty() {
            let text = format!("{} {what}: {ids:?}", ids.len());
            history.accuse(text, ids.iter().copied());
        }
    }
}

/// Numbers of `/stats.json`, or of the last log line.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    pub received: u64,
    pub stored: u64,
    pub recovered: u64,
    pub lost: u64,
    pub pending: u64,
    pub shed: u64,
    ends: u64,
}

impl Numbers {
    pub fn of(events: &Value) -> Self {
        let number = |name: &str| {
            events[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name} in {events}"))
        };
        let (lost, pending) = (number("lost"), number("pending"));
        let duplicate = events["duplicate"].as_u64().unwrap_or(0);
        Self {
            received: number("received"),
            stored: number("stored"),
            recovered: number("recovered"),
            lost,
            pending,
            shed: number("shed"),
            ends: number("stored") + duplicate + number("dead_lettered") + lost + pending,
        }
    }

    /// What is wrong with them at any moment.
    pub fn wrong(&self, may_lose: bool) -> Option<String> {
        if self.received != self.ends {
            return Some(format!("the numbers do not add up to received: {self:?}"));
        }
        (self.lost > 0 && !may_lose).then(|| format!("events are lost: {self:?}"))
    }

    /// Compares them with what the senders have counted of the same process before and after.
    pub fn differ(&self, before: Counts, after: Counts) -> Option<String> {
        let taken = self.received - self.recovered;
        let sent = after.sent - before.not_taken;
        let is_right = taken >= before.ok + before.refused && taken <= sent - before.shed;
        let is_shed = self.shed >= before.shed && self.shed <= sent - before.ok - before.refused;
        (!is_right || !is_shed).then(|| {
            format!("the senders counted {before:?}, then {after:?}; the process {self:?}")
        })
    }
}
