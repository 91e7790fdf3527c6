//! How long a request with several events waits for room in the journal.

use std::cell::RefCell;
use std::time::Duration;

use monoio::time::timeout;

use super::ingest::{self, Ingest};

/// How long it waits, each time.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How often it waits.
const WAITS_MAX: u32 = 16;

/// How often a request may still wait. Then it is answered 503.
#[derive(Debug, Clone, Copy)]
pub struct Patience(u32);

impl Patience {
    /// That of a request that has not waited yet.
    pub const WHOLE: Self = Self(WAITS_MAX);

    /// Waits until there may be room. Returns what is left.
    pub async fn wait(self, ingest: &RefCell<Ingest>) -> Self {
        match timeout(WAIT_MAX, ingest::room(ingest)).await {
            Ok(()) => Self(self.0 - 1),
            Err(_) => Self(0),
        }
    }

    /// Whether the request may wait again.
    pub fn is_left(self) -> bool {
        self.0 > 0
    }
}
