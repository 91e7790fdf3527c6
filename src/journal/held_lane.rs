//! A lane of which nobody can tell what is stored. It waits for a person.
//!
//! The file `held` beside its segments says which events are in question. It outlives the process that wrote it.

use std::io;
use std::path::Path;

use super::durable_note;
use crate::event::position::Position;

/// The file's name in the directory of its lane.
const NAME: &str = "held";

/// The file of a decision, in the directory of its lane.
const DECISION_NAME: &str = "settled";

/// Why a lane is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The first event that may be stored or not. Those before it are stored.
    pub from: Position,
    /// The event after the last one in question. From here on none is stored.
    pub to: Position,
    /// What was seen, in one line.
    pub reason: String,
    /// The checkpoint that was found. `None`: an older version has held the lane.
    pub checkpoint: Option<HeldCheckpoint>,
}

/// A checkpoint that cannot be believed. If it is elsewhere later, another process has moved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldCheckpoint {
    /// Its position.
    pub position: Position,
    /// Its epoch.
    pub epoch: u64,
}

/// What a person has decided about events in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They are stored.
    Stored,
    /// They are not stored, and are to be.
    Refill,
}

/// A decision, and about which events it is. The lane may be held for others by the time it is read, or for the same ones
/// for another reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// What was decided.
    pub decision: Decision,
    /// The first event that it is about.
    pub from: Position,
    /// The event after the last one.
    pub to: Position,
    /// The checkpoint of the hold, as it was noted then.
    pub checkpoint: Option<HeldCheckpoint>,
}

impl Settlement {
    /// Reads the decision beside the lane in `directory`, if there is one.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        durable_note::read(directory, DECISION_NAME, Self::parse)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let decision = match lines.next()? {
            "stored" => Decision::Stored,
            "refill" => Decision::Refill,
            _ => return None,
        };
        let mut lines = lines.peekable();
        // An earlier version did not name the events: it is about none that the lane may be held for now.
        let [from, to] = match lines.peek() {
            None => [Position::START; 2],
            Some(_) => range(&mut lines)?,
        };
        let checkpoint = HeldCheckpoint::parse(lines.next())?;
        Some(Self {
            decision,
            from,
            to,
            checkpoint,
        })
    }

    /// Writes the decision beside the lane. It is durable when this returns.
    pub fn write(self, directory: &Path) -> io::Result<()> {
        let Self {
            decision,
            from,
            to,
            checkpoint,
        } = self;
        let decision = match decision {
            Decision::Stored => "stored",
            Decision::Refill => "refill",
        };
        let mut text = format!("{decision}\nfrom {}\nto {}\n", from.0, to.0);
        text += &checkpoint.map_or(String::new(), HeldCheckpoint::line);
        durable_note::replace(directory, DECISION_NAME, &text)
    }

    /// Whether it is about this hold.
    pub fn is_about(self, hold: &Hold) -> bool {
        self == hold.decide(self.decision)
    }
}

/// The positions in the next two lines.
fn range<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<[Position; 2]> {
    let mut position = |word| {
        let number = durable_note::field(lines.next(), word)?;
        Some(Position(number.parse().ok()?))
    };
    Some([position("from")?, position("to")?])
}

impl HeldCheckpoint {
    /// Reads its line. The outer `None`: it says something else.
    fn parse(line: Option<&str>) -> Option<Option<Self>> {
        if line.is_none() {
            return Some(None);
        }
        let (position, epoch) = durable_note::field(line, "checkpoint")?.split_once(" epoch ")?;
        Some(Some(Self {
            position: Position(position.parse().ok()?),
            epoch: epoch.parse().ok()?,
        }))
    }

    fn line(self) -> String {
        format!("checkpoint {} epoch {}\n", self.position.0, self.epoch)
    }
}

impl Hold {
    /// Reads the note beside the lane in `directory`. `None`: the lane is not held.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        durable_note::read(directory, NAME, Self::parse)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let [from, to] = range(&mut lines)?;
        let reason = durable_note::field(lines.next(), "reason")?.to_owned();
        let checkpoint = HeldCheckpoint::parse(lines.next())?;
        Some(Self {
            from,
            to,
            reason,
            checkpoint,
        })
    }

    /// Notes the hold beside the lane. The note is durable when this returns.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        // One that was left by an earlier hold decides nothing about this one.
        durable_note::remove(directory, DECISION_NAME)?;
        let Self {
            from,
            to,
            reason,
            checkpoint,
        } = self;
        let reason = reason.replace(['\n', '\r'], " ");
        let mut text = format!("from {}\nto {}\nreason {reason}\n", from.0, to.0);
        text += &checkpoint.map_or(String::new(), HeldCheckpoint::line);
        durable_note::replace(directory, NAME, &text)
    }

    /// Removes the note, and the decision that led to it.
    pub fn remove(directory: &Path) -> io::Result<()> {
        durable_note::remove(directory, NAME)?;
        // A decision without a hold decides nothing.
        if let Err(fault) = durable_note::remove(directory, DECISION_NAME) {
            log::debug!("{}: {fault}", directory.display());
        }
        Ok(())
    }

    /// A decision about its events.
    pub fn decide(&self, decision: Decision) -> Settlement {
        Settlement {
            decision,
            from: self.from,
            to: self.to,
            checkpoint: self.checkpoint,
        }
    }

    /// The events before this position are stored, by a decision.
    pub fn settled(&self, decision: Decision) -> Position {
        match decision {
            Decision::Stored => self.to,
            Decision::Refill => self.from,
        }
    }

    /// Events in question.
    pub fn events(&self) -> u64 {
        self.to.since(self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Hold::read(directory.path()).unwrap(), None);
        let mut hold = Hold {
            from: Position(7),
            to: Position(9),
            reason: "two\nlines".to_owned(),
            checkpoint: None,
        };
        hold.write(directory.path()).unwrap();
        hold.reason = "two lines".to_owned();
        assert_eq!(hold.events(), 2);
        assert_eq!(Hold::read(directory.path()).unwrap(), Some(hold.clone()));
        hold.checkpoint = Some(HeldCheckpoint {
            position: Position(9),
            epoch: 3,
        });
        hold.write(directory.path()).unwrap();
        assert_eq!(Hold::read(directory.path()).unwrap(), Some(hold.clone()));
        for (decision, position) in [(Decision::Stored, 9), (Decision::Refill, 7)] {
            assert_eq!(Settlement::read(directory.path()).unwrap(), None);
            hold.decide(decision).write(directory.path()).unwrap();
            let read = Settlement::read(directory.path()).unwrap().unwrap();
            assert_eq!(read, hold.decide(decision));
            assert!(read.is_about(&hold));
            let other = Hold {
                to: Position(10),
                ..hold.clone()
            };
            assert!(!read.is_about(&other));
            assert_eq!(hold.settled(decision), Position(position));
            Hold::remove(directory.path()).unwrap();
        }
        assert_eq!(Hold::read(directory.path()).unwrap(), None);
        std::fs::write(directory.path().join(NAME), "from 7\nto").unwrap();
        let fault = Hold::read(directory.path()).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
    }
}
