//! Bodies that are kept until they are complete, in memory that is bounded.

use std::cell::Cell;
use std::rc::Rc;

/// The smallest memory of a kept body, in bytes.
const KEPT_BYTES_MIN: usize = 1024;

/// The memory that the kept bodies of a shard may take together.
#[derive(Debug)]
pub struct BodyBudget {
    /// Bytes that are left.
    left: Cell<usize>,
}

/// The memory for bodies is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSpent;

impl BodyBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(bytes),
        })
    }
}

/// The part of a body that has arrived. Its memory is of the budget until it is dropped.
#[derive(Debug)]
pub struct KeptBody {
    bytes: Vec<u8>,
    budget: Rc<BodyBudget>,
}

impl KeptBody {
    /// Nothing has arrived.
    pub fn new(budget: Rc<BodyBudget>) -> Self {
        Self {
            bytes: Vec::new(),
            budget,
        }
    }

    /// What has arrived.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a part.
    pub fn append(&mut self, part: &[u8]) -> Result<(), BudgetSpent> {
        let needed = self.bytes.len() + part.len();
        if needed > self.bytes.capacity() {
            let before = self.bytes.capacity();
            let capacity = needed.next_power_of_two().max(KEPT_BYTES_MIN);
            let left = self.budget.left.get().checked_sub(capacity - before);
            self.budget.left.set(left.ok_or(BudgetSpent)?);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

impl Drop for KeptBody {
    fn drop(&mut self) {
        let left = self.budget.left.get() + self.bytes.capacity();
        self.budget.left.set(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_a_budget_and_give_it_back() {
        let budget = BodyBudget::new(4 * KEPT_BYTES_MIN);
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
}
