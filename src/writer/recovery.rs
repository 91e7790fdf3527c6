//! Lanes whose owner is gone: fenced, read to their end, and stored beside fresh events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::{Outcome, Run, Storing};
use crate::batch::Batch;
use crate::journal::commit::LaneHandle;
use crate::journal::reader::{Filled, LaneReader, ReadError};
use crate::journal::record::Position;
use crate::journal::storage::Disk;

/// The lanes that a writer recovers, one after the other.
#[derive(Default)]
pub(super) struct Recovery {
    lanes: VecDeque<Replay>,
    batch: Option<Batch>,
}

/// A lane that is recovered.
struct Replay {
    lane: Arc<LaneHandle>,
    /// `None` until the database has said where to begin.
    reader: Option<LaneReader<Disk>>,
    recovered: u64,
}

impl Recovery {
    /// Takes in lanes that were found since.
    pub(super) fn take_new(&mut self, found: &Receiver<Arc<LaneHandle>>) {
        while let Ok(lane) = found.try_recv() {
            self.lanes.push_back(Replay {
                lane,
                reader: None,
                recovered: 0,
            });
        }
    }

    /// Whether there is nothing to recover.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Stores one batch of the first lane.
    pub(super) fn go_on(&mut self, storing: &mut Storing) {
        let Some(mut replay) = self.lanes.pop_front() else {
            return;
        };
        let mut batch = self
            .batch
            .take()
            .unwrap_or_else(|| Batch::new(storing.writer.batch_events));
        if replay.go_on(storing, &mut batch) {
            self.lanes.push_front(replay);
        }
        self.batch = Some(batch);
    }
}

impl Replay {
    /// Whether there may be more.
    fn go_on(&mut self, storing: &mut Storing, batch: &mut Batch) -> bool {
        let Some(start) = self.start(storing) else {
            return true;
        };
        let Some(directory) = &self.lane.directory else {
            return false;
        };
        let (id, directory) = (self.lane.id, directory.clone());
        let reader = self
            .reader
            .get_or_insert_with(|| LaneReader::new(Disk, &directory, id, start));
        batch.clear();
        let first = reader.position();
        let filled = reader.fill(batch, None);
        if !batch.is_empty() {
            let events = batch.len() as u64;
            storing.writer.counters.recovered.add(events);
            self.recovered += events;
            let run = Run {
                batch,
                lane: &self.lane,
                first,
            };
            if storing.store(run, None, true) == Outcome::Left {
                return false;
            }
        }
        match filled {
            Ok(Filled::More) => true,
            Ok(Filled::End { is_torn }) => {
                let tail = if is_torn {
                    "; a record that was never completed is cut"
                } else {
                    ""
                };
                log::info!(
                    "lane {id}: recovered, {} events stored{tail}",
                    self.recovered
                );
                self.lane.set_recovered();
                false
            }
            Err(ReadError::Damage(damage)) => {
                log::error!("lane {id}: {damage}");
                true
            }
            Err(fault @ ReadError::Io { .. }) => {
                log::error!("lane {id}: given up until the next start: {fault}");
                false
            }
        }
    }

    /// Makes the lane ours in the database, and learns how far it is stored.
    fn start(&self, storing: &mut Storing) -> Option<Position> {
        let adopted = storing.open().and_then(|()| storing.checkpoint(&self.lane));
        match adopted {
            Ok(checkpoint) => Some(checkpoint.position),
            Err(fault) => {
                storing.wait(&fault);
                None
            }
        }
    }
}
