//! One dead letter, and its line in the file.

use std::fmt;

use serde_json::json;

use crate::event::database_id::DatabaseId;
use crate::event::event_id::EventId;
use crate::event::position::{LaneId, Position};
use crate::event::rule::NAME_BYTES_MAX;
use crate::event::{Event, UnixMillis};
use crate::os::bugs::{Bug, planted};

/// An event that the database refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// When it was received.
    pub received_at: UnixMillis,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u32,
    /// What its sender calls it.
    pub id: Option<String>,
    /// The database's error number, where it gave one.
    pub code: Option<i32>,
    /// Its words.
    pub error: String,
    /// The lane of the event.
    pub lane: LaneId,
    /// Its position there. A crash may write a letter twice: lane and position tell that it is the same.
    pub position: Position,
    /// The database that refused it. `None` in a letter of a version that did not note it.
    pub database: Option<DatabaseId>,
}

/// What a line of the file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A letter.
    Letter(Letter),
    /// The mark that the letters of this lane are no letters any more: they are stored from it.
    Replayed(LaneId),
    /// None of them: half a line of a crash, or what somebody wrote.
    Unreadable,
}

impl Line {
    pub(super) fn parse(line: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else {
            return Self::Unreadable;
        };
        if let Some(lane) = value["replayed"].as_str().map(str::parse) {
            return lane.map_or(Self::Unreadable, Self::Replayed);
        }
        Letter::of(&value).map_or(Self::Unreadable, Self::Letter)
    }
}

/// The line of the mark.
pub(super) fn replayed_line(lane: LaneId) -> String {
    format!("{}\n", json!({ "replayed": lane.to_string() }))
}

impl Letter {
    fn of(value: &serde_json::Value) -> Option<Self> {
        let received: jiff::Timestamp = value["received_at"].as_str()?.parse().ok()?;
        let name = value["name"].as_str()?;
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let id = match &value["id"] {
            serde_json::Value::Null => None,
            // Without its id it might be stored twice.
            id => Some(EventId::new(id.as_str()?).ok()?.as_str().to_owned()),
        };
        let database = match &value["database"] {
            serde_json::Value::Null => None,
            // A letter must not be taken for one of any database.
            database => Some(database.as_str()?.parse().ok()?),
        };
        Some(Self {
            received_at: UnixMillis(received.as_millisecond().try_into().ok()?),
            name: name.to_owned(),
            value: value["value"].as_u64()?.try_into().ok()?,
            id,
            code: value["code"].as_i64().and_then(|code| code.try_into().ok()),
            error: value["error"].as_str().unwrap_or_default().to_owned(),
            lane: value["lane"].as_str()?.parse().ok()?,
            position: Position(value["position"].as_u64()?),
            database,
        })
    }

    /// The event.
    pub fn event(&self) -> Event<'_> {
        Event {
            name: &self.name,
            value: self.value,
            received_at: if planted(Bug::LetterTimeLost) {
                UnixMillis(0)
            } else {
                self.received_at
            },
            id: self.id.as_deref().and_then(|id| EventId::new(id).ok()),
        }
    }

    /// Where its event is.
    pub fn place(&self) -> (LaneId, Position) {
        (self.lane, self.position)
    }
}

/// Its line, without the line feed.
impl fmt::Display for Letter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = json!({
            "received_at": rfc3339(self.received_at),
            "name": self.name,
            "value": self.value,
            "code": self.code,
            "error": self.error,
            "lane": self.lane.to_string(),
            "position": self.position.0,
            "database": self.database.map(|database| database.to_string()),
        });
        if let Some(id) = &self.id {
            line["id"] = id.as_str().into();
        }
        line.fmt(out)
    }
}

/// UTC, with milliseconds.
pub fn rfc3339(at: UnixMillis) -> Option<String> {
    let millis = i64::try_from(at.0).ok()?;
    let timestamp = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(format!("{timestamp:.3}"))
}
