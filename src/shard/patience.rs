//! How long a request with several events waits for room in the journal.

use std::cell::RefCell;
use std::time::Duration;

use monoio::time::timeout;

use super::ingest::{self, Ingest};

/// How long a request waits at most. Longer than the writes of a disk that stalls now and then.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Whether a request may still wait, and for what. Then it is answered 503.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    is_left: bool,
    /// Bytes of a group.
    bytes: usize,
}

impl Patience {
    /// That of a request that has not waited yet.
    pub const WHOLE: Self = Self {
        is_left: true,
        bytes: 0,
    };

    /// That of a request that may not wait.
    pub const NONE: Self = Self {
        is_left: false,
        bytes: 0,
    };

    /// Notes how many bytes of a group the request needs.
    pub fn needs(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    /// Waits until there is room, once. Until then the body need not be read again.
    pub async fn wait(&mut self, ingest: &RefCell<Ingest>) {
        let room = async {
            ingest::room(ingest).await;
            // Much else wakes those that wait.
            while !ingest.borrow().may_have_room_for(self.bytes) {
                ingest::room(ingest).await;
            }
        };
        // Where there is room, the request is taken before anything else comes.
        if timeout(WAIT_MAX, room).await.is_err() {
            log::debug!("a request has waited for {WAIT_MAX:?}, and is tried a last time");
        }
        self.is_left = false;
    }

    /// Whether the request may wait.
    pub fn is_left(self) -> bool {
        self.is_left
    }
}
