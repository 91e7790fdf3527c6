//! Dead letters on their way home: through a lane of the journal, as events of an earlier process.
//!
//! The steps, each durable before the next:
//!
//! 1. The letters are durable in their file, and are written to one lane for each database that refused some. The lanes
//!    are *staged*: their directories have names that nobody takes for a lane's. Each is labelled with its database.
//! 2. The lanes that the letters come from note that these events are never to be stored from there.
//! 3. The file of letters is replaced by one without them, which names the staged lanes. From this moment on they
//!    are events of those lanes, and before it they are letters.
//! 4. Each staged lane gets a lane's name, and is stored by the server of its database that runs or starts next.
//!
//! [`finish`] does what a crash has left undone: the fourth step where the third was done, else it removes the
//! staged lanes. The lock of the file of letters is held from the first step to the fourth.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::event::database_id::DatabaseId;
use crate::event::position::{LaneId, Position};
use crate::journal::lane_label::LaneLabel;
use crate::journal::lane_writer::LaneWriter;
use crate::journal::record::{append_event, begin_record};
use crate::journal::refused_note;
use crate::journal::segment::{lanes, segment_bytes};
use crate::os::bugs::{Bug, planted};
use crate::os::fs::{self, File, Use};
use crate::sink::dead_letters::FILE_NAME;
use crate::sink::dead_letters::file::{Letters, LockedLetters, own_as, sync_parent};
use crate::sink::dead_letters::letter::{Letter, Line};

/// What the name of a staged lane's directory begins with.
const STAGED_PREFIX: &str = "replay-";

/// The file in a staged lane's directory that has its letters as they stood in the file.
const LETTERS_NAME: &str = "letters";

/// A record is ended when it holds this many bytes.
const RECORD_BYTES: usize = 64 * 1024;

/// How long [`finish`] waits for the lock of the file of letters.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a command has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Letters that were replayed or dropped.
    pub letters: usize,
    /// Letters that are left.
    pub left: usize,
    /// Lines that are no letters, which stay.
    pub unreadable: usize,
    /// Letters among those that are left which would have been replayed, but name no database.
    pub without_database: usize,
    /// The lanes from which replayed letters are stored.
    pub lanes: Vec<ReplayedLane>,
}

/// A lane that a replay made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayedLane {
    /// Its id.
    pub id: LaneId,
    /// The database that it waits for. `None`: the one that is served next.
    pub database: Option<DatabaseId>,
    /// Letters that are its events.
    pub letters: usize,
}

/// What is done with a letter that does not say which database refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutDatabase {
    /// It stays a letter.
    Leave,
    /// It goes into the database that is served next.
    Replay,
}

/// Why letters could not be replayed or dropped. Each of them is a letter or in the journal.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file cannot be read or written.
    #[error("{}: {fault}", path.display())]
    Io {
        /// The file, or the directory in which it is.
        path: PathBuf,
        /// What the system said.
        fault: io::Error,
    },
    /// The letters of a replay that was cut short were moved out of the file: they may be stored elsewhere.
    #[error(
        "{}: holds letters of a replay that was cut short, and they are no longer in {FILE_NAME}: give the directory \
         the name of a lane, without `{STAGED_PREFIX}`, to have them stored, or remove it", .0.display()
    )]
    Moved(PathBuf),
}

/// Adds the path to what the system said.
fn at(path: &Path) -> impl Fn(io::Error) -> ReplayError + '_ {
    |fault| ReplayError::Io {
        path: path.to_owned(),
        fault,
    }
}

/// Has the letters that `is_wanted` stored again, each once, in the database that refused it.
pub fn replay(
    data_dir: &Path,
    without_database: WithoutDatabase,
    is_wanted: impl Fn(&Letter) -> bool,
) -> Result<Moved, ReplayError> {
    let is_known =
        |letter: &Letter| letter.database.is_some() || without_database == WithoutDatabase::Replay;
    let taken = take(
        data_dir,
        |letter| is_known(letter) && is_wanted(letter),
        true,
    );
    let taken = taken.map(|(mut moved, left)| {
        let left = left.letters.iter();
        let unknown = left.filter(|letter| !is_known(letter) && is_wanted(letter));
        moved.without_database = unknown.count();
        moved
    });
    // What was staged takes disk space. Where this fails too, the next command or start does it.
    taken.inspect_err(|_| drop(finish(data_dir)))
}

/// Removes the letters that `is_wanted`: they are never stored.
pub fn discard(data_dir: &Path, is_wanted: impl Fn(&Letter) -> bool) -> Result<Moved, ReplayError> {
    take(data_dir, is_wanted, false).map(|(moved, _)| moved)
}

/// Whether a replay is under way, or was cut short.
pub fn is_unfinished(data_dir: &Path) -> Result<bool, ReplayError> {
    let journal = data_dir.join("journal");
    Ok(!staged(&journal).map_err(at(&journal))?.is_empty())
}

/// Takes letters out of the file. Also gives those that are left.
fn take(
    data_dir: &Path,
    is_wanted: impl Fn(&Letter) -> bool,
    is_replay: bool,
) -> Result<(Moved, Letters), ReplayError> {
    let (path, journal) = (data_dir.join(FILE_NAME), data_dir.join("journal"));
    let file = LockedLetters::lock(data_dir, None).map_err(at(&path))?;
    let letters = file.as_ref().map(LockedLetters::read).transpose();
    let mut letters = letters.map_err(at(&path))?.unwrap_or_default();
    let unknown = finish_staged(&journal, file.as_ref(), &letters).map_err(at(&journal))?;
    if let Some(unknown) = unknown.into_iter().next() {
        return Err(ReplayError::Moved(unknown));
    }
    let Some(file) = file else {
        return Ok((Moved::default(), letters));
    };
    let taken = letters.take(is_wanted);
    let mut moved = Moved {
        letters: taken.len(),
        left: letters.letters.len(),
        unreadable: letters.unreadable(),
        ..Moved::default()
    };
    if taken.is_empty() {
        return Ok((moved, letters));
    }
    // Where a later step fails they must still be letters.
    file.sync().map_err(at(&path))?;
    if is_replay {
        moved.lanes = stage_by_database(&journal, &taken)?;
    }
    if !planted(Bug::ReplayedNotNoted) {
        note_refused(&journal, &taken).map_err(at(&journal))?;
    }
    if planted(Bug::ReplayedTooEarly) {
        for lane in &moved.lanes {
            publish(&journal, lane.id).map_err(at(&journal))?;
        }
        moved.lanes.clear();
    }
    let replayed = moved.lanes.iter().map(|lane| lane.id);
    let _locked = file.replace(&letters, replayed).map_err(at(&path))?;
    for lane in &moved.lanes {
        publish(&journal, lane.id).map_err(at(&journal))?;
    }
    Ok((moved, letters))
}

/// Does what a replay that was cut short has left undone. Gives the staged lanes that nobody can judge: their
/// letters are not in the file any more, which does not name them.
pub fn finish(data_dir: &Path) -> Result<Vec<PathBuf>, ReplayError> {
    let (path, journal) = (data_dir.join(FILE_NAME), data_dir.join("journal"));
    if !is_unfinished(data_dir)? {
        return Ok(Vec::new());
    }
    // A command that is at work holds the lock until it is done. One that was stopped keeps no server from starting.
    let file = LockedLetters::lock(data_dir, Some(PATIENCE)).map_err(at(&path))?;
    let letters = file.as_ref().map(LockedLetters::read).transpose();
    let letters = letters.map_err(at(&path))?.unwrap_or_default();
    finish_staged(&journal, file.as_ref(), &letters).map_err(at(&journal))
}

fn finish_staged(
    journal: &Path,
    file: Option<&LockedLetters>,
    letters: &Letters,
) -> io::Result<Vec<PathBuf>> {
    let mut unknown = Vec::new();
    let places = letters.places();
    for lane in staged(journal)? {
        if letters.replayed.contains(&lane)
            && let Some(file) = file
        {
            file.sync_name()?;
            publish(journal, lane)?;
            continue;
        }
        let directory = staged_directory(journal, lane);
        let text = match fs::read(&directory.join(LETTERS_NAME)) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let are_letters = text
            .split(|&byte| byte == b'\n')
            .all(|line| match Line::parse(line) {
                Line::Letter(letter) => places.contains(&letter.place()),
                Line::Replayed(_) | Line::Unreadable => true,
            });
        if are_letters {
            fs::remove_dir_all(&directory)?;
        } else {
            unknown.push(directory);
        }
    }
    Ok(unknown)
}

fn staged_directory(journal: &Path, lane: LaneId) -> PathBuf {
    journal.join(format!("{STAGED_PREFIX}{lane}"))
}

fn staged(journal: &Path) -> io::Result<Vec<LaneId>> {
    let names = match fs::names(journal) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let mut lanes = Vec::new();
    for name in names {
        let lane = name.strip_prefix(STAGED_PREFIX);
        lanes.extend(lane.and_then(|lane| lane.parse::<LaneId>().ok()));
    }
    Ok(lanes)
}

/// Writes the letters to staged lanes, one for each database that refused some.
fn stage_by_database(journal: &Path, letters: &[Letter]) -> Result<Vec<ReplayedLane>, ReplayError> {
    let mut by_database: BTreeMap<Option<DatabaseId>, Vec<&Letter>> = BTreeMap::new();
    for letter in letters {
        by_database.entry(letter.database).or_default().push(letter);
    }
    let mut staged = Vec::new();
    for (database, letters) in by_database {
        let id = LaneId::random().map_err(at(journal))?;
        let label = label(journal, database).map_err(at(journal))?;
        stage(journal, id, &label, &letters).map_err(at(&staged_directory(journal, id)))?;
        staged.push(ReplayedLane {
            id,
            database,
            letters: letters.len(),
        });
    }
    Ok(staged)
}

/// The label of a lane whose letters `database` refused.
fn label(journal: &Path, database: Option<DatabaseId>) -> io::Result<LaneLabel> {
    let Some(database) = database else {
        return Ok(LaneLabel::Any { was: None });
    };
    let mut address = String::new();
    let found = match lanes(journal) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Vec::new(),
        found => found?,
    };
    for lane in found {
        // The address is for people: a label that cannot be read hinders nothing.
        if let Ok(LaneLabel::Database {
            id, address: at, ..
        }) = LaneLabel::read(&journal.join(lane.to_string()))
            && id == database
        {
            address = at;
        }
    }
    Ok(LaneLabel::Database {
        id: database,
        address,
        from: Position::START,
    })
}

/// Writes the letters to a staged lane.
fn stage(journal: &Path, lane: LaneId, label: &LaneLabel, letters: &[&Letter]) -> io::Result<()> {
    let directory = staged_directory(journal, lane);
    make_journal(journal)?;
    fs::create_dir(&directory)?;
    let staged =
        write_lane(&directory, lane, label, letters).and_then(|()| sync_parent(&directory));
    staged.inspect_err(|_| drop(fs::remove_dir_all(&directory)))
}

/// Makes the directory of lanes where it was moved away. It belongs to whom the data directory belongs.
fn make_journal(journal: &Path) -> io::Result<()> {
    match fs::create_dir(journal) {
        Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let model = fs::about(journal.parent().unwrap_or(journal))?;
    own_as(journal, &model)?;
    sync_parent(journal)
}

fn write_lane(
    directory: &Path,
    lane: LaneId,
    label: &LaneLabel,
    letters: &[&Letter],
) -> io::Result<()> {
    let mut writer = LaneWriter::create(directory, lane, segment_bytes())?;
    let mut record = Vec::new();
    let (mut rest, mut text) = (letters, String::new());
    while !rest.is_empty() {
        begin_record(&mut record);
        let mut events = 0_u32;
        while let Some((letter, more)) = rest.split_first()
            && record.len() < RECORD_BYTES
        {
            append_event(&mut record, letter.event());
            text.push_str(&format!("{letter}\n"));
            events += 1;
            rest = more;
        }
        writer = writer.append(&mut record, events)?;
    }
    let mut file = File::with(&directory.join(LETTERS_NAME), Use::Replace)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    label.write(directory)?;
    // The files get the owner of the journal: the user of this command need not be that of the server.
    let model = fs::about(directory.parent().unwrap_or(directory))?;
    for name in fs::names(directory)? {
        own_as(&directory.join(name), &model)?;
    }
    own_as(directory, &model)?;
    fs::sync_dir(directory)
}

/// Notes in each lane that is still in the journal which of its events are not to be stored from there, whatever
/// the checkpoint says: a crash may have come before it passed them, and a restore takes it back.
fn note_refused(journal: &Path, letters: &[Letter]) -> io::Result<()> {
    let mut by_lane: BTreeMap<LaneId, Vec<Position>> = BTreeMap::new();
    for letter in letters {
        by_lane
            .entry(letter.lane)
            .or_default()
            .push(letter.position);
    }
    for (lane, positions) in by_lane {
        match refused_note::add(&journal.join(lane.to_string()), &positions) {
            // It is stored, and gone.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            noted => noted?,
        }
    }
    Ok(())
}

/// Gives a staged lane its name.
fn publish(journal: &Path, lane: LaneId) -> io::Result<()> {
    let directory = journal.join(lane.to_string());
    fs::rename(&staged_directory(journal, lane), &directory)?;
    sync_parent(&directory)
}

#[cfg(test)]
mod tests;
