//! Skips a request body. No request uses its body, but the next request starts after it.

use super::BODY_BYTES_MAX;

/// Most bytes of chunk sizes, extensions and trailers around a chunked body.
const CHUNK_OVERHEAD_BYTES_MAX: u64 = 64 * 1024;

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

/// Why the rest of a body cannot be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// More than [`BODY_BYTES_MAX`] of payload, or more than `CHUNK_OVERHEAD_BYTES_MAX` around it.
    TooLarge,
    /// Not chunks (RFC 9112 section 7.1).
    Malformed,
}

/// How far a body has been skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    state: BodyState,
    /// Bytes of chunks so far, with the present chunk.
    payload: u64,
    /// Bytes of chunk framing so far.
    overhead: u64,
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

impl Skip {
    /// At the first byte of a body. Refuses a length above the bound at once.
    pub fn start(framing: Framing) -> Result<Self, BodyFault> {
        let state = match framing {
            Framing::Empty => BodyState::Done,
            Framing::Length(length) if length > BODY_BYTES_MAX => return Err(BodyFault::TooLarge),
            Framing::Length(length) => BodyState::Length(length),
            Framing::Chunked => BodyState::Size(None),
        };
        Ok(Self {
            state,
            payload: 0,
            overhead: 0,
        })
    }

    /// Whether the whole body has been skipped.
    pub fn is_done(&self) -> bool {
        self.state == BodyState::Done
    }

    /// Skips the bytes of `input` that belong to the body. Returns how many they were.
    pub fn advance(&mut self, input: &[u8]) -> Result<usize, BodyFault> {
        let mut used = 0;
        while used < input.len() && !self.is_done() {
            match self.state {
                BodyState::Length(left) | BodyState::Data(left) => {
                    let here = left.min((input.len() - used) as u64);
                    #[expect(clippy::cast_possible_truncation, reason = "at most input.len()")]
                    {
                        used += here as usize;
                    }
                    self.state = match (self.state, left - here) {
                        (BodyState::Length(_), 0) => BodyState::Done,
                        (BodyState::Length(_), left) => BodyState::Length(left),
                        (_, 0) => BodyState::DataReturn,
                        (_, left) => BodyState::Data(left),
                    };
                }
                _ => {
                    self.overhead += 1;
                    if self.overhead > CHUNK_OVERHEAD_BYTES_MAX {
                        return Err(BodyFault::TooLarge);
                    }
                    self.state = self.after(input[used])?;
                    used += 1;
                }
            }
        }
        Ok(used)
    }

    /// The state after one byte of chunk framing.
    fn after(&mut self, byte: u8) -> Result<BodyState, BodyFault> {
        Ok(match (self.state, byte) {
            (BodyState::Size(size), digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).unwrap_or(0);
                let size = size.unwrap_or(0).saturating_mul(16) + u64::from(digit);
                if self.payload + size > BODY_BYTES_MAX {
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

    /// Skips `input` in pieces of `piece` bytes. Returns how many bytes belonged to the body, if it has ended.
    fn skip(framing: Framing, input: &[u8], piece: usize) -> Result<Option<usize>, BodyFault> {
        let mut skip = Skip::start(framing)?;
        let mut used = 0;
        while used < input.len() && !skip.is_done() {
            let end = input.len().min(used + piece);
            used += skip.advance(&input[used..end])?;
        }
        Ok(skip.is_done().then_some(used))
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
            Skip::start(Framing::Length(BODY_BYTES_MAX + 1)),
            Err(BodyFault::TooLarge)
        );
        assert!(Skip::start(Framing::Length(BODY_BYTES_MAX)).is_ok());
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
}
