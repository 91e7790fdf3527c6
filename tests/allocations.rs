//! In the steady state an event allocates nothing from its bytes to its sealed batch.
//!
//! One test in its own binary, because it replaces the global allocator.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test that cannot go on fails"
)]
#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hakaru::event::UnixMillis;
use hakaru::event::ack::Ack;
use hakaru::event::batch::BatchEvents;
use hakaru::event::rule::{EventRule, SharedEventRule};
use hakaru::handoff::{self, Handoff, Work};
use hakaru::http::BODY_LIMIT_MAX;
use hakaru::http::conversation::{Conversation, Next, RequestProgress};
use hakaru::http::paths::EventPaths;
use hakaru::http::response::Answers;
use hakaru::journal::disk_thread;
use hakaru::journal::lane_handle::MemoryLane;
use hakaru::journal::quota::JournalBound;
use hakaru::journal::served_database::{EarlierLanes, ServedDatabase};
use hakaru::metrics::{Recorder, ShardCounters};
use hakaru::os::notifier::ShardNotifier;
use hakaru::shard::ingest::{Ingest, Medium};
use hakaru::shard::patience::Patience;
use hakaru::shard::service::{Bodies, EventService};
use hakaru::shard::state::Outgoing;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator. Counts the allocations of each thread.
struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged. The count is a thread-local that is
// initialised by a constant and has no destructor, so that counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller guarantees what `alloc` requires of `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as for `dealloc`; the caller guarantees what `realloc` requires of `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const EVENTS: u32 = 1_000;

/// Most time that the disk may take for a batch.
const DISK_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes a group as a shard on epoll does.
fn write(ingest: &mut Ingest) {
    if let Some(group) = ingest.begin_write() {
        ingest.write_by_thread(group);
    }
}

/// Sends requests for many batches through `ingest`. `inbox` is the writer's end. Returns the allocations of
/// this thread after the first batches, which grow to their size.
fn allocations(
    mut ingest: Ingest,
    counters: &Recorder<ShardCounters>,
    inbox: &Receiver<Work>,
) -> u64 {
    let request = b"GET /hakaru?name=%E8%A8%88+purchase&value=120 HTTP/1.1\r\nHost: h\r\nOrigin: https://shop.example\r\n\r\n";
    let mut conversation = Conversation::new();
    let mut input = BytesMut::with_capacity(1024);
    let (mut out, mut decoded) = (Outgoing::default(), Vec::new());
    let paths = EventPaths::default();
    let (answers, event_rule) = (Answers::new(0), SharedEventRule::new(EventRule::DEPLOYED));
    let bodies = Bodies::new(BODY_LIMIT_MAX);
    let mut patience = Patience::NONE;
    let mut one_batch = || {
        for _ in 0..EVENTS {
            out.clear();
            input.reserve(request.len());
            input.extend_from_slice(request);
            let Outgoing { bytes, taken } = &mut out;
            let mut service = EventService {
                ingest: &mut ingest,
                answers: &answers,
                taken,
                counters,
                paths: &paths,
                event_rule: &event_rule,
                now: UnixMillis(0),
                bodies: &bodies,
                patience: &mut patience,
                is_draining: false,
            };
            let next = conversation.turn(&mut input, bytes, &mut decoded, &mut service);
            assert_eq!(next, Next::Read(RequestProgress::None));
            assert!(
                bytes.starts_with(b"HTTP/1.1 200 OK"),
                "{}",
                String::from_utf8_lossy(bytes)
            );
            write(&mut ingest);
        }
        // The writer's part: it returns the batch, which arrives when it is durable.
        let deadline = Instant::now() + DISK_TIMEOUT;
        loop {
            ingest.on_notify();
            write(&mut ingest);
            match inbox.try_recv() {
                Ok(Work::Batch(sealed)) => break sealed.give_back(),
                Ok(Work::Span(span)) => panic!("{span:?}"),
                Err(_) => assert!(Instant::now() < deadline, "no batch arrived"),
            }
            std::thread::yield_now();
        }
    };
    for _ in 0..4 {
        one_batch();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..20 {
        one_batch();
    }
    ALLOCATIONS.get() - before
}

#[test]
fn a_steady_stream_of_events_allocates_nothing() {
    let events_max = BatchEvents::new(EVENTS).unwrap();
    for ack in [Ack::Received, Ack::Journaled] {
        let directory = tempfile::tempdir().unwrap();
        let (notifier, _notified) = ShardNotifier::new().unwrap();
        let (opened, _lanes) = channel();
        let medium = if ack == Ack::Journaled {
            let (disk, work) = disk_thread::disk_thread(
                directory.path().to_owned(),
                Arc::new(ServedDatabase::new(
                    "here".to_owned(),
                    false,
                    EarlierLanes::default(),
                )),
                notifier,
                opened,
            );
            std::thread::spawn(|| work.run());
            let bound = JournalBound::new(1 << 30, Arc::default());
            Medium::Journal(disk, bound)
        } else {
            Medium::Memory(MemoryLane::new().unwrap())
        };
        let (to_writer, inbox) = handoff::inbox(1);
        let handoff = Handoff::new(to_writer, events_max);
        let (recorder, _) = Recorder::new(ShardCounters::default());
        let counters = Rc::new(recorder);
        let mut ingest = Ingest::new(ack, Rc::clone(&counters), handoff, medium, 1000);
        let deadline = Instant::now() + DISK_TIMEOUT;
        while !ingest.is_open() {
            assert!(Instant::now() < deadline, "no lane was opened");
            ingest.on_notify();
            std::thread::yield_now();
        }
        let allocations = allocations(ingest, &counters, &inbox);
        // The queue of positions that are not stored yet may double a few times.
        assert!(
            allocations <= 4,
            "{allocations} in {} events, {ack}",
            20 * EVENTS
        );
    }
}
