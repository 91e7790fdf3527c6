//! The keys of a lane's checkpoints in the database, noted in the file `keys` beside its segments.
//!
//! The first key is the lane's id. A lane gets another one when the checkpoint under its last key proves to be of
//! another copy of the lane, or was altered: from then on its events are stored under the new key. All copies of a lane get
//! the same keys in the same order. So those that have the same events store them under one key, once.

use std::io;
use std::path::Path;

use super::durable_note;
use crate::event::position::{LaneId, Position};
use crate::os::bugs::{Bug, planted};

/// The file's name in the directory of its lane.
const NAME: &str = "keys";

/// The keys of a lane, the last of which is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKeys {
    own: LaneId,
    /// The later ones.
    forks: Vec<Fork>,
}

/// Under this key a lane is stored from a position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fork {
    key: LaneId,
    from: Position,
}

impl LaneKeys {
    /// Those of a lane that was never given another one.
    pub fn new(lane: LaneId) -> Self {
        Self {
            own: lane,
            forks: Vec::new(),
        }
    }

    /// Reads the keys of the lane in `directory`.
    pub fn read(directory: &Path, lane: LaneId) -> io::Result<Self> {
        let parse = |text: &str| text.lines().map(Fork::parse).collect();
        let forks = durable_note::read(directory, NAME, parse)?;
        Ok(Self {
            own: lane,
            forks: forks.unwrap_or_default(),
        })
    }

    /// Notes the keys beside the lane. The note is durable when this returns.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let line = |Fork { key, from }: &Fork| format!("key {key} from {}\n", from.0);
        let text: String = self.forks.iter().map(line).collect();
        durable_note::replace(directory, NAME, &text)
    }

    /// The key of the checkpoint.
    pub fn current(&self) -> LaneId {
        self.forks.last().map_or(self.own, |fork| fork.key)
    }

    /// The key that was given to the lane, if one was.
    pub fn given(&self) -> Option<LaneId> {
        self.forks.last().map(|fork| fork.key)
    }

    /// The key that was given to the lane last, if that was at the position `from`.
    pub fn given_at(&self, from: Position) -> Option<LaneId> {
        let last = self.forks.last().filter(|fork| fork.from == from);
        last.map(|fork| fork.key)
    }

    /// The keys of the lane with one more, under which it is stored from the position `from` on.
    pub fn with_next(&self, from: Position) -> Self {
        let mut keys = self.clone();
        let key = if planted(Bug::KeyOfItsOwn) {
            LaneId::random().unwrap_or(self.own)
        } else {
            self.current().next_key()
        };
        keys.push(key, from);
        keys
    }

    /// Goes back to the key before the last one. Returns from where on the lane was stored under that.
    pub fn pop(&mut self) -> Option<Position> {
        self.forks.pop().map(|fork| fork.from)
    }

    /// Stores under `key` from the position `from` on.
    pub fn push(&mut self, key: LaneId, from: Position) {
        let fork = Fork { key, from };
        if self.forks.last() != Some(&fork) {
            self.forks.push(fork);
        }
    }

    /// The position before which all events of the lane are stored, by the checkpoints in the database. A database
    /// that was restored to a state before the last key was given has that of an earlier key, or none.
    pub fn stored<E>(
        &self,
        mut checkpoint: impl FnMut(LaneId) -> Result<Option<Position>, E>,
    ) -> Result<Position, E> {
        // What the checkpoint of a key says beyond the next key's start is not about this lane.
        let mut limit = None;
        for Fork { key, from } in self.forks.iter().rev() {
            if let Some(position) = checkpoint(*key)? {
                return Ok(limit.map_or(position, |limit| position.min(limit)));
            }
            limit = Some(limit.map_or(*from, |limit: Position| limit.min(*from)));
        }
        let position = checkpoint(self.own)?.unwrap_or(Position::START);
        Ok(limit.map_or(position, |limit| position.min(limit)))
    }
}

impl Fork {
    fn parse(line: &str) -> Option<Self> {
        let (key, from) = durable_note::field(Some(line), "key")?.split_once(" from ")?;
        Some(Self {
            key: key.parse().ok()?,
            from: Position(from.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let lane = LaneId::random().unwrap();
        let mut keys = LaneKeys::read(directory.path(), lane).unwrap();
        assert_eq!((keys.current(), keys.given()), (lane, None));
        for from in [7, 9] {
            let key = LaneId::random().unwrap();
            keys.push(key, Position(from));
            keys.write(directory.path()).unwrap();
            assert_eq!(LaneKeys::read(directory.path(), lane).unwrap(), keys);
            assert_eq!((keys.current(), keys.given()), (key, Some(key)));
            assert_eq!(keys.given_at(Position(from)), Some(key));
            assert_eq!(keys.given_at(Position(8)), None);
            keys.push(key, Position(from));
            assert_eq!(LaneKeys::read(directory.path(), lane).unwrap(), keys);
        }
        std::fs::write(directory.path().join(NAME), "key 12 from 7\n").unwrap();
        let fault = LaneKeys::read(directory.path(), lane).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_last_key_with_a_checkpoint_says_what_is_stored() {
        let [lane, first, second] = [(); 3].map(|()| LaneId::random().unwrap());
        let mut keys = LaneKeys::new(lane);
        keys.push(first, Position(10));
        keys.push(second, Position(20));
        let stored = |checkpoints: &[(LaneId, u64)]| {
            let found: HashMap<_, _> = checkpoints.iter().copied().collect();
            let stored =
                keys.stored(|key| Ok::<_, Infallible>(found.get(&key).copied().map(Position)));
            stored.unwrap().0
        };
        assert_eq!(stored(&[(lane, 1000), (first, 1000), (second, 25)]), 25);
        assert_eq!(stored(&[(lane, 1000), (first, 1000)]), 20);
        assert_eq!(stored(&[(lane, 1000), (first, 15)]), 15);
        assert_eq!(stored(&[(lane, 1000)]), 10);
        assert_eq!(stored(&[(lane, 5)]), 5);
        assert_eq!(stored(&[]), 0);
    }
}
