//! Wakes a shard's event loop from another thread.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// The sending half: a byte on a socket that the shard's loop reads.
#[derive(Debug, Clone)]
pub struct ShardNotifier(Arc<UnixStream>);

impl ShardNotifier {
    /// A notifier, and the stream that the shard reads.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok((Self(Arc::new(near)), far))
    }

    /// Wakes the shard. Never blocks: if the socket is full, the shard has unread notifications already.
    pub fn notify(&self) {
        #[cfg(test)]
        super::simulated::count_notification();
        match (&*self.0).write(&[1]) {
            Ok(_) => {}
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
            // The shard has ended.
            Err(fault) => log::trace!("a shard is not notified: {fault}"),
        }
    }
}
