//! Answers that wait until what they say is so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::journal::handle::LaneHandle;
use crate::journal::record::Position;

/// What is to be so before an answer goes out: everything before a position of a lane is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    lane: LaneCount,
    position: Position,
}

/// The promise cannot be kept: the lane was closed before the event was on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Tells the lanes of a shard apart: the lanes that were closed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct LaneCount(u64);

/// A lane that was closed: what is durable of it is kept.
#[derive(Debug)]
struct ClosedLane {
    lane: LaneCount,
    end: Position,
    /// Where a promise is kept when its row is stored.
    rows: Option<Arc<LaneHandle>>,
}

/// Closed lanes that are remembered. Behind so many failures in a row a sender may be told 503 for an
/// event that is kept.
const CLOSED_LANES_MAX: usize = 8;

/// All promises of a shard that are given and not kept yet.
#[derive(Debug, Default)]
pub(super) struct Promises {
    present: LaneCount,
    closed: VecDeque<ClosedLane>,
    /// In the order in which they were given.
    waiters: VecDeque<(Promise, Waker)>,
}

impl Promises {
    /// Promises everything before `position` of the present lane.
    pub(super) fn give(&self, position: Position) -> Promise {
        Promise {
            lane: self.present,
            position,
        }
    }

    /// Goes on to another lane. Of the present one everything before `end` is durable; `rows`, where
    /// only what is stored counts.
    pub(super) fn close(&mut self, end: Position, rows: Option<Arc<LaneHandle>>) {
        if self.closed.len() == CLOSED_LANES_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(ClosedLane {
            lane: self.present,
            end,
            rows,
        });
        self.break_all();
    }

    /// Goes on to another lane and keeps no promise of the present one.
    pub(super) fn break_all(&mut self) {
        self.present.0 += 1;
    }

    /// Whether a promise is kept, when everything before `kept` of the present lane is. Remembers who
    /// asks.
    pub(super) fn poll(
        &mut self,
        promise: Promise,
        kept: Position,
        context: &Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        let state = self.state(promise, kept);
        if state.is_pending() {
            self.waiters.push_back((promise, context.waker().clone()));
        }
        state
    }

    /// Wakes those whose promise is kept or broken.
    pub(super) fn wake(&mut self, kept: Position) {
        while let Some((promise, _)) = self.waiters.front() {
            if self.state(*promise, kept).is_pending() {
                return;
            }
            if let Some((_, waiter)) = self.waiters.pop_front() {
                waiter.wake();
            }
        }
    }

    fn state(&self, promise: Promise, kept: Position) -> Poll<Result<(), Broken>> {
        let kept = if promise.lane == self.present {
            kept
        } else {
            let mut closed = self.closed.iter();
            match closed.find(|closed| closed.lane == promise.lane) {
                Some(closed) if promise.position <= closed.end => closed
                    .rows
                    .as_ref()
                    .map_or(closed.end, |lane| lane.stored()),
                _ => return Poll::Ready(Err(Broken)),
            }
        };
        if kept >= promise.position {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}
