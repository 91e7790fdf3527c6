//! What became of the events that a server received.

use serde_json::Value;

/// How many events ended in which way: stored, dead-lettered, pending, rejected or shed.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    pub received: u64,
    pub stored: u64,
    pub duplicate: u64,
    pub dead_lettered: u64,
    pub lost: u64,
    pub pending: u64,
    pub rejected: u64,
    pub shed: u64,
    pub rejected_by_reason: String,
}

impl Identity {
    /// The counts of a log line. Checks that they add up.
    pub fn of(line: &Value) -> Self {
        let count = |name: &str| line[name].as_u64().unwrap();
        let identity = Self {
            received: count("received"),
            stored: count("stored"),
            duplicate: count("duplicate"),
            dead_lettered: count("dead_lettered"),
            lost: count("lost"),
            pending: count("pending"),
            rejected: count("rejected"),
            shed: count("shed"),
            rejected_by_reason: line["rejected_by_reason"].as_str().unwrap().to_owned(),
        };
        let kept = identity.stored + identity.duplicate;
        let ends = kept + identity.dead_lettered + identity.lost + identity.pending;
        assert_eq!(identity.received, ends, "{line}");
        identity
    }
}
