//! In the steady state an event allocates nothing between its bytes and its sealed batch.
//!
//! One test in a binary of its own: the allocator counts for the whole process.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that cannot go on fails"
)]
#![expect(unsafe_code, reason = "a global allocator can be had no other way")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::BytesMut;
use hakaru::batch::{Batch, BatchEvents};
use hakaru::event::{Event, NameRule, UnixMillis};
use hakaru::handoff::{self, Handoff};
use hakaru::http::conversation::{Awaited, Conversation, Next, Shed, Site};
use hakaru::http::query::Rejection;
use hakaru::http::response::Answers;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, and a count of what this thread asks of it.
struct Counting;

// SAFETY: every call is handed on to the system's allocator unchanged; counting touches a
// thread-local of constant initialisation without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as for `dealloc`; the caller's promise about `size` is handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A desk as a shard has it: an open batch, handed over when it is full.
struct Desk {
    open: Batch,
    handoff: Handoff,
    answers: Answers,
}

impl Site for Desk {
    fn name_rule(&self) -> NameRule {
        NameRule::DEPLOYED
    }

    fn take(&mut self, name: &str, value: u32) -> Result<(), Shed> {
        self.open
            .push(Event {
                name,
                value,
                received_at: UnixMillis(0),
            })
            .or(Err(Shed))?;
        if self.open.is_full() {
            let empty = self.handoff.empty_batch().ok_or(Shed)?;
            let full = std::mem::replace(&mut self.open, empty);
            self.handoff.send(full).or(Err(Shed))?;
        }
        Ok(())
    }

    fn count_rejection(&mut self, rejection: Rejection) {
        panic!("{rejection:?}");
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn answers(&self) -> &Answers {
        &self.answers
    }
}

#[test]
fn a_steady_stream_of_events_allocates_nothing() {
    const EVENTS: u32 = 1_000;
    let (to_writer, inbox) = handoff::inbox(1);
    let mut handoff = Handoff::new(to_writer, BatchEvents::new(EVENTS).unwrap());
    let mut desk = Desk {
        open: handoff.empty_batch().unwrap(),
        handoff,
        answers: Answers::new(0),
    };
    let request = b"GET /hakaru?name=%E8%A8%88+purchase&value=120 HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut conversation = Conversation::new();
    let mut input = BytesMut::with_capacity(1024);
    let (mut out, mut decoded) = (Vec::new(), Vec::new());
    let mut one_batch = || {
        for _ in 0..EVENTS {
            out.clear();
            input.reserve(request.len());
            input.extend_from_slice(request);
            let next = conversation.turn(&mut input, &mut out, &mut decoded, &mut desk);
            assert_eq!(next, Next::Read(Awaited::Request));
            assert!(out.starts_with(b"HTTP/1.1 200 OK"));
        }
        // The writer's part: the batch comes back.
        inbox.recv().unwrap().give_back();
    };
    // Until every batch in use has grown to its size.
    for _ in 0..4 {
        one_batch();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..20 {
        one_batch();
    }
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(allocations, 0, "in {} events", 20 * EVENTS);
}
