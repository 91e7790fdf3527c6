//! Group commit: while one write is on its way to the disk, events gather; then one write for all of them.

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
use crate::shard::ingest;
use crate::shard::state::Shard;

/// Turns of the loop that a group waits at most, and only while each of them brings more events. A busy
/// shard writes less often then.
const GATHERING_TURNS_MAX: u32 = 10;

/// Events that the write before must have held, for the next one to wait for what their senders send. A
/// sender that is alone and sends them one by one has nobody to share a write with.
const EVENTS_MIN: u32 = 2;

/// Senders are given this part of the time that the write took, for their answers to reach them.
const PAUSE_PART: u32 = 4;

/// The longest pause: most of what pacing costs an answer where the disk is slow.
const PAUSE_MAX: Duration = Duration::from_micros(100);

/// A shorter pause costs more than the writes it saves.
const PAUSE_MIN: Duration = Duration::from_micros(10);

/// CommitPacing that has taken this long ends.
const GATHERING_TIME_MAX: Duration = Duration::from_millis(4);

/// A yield that takes longer was to somebody who does more than send us events.
const YIELD_LONG: Duration = Duration::from_millis(2);

/// Groups that nothing is yielded for, behind such a one.
const GROUPS_UNYIELDING: u32 = 4;

/// Writes groups of events to the disk, on the ring.
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

/// Has the disk thread write groups of events, where there is no ring. Their ends are heard by the notifier.
pub async fn commit_by_thread(shard: Rc<Shard>) {
    loop {
        let group = ingest::next_group(&shard.ingest).await;
        if let Some(group) = group {
            shard.ingest.borrow().write_by_thread(group);
        }
    }
}

/// Lets those who are answered now send again, so that what they send shares one write: else it would
/// come while the next one, with less in it, is under way already.
#[derive(Debug)]
pub struct CommitPacing {
    turns: Turns,
    /// Groups to come that nothing is yielded for.
    unyielding: u32,
    /// [`GATHERING_TIME_MAX`], but for tests.
    time_max: Duration,
}

impl CommitPacing {
    /// For the loop that runs on this thread.
    pub fn new() -> io::Result<Self> {
        // A pause is as short as it says, not 50 us longer.
        if let Err(fault) = nix::sys::prctl::set_timerslack(1) {
            log::debug!("naps will be longer: {fault}");
        }
        Ok(Self {
            turns: Turns::new()?,
            unyielding: 0,
            time_max: GATHERING_TIME_MAX,
        })
    }

    /// Returns when the next write may begin: after [`GATHERING_TIME_MAX`] and one turn at most. The write
    /// before took `took`; `taken` says how far events were taken.
    async fn wait(
        &mut self,
        took: Duration,
        mut taken: impl FnMut() -> Position,
    ) -> io::Result<()> {
        // The answers go out.
        self.turns.next().await?;
        let start = Instant::now();
        if let Some(pause) = pause(took) {
            // The whole shard sleeps: woken for each of them, it would read them one by one.
            thread::sleep(pause);
        }
        let yields = self.begin_group();
        for _ in 0..GATHERING_TURNS_MAX {
            let before = taken();
            if yields {
                // A sender on this core cannot send while we look whether it did.
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
        let yields = self.unyielding == 0;
        self.unyielding = self.unyielding.saturating_sub(1);
        yields
    }

    /// Takes in how long others had the core.
    fn note_yield(&mut self, took: Duration) {
        if took > YIELD_LONG {
            self.unyielding = GROUPS_UNYIELDING;
        }
    }
}

/// How long a shard sleeps behind a write that took `took`, if it does.
fn pause(took: Duration) -> Option<Duration> {
    let pause = (took / PAUSE_PART).min(PAUSE_MAX);
    (pause >= PAUSE_MIN).then_some(pause)
}

/// Waits for turns of the loop, which monoio has no call for.
#[derive(Debug)]
struct Turns {
    /// A socket that nobody writes to: the ring finds it writable at once.
    writable: monoio::net::UnixStream,
    /// Its other end; without it, the socket would be closed.
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

    /// Returns when the loop has looked once for what is ready, behind all tasks which that woke.
    async fn next(&self) -> io::Result<()> {
        self.writable.writable(true).await?;
        let mut is_behind = false;
        poll_fn(|context| {
            if std::mem::replace(&mut is_behind, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        Ok(())
    }
}

/// Writes a group; `segment` is that of the group before. A write that ends early is not gone on with: the
/// lane is closed then, as after one that failed.
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
        match monoio::fs::File::from_std(next) {
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
            let text = format!("{written} of {length} bytes were written, as on a full disk");
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

    /// A write that is too short to pause behind.
    const SHORT: Duration = Duration::ZERO;

    fn on_a_loop<T>(task: impl Future<Output = T>) -> T {
        RuntimeBuilder::<FusionDriver>::new()
            .build()
            .unwrap()
            .block_on(task)
    }

    /// Without a bound on time: the machine may be busy with other tests.
    fn patient() -> CommitPacing {
        CommitPacing {
            time_max: Duration::MAX,
            ..CommitPacing::new().unwrap()
        }
    }

    /// How often a group looks whether events came, when each of the first `bringing` turns brings one.
    fn turns_taken(bringing: u64) -> u64 {
        on_a_loop(async {
            let mut looks = 0;
            let taken = || {
                // Once before a turn, once behind it.
                looks += 1;
                Position((looks / 2).min(bringing))
            };
            let mut pacing = patient();
            pacing.wait(SHORT, taken).await.unwrap();
            looks / 2
        })
    }

    #[test]
    fn a_group_waits_for_turns_that_bring_events() {
        assert_eq!(turns_taken(0), 1);
        assert_eq!(turns_taken(3), 4);
        assert_eq!(turns_taken(u64::MAX), u64::from(GATHERING_TURNS_MAX));
    }

    #[test]
    fn gathering_ends_where_turns_take_long() {
        let turns = on_a_loop(async {
            let mut looks = 0;
            let taken = || {
                looks += 1;
                thread::sleep(GATHERING_TIME_MAX);
                Position(looks)
            };
            let mut pacing = CommitPacing::new().unwrap();
            pacing.wait(SHORT, taken).await.unwrap();
            looks / 2
        });
        assert_eq!(turns, 1);
    }

    #[test]
    fn what_is_answered_goes_out_before_a_group_gathers() {
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
            for _ in 0..GROUPS_UNYIELDING {
                assert!(!pacing.begin_group());
            }
            assert!(pacing.begin_group());
        });
    }

    #[test]
    fn a_nap_is_a_part_of_the_write_and_bounded() {
        assert_eq!(pause(PAUSE_MIN), None);
        assert_eq!(pause(PAUSE_MIN * PAUSE_PART), Some(PAUSE_MIN));
        assert_eq!(pause(PAUSE_MAX * PAUSE_PART * 9), Some(PAUSE_MAX));
    }
}
