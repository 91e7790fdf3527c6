//! Group commit: the events that arrive during one write are written together by the next one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::event::position::Position;
use crate::journal::blocks::Blocks;
use crate::journal::disk_thread::Write;
use crate::shard::ingest::{self, Ingest};
use crate::shard::state::Shard;

/// Most turns of the event loop that a group waits for. It waits for another one only while each brings more
/// events.
const PACING_TURNS_MAX: u32 = 10;

/// The next write waits for more events only if the last one held at least this many. A single sender that
/// sends its events one by one has nobody to share a write with.
const EVENTS_MIN: u32 = 2;

/// The pause is the time of the last write divided by this. During it the answers reach their senders.
const PAUSE_DIVISOR: u32 = 4;

/// The longest pause. On a slow disk it is most of the latency that pacing adds to an answer.
const PAUSE_MAX: Duration = Duration::from_micros(100);

/// A shorter pause costs more than the writes that it saves.
const PAUSE_MIN: Duration = Duration::from_micros(10);

/// Pacing ends after this time.
const PACING_TIME_MAX: Duration = Duration::from_millis(4);

/// A yield that takes longer gave the core to a program that does more than send events to this shard.
const YIELD_LONG: Duration = Duration::from_millis(2);

/// After a long yield, the core is not yielded for this many groups.
const GROUPS_WITHOUT_YIELD: u32 = 4;

/// Writes groups of events to the disk, on io_uring.
pub async fn commit_on_ring(shard: Rc<Shard>, mut pacing: CommitPacing) {
    let mut segment = None;
    loop {
        let group = ingest::next_group(&shard.ingest).await;
        let Some(group) = group else {
            segment = None;
            continue;
        };
        let (blocks, outcome) = write_on_ring(&mut segment, group).await;
        let written = shard
            .ingest
            .borrow_mut()
            .end_write(blocks, outcome)
            .filter(|written| written.events >= EVENTS_MIN);
        if let Some(written) = written {
            let taken = || shard.ingest.borrow().taken();
            if let Err(fault) = pacing.wait(written.took, taken).await {
                log::debug!("a turn of the loop: {fault}");
            }
        }
    }
}

/// Has the disk thread write groups of events, on epoll. It sends a notification when a write has ended.
pub async fn commit_by_thread(ingest: &RefCell<Ingest>) {
    loop {
        let group = ingest::next_group(ingest).await;
        if let Some(group) = group {
            ingest.borrow().write_by_thread(group);
        }
    }
}

/// Delays the next write until the senders that are answered now have sent their next events, so that these
/// share one write. Otherwise they arrive while a smaller write is already under way.
#[derive(Debug)]
pub struct CommitPacing {
    turns: Turns,
    /// The core is not yielded for this many groups to come.
    groups_without_yield: u32,
    /// [`PACING_TIME_MAX`], except in tests.
    time_max: Duration,
}

impl CommitPacing {
    /// For the loop that runs on this thread.
    pub fn new() -> io::Result<Self> {
        // With the default timer slack each pause would be 50 us longer.
        if let Err(fault) = nix::sys::prctl::set_timerslack(1) {
            log::debug!("pauses will be longer: {fault}");
        }
        Ok(Self {
            turns: Turns::new()?,
            groups_without_yield: 0,
            time_max: PACING_TIME_MAX,
        })
    }

    /// Returns when the next write may begin, at the latest after [`PACING_TIME_MAX`], one turn and one yield, which takes
    /// as long as the kernel lets others have the core. The last write took `took`. `taken` returns the position after the
    /// last event.
    async fn wait(
        &mut self,
        took: Duration,
        mut taken: impl FnMut() -> Position,
    ) -> io::Result<()> {
        // In this turn the answers are sent.
        self.turns.next().await?;
        let start = Instant::now();
        if let Some(pause) = pause(took) {
            // The whole shard sleeps. If it were woken for each event, it would read them one by one.
            thread::sleep(pause);
        }
        let yields = self.begin_group();
        for _ in 0..PACING_TURNS_MAX {
            let before = taken();
            if yields {
                // A sender on this core cannot send while this thread runs.
                let start = Instant::now();
                thread::yield_now();
                self.note_yield(start.elapsed());
            }
            self.turns.next().await?;
            if taken() == before || start.elapsed() > self.time_max {
                break;
            }
        }
        Ok(())
    }

    /// Whether the core is yielded for the group that begins.
    fn begin_group(&mut self) -> bool {
        let yields = self.groups_without_yield == 0;
        self.groups_without_yield = self.groups_without_yield.saturating_sub(1);
        yields
    }

    /// Notes how long other threads had the core.
    fn note_yield(&mut self, took: Duration) {
        if took > YIELD_LONG {
            self.groups_without_yield = GROUPS_WITHOUT_YIELD;
        }
    }
}

/// How long a shard sleeps after a write that took `took`; `None`: not at all.
fn pause(took: Duration) -> Option<Duration> {
    let pause = (took / PAUSE_DIVISOR).min(PAUSE_MAX);
    (pause >= PAUSE_MIN).then_some(pause)
}

/// Waits for turns of the event loop. monoio has no call for that.
#[derive(Debug)]
struct Turns {
    /// A socket that nobody writes to, so that the event loop finds it writable at once.
    writable: monoio::net::UnixStream,
    /// The other end, which must stay open.
    _peer: UnixStream,
}

impl Turns {
    /// For the loop that runs on this thread.
    fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok(Self {
            writable: monoio::net::UnixStream::from_std(near)?,
            _peer: far,
        })
    }

    /// Returns when the loop has looked once for ready sockets, and has run all tasks that this woke.
    async fn next(&self) -> io::Result<()> {
        self.writable.writable(true).await?;
        let mut is_last_in_queue = false;
        poll_fn(|context| {
            if std::mem::replace(&mut is_last_in_queue, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        Ok(())
    }
}

/// Writes a group. `segment` is the segment of the last group. A write that is cut short is not continued: it
/// counts as failed, and the lane is closed.
async fn write_on_ring(
    segment: &mut Option<monoio::fs::File>,
    group: Write,
) -> (Blocks, io::Result<()>) {
    let Write {
        segment: next,
        offset,
        blocks,
    } = group;
    if let Some(next) = next {
        match next.into_real().and_then(monoio::fs::File::from_std) {
            Ok(next) => *segment = Some(next),
            Err(fault) => return (blocks, Err(fault)),
        }
    }
    let Some(segment) = segment else {
        return (blocks, Err(io::Error::other("no segment is open")));
    };
    let length = blocks.as_slice().len();
    let (written, blocks) = segment.write_at(blocks, offset).await;
    let outcome = written.and_then(|written| {
        if written == length {
            Ok(())
        } else {
            let text =
                format!("only {written} of {length} bytes were written; the disk may be full");
            Err(io::Error::new(io::ErrorKind::WriteZero, text))
        }
    });
    (blocks, outcome)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use monoio::{FusionDriver, RuntimeBuilder};

    use super::*;

    /// A write that is too short to pause after it.
    const SHORT: Duration = Duration::ZERO;

    fn on_a_loop<T>(task: impl Future<Output = T>) -> T {
        RuntimeBuilder::<FusionDriver>::new()
            .build()
            .unwrap()
            .block_on(task)
    }

    /// Without a time limit, since the machine may be busy with other tests.
    fn without_time_limit() -> CommitPacing {
        CommitPacing {
            time_max: Duration::MAX,
            ..CommitPacing::new().unwrap()
        }
    }

    /// How many turns a group waits for when each of the first `bringing` turns brings an event.
    fn turns_waited(bringing: u64) -> u64 {
        on_a_loop(async {
            let mut calls = 0;
            let taken = || {
                // Called once before a turn and once after it.
                calls += 1;
                Position((calls / 2).min(bringing))
            };
            let mut pacing = without_time_limit();
            pacing.wait(SHORT, taken).await.unwrap();
            calls / 2
        })
    }

    #[test]
    fn a_group_waits_for_turns_that_bring_events() {
        assert_eq!(turns_waited(0), 1);
        assert_eq!(turns_waited(3), 4);
        assert_eq!(turns_waited(u64::MAX), u64::from(PACING_TURNS_MAX));
    }

    #[test]
    fn pacing_ends_when_turns_take_long() {
        let turns = on_a_loop(async {
            let mut calls = 0;
            let taken = || {
                calls += 1;
                thread::sleep(PACING_TIME_MAX);
                Position(calls)
            };
            let mut pacing = CommitPacing::new().unwrap();
            pacing.wait(SHORT, taken).await.unwrap();
            calls / 2
        });
        assert_eq!(turns, 1);
    }

    #[test]
    fn answers_are_sent_before_pacing_waits_for_events() {
        on_a_loop(async {
            let is_sent = Rc::new(Cell::new(false));
            let sender = Rc::clone(&is_sent);
            let answer = monoio::spawn(async move { sender.set(true) });
            let mut pacing = CommitPacing::new().unwrap();
            let taken = || {
                assert!(is_sent.get());
                Position::START
            };
            pacing.wait(SHORT, taken).await.unwrap();
            answer.await;
        });
    }

    #[test]
    fn a_long_yield_is_the_last_for_some_groups() {
        on_a_loop(async {
            let mut pacing = CommitPacing::new().unwrap();
            pacing.note_yield(YIELD_LONG);
            assert!(pacing.begin_group());
            pacing.note_yield(YIELD_LONG * 2);
            for _ in 0..GROUPS_WITHOUT_YIELD {
                assert!(!pacing.begin_group());
            }
            assert!(pacing.begin_group());
        });
    }

    #[test]
    fn a_pause_is_a_part_of_the_time_of_the_write_and_bounded() {
        assert_eq!(pause(PAUSE_MIN), None);
        assert_eq!(pause(PAUSE_MIN * PAUSE_DIVISOR), Some(PAUSE_MIN));
        assert_eq!(pause(PAUSE_MAX * PAUSE_DIVISOR * 9), Some(PAUSE_MAX));
    }
}
