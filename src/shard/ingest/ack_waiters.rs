//! Answers that wait until their events are as safe as `--ack` says.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Ingest;
use crate::event::ack::Ack;
use crate::event::position::Position;
use crate::journal::lane_handle::DiskLane;
use crate::os::clock;

/// What an answer waits for: every event before a position of a lane is as safe as `--ack` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AckTicket {
    lane: LaneCount,
    position: Position,
}

/// Why the events of a ticket will never be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckFailed {
    /// Their lane was closed before they were on the disk. They will never be rows.
    NotKept,
    /// Nobody can tell whether they are rows, or will be: their lane is held, or lacks events.
    Unknown,
    /// The ticket was abandoned: its sender is gone.
    Abandoned,
}

/// Identifies a lane of the shard: the number of lanes that were closed before it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct LaneCount(u64);

/// The answers that wait for one lane, in the order of their positions.
type Waiters = VecDeque<(AckTicket, Waker)>;

/// A lane that was closed.
#[derive(Debug)]
struct ClosedLane {
    lane: LaneCount,
    /// Every event before this position is on the disk.
    end: Position,
    /// The lane, if answers wait for rows.
    rows: Option<Arc<DiskLane>>,
    waiters: Waiters,
}

impl ClosedLane {
    fn state(&self, position: Position) -> Poll<Result<(), AckFailed>> {
        if position > self.end {
            return Poll::Ready(Err(AckFailed::NotKept));
        }
        match &self.rows {
            None => Poll::Ready(Ok(())),
            // Which events are missing is not known here.
            Some(lane) if lane.is_damaged() => Poll::Ready(Err(AckFailed::Unknown)),
            Some(lane) if lane.stored() >= position => Poll::Ready(Ok(())),
            // They are stored when a person has decided, or were stored before.
            Some(lane) if lane.held().is_some() => Poll::Ready(Err(AckFailed::Unknown)),
            Some(_) => Poll::Pending,
        }
    }
}

/// Closed lanes that are remembered. After more failures in a row a sender may get no answer to an event that is safe.
const CLOSED_LANES_MAX: usize = 8;

/// If no answer was released for this long, the disk or the database is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// All answers of a shard that wait.
#[derive(Debug)]
pub(super) struct AckWaiters {
    present: LaneCount,
    waiters: Waiters,
    closed: VecDeque<ClosedLane>,
    /// Tickets that nobody needs any more, until who waits with them has noticed.
    abandoned: HashSet<AckTicket>,
    /// With fewer waiting answers nothing counts as a stall.
    waiters_max: usize,
    /// When an answer was last released, or none waited.
    released_at: Instant,
}

impl AckWaiters {
    /// No answer waits yet. While the disk or the database is stalled, about `waiters_max` may wait: each occupies
    /// a connection, and others must be able to connect.
    pub(super) fn new(waiters_max: usize) -> Self {
        Self {
            present: LaneCount::default(),
            waiters: VecDeque::new(),
            closed: VecDeque::new(),
            abandoned: HashSet::new(),
            waiters_max,
            released_at: clock::now(),
        }
    }

    /// Whether at least `waiters_max` answers wait, and none was released for [`STALLED_AFTER`].
    pub(super) fn is_stalled(&self) -> bool {
        self.waiters.len() >= self.waiters_max && clock::since(self.released_at) > STALLED_AFTER
    }

    /// The ticket for every event before `position` of the present lane.
    pub(super) fn ticket(&self, position: Position) -> AckTicket {
        AckTicket {
            lane: self.present,
            position,
        }
    }

    /// Closes the present lane. Its events before `end` are durable. `rows` is the lane, if its answers wait for
    /// rows.
    pub(super) fn close(&mut self, end: Position, rows: Option<Arc<DiskLane>>) {
        if self.closed.len() == CLOSED_LANES_MAX
            && let Some(oldest) = self.closed.pop_front()
        {
            oldest
                .waiters
                .into_iter()
                .for_each(|(_, waiter)| waiter.wake());
        }
        self.closed.push_back(ClosedLane {
            lane: self.present,
            end,
            rows,
            waiters: std::mem::take(&mut self.waiters),
        });
        self.present.0 += 1;
    }

    /// Whether the answer with this ticket may be sent, when every event before `acknowledged` of the present
    /// lane is safe. Keeps the waker of an answer that must wait.
    pub(super) fn poll(
        &mut self,
        ticket: AckTicket,
        acknowledged: Position,
        context: &Context<'_>,
    ) -> Poll<Result<(), AckFailed>> {
        if !self.abandoned.is_empty() && self.abandoned.remove(&ticket) {
            return Poll::Ready(Err(AckFailed::Abandoned));
        }
        let (state, waiters) = if ticket.lane == self.present {
            if self.waiters.is_empty() {
                // The time in which no answer waited does not count as a stall.
                self.released_at = clock::now();
            }
            let state = if acknowledged >= ticket.position {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
            (state, &mut self.waiters)
        } else {
            let mut closed = self.closed.iter_mut();
            match closed.find(|closed| closed.lane == ticket.lane) {
                Some(closed) => (closed.state(ticket.position), &mut closed.waiters),
                None => return Poll::Ready(Err(AckFailed::Unknown)),
            }
        };
        if state.is_pending() {
            waiters.push_back((ticket, context.waker().clone()));
        }
        state
    }

    /// The lane of a ticket, if the lane was closed and its answers wait for rows.
    fn closed_lane(&self, ticket: AckTicket) -> Option<&Arc<DiskLane>> {
        let mut closed = self.closed.iter();
        let closed = closed.find(|closed| closed.lane == ticket.lane)?;
        closed.rows.as_ref()
    }

    /// Lets those go that wait with these tickets: their senders are gone. Each of them is in a wait, which fails.
    pub(super) fn abandon(&mut self, tickets: &[AckTicket]) {
        if tickets.is_empty() {
            return;
        }
        self.abandoned.extend(tickets);
        let closed = self.closed.iter_mut().map(|closed| &mut closed.waiters);
        for waiters in closed.chain([&mut self.waiters]) {
            // One pass for all: each by itself would move those after it.
            waiters.retain(|(ticket, waker)| {
                let is_abandoned = self.abandoned.contains(ticket);
                if is_abandoned {
                    waker.wake_by_ref();
                }
                !is_abandoned
            });
        }
    }

    /// Wakes the answers that need not wait any more.
    pub(super) fn wake(&mut self, acknowledged: Position) {
        for closed in &mut self.closed {
            while let Some((ticket, _)) = closed.waiters.front() {
                if closed.state(ticket.position).is_pending() {
                    break;
                }
                if let Some((_, waiter)) = closed.waiters.pop_front() {
                    waiter.wake();
                }
            }
        }
        let before = self.waiters.len();
        while let Some((ticket, _)) = self.waiters.front() {
            if ticket.position > acknowledged {
                break;
            }
            if let Some((_, waiter)) = self.waiters.pop_front() {
                waiter.wake();
            }
        }
        if self.waiters.len() < before || before == 0 {
            self.released_at = clock::now();
        }
    }
}

impl Ingest {
    /// Ends the waits of those whose senders are gone. Their events stay promised, and become rows.
    pub fn abandon(&mut self, tickets: &[AckTicket]) {
        self.waiters.abandon(tickets);
    }

    /// Whether answers wait for rows. Then an event may be refused before its answer is sent.
    pub fn awaits_rows(&self) -> bool {
        self.ack == Ack::Stored
    }

    /// Which of the last `events` events before the position of a ticket the database has refused, numbered from the
    /// first of them. They must be acknowledged. Each refused event is returned only once.
    pub fn take_refused(&self, ticket: AckTicket, events: u64) -> Vec<usize> {
        if !self.awaits_rows() {
            return Vec::new();
        }
        let lane = if ticket.lane == self.waiters.present {
            self.lane.on_disk().map(|lane| &lane.lane)
        } else {
            self.waiters.closed_lane(ticket)
        };
        let first = Position(ticket.position.0.saturating_sub(events));
        lane.map_or_else(Vec::new, |lane| lane.take_refused(first, ticket.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_waiting_answers_without_a_release_are_a_stall() {
        let mut waiters = AckWaiters::new(2);
        let context = Context::from_waker(Waker::noop());
        let long_ago = clock::now().checked_sub(2 * STALLED_AFTER).unwrap();
        // Neither the time without an event nor a burst after it is a stall.
        waiters.released_at = long_ago;
        for position in 1..=2 {
            let ticket = waiters.ticket(Position(position));
            let state = waiters.poll(ticket, Position::START, &context);
            assert!(state.is_pending() && !waiters.is_stalled());
        }
        waiters.released_at = long_ago;
        assert!(waiters.is_stalled());
        waiters.wake(Position(1));
        assert!(!waiters.is_stalled());
    }

    #[test]
    fn what_is_abandoned_waits_no_more_and_holds_nobody_up() {
        let mut waiters = AckWaiters::new(2);
        let context = Context::from_waker(Waker::noop());
        let tickets = [1, 2, 3].map(|position| waiters.ticket(Position(position)));
        for ticket in tickets {
            assert!(waiters.poll(ticket, Position::START, &context).is_pending());
        }
        waiters.close(Position(2), None);
        let later = waiters.ticket(Position(1));
        assert!(waiters.poll(later, Position::START, &context).is_pending());
        waiters.released_at = clock::now().checked_sub(2 * STALLED_AFTER).unwrap();
        let other = waiters.ticket(Position(2));
        assert!(waiters.poll(other, Position::START, &context).is_pending());
        assert!(waiters.is_stalled());

        waiters.abandon(&[tickets[1], later]);
        assert!(!waiters.is_stalled());
        for abandoned in [tickets[1], later] {
            let state = waiters.poll(abandoned, Position::START, &context);
            assert_eq!(state, Poll::Ready(Err(AckFailed::Abandoned)));
        }
        let left: usize = waiters
            .closed
            .iter()
            .map(|closed| closed.waiters.len())
            .sum();
        assert_eq!(
            (left, waiters.waiters.len(), waiters.abandoned.len()),
            (2, 1, 0)
        );
        assert_eq!(
            waiters.poll(other, Position(2), &context),
            Poll::Ready(Ok(()))
        );
    }
}
