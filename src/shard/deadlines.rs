//! Time limits of connections. They are checked once a second for all connections, instead of by a timer per
//! read.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use slab::Slab;

/// Idle connections that one look at all connections finds, those that are idle longest.
const FOUND_AT_ONCE: usize = 256;

/// After such a look no other is taken for so long for each connection: it is a small part of the time.
const LOOK_INTERVAL: Duration = Duration::from_nanos(50);

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
    /// Tells its phases apart, and which of two connections began its own earlier.
    begun: u64,
    late: bool,
}

/// A connection that was idle when all were looked at, and the phase it was in.
#[derive(Debug)]
struct FoundIdle {
    begun: u64,
    id: usize,
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
    /// Phases that were begun.
    begun: u64,
    /// Those that are idle longest, the longest last, as of the last look.
    found_idle: Vec<FoundIdle>,
    /// When all may be looked at again.
    look_at: Option<Instant>,
}

impl Deadlines {
    /// Watches a new connection, idle from now on. Its socket must stay open until it is forgotten.
    pub fn watch(&mut self, fd: RawFd) -> ConnectionId {
        let since = self.second;
        self.begun += 1;
        ConnectionId(self.watched.insert(Watched {
            fd,
            phase: Phase::Idle,
            since,
            begun: self.begun,
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
        self.begun += 1;
        let watched = &mut self.watched[id.0];
        watched.phase = phase;
        watched.since = self.second;
        watched.begun = self.begun;
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

    /// Ends the connection that is idle longest, so that another takes its place; false where none is idle, or
    /// where all were looked at a moment ago. One of which a request has arrived, though it was not read yet, is
    /// not idle.
    pub fn close_longest_idle(&mut self, now: Instant) -> bool {
        loop {
            let Some(found) = self.found_idle.pop() else {
                if self.look_at.is_some_and(|at| now < at) {
                    return false;
                }
                self.find_idle(now);
                if self.found_idle.is_empty() {
                    return false;
                }
                continue;
            };
            let Some(watched) = self.watched.get(found.id) else {
                continue;
            };
            // What it did since may have given its place in the table to another.
            if watched.begun != found.begun || has_input(watched.fd) {
                continue;
            }
            // Only the input: a request that comes this very moment is still read and answered.
            if let Err(fault) = shutdown(watched.fd, Shutdown::Read) {
                log::trace!("shutdown of an idle connection: {fault}");
            }
            self.begin(ConnectionId(found.id), Phase::Closing);
            return true;
        }
    }

    /// Looks at all connections for those that are idle longest.
    fn find_idle(&mut self, now: Instant) {
        let found = &mut self.found_idle;
        let idle = self
            .watched
            .iter()
            .filter(|(_, watched)| watched.phase == Phase::Idle);
        found.extend(idle.map(|(id, watched)| FoundIdle {
            begun: watched.begun,
            id,
        }));
        if found.len() > FOUND_AT_ONCE {
            found.select_nth_unstable_by_key(FOUND_AT_ONCE, |found| found.begun);
            found.truncate(FOUND_AT_ONCE);
        }
        found.sort_unstable_by_key(|found| std::cmp::Reverse(found.begun));
        let connections = u32::try_from(self.watched.len()).unwrap_or(u32::MAX);
        self.look_at = Some(now + LOOK_INTERVAL * connections);
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

/// Whether bytes have arrived that were not read yet.
fn has_input(fd: RawFd) -> bool {
    let peeked = recv(fd, &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    matches!(peeked, Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
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

    #[test]
    fn the_connection_that_is_idle_longest_gives_way() {
        let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
        let mut deadlines = Deadlines::default();
        let ids: Vec<_> = pairs
            .iter()
            .map(|(ours, _)| deadlines.watch(ours.as_raw_fd()))
            .collect();
        deadlines.begin(ids[0], Phase::Idle);
        deadlines.begin(ids[1], Phase::Request);
        // A request has arrived that is not read yet.
        (&pairs[2].1).write_all(b"GET").unwrap();
        let now = Instant::now();
        let mut closed = Vec::new();
        while deadlines.close_longest_idle(now) {
            let is_new = |&index: &usize| {
                !closed.contains(&index) && index != 2 && read(&pairs[index].0) == Some(0)
            };
            closed.extend((0..4).find(is_new));
        }
        assert_eq!(closed, [3, 0]);
        assert_eq!((read(&pairs[1].0), read(&pairs[2].0)), (None, Some(3)));
        // What ends so is not late: nothing was begun that a 408 could be said of.
        assert!(!deadlines.is_late(ids[3]));
    }

    #[test]
    fn many_connections_are_not_looked_at_for_each_new_one() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut deadlines = Deadlines::default();
        for _ in 0..10_000 {
            deadlines.watch(ours.as_raw_fd());
        }
        let now = Instant::now();
        let mut count = |now| {
            (0..1_000)
                .take_while(|_| deadlines.close_longest_idle(now))
                .count()
        };
        // Those of one look, and no other look at the same moment.
        assert_eq!(count(now), FOUND_AT_ONCE);
        assert_eq!(count(now + LOOK_INTERVAL * 10_000), FOUND_AT_ONCE);
    }
}
