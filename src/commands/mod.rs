//! What does not serve: looking at settings, at a journal, at what landed.

pub mod check;
pub mod journal;
pub mod query;
pub mod reconcile;
pub mod report;
