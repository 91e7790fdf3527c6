//! Answers that wait until what they say is so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::event::position::Position;
use crate::journal::lane_handle::LaneHandle;

/// What is to be so before an answer goes out: everything before a position of a lane is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckTicket {
    lane: LaneCount,
    position: Position,
}

/// The promise cannot be acknowledged: the lane was closed before the event was on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckFailed;

/// Tells the lanes of a shard apart: the lanes that were closed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct LaneCount(u64);

/// Who waits for promises of one lane, in the order in which they were given.
type Waiters = VecDeque<(AckTicket, Waker)>;

/// A lane that was closed: what is durable of it is acknowledged.
#[derive(Debug)]
struct ClosedLane {
    lane: LaneCount,
    end: Position,
    /// Where a promise is acknowledged when its row is stored.
    rows: Option<Arc<LaneHandle>>,
    waiters: Waiters,
}

impl ClosedLane {
    fn state(&self, position: Position) -> Poll<Result<(), AckFailed>> {
        if position > self.end {
            return Poll::Ready(Err(AckFailed));
        }
        match &self.rows {
            None => Poll::Ready(Ok(())),
            // Which events are missing only its writer knows.
            Some(lane) if lane.is_damaged() => Poll::Ready(Err(AckFailed)),
            Some(lane) if lane.stored() >= position => Poll::Ready(Ok(())),
            Some(_) => Poll::Pending,
        }
    }
}

/// Closed lanes that are remembered. Behind so many failures in a row a sender may be told 503 for an
/// event that is acknowledged.
const CLOSED_LANES_MAX: usize = 8;

/// With nothing acknowledged for so long, disk or database is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// All promises of a shard that are given and not acknowledged yet.
#[derive(Debug)]
pub(super) struct AckWaiters {
    present: LaneCount,
    waiters: Waiters,
    closed: VecDeque<ClosedLane>,
    /// Waiters from which on it is looked whether anything is still acknowledged.
    waiters_max: usize,
    kept_at: Instant,
}

impl AckWaiters {
    /// No promises yet. While disk or database stall, no more than about `waiters_max` are given: who
    /// waits has a connection, and others must be able to connect.
    pub(super) fn new(waiters_max: usize) -> Self {
        Self {
            present: LaneCount::default(),
            waiters: VecDeque::new(),
            closed: VecDeque::new(),
            waiters_max,
            kept_at: Instant::now(),
        }
    }

    /// Whether so many wait for so long that no more should.
    pub(super) fn is_stalled(&self) -> bool {
        self.waiters.len() >= self.waiters_max && self.kept_at.elapsed() > STALLED_AFTER
    }

    /// AckWaiters everything before `position` of the present lane.
    pub(super) fn give(&self, position: Position) -> AckTicket {
        AckTicket {
            lane: self.present,
            position,
        }
    }

    /// Goes on to another lane. Of the present one everything before `end` is durable; `rows`, where
    /// only what is stored counts.
    pub(super) fn close(&mut self, end: Position, rows: Option<Arc<LaneHandle>>) {
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

    /// Whether a promise is acknowledged, when everything before `acknowledged` of the present lane is. Remembers who
    /// asks.
    pub(super) fn poll(
        &mut self,
        promise: AckTicket,
        acknowledged: Position,
        context: &Context<'_>,
    ) -> Poll<Result<(), AckFailed>> {
        let (state, waiters) = if promise.lane == self.present {
            if self.waiters.is_empty() {
                // The silence before the first is no stall.
                self.kept_at = Instant::now();
            }
            let state = if acknowledged >= promise.position {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
            (state, &mut self.waiters)
        } else {
            let mut closed = self.closed.iter_mut();
            match closed.find(|closed| closed.lane == promise.lane) {
                Some(closed) => (closed.state(promise.position), &mut closed.waiters),
                None => return Poll::Ready(Err(AckFailed)),
            }
        };
        if state.is_pending() {
            waiters.push_back((promise, context.waker().clone()));
        }
        state
    }

    /// Wakes those whose promise is acknowledged or broken.
    pub(super) fn wake(&mut self, acknowledged: Position) {
        for closed in &mut self.closed {
            while let Some((promise, _)) = closed.waiters.front() {
                if closed.state(promise.position).is_pending() {
                    break;
                }
                if let Some((_, waiter)) = closed.waiters.pop_front() {
                    waiter.wake();
                }
            }
        }
        let before = self.waiters.len();
        while let Some((promise, _)) = self.waiters.front() {
            if promise.position > acknowledged {
                break;
            }
            if let Some((_, waiter)) = self.waiters.pop_front() {
                waiter.wake();
            }
        }
        if self.waiters.len() < before || before == 0 {
            self.kept_at = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_nothing_is_kept_not_every_connection_waits() {
        let mut promises = AckWaiters::new(2);
        let context = Context::from_waker(Waker::noop());
        let long_ago = Instant::now().checked_sub(2 * STALLED_AFTER).unwrap();
        // Silence is no stall, nor is a burst behind it.
        promises.kept_at = long_ago;
        for position in 1..=2 {
            let promise = promises.give(Position(position));
            let state = promises.poll(promise, Position::START, &context);
            assert!(state.is_pending() && !promises.is_stalled());
        }
        promises.kept_at = long_ago;
        assert!(promises.is_stalled());
        promises.wake(Position(1));
        assert!(!promises.is_stalled());
    }
}
