//! Log lines on their way to standard error: whoever reads that may stop reading, and a shard must not.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait at most; more are dropped, and their number is said.
const LINES_MAX: usize = 1024;

/// How long the process waits at its end for the last lines to be read.
const LAST_LINES_TIME: Duration = Duration::from_secs(1);

/// How often it looks then.
const LAST_LINES_POLL: Duration = Duration::from_millis(1);

/// How many lines came and went.
#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    done: AtomicU64,
    dropped: AtomicU64,
}

/// Takes whole lines and never waits.
#[derive(Debug)]
pub(super) struct LineQueue {
    to_writer: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

/// Waits for what was logged, when the process ends.
#[derive(Debug)]
pub struct LastLines(Arc<Counts>);

/// Starts a thread that writes lines to `out`.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(LineQueue, LastLines)> {
    let (to_writer, lines) = sync_channel(LINES_MAX);
    let counts = Arc::<Counts>::default();
    let writer = Arc::clone(&counts);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(out, &lines, &writer))?;
    let last = LastLines(Arc::clone(&counts));
    Ok((LineQueue { to_writer, counts }, last))
}

fn write_lines(mut out: impl Write, lines: &Receiver<Vec<u8>>, counts: &Counts) {
    while let Ok(line) = lines.recv() {
        // With standard error closed there is nobody to tell.
        drop(out.write_all(&line));
        counts.done.fetch_add(1, Ordering::Release);
        let dropped = counts.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            log::warn!(
                event = "log_lines_dropped", lines = dropped;
                "{dropped} log lines were dropped: standard error is not read fast enough"
            );
        }
    }
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.queued.fetch_add(1, Ordering::Relaxed);
        match self.to_writer.try_send(line.to_owned()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.queued.fetch_sub(1, Ordering::Relaxed);
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LastLines {
    /// For a second at most: somebody who does not read must not keep the process from ending.
    fn drop(&mut self) {
        let start = Instant::now();
        let counts = &self.0;
        while counts.done.load(Ordering::Acquire) < counts.queued.load(Ordering::Relaxed)
            && start.elapsed() < LAST_LINES_TIME
        {
            thread::sleep(LAST_LINES_POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Standard error, read by nobody until `read` is heard.
    struct Unread {
        read: Receiver<()>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Unread {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // With the other end gone everything is read.
            self.read.recv().unwrap_or(());
            self.lines.send(line.to_owned()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_for_who_reads_and_lines_stay_in_order() {
        let (reads, read) = channel();
        let (lines, written) = channel();
        let (mut queue, last) = start(Unread { read, lines }).unwrap();
        let many = 2 * LINES_MAX;
        for line in 0..many {
            queue.write_all(&line.to_le_bytes()).unwrap();
        }
        let dropped = queue.counts.dropped.load(Ordering::Relaxed);
        // One may be on its way.
        assert!(many as u64 - dropped <= LINES_MAX as u64 + 1, "{dropped}");
        drop(reads);
        drop(last);
        let count = written.try_iter().count() as u64;
        assert_eq!(count, many as u64 - dropped);
        queue.write_all(b"after").unwrap();
        assert_eq!(written.recv().unwrap(), b"after");
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (_reads, read) = channel();
        let (lines, _written) = channel();
        let (mut queue, last) = start(Unread { read, lines }).unwrap();
        queue.write_all(b"a").unwrap();
        drop(last);
        assert_eq!(queue.counts.done.load(Ordering::Relaxed), 0);
    }
}
