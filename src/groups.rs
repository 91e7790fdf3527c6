//! Group commit: while one write is on its way to the disk, events gather; then one write for all of them.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::journal::blocks::Blocks;
use crate::journal::commit::Write;
use crate::keeping;
use crate::shard::{Driver, Shard};

/// Turns of the loop that a group waits at most, and only while each of them brings more events. A busy
/// shard writes less often then; a lone request is behind no wait, for nothing comes after it.
const GATHERING_TURNS_MAX: u32 = 10;

/// Writes groups of events to the disk: on the ring, and where there is none, by the disk thread.
pub async fn commit(shard: Rc<Shard>, turns: Turns) {
    let mut segment = None;
    loop {
        let group = keeping::group(|look| look(&mut shard.desk.borrow_mut().keeping)).await;
        let Some(group) = group else {
            segment = None;
            continue;
        };
        if shard.driver == Driver::Epoll {
            shard.desk.borrow().keeping.write_by_thread(group);
            continue;
        }
        let (blocks, outcome) = write_on_ring(&mut segment, group).await;
        shard.desk.borrow_mut().keeping.end_write(blocks, outcome);
        gather(&shard, &turns).await;
    }
}

/// Lets those who are answered now send again: what they send shares the next write.
async fn gather(shard: &Shard, turns: &Turns) {
    let taken = || shard.desk.borrow().keeping.taken();
    for _ in 0..GATHERING_TURNS_MAX {
        let before = taken();
        if let Err(fault) = turns.next().await {
            return log::debug!("a turn of the loop: {fault}");
        }
        if taken() == before {
            return;
        }
    }
}

/// Waits for turns of the loop, which monoio has no call for.
#[derive(Debug)]
pub struct Turns {
    /// A socket that nobody writes to: the ring finds it writable at once.
    writable: monoio::net::UnixStream,
    /// Its other end; without it, the socket would be closed.
    _peer: UnixStream,
}

impl Turns {
    /// For the loop that runs on this thread.
    pub fn new() -> io::Result<Self> {
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
