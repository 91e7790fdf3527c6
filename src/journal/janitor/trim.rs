//! Frees the unused space at the end of a segment. It reads as zeros.

use std::io;
use std::path::Path;

use crate::journal::blocks::BLOCK_BYTES;
use crate::os::fs::{File, Use};
use crate::os::reached::reached;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of a segment up to the last block that is not all zeros. The first block alone does not tell
/// whether anything was written: the disk may have lost it.
pub(super) fn written_bytes(segment: &Path) -> io::Result<u64> {
    written(&File::open(segment)?)
}

/// Cuts a segment after the last block that was written. To a reader the end of the file is the same as zeros.
pub(super) fn trim(segment: &Path) -> io::Result<()> {
    let file = File::with(segment, Use::Write)?;
    let written = written(&file)?;
    if written < file.about()?.length {
        reached("janitor: segment trimmed");
        file.set_len(written)?;
    }
    Ok(())
}

fn written(file: &File) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut offset, mut written) = (0, 0);
    loop {
        let read = file.read_at(&mut chunk, offset)?;
        if let Some(last) = chunk[..read].iter().rposition(|&byte| byte != 0) {
            written = (offset + last as u64 + 1).next_multiple_of(BLOCK_BYTES as u64);
        }
        offset += read as u64;
        if read < CHUNK_BYTES {
            return Ok(written.min(offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_segment_is_cut_after_the_last_block_that_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let file = File::create(&path).unwrap();
        let length = || std::fs::metadata(&path).unwrap().len();
        file.set_len(1 << 20).unwrap();
        assert_eq!(written_bytes(&path).unwrap(), 0);
        // The first block may be lost, and the last may be anywhere.
        for (at, cut) in [(5_000, 8_192), (CHUNK_BYTES as u64, 266_240)] {
            file.set_len(1 << 20).unwrap();
            file.write_all_at(&[1], at).unwrap();
            assert_eq!(written_bytes(&path).unwrap(), cut);
            trim(&path).unwrap();
            assert_eq!(length(), cut);
        }
        // A file that ends within a block.
        file.set_len(262_200).unwrap();
        trim(&path).unwrap();
        assert_eq!(length(), 262_200);
        assert_eq!(written_bytes(&path).unwrap(), 262_200);
    }
}
