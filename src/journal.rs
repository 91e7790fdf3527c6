//! The journal: what makes a 200 survive the process, the machine and the database.
//!
//! A [`lane`] is one ordered log, a directory of segments, written by one shard of one process under a
//! lock. [`record`] has its bytes, [`reader`] reads it back, [`commit`] is the thread
//! that writes it for a shard, [`janitor`] finds lanes without an owner and removes old ones, [`storage`] is the disk below.

mod bugs;
pub mod commit;
pub mod inspect;
pub mod janitor;
pub mod lane;
pub mod reader;
pub mod record;
#[cfg(test)]
mod simulation;
pub mod storage;
