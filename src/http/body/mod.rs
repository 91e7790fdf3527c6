//! Where a request body ends, and what it holds. The next request starts after it, whether it is used or not.

mod kept;

pub use self::kept::{BodyBudget, BudgetSpent, KeptBody, SMALL_BODY_BYTES};

/// Most bytes of chunk sizes, extensions and trailers around a chunked body, beside those that its payload allows.
const CHUNK_OVERHEAD_BYTES_MAX: u64 = 64 * 1024;

/// Such bytes that each byte of payload allows: a chunk of one byte has five, and a sender may write its size with zeros.
const CHUNK_OVERHEAD_FACTOR: u64 = 8;

/// How a request's body is framed (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// The number of bytes, at least 1.
    Length(u64),
    /// Chunks, the last one empty.
    Chunked,
}

impl Framing {
    /// The whole body, if it is at the front of `input` as it is: not in chunks.
    pub fn whole_in(self, input: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Length(length) => input.get(..usize::try_from(length).ok()?),
            Self::Empty | Self::Chunked => None,
        }
    }
}

/// Why the rest of a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// More payload than its bound, or too many bytes around it.
    TooLarge,
    /// Not chunks (RFC 9112 section 7.1).
    Malformed,
}

/// How far a body has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyReader {
    state: BodyState,
    /// Most bytes of payload.
    payload_max: u64,
    /// Bytes of chunks so far, with the present chunk.
    payload: u64,
    /// Bytes of chunk framing so far.
    overhead: u64,
}

/// What some bytes of a body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the sender sends.
    Payload,
    /// What tells where that ends.
    Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    /// Inside a body of known length, with the bytes that are left.
    Length(u64),
    /// In a chunk size; `None` before its first digit.
    Size(Option<u64>),
    /// In blanks after the digits of a size.
    SizeBlank(u64),
    /// In a chunk extension, which is ignored.
    Extension(u64),
    /// At the line feed that ends the size line.
    SizeEnd(u64),
    /// Inside a chunk, with the bytes that are left.
    Data(u64),
    /// At the carriage return after a chunk.
    DataReturn,
    /// At the line feed after a chunk.
    DataFeed,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    /// In the name of a trailer field.
    TrailerName,
    /// In its value.
    TrailerValue,
    /// At the line feed that ends it.
    TrailerEnd,
    /// At the line feed of the empty line.
    LastFeed,
    /// After the last byte.
    Done,
}

impl BodyReader {
    /// At the first byte of a body of at most `payload_max` bytes. Refuses a greater length at once.
    pub fn start(framing: Framing, payload_max: u64) -> Result<Self, BodyFault> {
        let state = match framing {
            Framing::Empty => BodyState::Done,
            Framing::Length(length) if length > payload_max => return Err(BodyFault::TooLarge),
            Framing::Length(length) => BodyState::Length(length),
            Framing::Chunked => BodyState::Size(None),
        };
        Ok(Self {
            state,
            payload_max,
            payload: 0,
            overhead: 0,
        })
    }

    /// Most bytes of payload.
    pub fn payload_max(&self) -> u64 {
        self.payload_max
    }

    /// Whether the whole body has been read.
    pub fn is_done(&self) -> bool {
        self.state == BodyState::Done
    }

    /// Reads at least one byte of `input`, which must not be empty while the body has not ended. Returns how many bytes were
    /// read: all of them payload, or all of them framing.
    pub fn step(&mut self, input: &[u8]) -> Result<(usize, Part), BodyFault> {
        let (BodyState::Length(left) | BodyState::Data(left)) = self.state else {
            self.overhead += 1;
            let allowed = CHUNK_OVERHEAD_BYTES_MAX + self.payload * CHUNK_OVERHEAD_FACTOR;
            if self.overhead > allowed {
                return Err(BodyFault::TooLarge);
            }
            self.state = self.after(input[0])?;
            return Ok((1, Part::Framing));
        };
        let here = left.min(input.len() as u64);
        self.state = match (self.state, left - here) {
            (BodyState::Length(_), 0) => BodyState::Done,
            (BodyState::Length(_), left) => BodyState::Length(left),
            (_, 0) => BodyState::DataReturn,
            (_, left) => BodyState::Data(left),
        };
        #[expect(clippy::cast_possible_truncation, reason = "at most input.len()")]
        let here = here as usize;
        Ok((here, Part::Payload))
    }

    /// The state after one byte of chunk framing.
    fn after(&mut self, byte: u8) -> Result<BodyState, BodyFault> {
        Ok(match (self.state, byte) {
            (BodyState::Size(size), digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).unwrap_or(0);
                let size = size.unwrap_or(0).saturating_mul(16) + u64::from(digit);
                if self.payload + size > self.payload_max {
                    return Err(BodyFault::TooLarge);
                }
                BodyState::Size(Some(size))
            }
            (
                BodyState::Size(Some(size))
                | BodyState::SizeBlank(size)
                | BodyState::Extension(size),
                b'\r',
            ) => BodyState::SizeEnd(size),
            (BodyState::Size(Some(size)) | BodyState::SizeBlank(size), b' ' | b'\t') => {
                BodyState::SizeBlank(size)
            }
            (BodyState::Size(Some(size)) | BodyState::SizeBlank(size), b';') => {
                BodyState::Extension(size)
            }
            (BodyState::Extension(size), byte) if is_text(byte) => BodyState::Extension(size),
            (BodyState::SizeEnd(0), b'\n') => BodyState::TrailerStart,
            (BodyState::SizeEnd(size), b'\n') => {
                self.payload += size;
                BodyState::Data(size)
            }
            (BodyState::DataReturn, b'\r') => BodyState::DataFeed,
            (BodyState::DataFeed, b'\n') => BodyState::Size(None),
            (BodyState::TrailerStart, b'\r') => BodyState::LastFeed,
            (BodyState::LastFeed, b'\n') => BodyState::Done,
            (BodyState::TrailerName, b':') => BodyState::TrailerValue,
            (BodyState::TrailerStart | BodyState::TrailerName, byte)
                if byte.is_ascii_graphic() && byte != b':' =>
            {
                BodyState::TrailerName
            }
            (BodyState::TrailerValue, b'\r') => BodyState::TrailerEnd,
            (BodyState::TrailerValue, byte) if is_text(byte) => BodyState::TrailerValue,
            (BodyState::TrailerEnd, b'\n') => BodyState::TrailerStart,
            _ => return Err(BodyFault::Malformed),
        })
    }
}

/// What a field value may hold (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7F)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD_MAX: u64 = 64 * 1024;

    /// Skips `input` in pieces of `piece` bytes. Returns how many bytes belonged to the body, if it has ended.
    fn skip(framing: Framing, input: &[u8], piece: usize) -> Result<Option<usize>, BodyFault> {
        let mut reader = BodyReader::start(framing, PAYLOAD_MAX)?;
        let mut used = 0;
        while used < input.len() && !reader.is_done() {
            let end = input.len().min(used + piece);
            while used < end && !reader.is_done() {
                used += reader.step(&input[used..end])?.0;
            }
        }
        Ok(reader.is_done().then_some(used))
    }

    #[test]
    fn the_payload_of_chunks_is_told_from_their_framing() {
        let chunked = b"5\r\nhello\r\n0a;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n";
        let mut reader = BodyReader::start(Framing::Chunked, PAYLOAD_MAX).unwrap();
        let (mut rest, mut payload) = (&chunked[..], Vec::new());
        while !reader.is_done() {
            let (used, part) = reader.step(rest).unwrap();
            if part == Part::Payload {
                payload.extend_from_slice(&rest[..used]);
            }
            rest = &rest[used..];
        }
        assert_eq!((&payload[..], rest), (&b"hello0123456789"[..], &b""[..]));
    }

    #[test]
    fn the_end_is_found_however_the_input_is_split() {
        let chunked = b"5\r\nhello\r\n0a;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nGET /";
        for piece in 1..chunked.len() {
            assert_eq!(
                skip(Framing::Chunked, chunked, piece),
                Ok(Some(chunked.len() - 5))
            );
            assert_eq!(skip(Framing::Length(7), chunked, piece), Ok(Some(7)));
        }
        assert_eq!(skip(Framing::Chunked, b"5\r\nhel", 3), Ok(None));
        assert_eq!(skip(Framing::Empty, b"GET /", 5), Ok(Some(0)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            &b"x\r\n"[..],
            b"\r\n",
            b"5\r\nhelloo\r\n",
            b"5\nhello",
            b"5;a\nhello",
            b"-1\r\n",
            b"2 9\r\n",
            b"1;\0\r\n",
            b"0\r\n\n",
            b"0\r\n\r\r",
            b"0\r\nno colon\r\n",
            b"0\r\nname: value\n",
        ] {
            assert_eq!(
                skip(Framing::Chunked, input, 1),
                Err(BodyFault::Malformed),
                "{input:?}"
            );
        }
    }

    #[test]
    fn payload_and_framing_are_bounded() {
        assert_eq!(
            BodyReader::start(Framing::Length(PAYLOAD_MAX + 1), PAYLOAD_MAX),
            Err(BodyFault::TooLarge)
        );
        assert!(BodyReader::start(Framing::Length(PAYLOAD_MAX), PAYLOAD_MAX).is_ok());
        let too_large = Err(BodyFault::TooLarge);
        assert_eq!(skip(Framing::Chunked, b"10001\r\n", 9), too_large);
        assert_eq!(
            skip(Framing::Chunked, b"ffffffffffffffffffffffff\r\n", 9),
            too_large
        );
        let extension = [b"1;".to_vec(), vec![b'a'; 70_000]].concat();
        assert_eq!(skip(Framing::Chunked, &extension, 100), too_large);
        let mut chunks = Vec::new();
        for _ in 0..5 {
            chunks.extend(b"4000\r\n");
            chunks.extend(vec![0; 0x4000]);
            chunks.extend(b"\r\n");
        }
        assert_eq!(skip(Framing::Chunked, &chunks, 1000), too_large);
    }

    #[test]
    fn a_body_of_the_smallest_chunks_is_read() {
        let mut chunks = b"1\r\nx\r\n".repeat(60_000);
        chunks.extend(b"0\r\n\r\n");
        assert_eq!(
            skip(Framing::Chunked, &chunks, 1000),
            Ok(Some(chunks.len()))
        );
    }
}
