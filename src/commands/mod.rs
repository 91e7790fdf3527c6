//! Commands other than serving: they check the settings, read a journal, report the stored events.

pub mod check;
pub mod dead_letters;
pub mod journal;
pub mod query;
pub mod reconcile;
pub mod report;
