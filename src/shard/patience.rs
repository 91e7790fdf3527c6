//! How long a request with several events waits for room in the journal.

use std::cell::RefCell;
use std::time::Duration;

use monoio::time::timeout;

use super::ingest::{self, Ingest};

/// How long it waits, each time.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How often it waits.
const WAITS_MAX: u32 = 16;

/// How often a request may still wait, and for what. Then it is answered 503.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    waits: u32,
    /// Bytes of a group.
    bytes: usize,
}

impl Patience {
    /// That of a request that has not waited yet.
    pub const WHOLE: Self = Self {
        waits: WAITS_MAX,
        bytes: 0,
    };

    /// That of a request that may not wait.
    pub const NONE: Self = Self { waits: 0, bytes: 0 };

    /// Notes how many bytes of a group the request needs.
    pub fn needs(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    /// Waits until there may be room. Until then the body need not be read again.
    pub async fn wait(&mut self, ingest: &RefCell<Ingest>) {
        let room = async {
            ingest::room(ingest).await;
            // Much else wakes those that wait.
            while !ingest.borrow().may_have_room_for(self.bytes) {
                ingest::room(ingest).await;
            }
        };
        self.waits = match timeout(WAIT_MAX, room).await {
            Ok(()) => self.waits - 1,
            Err(_) => 0,
        };
    }

    /// Whether the request may wait again.
    pub fn is_left(self) -> bool {
        self.waits > 0
    }
}
