//! A note of the events of a lane that are dead letters no more, because they were replayed or dropped: they are
//! never stored from this lane, also where its checkpoint goes back.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use crate::event::position::Position;
use crate::os::fs::{self, File, Use};

/// The file's name in the directory of its lane.
const NAME: &str = "refused";

/// Digits of a position: all lines have one length, so that half a line is none.
const DIGITS: usize = 20;

/// Adds positions, and returns when they are on the disk.
pub fn add(directory: &Path, positions: &[Position]) -> io::Result<()> {
    let owner = fs::about(directory)?.owner;
    let path = directory.join(NAME);
    let mut file = File::with(&path, Use::Append)?;
    if file.about()?.owner != owner {
        fs::set_owner(&path, owner)?;
    }
    // Behind half a line that a crash may have left.
    let mut lines = String::from("\n");
    for position in positions {
        lines.push_str(&format!("{:0DIGITS$}\n", position.0));
    }
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    fs::sync_dir(directory)
}

/// All that were added.
pub fn read(directory: &Path) -> io::Result<BTreeSet<Position>> {
    let bytes = match fs::read(&directory.join(NAME)) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        read => read?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.lines().filter(|line| line.len() == DIGITS);
    Ok(whole
        .filter_map(|line| line.parse().ok().map(Position))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_added_is_read_and_half_a_line_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), BTreeSet::new());
        add(directory.path(), &[Position(7), Position(123_456)]).unwrap();
        let path = directory.path().join(NAME);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"\xff\0\n0000000000000000009");
        fs::write(&path, text).unwrap();
        add(directory.path(), &[Position(8)]).unwrap();
        let expected = [7, 8, 123_456].map(Position).into();
        assert_eq!(read(directory.path()).unwrap(), expected);
    }
}
