//! The directory of journal and dead letters.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::ServerError;

/// Opens the data directory and gives the one of the journal in it.
pub(super) fn open(path: &Path) -> Result<PathBuf, ServerError> {
    let journal = path.join("journal");
    make(path, &journal).map_err(|fault| ServerError::DataDir {
        path: path.display().to_string(),
        fault,
    })?;
    Ok(journal)
}

/// Makes the directories where they are missing, their names durable, and tries whether files can be
/// made in them: a dead letter must find no surprise.
fn make(path: &Path, journal: &Path) -> io::Result<()> {
    fs::create_dir_all(journal)?;
    for directory in [path.parent(), Some(path)].into_iter().flatten() {
        let directory = if directory == Path::new("") {
            Path::new(".")
        } else {
            directory
        };
        match fs::File::open(directory) {
            Ok(directory) => directory.sync_all()?,
            // Above the data directory there may be what is not for us to read; then it was there before.
            Err(fault) if directory != path => log::debug!("{}: {fault}", directory.display()),
            Err(fault) => return Err(fault),
        }
    }
    let trial = path.join(format!("trial-{}", std::process::id()));
    fs::write(&trial, b"")?;
    fs::remove_file(&trial)
}
