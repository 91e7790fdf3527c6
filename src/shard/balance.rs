//! Spreads busy connections evenly over the shards.
//!
//! The kernel gives each new connection to one of the listeners by a hash of its addresses. A load balancer holds a few
//! busy connections; by chance most of them come to one shard, and its core is full while another idles. So a busy
//! connection moves, between two of its requests, to the shard that has the fewest.

use std::cell::Cell;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::os::connection_limit::ConnectionPermit;
use crate::os::notifier::ShardNotifier;
use crate::os::socket;

/// A connection on its way to another shard.
#[derive(Debug)]
pub struct MovedConnection {
    /// Its socket. Nothing of its next request was read.
    pub stream: TcpStream,
    /// Its slot.
    pub permit: ConnectionPermit,
}

/// The busy connections of all shards.
#[derive(Debug)]
pub struct Balance(Vec<Load>);

/// The busy connections of one shard.
#[derive(Debug)]
struct Load {
    /// Their number, those that are on their way to the shard included.
    busy: AtomicUsize,
    /// Those on their way; not more than there are slots for connections. `None`: the shard takes none, since it does not
    /// serve yet, or drains.
    arriving: Mutex<Option<Vec<MovedConnection>>>,
    notifier: ShardNotifier,
}

impl Balance {
    /// Of shards without connections, in order.
    pub fn new(shards: impl IntoIterator<Item = ShardNotifier>) -> Arc<Self> {
        let load = |notifier| Load {
            busy: AtomicUsize::new(0),
            arriving: Mutex::new(None),
            notifier,
        };
        Arc::new(Self(shards.into_iter().map(load).collect()))
    }

    /// The part of one shard.
    pub fn of(self: &Arc<Self>, shard: usize) -> ShardBalance {
        ShardBalance {
            all: Arc::clone(self),
            own: shard,
            surplus: Cell::new(0),
        }
    }
}

impl Load {
    fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Adds a connection of a shard that has `own`, if it has one fewer here even then. Another shard may have added one.
    fn add_from(&self, own: usize) -> bool {
        let one_more = |busy| (busy + 2 <= own).then_some(busy + 1);
        let added = self
            .busy
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        added.is_ok()
    }

    fn arriving(&self) -> MutexGuard<'_, Option<Vec<MovedConnection>>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The busy connections of one shard, compared with those of the others.
#[derive(Debug)]
pub struct ShardBalance {
    all: Arc<Balance>,
    own: usize,
    /// How many connections the shard had too many when it compared last.
    surplus: Cell<usize>,
}

impl ShardBalance {
    fn load(&self) -> &Load {
        &self.all.0[self.own]
    }

    /// Takes connections from other shards from now on.
    pub fn open(&self) {
        *self.load().arriving() = Some(Vec::new());
    }

    /// One more connection of this shard is busy.
    pub fn add(&self) {
        self.load().busy.fetch_add(1, Ordering::Relaxed);
        self.compare();
    }

    /// This number of busy connections of the shard have ended, or are not busy any more.
    pub fn subtract(&self, connections: usize) {
        self.load().busy.fetch_sub(connections, Ordering::Relaxed);
    }

    /// Compares the shard with the one that has the fewest. Half of the difference is too many here.
    pub fn compare(&self) {
        let fewest = self.all.0.iter().map(Load::busy).min().unwrap_or(0);
        self.surplus
            .set(self.load().busy().saturating_sub(fewest) / 2);
    }

    /// Whether a busy connection should move.
    pub fn has_surplus(&self) -> bool {
        self.surplus.get() > 0
    }

    /// Moves a busy connection to the shard that has the fewest. Gives it back if that one does not have at least two fewer
    /// than this one, or takes no connections.
    pub fn hand_over(
        &self,
        stream: monoio::net::TcpStream,
        permit: ConnectionPermit,
    ) -> Result<(), (monoio::net::TcpStream, ConnectionPermit)> {
        let own = self.load().busy();
        let fewest = self.all.0.iter().min_by_key(|load| load.busy());
        let target = fewest.unwrap_or(self.load());
        match &mut *target.arriving() {
            Some(arriving) if target.add_from(own) => {
                let stream = socket::into_std(stream);
                arriving.push(MovedConnection { stream, permit });
            }
            _ => {
                self.surplus.set(0);
                return Err((stream, permit));
            }
        }
        target.notifier.notify();
        self.subtract(1);
        self.surplus.set(self.surplus.get().saturating_sub(1));
        Ok(())
    }

    /// Connections that have come from other shards. They count as busy.
    pub fn arrived(&self) -> Vec<MovedConnection> {
        let arriving = &mut *self.load().arriving();
        arriving.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes no more from other shards. Returns those that have come.
    pub fn close(&self) -> Vec<MovedConnection> {
        self.surplus.set(0);
        self.load().arriving().take().unwrap_or_default()
    }
}

/// A shard that has ended serves no more connections.
impl Drop for ShardBalance {
    fn drop(&mut self) {
        drop(self.close());
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::os::connection_limit::ConnectionLimit;
    use crate::os::io_driver::IoDriver;

    /// Shards with these numbers of busy connections, and the sockets on which their notifications arrive.
    fn shards(busy: &[usize]) -> (Vec<ShardBalance>, Vec<UnixStream>) {
        let notifiers = busy.iter().map(|_| ShardNotifier::new().unwrap());
        let (notifiers, heard): (Vec<_>, Vec<_>) = notifiers.unzip();
        let balance = Balance::new(notifiers);
        let shards: Vec<_> = (0..busy.len()).map(|shard| balance.of(shard)).collect();
        for (shard, &busy) in shards.iter().zip(busy) {
            (0..busy).for_each(|_| shard.add());
        }
        for shard in &shards {
            shard.open();
            shard.compare();
        }
        (shards, heard)
    }

    fn loads(shards: &[ShardBalance]) -> Vec<usize> {
        shards.iter().map(|shard| shard.load().busy()).collect()
    }

    /// Runs `hand_over` with a connection. Returns whether it has moved, and the peer of the connection.
    fn hand_over(shard: &ShardBalance) -> (bool, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let permit = Arc::new(ConnectionLimit::new(1)).acquire().unwrap();
        let moved = Cell::new(false);
        // The connection must not outlive its event loop.
        let serve = async {
            let stream = monoio::net::TcpStream::from_std(stream)?;
            moved.set(shard.hand_over(stream, permit).is_ok());
            Ok(())
        };
        IoDriver::Epoll.block_on(serve).unwrap();
        (moved.get(), peer)
    }

    #[test]
    fn a_connection_moves_to_the_shard_with_the_fewest_until_no_move_helps() {
        let (shards, _heard) = shards(&[5, 1]);
        assert!(shards[0].has_surplus());
        assert!(!shards[1].has_surplus());
        let mut peers = Vec::new();
        while shards[0].has_surplus() {
            let (moved, peer) = hand_over(&shards[0]);
            assert!(moved);
            peers.push(peer);
        }
        assert_eq!(loads(&shards), [3, 3]);
        let arrived = shards[1].arrived();
        assert_eq!(arrived.len(), 2);
        for (connection, peer) in arrived.iter().zip(&peers) {
            let from = connection.stream.peer_addr().unwrap();
            assert_eq!(from, peer.local_addr().unwrap());
        }
        assert!(shards[1].arrived().is_empty());
    }

    #[test]
    fn of_two_shards_with_one_more_and_one_fewer_nothing_moves() {
        let (shards, _heard) = shards(&[3, 2, 2]);
        assert!(!shards[0].has_surplus());
        let (moved, _) = hand_over(&shards[0]);
        assert!(!moved);
        assert_eq!(loads(&shards), [3, 2, 2]);
    }

    #[test]
    fn a_shard_that_drains_takes_no_connection() {
        let (shards, _heard) = shards(&[4, 0]);
        let (moved, _peer) = hand_over(&shards[0]);
        assert!(moved);
        assert_eq!(shards[1].close().len(), 1);
        let (moved, _) = hand_over(&shards[0]);
        assert!(!moved);
        assert_eq!(loads(&shards), [3, 1]);
        assert!(!shards[0].has_surplus());
    }

    #[test]
    fn a_shard_that_does_not_serve_yet_or_has_ended_takes_no_connection() {
        let (mut shards, _heard) = shards(&[4, 0]);
        *shards[1].load().arriving() = None;
        assert!(!hand_over(&shards[0]).0);
        shards[1].open();
        assert!(hand_over(&shards[0]).0);
        drop(shards.pop());
        assert!(!hand_over(&shards[0]).0);
    }

    #[test]
    fn a_single_shard_never_has_too_many() {
        let (shards, _heard) = shards(&[100]);
        assert!(!shards[0].has_surplus());
    }
}
