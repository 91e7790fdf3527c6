//! Standard output for answers to people and programs.

use std::io::{self, Write};

/// Standard output. A reader that has seen enough, such as `head`, is no fault: what comes behind is dropped.
pub fn standard_output() -> impl Write {
    Patient(io::stdout().lock())
}

struct Patient<W>(W);

fn unless_gone<T>(outcome: io::Result<T>, gone: T) -> io::Result<T> {
    match outcome {
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(gone),
        other => other,
    }
}

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_gone(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_gone(self.0.flush(), ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_gone_is_no_fault_and_others_are() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(far);
        let mut out = Patient(near);
        assert!(out.write_all(b"enough").is_ok() && out.flush().is_ok());
        let mut full = Patient(
            std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        );
        assert!(full.write_all(b"more").is_err());
    }
}
