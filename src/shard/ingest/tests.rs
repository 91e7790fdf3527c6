//! A shard's ingest, with writes whose end the test decides.

use super::*;
use crate::event::UnixMillis;
use crate::event::batch::BatchEvents;
use crate::event::list::EventList;
use crate::handoff::{self, Work};
use crate::journal::disk_thread::DiskReport;
use crate::journal::disk_thread::{DiskWork, Write, disk_thread};
use crate::journal::lane_handle::{DiskLane, LaneHandle};
use crate::journal::served_database::{EarlierLanes, ServedDatabase};
use crate::os::fs::File;
use crate::os::notifier::ShardNotifier;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::task::Context;

fn served() -> Arc<ServedDatabase> {
    Arc::new(ServedDatabase::new(
        "here".to_owned(),
        false,
        EarlierLanes::default(),
    ))
}

/// The ingest of a shard, with a disk thread and the receiving end of the handoff.
struct Bench {
    ingest: Ingest,
    counters: Arc<ShardCounters>,
    inbox: Receiver<Work>,
    opened: Receiver<Arc<DiskLane>>,
    segment: Option<File>,
    _notified: UnixStream,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(ack: Ack) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (notifier, notified) = ShardNotifier::new().unwrap();
        let (to_janitor, opened) = channel();
        let (disk, work) = disk_thread(directory.path().to_owned(), served(), notifier, to_janitor);
        std::thread::spawn(move || DiskWork::run(work));
        let (to_writer, inbox) = handoff::inbox(1);
        let handoff = Handoff::new(to_writer, BatchEvents::new(2).unwrap());
        let (recorder, counters) = Recorder::new(ShardCounters::default());
        let bound = JournalBound::new(1 << 30, Arc::default());
        let medium = Medium::Journal(disk, bound);
        let mut bench = Self {
            ingest: Ingest::new(ack, Rc::new(recorder), handoff, medium, 1000),
            counters,
            inbox,
            opened,
            segment: None,
            _notified: notified,
            _directory: directory,
        };
        bench.open();
        bench
    }

    /// Waits for the next lane.
    fn open(&mut self) -> Arc<DiskLane> {
        let lane = self.opened.recv().unwrap();
        while !self.ingest.is_open() {
            self.ingest.on_notify();
            std::thread::yield_now();
        }
        lane
    }

    fn take(&mut self, value: u32) -> Option<AckTicket> {
        let event = Event {
            name: "n",
            value,
            received_at: UnixMillis(0),
            id: None,
        };
        self.ingest.take(event).unwrap();
        self.ingest.ticket()
    }

    fn state(&mut self, ticket: AckTicket) -> Poll<Result<(), AckFailed>> {
        let context = Context::from_waker(Waker::noop());
        self.ingest.poll_ack(ticket, &context)
    }

    /// Ends a write with this outcome, and does it if it succeeds.
    fn end(&mut self, write: Write, outcome: io::Result<()>) {
        self.segment = write.segment.or(self.segment.take());
        if outcome.is_ok() {
            let segment = self.segment.as_ref().unwrap();
            segment
                .write_all_at(write.blocks.as_slice(), write.offset)
                .unwrap();
        }
        self.ingest.end_write(write.blocks, outcome);
    }

    /// The work that was handed over: the values of batches, the bounds of spans.
    fn handed_over(&self) -> Vec<Vec<u64>> {
        let handed = self.inbox.try_iter().map(|work| match work {
            Work::Batch(sealed) => sealed
                .batch
                .events()
                .map(|event| u64::from(event.value))
                .collect(),
            Work::Span(span) => vec![span.from.0, span.to.0],
        });
        handed.collect()
    }
}

const SAFE: Poll<Result<(), AckFailed>> = Poll::Ready(Ok(()));
const FAILED: Poll<Result<(), AckFailed>> = Poll::Ready(Err(AckFailed::NotKept));
const UNKNOWN: Poll<Result<(), AckFailed>> = Poll::Ready(Err(AckFailed::Unknown));

#[test]
fn an_answer_waits_for_the_write_that_holds_its_event() {
    let mut bench = Bench::new(Ack::Journaled);
    let first = bench.take(1).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    // Taken while the write is under way: not in it.
    let second = bench.take(2).unwrap();
    assert!(bench.ingest.begin_write().is_none());
    assert_eq!(bench.state(first), Poll::Pending);
    assert!(bench.handed_over().is_empty(), "full, and not durable");
    bench.end(write, Ok(()));
    assert_eq!(
        (bench.state(first), bench.state(second)),
        (SAFE, Poll::Pending)
    );
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Ok(()));
    assert_eq!(bench.state(second), SAFE);
    assert_eq!(bench.handed_over(), [[1, 2]]);
    assert_eq!(bench.counters.received.get(), 2);
}

#[test]
fn a_write_that_fails_fails_its_answers_and_no_other() {
    let mut bench = Bench::new(Ack::Journaled);
    let first = bench.take(1).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Ok(()));
    let second = bench.take(2).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    let third = bench.take(3).unwrap();
    bench.end(write, Err(io::ErrorKind::StorageFull.into()));
    assert_eq!((bench.state(first), bench.state(second)), (SAFE, FAILED));
    assert_eq!(bench.state(third), FAILED);
    // Durable events go to the writer from memory.
    assert_eq!(bench.handed_over(), [[1]]);
    let counted = (bench.counters.received.get(), bench.counters.shed.get());
    assert_eq!(counted, (1, 2));
    assert!(!bench.ingest.is_open());
    // New events go to another lane.
    bench.open();
    let fourth = bench.take(4).unwrap();
    assert_eq!(bench.state(fourth), Poll::Pending);
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Ok(()));
    assert_eq!(bench.state(fourth), SAFE);
}

#[test]
fn stored_waits_for_the_row_although_the_lane_fails_meanwhile() {
    let mut bench = Bench::new(Ack::Stored);
    let first = bench.take(1).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Ok(()));
    let second = bench.take(2).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Err(io::ErrorKind::StorageFull.into()));
    assert_eq!(bench.state(first), Poll::Pending);
    assert_eq!(bench.state(second), FAILED);
    let lanes: Vec<_> = bench
        .inbox
        .try_iter()
        .map(|work| match work {
            Work::Batch(sealed) => sealed.lane,
            Work::Span(span) => LaneHandle::Disk(span.lane),
        })
        .collect();
    lanes[0].set_stored(Position(1));
    assert_eq!(bench.state(first), SAFE);
}

/// A name so long that a few groups fill a segment.
fn long_event(name: &str, value: u32) -> Event<'_> {
    Event {
        name,
        value,
        received_at: UnixMillis(0),
        id: None,
    }
}

#[test]
fn a_segment_that_fails_while_a_write_is_under_way_closes_the_lane_after_it() {
    let mut bench = Bench::new(Ack::Journaled);
    let name = "n".repeat(1000);
    for _ in 0..4 {
        for value in 0..4_000 {
            bench.ingest.take(long_event(&name, value)).unwrap();
        }
        let write = bench.ingest.begin_write().unwrap();
        bench.end(write, Ok(()));
    }
    let first = bench.take(1).unwrap();
    let late = bench.ingest.begin_write().unwrap();
    for value in 0..4_000 {
        bench.ingest.take(long_event(&name, value)).unwrap();
    }
    let second = bench.ingest.ticket().unwrap();
    let full = io::ErrorKind::StorageFull.into();
    bench.ingest.process_report(DiskReport::Segment(Err(full)));
    bench.ingest.advance();
    assert!(bench.ingest.is_open(), "a write is under way");
    bench.end(late, Ok(()));
    assert!(!bench.ingest.is_open());
    assert_eq!((bench.state(first), bench.state(second)), (SAFE, FAILED));
    // The next lane begins with a head of its own.
    bench.open();
    bench.take(2).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    assert_eq!(
        (write.offset, &write.blocks.as_slice()[..7]),
        (0, &b"hakaruJ"[..])
    );
}

fn list(events: usize) -> EventList {
    let mut list = EventList::default();
    for _ in 0..events {
        let name = list.add_text("n");
        list.push(name, 1, None);
    }
    list
}

#[test]
fn only_a_request_with_events_waits_for_the_next_group_if_it_may() {
    let mut bench = Bench::new(Ack::Journaled);
    let name = "n".repeat(1000);
    let full = |bench: &mut Bench| bench.ingest.take_all(&list(1), UnixMillis(0), true);
    let mut events = 0;
    while full(&mut bench) == TakenAll::Taken {
        bench.ingest.take(long_event(&name, events)).unwrap();
        events += 1;
    }
    assert!(matches!(full(&mut bench), TakenAll::Later(_)));
    let none = bench.ingest.take_all(&list(0), UnixMillis(0), true);
    assert_eq!(none, TakenAll::Taken);
    assert_eq!(bench.counters.shed.get(), 0);
    let waited_long = bench.ingest.take_all(&list(3), UnixMillis(0), false);
    assert_eq!(waited_long, TakenAll::Shed);
    assert_eq!(bench.counters.shed.get(), 3);
}

#[test]
fn a_request_that_gives_up_is_not_woken() {
    let bench = Bench::new(Ack::Journaled);
    let ingest = RefCell::new(bench.ingest);
    let mut context = Context::from_waker(Waker::noop());
    let mut waits = Box::pin(room(&ingest));
    let mut gives_up = Box::pin(room(&ingest));
    assert!(waits.as_mut().poll(&mut context).is_pending());
    assert!(gives_up.as_mut().poll(&mut context).is_pending());
    drop(gives_up);
    assert_eq!(ingest.borrow().awaiting_room.wakers.len(), 1);
    ingest.borrow_mut().wake_requests();
    assert!(waits.as_mut().poll(&mut context).is_ready());
}

#[test]
fn refused_events_are_those_of_the_ticket_and_are_returned_once() {
    let mut bench = Bench::new(Ack::Stored);
    bench.take(1).unwrap();
    let first = bench.take(2).unwrap();
    let second = bench.take(3).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Ok(()));
    let lane = bench.handed_over_lane();
    lane.add_refused([Position(1), Position(2)].into_iter());
    lane.set_stored(Position(2));
    assert_eq!(
        (bench.state(first), bench.state(second)),
        (SAFE, Poll::Pending)
    );
    assert_eq!(bench.ingest.take_refused(first, 2), [1]);
    assert!(bench.ingest.take_refused(first, 2).is_empty());
    // The same holds for a closed lane.
    bench.ingest.lane.fail(io::ErrorKind::Other.into());
    bench.ingest.advance();
    lane.set_stored(Position(3));
    assert_eq!(bench.state(second), SAFE);
    assert_eq!(bench.ingest.take_refused(second, 1), [0]);
    bench.open();
    bench.take(4).unwrap();
    assert!(bench.ingest.take_refused(second, 1).is_empty());
}

#[test]
fn a_lane_that_lacks_events_is_closed_and_acknowledges_no_row() {
    let mut bench = Bench::new(Ack::Stored);
    let ticket = bench.take(1).unwrap();
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Ok(()));
    let lane = bench.handed_over_lane();
    lane.set_damaged();
    lane.set_stored(Position(1));
    assert_eq!(bench.state(ticket), Poll::Pending);
    bench.ingest.on_notify();
    assert!(!bench.ingest.is_open());
    assert_eq!(bench.state(ticket), UNKNOWN);
}

#[test]
fn events_of_a_held_lane_are_neither_acknowledged_nor_refused() {
    let mut bench = Bench::new(Ack::Stored);
    let tickets = [1, 2].map(|value| bench.take(value).unwrap());
    let write = bench.ingest.begin_write().unwrap();
    bench.end(write, Ok(()));
    let lane = bench.handed_over_lane();
    lane.retire();
    lane.set_held(Some(1));
    lane.set_stored(Position(1));
    bench.ingest.on_notify();
    assert!(!bench.ingest.is_open());
    assert_eq!(tickets.map(|ticket| bench.state(ticket)), [SAFE, UNKNOWN]);
}

impl Bench {
    /// The lane of the only batch.
    fn handed_over_lane(&mut self) -> Arc<DiskLane> {
        match self.inbox.try_recv().unwrap() {
            Work::Batch(sealed) => {
                let lane = Arc::clone(sealed.lane.on_disk().unwrap());
                sealed.give_back();
                lane
            }
            Work::Span(span) => span.lane,
        }
    }
}
