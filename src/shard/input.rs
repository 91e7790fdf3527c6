//! Buffers for what connections have read and not answered yet. On io_uring an idle connection has none.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::http::HEAD_BYTES_MAX;

/// Most bytes of a read of a readable socket. It is as large as the longest part of a request that is kept,
/// so that both fit into [`INPUT_BYTES_MAX`].
pub const READ_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// Largest input buffer of a connection, which pipelines or sends the largest head.
pub const INPUT_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;

/// Smallest input buffer of a connection: on epoll the buffer of an idle connection, on io_uring the buffer
/// of a connection in the middle of a small request.
const INPUT_BYTES_MIN: usize = 1024;

/// The memory for input that the connections of a shard share, on io_uring. Each needs it only from its read
/// to its answer.
#[derive(Debug)]
pub struct Inputs {
    /// The bytes of the present read.
    pub arrived: RefCell<Box<[u8]>>,
    /// The buffer that is lent to the connection being answered. It has no capacity while it is lent.
    spare: RefCell<BytesMut>,
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            arrived: RefCell::new(vec![0; READ_BYTES_MAX].into()),
            spare: RefCell::default(),
        }
    }
}

impl Inputs {
    /// Appends `bytes`, at most [`READ_BYTES_MAX`], to an input of at most [`HEAD_BYTES_MAX`]. If the input has no
    /// room, it moves to the shared buffer, or to a new one if the shared one is lent.
    pub fn append(&self, input: &mut BytesMut, bytes: &[u8]) {
        if input.capacity() - input.len() < bytes.len() {
            // Not left to `BytesMut`, which doubles its capacity when it cannot move to its own front.
            let mut roomy = self.spare.take();
            // Moves the empty view back to the front of its buffer, without allocating.
            roomy.reserve(INPUT_BYTES_MAX);
            roomy.extend_from_slice(input);
            *input = roomy;
        }
        input.extend_from_slice(bytes);
    }

    /// Takes the buffer back if all of it is answered, or if the rest fits into a small one.
    pub fn release(&self, input: &mut BytesMut) {
        if input.len() > INPUT_BYTES_MIN {
            return;
        }
        // The capacity of the whole allocation. That of the view is small after most of it is answered.
        let is_large = input.try_reclaim(INPUT_BYTES_MIN + 1);
        let mut rest = BytesMut::new();
        if !input.is_empty() {
            if !is_large {
                return;
            }
            rest.reserve(INPUT_BYTES_MIN);
            rest.extend_from_slice(input);
            input.clear();
        }
        let buffer = std::mem::replace(input, rest);
        if is_large {
            self.spare.replace(buffer);
        }
    }
}

/// Makes room for a read on epoll; `last` is the length of the previous read. Doubles the buffer while reads
/// fill it, and returns to the smallest one when they are small again.
pub fn make_room(input: &mut BytesMut, last: usize) {
    if !input.is_empty() {
        // A head stays in front while its body is read, so that a read may be small and fill all of the room.
        // `capacity` does not count the bytes of requests that are already answered, so the length of the last read counts too.
        let capacity = input.capacity();
        if last >= capacity - input.len() && capacity < INPUT_BYTES_MAX {
            let wanted = (capacity.max(last) * 2).clamp(INPUT_BYTES_MIN, INPUT_BYTES_MAX);
            if !input.try_reclaim(wanted - input.len()) {
                // Not left to `BytesMut`, which doubles its capacity when it cannot move to its own front.
                let mut roomy = BytesMut::with_capacity(wanted);
                roomy.extend_from_slice(input);
                *input = roomy;
            }
        }
        return;
    }
    // Moves the empty view back to the front of its buffer, without allocating.
    input.reserve(INPUT_BYTES_MIN);
    let capacity = input.capacity();
    if last >= capacity && capacity < INPUT_BYTES_MAX {
        input.reserve(capacity * 2);
    } else if capacity > INPUT_BYTES_MIN * 2 && last <= INPUT_BYTES_MIN {
        *input = BytesMut::with_capacity(INPUT_BYTES_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;

    #[test]
    fn one_buffer_serves_connections_in_turn() {
        let inputs = Inputs::default();
        let mut one = BytesMut::new();
        inputs.append(&mut one, b"GET / HTTP/1.1\r\n\r\n");
        let memory = one.as_ptr();
        one.advance(one.len());
        inputs.release(&mut one);
        assert_eq!(one.capacity(), 0);
        let mut other = BytesMut::new();
        inputs.append(&mut other, b"GET ");
        assert_eq!((other.as_ptr(), &other[..]), (memory, &b"GET "[..]));
    }

    #[test]
    fn a_buffer_comes_back_whole_when_it_was_full() {
        let inputs = Inputs::default();
        for left in [0, 10, INPUT_BYTES_MIN] {
            let mut input = BytesMut::new();
            inputs.append(&mut input, &[b'x'; READ_BYTES_MAX]);
            inputs.append(&mut input, &[b'x'; READ_BYTES_MAX]);
            let memory = input.as_ptr();
            input.advance(input.len() - left);
            inputs.release(&mut input);
            assert_eq!(input.len(), left);
            assert!(input.capacity() <= INPUT_BYTES_MIN);
            let mut other = BytesMut::new();
            inputs.append(&mut other, b"y");
            assert_eq!(other.as_ptr(), memory, "{left} left");
            other.advance(1);
            inputs.release(&mut other);
        }
    }

    #[test]
    fn releasing_an_empty_input_keeps_the_spare() {
        let inputs = Inputs::default();
        let mut input = BytesMut::new();
        inputs.append(&mut input, b"x");
        let memory = input.as_ptr();
        input.advance(1);
        inputs.release(&mut input);
        inputs.release(&mut input);
        inputs.append(&mut input, b"y");
        assert_eq!(input.as_ptr(), memory);
    }

    #[test]
    fn a_request_that_has_only_begun_holds_little() {
        let inputs = Inputs::default();
        let mut input = BytesMut::new();
        for &byte in b"GET /hakaru?name=a" {
            inputs.append(&mut input, &[byte]);
            inputs.release(&mut input);
            assert!(input.capacity() <= INPUT_BYTES_MIN, "{}", input.capacity());
        }
        assert_eq!(&input[..], b"GET /hakaru?name=a");
        assert!(inputs.spare.borrow().capacity() > INPUT_BYTES_MIN);
    }

    #[test]
    fn no_input_outgrows_its_bound() {
        let inputs = Inputs::default();
        // For any answered part of a read, and any part of the next that is a skipped body.
        for answered in [0, 1, HEAD_BYTES_MAX / 2, HEAD_BYTES_MAX - 1] {
            for kept in [1, HEAD_BYTES_MAX / 2 + 1, HEAD_BYTES_MAX] {
                let mut input = BytesMut::new();
                inputs.append(&mut input, &[b'a'; READ_BYTES_MAX]);
                input.advance(answered);
                inputs.append(&mut input, &[b'b'; READ_BYTES_MAX]);
                input.truncate(kept);
                let head = input.to_vec();
                inputs.append(&mut input, &[b'c'; READ_BYTES_MAX]);
                assert!(input.capacity() <= INPUT_BYTES_MAX, "{answered}, {kept}");
                assert_eq!(input[..kept], head);
                assert_eq!(input[kept..], [b'c'; READ_BYTES_MAX]);
            }
        }
    }

    #[test]
    fn the_buffer_grows_with_what_arrives_and_shrinks_again() {
        let mut input = BytesMut::with_capacity(INPUT_BYTES_MIN);
        for _ in 0..10 {
            let full = input.capacity();
            make_room(&mut input, full);
            assert!(input.capacity() <= INPUT_BYTES_MAX, "{}", input.capacity());
        }
        assert_eq!(input.capacity(), INPUT_BYTES_MAX);
        make_room(&mut input, 80);
        assert_eq!(input.capacity(), INPUT_BYTES_MIN);
    }

    #[test]
    fn a_body_is_read_in_large_pieces_behind_a_head_that_fills_the_buffer() {
        let mut input = BytesMut::with_capacity(INPUT_BYTES_MIN);
        let head = INPUT_BYTES_MIN - 4;
        let mut read = INPUT_BYTES_MIN;
        for _ in 0..5 {
            input.resize(head, b'h');
            make_room(&mut input, read);
            read = input.capacity() - input.len();
        }
        assert_eq!(input.capacity(), INPUT_BYTES_MAX);
        // Behind a request that is answered, too.
        let mut input = BytesMut::with_capacity(INPUT_BYTES_MIN);
        input.resize(600, b'h');
        input.advance(100);
        for _ in 0..10 {
            let room = input.capacity() - input.len();
            make_room(&mut input, room);
        }
        assert_eq!(input[..], [b'h'; 500]);
        input.clear();
        assert!(!input.try_reclaim(INPUT_BYTES_MAX + 1), "its memory");
        // It does not grow for what arrives slowly.
        let mut input = BytesMut::with_capacity(INPUT_BYTES_MIN);
        input.resize(head - 10, b'h');
        make_room(&mut input, 1);
        assert_eq!(input.capacity(), INPUT_BYTES_MIN);
    }

    #[test]
    fn reads_after_answered_requests_stay_large() {
        for left in [1, 24, 500] {
            let mut input = BytesMut::with_capacity(INPUT_BYTES_MIN);
            input.resize(INPUT_BYTES_MIN, b'g');
            input.advance(INPUT_BYTES_MIN - left);
            make_room(&mut input, INPUT_BYTES_MIN);
            assert!(
                input.capacity() - input.len() >= INPUT_BYTES_MIN,
                "{left} left"
            );
        }
    }

    #[test]
    fn a_full_buffer_with_an_incomplete_head_gets_more_room() {
        let mut input = BytesMut::with_capacity(INPUT_BYTES_MIN);
        while input.len() < HEAD_BYTES_MAX {
            let room = input.capacity() - input.len();
            input.extend_from_slice(&vec![b'x'; room]);
            make_room(&mut input, room);
        }
        assert!((HEAD_BYTES_MAX..=INPUT_BYTES_MAX).contains(&input.capacity()));
    }
}
