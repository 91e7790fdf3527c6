//! The event, and the rule for the events that are accepted.

pub mod ack;
pub mod batch;
pub mod database_id;
pub mod event_id;
pub mod fingerprint;
pub mod list;
pub mod position;
pub mod repertoire;
pub mod rule;

use self::event_id::EventId;
use crate::os::clock;

/// Milliseconds since the Unix epoch, by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The current time. 0 if the clock is set before 1970.
    pub fn now() -> Self {
        Self(u64::try_from(clock::since_epoch().as_millis()).unwrap_or(u64::MAX))
    }

    /// Whole seconds since the epoch: the resolution of the `at` column.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// 1 to 255 characters that the rule allows, see [`rule`].
    pub name: &'a str,
    /// Any value of `int unsigned` that the rule allows.
    pub value: u32,
    /// When the request that carried it was read.
    pub received_at: UnixMillis,
    /// What its sender calls it, if the table may keep that.
    pub id: Option<EventId<'a>>,
}

/// The event was not accepted, because a bound is reached or no lane is open. It is answered 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed;
