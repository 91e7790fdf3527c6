//! Compressed bodies (RFC 1952), inflated within a bound.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::ContentFault;

/// Compressed bytes that each inflated byte allows. A member for each event has a head, and may have the name of a file.
const READ_PER_BYTE: usize = 4;

/// Compressed bytes that are allowed besides, for heads and for what is inflated ahead.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Most bytes that are inflated at once.
const STEP_BYTES: usize = 16 * 1024;

/// A compressed body that is read as far as it makes bytes. Without that, one of empty members or blocks would take a
/// hundred times as long as any other of its size.
struct Compressed<'b> {
    rest: &'b [u8],
    /// Bytes that may be read before more are made.
    allowed: usize,
}

impl Compressed<'_> {
    const fn is_spent(&self) -> bool {
        self.allowed == 0 && !self.rest.is_empty()
    }
}

impl Read for Compressed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Compressed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.is_spent() {
            return Err(io::Error::other("it makes too few bytes"));
        }
        Ok(&self.rest[..self.allowed.min(self.rest.len())])
    }

    fn consume(&mut self, read: usize) {
        self.rest = &self.rest[read..];
        self.allowed -= read;
    }
}

/// Inflates `body` into `inflated`, to at most `bytes_max` bytes.
pub(super) fn gzip<'b>(
    body: &[u8],
    bytes_max: usize,
    inflated: &'b mut Vec<u8>,
) -> Result<&'b [u8], ContentFault> {
    inflated.clear();
    let mut decoder = MultiGzDecoder::new(Compressed {
        rest: body,
        allowed: READ_AHEAD_BYTES,
    });
    loop {
        // One byte more tells that there are more.
        let step = STEP_BYTES.min(bytes_max + 1 - inflated.len());
        match (&mut decoder).take(step as u64).read_to_end(inflated) {
            Ok(0) => return Ok(inflated),
            Ok(_) if inflated.len() > bytes_max => return Err(ContentFault::InflatedTooLarge),
            Ok(made) => decoder.get_mut().allowed += READ_PER_BYTE * made,
            Err(_) => return Err(not_inflated(decoder.get_ref().is_spent())),
        }
    }
}

fn not_inflated(is_spent: bool) -> ContentFault {
    let reason = if is_spent {
        "request body: gzip that inflates to less than a quarter of its size, as of empty members or blocks"
    } else {
        "request body: not gzip, or cut short; Content-Encoding says gzip"
    };
    ContentFault::Malformed {
        reason: reason.to_owned(),
        event: None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn several_members_are_one_body() {
        let mut inflated = Vec::new();
        let body = [compressed(b"one "), compressed(b"two")].concat();
        assert_eq!(gzip(&body, 7, &mut inflated), Ok(&b"one two"[..]));
        assert_eq!(
            gzip(&body, 6, &mut inflated),
            Err(ContentFault::InflatedTooLarge)
        );
    }

    #[test]
    fn a_small_body_that_inflates_to_much_stops_at_the_bound() {
        let bomb = compressed(&vec![0; 64 << 20]);
        let mut inflated = Vec::new();
        let read = gzip(&bomb, 1 << 20, &mut inflated);
        assert_eq!(read, Err(ContentFault::InflatedTooLarge));
        assert!(inflated.capacity() <= 2 << 20, "{}", inflated.capacity());
    }

    #[test]
    fn what_cannot_be_compressed_is_inflated() {
        let mut random = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(1 << 20)
            .collect();
        let mut inflated = Vec::new();
        for level in 0..10 {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&bytes).unwrap();
            let body = encoder.finish().unwrap();
            assert!(body.len() > bytes.len());
            assert_eq!(gzip(&body, 1 << 20, &mut inflated), Ok(&bytes[..]));
        }
        // A sender that flushes after each event.
        let members = compressed(&bytes[..40]).repeat(15_000);
        assert_eq!(
            gzip(&members, 1 << 20, &mut inflated).map(<[u8]>::len),
            Ok(600_000)
        );
    }

    #[test]
    fn members_and_blocks_that_make_no_bytes_are_not_read_for_long() {
        let mut blocks = GzEncoder::new(Vec::new(), Compression::default());
        for _ in 0..100_000 {
            blocks.flush().unwrap();
        }
        let mut inflated = Vec::new();
        for body in [
            compressed(b"").repeat(52_000),
            compressed(b"x").repeat(52_000),
            blocks.finish().unwrap(),
        ] {
            let Err(ContentFault::Malformed { reason, .. }) = gzip(&body, 1 << 20, &mut inflated)
            else {
                panic!("{} bytes are inflated", body.len());
            };
            assert!(reason.contains("less than a quarter"), "{reason}");
        }
    }

    #[test]
    fn what_is_cut_short_or_followed_by_something_is_refused() {
        let whole = compressed(b"an event");
        let mut inflated = Vec::new();
        for end in 0..whole.len() {
            let read = gzip(&whole[..end], 100, &mut inflated);
            assert!(matches!(read, Err(ContentFault::Malformed { .. })), "{end}");
        }
        let longer = [&whole[..], b"more"].concat();
        let read = gzip(&longer, 100, &mut inflated);
        assert!(matches!(read, Err(ContentFault::Malformed { .. })));
    }
}
