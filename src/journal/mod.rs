//! The journal: what makes a 200 survive the process, the machine and the database.
//!
//! A lane is one ordered log, a directory of [`segment`]s, written by one shard of one process under a
//! lock. [`record`] has its bytes, [`lane_cursor`] and [`blocks`] say what is written where, [`disk_thread`] writes
//! it, [`lane_handle`] is what all who know a lane share, [`reader`] reads it back, [`janitor`] finds lanes
//! without an owner, notes how far each is stored and removes old ones, `hakaru journal` shows them to people, [`storage`] is the disk below.

pub mod blocks;
mod bugs;
pub mod disk_thread;
pub mod janitor;
pub mod lane_cursor;
pub mod lane_handle;
pub mod quota;
pub mod reader;
pub mod record;
pub mod segment;
#[cfg(test)]
mod simulation;
pub mod storage;
mod stored_note;
#[cfg(test)]
pub(crate) mod test_writer;
