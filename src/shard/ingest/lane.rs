//! Lanes come and go: one is opened when the disk allows, and closed for good when it fails.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Ingest;
use super::group_buffer::Journal;
use crate::event::ack::Ack;
use crate::event::position::Position;
use crate::handoff::{Span, Work};
use crate::journal::disk_thread::DiskReport;
use crate::metrics::SealCause;

impl Ingest {
    /// Takes in what disk thread and writer have done since the notifier was last heard.
    pub fn on_notify(&mut self) {
        while let Some(report) = self.journal.as_ref().and_then(Journal::report) {
            self.take_report(report);
        }
        self.advance();
    }

    pub(super) fn take_report(&mut self, report: DiskReport) {
        match report {
            DiskReport::Opened(lane, file) => {
                log::debug!("lane {} is open", lane.id);
                self.is_closed_said = false;
                if let Some(journal) = &mut self.journal {
                    journal.open(Arc::clone(&lane), file);
                }
                self.lane = Some(lane);
                self.next = Position::START;
                self.durable = Position::START;
            }
            DiskReport::NotOpened(fault) => self.say_closed(&fault),
            DiskReport::Segment(made) => {
                let added = self
                    .journal
                    .as_mut()
                    .map(|journal| journal.add_segment(made));
                if let Some(Err(fault)) = added {
                    self.fault = Some(fault);
                }
            }
            DiskReport::Written(blocks, outcome) => {
                self.end_write(blocks, outcome);
            }
        }
    }

    /// Tried again every second; said once.
    pub(super) fn say_closed(&mut self, fault: &io::Error) {
        if !std::mem::replace(&mut self.is_closed_said, true) {
            log::error!(
                "the journal cannot be written: {fault}; this lane is closed, events are answered 503 \
                 until another can be opened"
            );
        }
    }

    /// Breaks every promise that cannot be acknowledged any more, and forgets its event.
    pub(super) fn close_lane(&mut self, reopen_after: Duration) {
        let Some(lane) = self.lane.take() else {
            return;
        };
        self.counters.shed.add(self.next.since(self.durable));
        for work in std::mem::take(&mut self.waiting) {
            if !Arc::ptr_eq(work.lane(), &lane) {
                self.waiting.push_back(work);
                continue;
            }
            match work.cut(self.durable) {
                Ok(work) => self.waiting.push_back(work),
                Err(Some(batch)) => self.handoff.keep(batch),
                Err(None) => {}
            }
        }
        let durable_of_open = self.durable.since(self.open_first);
        self.open
            .truncate(usize::try_from(durable_of_open).unwrap_or(usize::MAX));
        // From memory where there is a batch to go on with: the disk that fails may not be read either.
        let mut from = self.spilled_from.take().unwrap_or(self.durable);
        if !self.open.is_empty() {
            match self.handoff.empty_batch() {
                Some(empty) => self.push_open(empty, &lane, SealCause::LaneClosed),
                None => from = self.open_first,
            }
        }
        self.open.clear();
        if from < self.durable {
            self.waiting.push_back(Work::Span(Span {
                lane: Arc::clone(&lane),
                from,
                to: self.durable,
            }));
        }
        lane.set_end(self.durable);
        let rows = (self.ack == Ack::Stored).then_some(lane);
        self.promises.close(self.durable, rows);
        if let Some(journal) = &mut self.journal {
            journal.close(reopen_after);
        }
        self.let_go = true;
        if let Some(committer) = self.committer.take() {
            committer.wake();
        }
        self.advance();
    }

    /// Hands the last batch over and tells writer and disk thread that nothing more comes.
    pub fn close(&mut self) {
        if let Some(lane) = &self.lane {
            let mut last = VecDeque::new();
            if !self.open.is_empty() {
                self.count_seal(SealCause::Drain);
                let (batch, home) = (self.open.take(), self.handoff.home());
                last.push_back(Work::new(batch, self.open_first, Arc::clone(lane), home));
            }
            if let Some(from) = self.spilled_from.take() {
                last.push_back(Work::Span(Span {
                    lane: Arc::clone(lane),
                    from,
                    to: self.next,
                }));
            }
            self.waiting.append(&mut last);
        }
        self.hand_over();
        self.handoff.close();
        self.journal = None;
    }
}
