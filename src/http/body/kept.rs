//! Bodies that are kept until they are complete, in memory that is bounded.

use std::cell::Cell;
use std::rc::Rc;

/// The smallest memory of a kept body, in bytes.
const KEPT_BYTES_MIN: usize = 1024;

/// Larger bodies leave some of the budget to those that are not: they may take it for minutes.
pub const SMALL_BODY_BYTES: usize = 64 * 1024;

/// The memory that the kept bodies of a shard may take together.
#[derive(Debug)]
pub struct BodyBudget {
    /// Bytes that are left.
    left: Cell<usize>,
    /// Of these, bytes for bodies of at most [`SMALL_BODY_BYTES`].
    small: usize,
}

/// The memory for bodies is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSpent;

impl BodyBudget {
    /// A budget of `bytes` for all bodies, and of `small` for small ones.
    pub fn new(bytes: usize, small: usize) -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(bytes + small),
            small,
        })
    }
}

/// The part of a body that has arrived.
#[derive(Debug)]
pub struct KeptBody {
    bytes: Vec<u8>,
    /// Bytes of the budget that are its own until it is dropped. Its memory is not larger.
    reserved: usize,
    budget: Rc<BodyBudget>,
}

impl KeptBody {
    /// Nothing has arrived.
    pub fn new(budget: Rc<BodyBudget>) -> Self {
        Self {
            bytes: Vec::new(),
            reserved: 0,
            budget,
        }
    }

    /// Reserves memory for a whole body before it arrives. Otherwise bodies that arrive together could use up the budget, and
    /// none of them would be complete.
    pub fn reserve(&mut self, length: usize) -> Result<(), BudgetSpent> {
        let more = length.saturating_sub(self.reserved);
        let kept_free = if length > SMALL_BODY_BYTES {
            self.budget.small
        } else {
            0
        };
        let left = self.budget.left.get();
        if left < more.saturating_add(kept_free) {
            return Err(BudgetSpent);
        }
        self.budget.left.set(left - more);
        self.reserved += more;
        Ok(())
    }

    /// What has arrived.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a part. Reserves memory for it where that was not done before: the length of chunks is not known.
    pub fn append(&mut self, part: &[u8]) -> Result<(), BudgetSpent> {
        let needed = self.bytes.len() + part.len();
        if needed > self.bytes.capacity() {
            let capacity = needed.next_power_of_two().max(KEPT_BYTES_MIN);
            if needed > self.reserved {
                self.reserve(capacity)?;
            }
            let capacity = capacity.min(self.reserved);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

impl Drop for KeptBody {
    fn drop(&mut self) {
        let left = self.budget.left.get() + self.reserved;
        self.budget.left.set(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_a_budget_and_give_it_back() {
        let budget = BodyBudget::new(4 * KEPT_BYTES_MIN, 0);
        let body = || KeptBody::new(Rc::clone(&budget));
        let part = vec![b'x'; KEPT_BYTES_MIN];
        let mut one = body();
        for _ in 0..2 {
            assert_eq!(one.append(&part), Ok(()));
        }
        assert_eq!(one.append(&part), Ok(()));
        assert_eq!((one.bytes().len(), budget.left.get()), (3 * part.len(), 0));
        let mut other = body();
        assert_eq!(other.append(b"y"), Err(BudgetSpent));
        drop(one);
        assert_eq!((other.append(b"y"), other.bytes()), (Ok(()), &b"y"[..]));
        drop(other);
        assert_eq!(budget.left.get(), 4 * KEPT_BYTES_MIN);
    }

    #[test]
    fn large_bodies_leave_memory_to_small_ones() {
        let budget = BodyBudget::new(SMALL_BODY_BYTES, SMALL_BODY_BYTES);
        let body = || KeptBody::new(Rc::clone(&budget));
        let (mut large, mut chunked, mut small) = (body(), body(), body());
        assert_eq!(large.reserve(SMALL_BODY_BYTES + 1), Err(BudgetSpent));
        // One of unknown length may turn out to be large.
        assert_eq!(chunked.append(&[b'x'; SMALL_BODY_BYTES]), Ok(()));
        assert_eq!(chunked.append(b"y"), Err(BudgetSpent));
        assert_eq!(small.reserve(SMALL_BODY_BYTES), Ok(()));
        assert_eq!(budget.left.get(), 0);
        drop((large, chunked, small));
        assert_eq!(budget.left.get(), 2 * SMALL_BODY_BYTES);
    }

    #[test]
    fn a_body_of_known_length_has_its_memory_from_the_start() {
        let budget = BodyBudget::new(3 * KEPT_BYTES_MIN, 0);
        let mut one = KeptBody::new(Rc::clone(&budget));
        assert_eq!(one.reserve(2 * KEPT_BYTES_MIN + 7), Ok(()));
        let mut other = KeptBody::new(Rc::clone(&budget));
        assert_eq!(other.reserve(KEPT_BYTES_MIN), Err(BudgetSpent));
        assert_eq!(other.reserve(KEPT_BYTES_MIN - 7), Ok(()));
        for _ in 0..2 * KEPT_BYTES_MIN + 7 {
            one.append(b"x").unwrap();
            assert!(one.bytes.capacity() <= one.reserved);
        }
        drop((one, other));
        assert_eq!(budget.left.get(), 3 * KEPT_BYTES_MIN);
    }
}
