//! The journal: events on disk, which survive a crash and an unreachable database.
//!
//! A lane is one ordered log: a directory of segments. One shard of one process writes it and holds its lock.
//!
//! - [`record`] has the format: the bytes of segments and records.
//! - [`segment`] has the files of a lane.
//! - [`lane_cursor`] and [`blocks`] decide what is written where.
//! - [`disk_thread`] does the blocking disk operations of a shard.
//! - [`lane_handle`] is the state of a lane that its shard, its writer and the janitor share.
//! - [`reader`] reads a lane back.
//! - [`janitor`] takes over lanes without an owner and removes old segments and lanes.
//! - [`quota`] is `--journal-limit`.

pub mod blocks;
pub mod disk_thread;
pub mod durable_note;
mod event_bytes;
mod found_events;
pub mod held_lane;
pub mod janitor;
pub mod lane_cursor;
pub mod lane_end;
pub mod lane_handle;
pub mod lane_keys;
pub mod lane_label;
pub mod lane_writer;
pub mod quota;
pub mod reader;
pub mod record;
pub mod refused_note;
mod removal;
pub mod row_witnesses;
pub mod segment;
pub mod served_database;
pub mod stored_note;
