//! Time limits of connections. They are checked once a second for all connections, instead of by a timer per
//! read.

mod peer;

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use slab::Slab;

use self::peer::Peer;
use crate::shard::ingest::AckTicket;

/// How long an answer has waited, in seconds, when it is first looked whether its sender is still there. Answers
/// wait so long only while disk or database stall.
const PEER_LOOK_SECONDS: u32 = 2;

/// Idle connections that one look at all connections finds, those that are idle longest.
const FOUND_AT_ONCE: usize = 256;

/// After such a look no other is taken for so long for each connection: it is a small part of the time.
const LOOK_INTERVAL: Duration = Duration::from_nanos(50);

/// Turns with answers in one second that make a connection busy. The shards compare the numbers of their busy connections.
/// Slower ones are many and light, and chance spreads them evenly.
const BUSY_TURNS: u8 = 16;

/// Events of a turn that count as one more turn.
const TURN_EVENTS: u64 = 64;

/// Idle seconds with fewer turns than [`BUSY_TURNS`] after which a connection is not busy any more.
const SLOW_SECONDS: u8 = 3;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a request of which nothing has arrived.
    Idle,
    /// In the middle of a head or a body.
    Request,
    /// Waiting until the events of its answers are as safe as `--ack` says. Has no limit while the sender is
    /// there: the disk or the database may take any time.
    AwaitingAck(AckTicket),
    /// The same, when the sender has ended its side of the connection. It may read on, or be gone: the kernel
    /// tells the two apart only when something is sent.
    AwaitingAckHalfClosed(AckTicket),
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
            Self::Request | Self::Answer | Self::AwaitingAckHalfClosed(_) => 10,
            Self::AwaitingAck(_) => u32::MAX,
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
    /// Turns with answers in this second, [`BUSY_TURNS`] at most.
    turns: u8,
    /// Slow seconds that are left until the connection is not busy any more. 0: it is not busy.
    busy_for: u8,
    /// Whether its input was shut by us.
    is_input_shut: bool,
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
            turns: 0,
            busy_for: 0,
            is_input_shut: false,
            late: false,
        }))
    }

    /// Watches a connection that is busy already.
    pub fn watch_busy(&mut self, fd: RawFd) -> ConnectionId {
        let id = self.watch(fd);
        self.watched[id.0].busy_for = SLOW_SECONDS;
        id
    }

    /// Forgets a connection. Must be called before its socket is closed, since the number of the descriptor
    /// may be used again at once. Returns whether it was busy.
    pub fn forget(&mut self, id: ConnectionId) -> bool {
        self.watched.remove(id.0).busy_for > 0
    }

    /// Counts a turn with answers and its events. Returns whether it made the connection busy.
    pub fn count_turn(&mut self, id: ConnectionId, events: u64) -> bool {
        let watched = &mut self.watched[id.0];
        if watched.turns >= BUSY_TURNS {
            return false;
        }
        let weight = u8::try_from(1 + events / TURN_EVENTS).unwrap_or(BUSY_TURNS);
        watched.turns = watched.turns.saturating_add(weight).min(BUSY_TURNS);
        watched.turns == BUSY_TURNS && std::mem::replace(&mut watched.busy_for, SLOW_SECONDS) == 0
    }

    /// Whether the connection is busy and may be served by another shard. One whose input was shut ends here.
    pub fn may_move(&self, id: ConnectionId) -> bool {
        let watched = &self.watched[id.0];
        watched.busy_for > 0 && !watched.is_input_shut
    }

    /// Begins another second. Returns how many connections are not busy any more. One that is not idle stays busy: its answer
    /// may wait for a disk or a database that stalls, and the others must not think that this shard has nothing to do.
    #[must_use]
    pub fn end_of_busy(&mut self) -> usize {
        let mut ended = 0;
        for (_, watched) in &mut self.watched {
            let turns = std::mem::take(&mut watched.turns);
            if watched.busy_for == 0 {
                continue;
            }
            if turns >= BUSY_TURNS {
                watched.busy_for = SLOW_SECONDS;
            } else if watched.phase == Phase::Idle {
                watched.busy_for -= 1;
                ended += usize::from(watched.busy_for == 0);
            }
        }
        ended
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
            let Some(watched) = self.watched.get_mut(found.id) else {
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
            watched.is_input_shut = true;
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

    /// Shuts down the sockets of late connections, and of those whose senders are gone while their answers wait.
    /// Their pending read or write then ends by itself. Returns the tickets of those that wait for an answer, for
    /// these must be abandoned too.
    #[must_use]
    pub fn sweep(&mut self, end_early: EndEarly) -> Vec<AckTicket> {
        let mut abandoned = Vec::new();
        for (_, watched) in &mut self.watched {
            let is_gone = watched.is_peer_gone(self.second);
            let age = self.second - watched.since;
            let is_ended_early = match end_early {
                EndEarly::None => false,
                EndEarly::Idle => watched.phase == Phase::Idle,
                EndEarly::All => true,
            };
            if age <= watched.phase.seconds_max() && !is_ended_early && !is_gone {
                continue;
            }
            let how = match watched.phase {
                // Only the input: a 408 may still be sent, and a request that arrived is still read.
                Phase::Idle | Phase::Request => Shutdown::Read,
                Phase::AwaitingAck(ticket) | Phase::AwaitingAckHalfClosed(ticket) => {
                    abandoned.push(ticket);
                    Shutdown::Both
                }
                Phase::Answer | Phase::Closing => Shutdown::Both,
            };
            watched.late = true;
            watched.is_input_shut = true;
            if let Err(fault) = shutdown(watched.fd, how) {
                // The peer has closed it already. The pending operation ends too.
                log::trace!("shutdown of a late connection: {fault}");
            }
        }
        abandoned
    }
}

impl Watched {
    /// Whether its answer waits and its sender is known to be gone. Notes when the sender has ended its side.
    fn is_peer_gone(&mut self, second: u32) -> bool {
        match self.phase {
            Phase::AwaitingAck(ticket) if second - self.since >= PEER_LOOK_SECONDS => {
                let peer = Peer::look(self.fd);
                if peer == Peer::HalfClosed && !self.is_input_shut {
                    self.phase = Phase::AwaitingAckHalfClosed(ticket);
                    self.since = second;
                }
                peer == Peer::Gone
            }
            Phase::AwaitingAckHalfClosed(_) => Peer::look(self.fd) == Peer::Gone,
            _ => false,
        }
    }
}

/// Whether bytes have arrived that were not read yet.
fn has_input(fd: RawFd) -> bool {
    let peeked = recv(fd, &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    matches!(peeked, Ok(1..))
}

#[cfg(test)]
mod tests;
