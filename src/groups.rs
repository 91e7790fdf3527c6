//! Group commit: while one write is on its way to the disk, events gather; then one write for all of them.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::journal::blocks::Blocks;
use crate::journal::commit::{Write, Written};
use crate::keeping;
use crate::shard::Shard;

/// Turns of the loop that a group waits at most, and only while each of them brings more events. A busy
/// shard writes less often then.
const GATHERING_TURNS_MAX: u32 = 10;

/// Events that the write before must have held, for the next one to wait for what their senders send. A
/// sender that is alone and sends them one by one has nobody to share a write with.
const EVENTS_MIN: u32 = 2;

/// Senders are given this part of the time that the write took, for their answers to reach them.
const NAP_PART: u32 = 4;

/// The longest nap: most of what gathering costs an answer where the disk is slow.
const NAP_MAX: Duration = Duration::from_micros(100);

/// A shorter nap costs more than the writes it saves.
const NAP_MIN: Duration = Duration::from_micros(10);

/// Gathering that has taken this long ends.
const GATHERING_TIME_MAX: Duration = Duration::from_millis(4);

/// A yield that takes longer was to somebody who does more than send us events.
const YIELD_LONG: Duration = Duration::from_millis(2);

/// Groups that nothing is yielded for, behind such a one.
const GROUPS_UNYIELDING: u32 = 4;

/// Writes groups of events to the disk, on the ring.
pub async fn commit_on_ring(shard: Rc<Shard>, mut gathering: Gathering) {
    let mut segment = None;
    loop {
        let group = keeping::group(|look| look(&mut shard.desk.borrow_mut().keeping)).await;
        let Some(group) = group else {
            segment = None;
            continue;
        };
        let (blocks, outcome) = write_on_ring(&mut segment, group).await;
        let written = shard
            .desk
            .borrow_mut()
            .keeping
            .end_write(blocks, outcome)
            .filter(|written| written.events >= EVENTS_MIN);
        if let Some(written) = written
            && let Err(fault) = gathering.wait(&shard, written).await
        {
            log::debug!("a turn of the loop: {fault}");
        }
    }
}

/// Has the disk thread write groups of events, where there is no ring. Their ends are heard by the bell.
pub async fn commit_by_thread(shard: Rc<Shard>) {
    loop {
        let group = keeping::group(|look| look(&mut shard.desk.borrow_mut().keeping)).await;
        if let Some(group) = group {
            shard.desk.borrow().keeping.write_by_thread(group);
        }
    }
}

/// Lets those who are answered now send again, so that what they send shares one write: else it would
/// come while the next one, with less in it, is under way already.
#[derive(Debug)]
pub struct Gathering {
    turns: Turns,
    /// Groups to come that nothing is yielded for.
    unyielding: u32,
}

impl Gathering {
    /// For the loop that runs on this thread.
    pub fn new() -> io::Result<Self> {
        // A nap is as short as it says, not 50 us longer.
        if let Err(fault) = nix::sys::prctl::set_timerslack(1) {
            log::debug!("naps will be longer: {fault}");
        }
        Ok(Self {
            turns: Turns::new()?,
            unyielding: 0,
        })
    }

    /// Returns when the next write may begin: after [`GATHERING_TIME_MAX`] and one turn at most.
    async fn wait(&mut self, shard: &Shard, written: Written) -> io::Result<()> {
        // The answers go out.
        self.turns.next().await?;
        let start = Instant::now();
        let nap = (written.took / NAP_PART).min(NAP_MAX);
        if nap >= NAP_MIN {
            // The whole shard sleeps: woken for each of them, it would read them one by one.
            thread::sleep(nap);
        }
        let yields = self.unyielding == 0;
        self.unyielding = self.unyielding.saturating_sub(1);
        let taken = || shard.desk.borrow().keeping.taken();
        for _ in 0..GATHERING_TURNS_MAX {
            let before = taken();
            if yields {
                self.let_others_run();
            }
            self.turns.next().await?;
            if taken() == before || start.elapsed() > GATHERING_TIME_MAX {
                break;
            }
        }
        Ok(())
    }

    /// A sender on this core cannot send while we look whether it did.
    fn let_others_run(&mut self) {
        let start = Instant::now();
        thread::yield_now();
        if start.elapsed() > YIELD_LONG {
            self.unyielding = GROUPS_UNYIELDING;
        }
    }
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

/// A segment as the ring writes it.
type RingSegment = (Arc<std::fs::File>, monoio::fs::File);

/// Writes a group; `segment` is the one of the group before. A write that ends early is not gone on
/// with: the lane is closed then, as after one that failed.
async fn write_on_ring(
    segment: &mut Option<RingSegment>,
    group: Write,
) -> (Blocks, io::Result<()>) {
    let Write {
        file,
        offset,
        blocks,
    } = group;
    let opened = match segment.take() {
        Some((known, opened)) if Arc::ptr_eq(&known, &file) => Ok(opened),
        _ => file.try_clone().and_then(monoio::fs::File::from_std),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(fault) => return (blocks, Err(fault)),
    };
    let length = blocks.as_slice().len();
    let (written, blocks) = opened.write_at(blocks, offset).await;
    *segment = Some((file, opened));
    let outcome = written.and_then(|written| {
        if written == length {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    });
    (blocks, outcome)
}
