//! Time limits of connections. They are checked once a second for all connections, instead of by a timer per
//! read.

use std::os::fd::RawFd;

use nix::sys::socket::{Shutdown, shutdown};
use slab::Slab;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a request of which nothing has arrived.
    Idle,
    /// In the middle of a head or a body.
    Request,
    /// Waiting until the events of its answers are as safe as `--ack` says. Has no limit: the disk or the
    /// database may take any time.
    AwaitingAck,
    /// Waiting for the peer to read answers.
    Answer,
    /// Waiting for the peer to close the connection, after the last answer.
    Closing,
}

impl Phase {
    /// Seconds the phase may last.
    fn seconds_max(self) -> u32 {
        match self {
            // Above the 60 s after which a load balancer closes idle connections itself.
            Self::Idle => 75,
            Self::Request | Self::Answer => 10,
            Self::AwaitingAck => u32::MAX,
            Self::Closing => 2,
        }
    }
}

/// The index of a connection in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(usize);

#[derive(Debug)]
struct Watched {
    fd: RawFd,
    phase: Phase,
    since: u32,
    late: bool,
}

/// Which connections a sweep ends early because the shard drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndEarly {
    /// No connection.
    None,
    /// The idle ones.
    Idle,
    /// All of them.
    All,
}

/// All open connections of a shard.
#[derive(Debug, Default)]
pub struct Deadlines {
    watched: Slab<Watched>,
    second: u32,
}

impl Deadlines {
    /// Watches a new connection, idle from now on. Its socket must stay open until it is forgotten.
    pub fn watch(&mut self, fd: RawFd) -> ConnectionId {
        let since = self.second;
        ConnectionId(self.watched.insert(Watched {
            fd,
            phase: Phase::Idle,
            since,
            late: false,
        }))
    }

    /// Forgets a connection. Must be called before its socket is closed, since the number of the descriptor
    /// may be used again at once.
    pub fn forget(&mut self, id: ConnectionId) {
        self.watched.remove(id.0);
    }

    /// The connection begins `phase` now, even if it is the same phase again.
    pub fn begin(&mut self, id: ConnectionId, phase: Phase) {
        let second = self.second;
        let watched = &mut self.watched[id.0];
        watched.phase = phase;
        watched.since = second;
    }

    /// The connection is in `phase`. Its time begins now only if it was in another phase before.
    pub fn stay(&mut self, id: ConnectionId, phase: Phase) {
        if self.watched[id.0].phase != phase {
            self.begin(id, phase);
        }
    }

    /// Whether [`Self::sweep`] has ended the connection, for instance because it took too long.
    pub fn is_late(&self, id: ConnectionId) -> bool {
        self.watched[id.0].late
    }

    /// Number of open connections.
    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Lets one second pass.
    pub fn tick(&mut self) {
        self.second += 1;
    }

    /// Shuts down the sockets of late connections. Their pending read or write then ends by itself.
    pub fn sweep(&mut self, end_early: EndEarly) {
        for (_, watched) in &mut self.watched {
            let age = self.second - watched.since;
            let is_ended_early = match end_early {
                EndEarly::None => false,
                EndEarly::Idle => watched.phase == Phase::Idle,
                EndEarly::All => true,
            };
            if age <= watched.phase.seconds_max() && !is_ended_early {
                continue;
            }
            let how = match watched.phase {
                // Only the input: a 408 may still be sent, and a request that arrived is still read.
                Phase::Idle | Phase::Request => Shutdown::Read,
                Phase::AwaitingAck | Phase::Answer | Phase::Closing => Shutdown::Both,
            };
            watched.late = true;
            if let Err(fault) = shutdown(watched.fd, how) {
                // The peer has closed it already. The pending operation ends too.
                log::trace!("shutdown of a late connection: {fault}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    /// The result of a read of `stream`; `None` if it would wait.
    fn read(mut stream: &UnixStream) -> Option<usize> {
        stream.set_nonblocking(true).unwrap();
        match stream.read(&mut [0; 8]) {
            Ok(length) => Some(length),
            Err(fault) => {
                assert_eq!(fault.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }

    fn pass(deadlines: &mut Deadlines, seconds: u32) {
        for _ in 0..seconds {
            deadlines.tick();
            deadlines.sweep(EndEarly::None);
        }
    }

    #[test]
    fn a_phase_ends_after_its_time_and_not_before() {
        for (phase, seconds) in [(Phase::Idle, 75), (Phase::Request, 10), (Phase::Answer, 10)] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut deadlines = Deadlines::default();
            let id = deadlines.watch(ours.as_raw_fd());
            deadlines.begin(id, phase);
            pass(&mut deadlines, seconds);
            assert_eq!(
                (read(&ours), deadlines.is_late(id)),
                (None, false),
                "{phase:?}"
            );
            pass(&mut deadlines, 1);
            assert_eq!(
                (read(&ours), deadlines.is_late(id)),
                (Some(0), true),
                "{phase:?}"
            );
        }
    }

    #[test]
    fn more_of_the_same_head_gives_no_more_time() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut deadlines = Deadlines::default();
        let id = deadlines.watch(ours.as_raw_fd());
        for _ in 0..11 {
            deadlines.stay(id, Phase::Request);
            pass(&mut deadlines, 1);
        }
        assert_eq!(read(&ours), Some(0));
    }

    #[test]
    fn a_drain_ends_idle_connections_first() {
        let (idle, _far_idle) = UnixStream::pair().unwrap();
        let (busy, _far_busy) = UnixStream::pair().unwrap();
        let mut deadlines = Deadlines::default();
        deadlines.watch(idle.as_raw_fd());
        let id = deadlines.watch(busy.as_raw_fd());
        deadlines.begin(id, Phase::Request);
        deadlines.sweep(EndEarly::Idle);
        assert_eq!((read(&idle), read(&busy)), (Some(0), None));
        deadlines.sweep(EndEarly::All);
        assert_eq!(read(&busy), Some(0));
    }
}
