//! Group commit: while one write is on its way to the disk, events gather; then one write for all of them.

use std::rc::Rc;
use std::sync::Arc;

use crate::journal::blocks::Blocks;
use crate::journal::commit::Write;
use crate::keeping;
use crate::shard::{Driver, Shard};

/// Writes groups of events to the disk: on the ring, and where there is none, by the disk thread.
pub async fn commit(shard: Rc<Shard>) {
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
    }
}

/// A segment as the ring writes it.
type RingSegment = (Arc<std::fs::File>, monoio::fs::File);

/// Writes a group; `segment` is the one of the group before. A write that ends early is not gone on
/// with: the lane is closed then, as after one that failed.
async fn write_on_ring(
    segment: &mut Option<RingSegment>,
    group: Write,
) -> (Blocks, std::io::Result<()>) {
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
            Err(std::io::ErrorKind::WriteZero.into())
        }
    });
    (blocks, outcome)
}
