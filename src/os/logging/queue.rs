//! A queue of log lines for a thread that writes them to standard error. If standard error is not read, that thread
//! blocks, and no shard does.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most lines that wait. Further lines are dropped, and their number is logged.
const LINES_MAX: usize = 1024;

/// The longest line that is usual: a database's words, at most 512 bytes, and names are the longest parts.
const LINE_BYTES: usize = 4 * 1024;

/// The most memory that lines take which wait, in bytes.
pub const QUEUE_BYTES_MAX: usize = LINES_MAX * LINE_BYTES;

/// How long the process waits at its end until the last lines are written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Numbers of lines.
#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    /// Lines dropped since their number was last logged.
    dropped: AtomicU64,
    progress: Mutex<Progress>,
    /// Notified when `progress` changes.
    progressed: Condvar,
}

/// The progress of the writer.
#[derive(Debug, Default)]
struct Progress {
    written: u64,
    has_ended: bool,
}

impl Counts {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        // A number and a flag are consistent even after a panic of another thread.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the progress, and wakes threads that wait for it.
    fn advance(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress());
        self.progressed.notify_all();
    }
}

/// Takes whole lines and never blocks.
#[derive(Debug)]
pub(super) struct LineQueue {
    to_writer: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

/// Writes the lines of a queue, on a thread of its own.
#[derive(Debug)]
pub struct LineWriter<W> {
    out: W,
    lines: Receiver<Vec<u8>>,
    counts: Arc<Counts>,
}

/// When dropped, waits until the queued lines are written.
#[derive(Debug)]
pub struct LastLines(Arc<Counts>);

/// Makes a queue of lines for `out`.
pub(super) fn queue<W: Write>(out: W) -> (LineQueue, LineWriter<W>, LastLines) {
    let (to_writer, lines) = sync_channel(LINES_MAX);
    let counts = Arc::<Counts>::default();
    let last = LastLines(Arc::clone(&counts));
    let writer = LineWriter {
        out,
        lines,
        counts: Arc::clone(&counts),
    };
    (LineQueue { to_writer, counts }, writer, last)
}

impl<W: Write> LineWriter<W> {
    /// Writes lines until the queue is dropped. After a panic, the queued lines are written, with the line about the
    /// panic, before the panic is passed on to the caller.
    pub fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.write_lines()));
        let last = catch_unwind(AssertUnwindSafe(|| self.write_queued()));
        // The end of the process must not wait for lines that will not be written.
        self.counts.advance(|progress| progress.has_ended = true);
        if let Err(panic) = ended.and(last) {
            resume_unwind(panic);
        }
    }

    fn write_lines(&mut self) {
        while let Ok(line) = self.lines.recv() {
            self.write(&line);
            self.counts.advance(|progress| progress.written += 1);
            let dropped = self.counts.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                log::warn!(
                    event = "log_lines_dropped", lines = dropped;
                    "{dropped} log lines were dropped: standard error is not read fast enough"
                );
            }
        }
    }

    /// Writes the lines that are in the queue, without waiting for more.
    fn write_queued(&mut self) {
        for _ in 0..LINES_MAX {
            let Ok(line) = self.lines.try_recv() else {
                return;
            };
            self.write(&line);
        }
    }

    fn write(&mut self, line: &[u8]) {
        // If standard error is closed, log lines are lost.
        drop(self.out.write_all(line));
    }
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let count = match self.to_writer.try_send(line.to_owned()) {
            Ok(()) => &self.counts.queued,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => &self.counts.dropped,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LastLines {
    /// Waits at most `LAST_LINES_TIMEOUT`: a reader that has stopped must not keep the process from ending.
    fn drop(&mut self) {
        let counts = &self.0;
        let is_waiting = |progress: &mut Progress| {
            !progress.has_ended && progress.written < counts.queued.load(Ordering::Relaxed)
        };
        let waited =
            counts
                .progressed
                .wait_timeout_while(counts.progress(), LAST_LINES_TIMEOUT, is_waiting);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Standard error that takes one line for each message in `read`.
    struct Unread {
        read: Receiver<()>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Unread {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // When the other end is dropped, every line is taken.
            self.read.recv().unwrap_or(());
            self.lines.send(line.to_owned()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn logging_does_not_wait_for_the_reader() {
        let (reads, read) = channel();
        let (lines, written) = channel();
        let (mut queue, writer, last) = queue(Unread { read, lines });
        let many = 2 * LINES_MAX;
        thread::spawn(|| writer.run());
        for line in 0..many {
            queue.write_all(&line.to_le_bytes()).unwrap();
        }
        let dropped = queue.counts.dropped.load(Ordering::Relaxed);
        // The thread may hold one line.
        assert!(many as u64 - dropped <= LINES_MAX as u64 + 1, "{dropped}");
        drop(reads);
        let start = Instant::now();
        drop(last);
        assert!(
            start.elapsed() < LAST_LINES_TIMEOUT,
            "the wait ended only by its timeout"
        );
        let count = written.try_iter().count() as u64;
        assert_eq!(count, many as u64 - dropped);
        queue.write_all(b"after").unwrap();
        assert_eq!(written.recv().unwrap(), b"after");
    }

    #[test]
    fn the_end_of_the_process_does_not_wait_forever() {
        let (_reads, read) = channel();
        let (lines, _written) = channel();
        let (mut queue, writer, last) = queue(Unread { read, lines });
        thread::spawn(|| writer.run());
        queue.write_all(b"a").unwrap();
        drop(last);
        assert_eq!(queue.counts.progress().written, 0);
    }

    /// Panics on the first line.
    struct Faulty {
        has_panicked: bool,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Faulty {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            assert!(std::mem::replace(&mut self.has_panicked, true), "planted");
            self.lines.send(line.to_owned()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_after_the_queued_lines_are_written() {
        let (lines, written) = channel();
        let (mut queue, writer, last) = queue(Faulty {
            has_panicked: false,
            lines,
        });
        for line in ["lost", "the line of the panic", "another"] {
            queue.write_all(line.as_bytes()).unwrap();
        }
        assert!(thread::spawn(|| writer.run()).join().is_err());
        let written: Vec<_> = written.try_iter().collect();
        assert_eq!(written, [&b"the line of the panic"[..], b"another"]);

        // Neither later log lines nor the end of the process wait.
        queue.write_all(b"later").unwrap();
        let start = Instant::now();
        drop(last);
        assert!(start.elapsed() < LAST_LINES_TIMEOUT);
    }
}
