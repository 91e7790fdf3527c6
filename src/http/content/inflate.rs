//! Compressed bodies (RFC 1952), inflated within a bound.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use super::ContentFault;

/// Inflates `body` into `inflated`, to at most `bytes_max` bytes.
pub(super) fn gzip<'b>(
    body: &[u8],
    bytes_max: usize,
    inflated: &'b mut Vec<u8>,
) -> Result<&'b [u8], ContentFault> {
    inflated.clear();
    // One byte more tells that there are more.
    let mut decoder = MultiGzDecoder::new(body).take(bytes_max as u64 + 1);
    match decoder.read_to_end(inflated) {
        Ok(length) if length > bytes_max => Err(ContentFault::InflatedTooLarge),
        Ok(_) => Ok(inflated),
        Err(_) => Err(ContentFault::Malformed {
            reason: "request body: not gzip, or cut short; Content-Encoding says gzip".to_owned(),
            event: None,
        }),
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
