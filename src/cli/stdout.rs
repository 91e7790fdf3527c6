//! Standard output of commands.

use std::io::{self, Write};

/// Standard output. A reader that closes it early, such as `head`, is no error: the rest is dropped.
pub fn standard_output() -> impl Write {
    IgnoreBrokenPipe(io::stdout().lock())
}

struct IgnoreBrokenPipe<W>(W);

fn unless_broken<T>(outcome: io::Result<T>, if_broken: T) -> io::Result<T> {
    match outcome {
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(if_broken),
        other => other,
    }
}

impl<W: Write> Write for IgnoreBrokenPipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_broken(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_broken(self.0.flush(), ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_is_no_error() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(far);
        let mut out = IgnoreBrokenPipe(near);
        assert!(out.write_all(b"enough").is_ok() && out.flush().is_ok());
        let mut full = IgnoreBrokenPipe(
            std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        );
        assert!(full.write_all(b"more").is_err());
    }
}
