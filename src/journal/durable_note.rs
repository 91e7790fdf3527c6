//! Small files beside the segments of a lane that are replaced as a whole.

use std::io::{self, Write};
use std::path::Path;

use crate::os::fs::{self, File, Use};

/// Writes the file `name` in `directory`. It is durable when this returns, and a crash leaves the one before or this
/// one. Until it takes its place it is called `name.new`.
pub(super) fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut file = File::with(&new, Use::Replace)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &directory.join(name))?;
    fs::sync_dir(directory)
}

/// Makes the notes in `directory` durable as they are read there. Whoever has written or removed one may have failed at the
/// last step, or was killed before it: then a power cut could bring the one before back.
pub fn confirm(directory: &Path) -> io::Result<()> {
    fs::sync_dir(directory)
}

/// Reads the file `name` in `directory`. `None`: there is none. One that cannot be understood is an error: what it
/// says must not be taken for missing.
pub(super) fn read<T>(
    directory: &Path,
    name: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> io::Result<Option<T>> {
    let text = match fs::read_to_string(&directory.join(name)) {
        Ok(text) => text,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(fault),
    };
    parse(&text).map(Some).ok_or_else(|| {
        let text = format!("{}: cannot be understood", directory.join(name).display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// Removes the file `name` from `directory`, if it is there. It stays removed after a crash.
pub(super) fn remove(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(&directory.join(name)) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
        _ => fs::sync_dir(directory),
    }
}

/// The rest of a line that begins with `word` and a space.
pub(super) fn field<'a>(line: Option<&'a str>, word: &str) -> Option<&'a str> {
    line?.strip_prefix(word)?.strip_prefix(' ')
}
