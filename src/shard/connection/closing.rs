//! The end of a connection.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::socket::{Shutdown, shutdown};

use super::Connection;
use crate::http::BODY_LIMIT_MAX;
use crate::http::conversation::Conversation;
use crate::shard::deadlines::Phase;
use crate::shard::patience::Patience;
use crate::shard::service::EventService;
use crate::shard::state::Outgoing;

/// Most bytes that a peer may still send after its last answer, before the connection is closed: the rest of a body, and more.
const CLOSING_BYTES_MAX: usize = 2 * BODY_LIMIT_MAX;

/// How long a peer that was too slow has to read the 408.
const LATE_READ_TIME: Duration = Duration::from_secs(1);

impl Connection<'_> {
    /// The peer sends no more, or took too long. If it took too long over a request, it is answered 408.
    pub(super) async fn end_of_input(
        &mut self,
        conversation: &mut Conversation,
        input: BytesMut,
    ) -> io::Result<()> {
        let is_late = self.shard.deadlines.borrow().is_late(self.id);
        if !is_late || conversation.is_idle(&input) {
            return Ok(());
        }
        let now = self.shard.read_clock();
        let unsent = {
            let mut out = self.shard.out.borrow_mut();
            out.clear();
            let Outgoing { bytes, taken } = &mut *out;
            let mut patience = Patience::NONE;
            let mut service = EventService {
                ingest: &mut self.shard.ingest.borrow_mut(),
                answers: &self.shard.answers.borrow(),
                taken,
                counters: &self.shard.counters,
                paths: &self.shard.paths,
                event_rule: &self.shard.event_rule,
                now,
                bodies: &self.shard.bodies,
                patience: &mut patience,
                is_draining: self.shard.is_draining.get(),
            };
            conversation.late(&input, bytes, &mut service);
            self.send(bytes)?
        };
        conversation.end();
        // A peer this slow is not waited for if its socket does not take the answer at once.
        log::trace!("{} bytes of a 408 were not sent", unsent.len());
        // The sweep has shut down the input, so the peer's own close cannot be waited for.
        monoio::time::sleep(LATE_READ_TIME).await;
        self.close_after_sender(input).await
    }

    /// Reads until the peer closes, within bounds, before the socket is closed. Closing a socket with unread
    /// input resets the connection, and the peer may lose the last answer (RFC 9112 section 9.6).
    pub(super) async fn close_after_sender(&mut self, input: BytesMut) -> io::Result<()> {
        self.shard
            .deadlines
            .borrow_mut()
            .begin(self.id, Phase::Closing);
        shutdown(self.stream.as_raw_fd(), Shutdown::Write)?;
        let mut input = input;
        let mut passed = 0;
        while passed < CLOSING_BYTES_MAX {
            input.clear();
            match self.read(&mut input, 0).await? {
                0 => break,
                length => passed += length,
            }
        }
        Ok(())
    }
}
