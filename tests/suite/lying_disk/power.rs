//! The power of the disk: when it is cut, what fails before, and which requests are never answered.

use std::any::Any;
use std::collections::VecDeque;

use fuser::Errno;

use super::content::Unreadable;

/// Operations that are remembered for a failing test.
const REMEMBERED: usize = 60;

/// What happens to operations after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Darkness {
    /// None is answered until the process is gone, as when the machine has lost its power.
    Blocks,
    /// All fail, as when only the disk is gone.
    Fails,
}

/// When the power is cut.
#[derive(Debug, Clone, Copy)]
pub struct PowerCut {
    /// During the operation that comes after so many further ones that change something.
    pub operations: u64,
    /// Not later than so many operations after so many segments were made.
    pub segments: Option<(usize, u64)>,
    /// So many writes to files are let through first, as most operations are.
    pub writes_spared: u64,
    /// What happens then.
    pub darkness: Darkness,
}

impl PowerCut {
    /// Cuts it during the operation after so many.
    pub fn after(operations: u64, darkness: Darkness) -> Self {
        Self {
            operations,
            segments: None,
            writes_spared: 0,
            darkness,
        }
    }
}

/// How many operations in a thousand fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Writes, with EIO; the blocks have any content then.
    pub writes: u32,
    /// Syncs of files and directories, with EIO or ENOSPC.
    pub syncs: u32,
    /// Whatever makes a name or takes space, with ENOSPC.
    pub room: u32,
}

/// Why an operation is not done.
#[derive(Debug)]
pub enum Refusal {
    /// It fails.
    Fails(Errno),
    /// There is no power, and so no answer.
    NoAnswer,
}

impl From<Unreadable> for Refusal {
    fn from(_: Unreadable) -> Self {
        Self::Fails(Errno::EIO)
    }
}

pub type Done<T> = Result<T, Refusal>;

/// What becomes of an operation that changes something.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Done,
    /// The power is cut while it is under way.
    Cut,
    Fails(Errno),
}

/// Kinds of operations, by what can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Write,
    Sync,
    Room,
    Removal,
}

/// The power.
#[derive(Debug)]
pub struct Power {
    pub random: fastrand::Rng,
    faults: Faults,
    /// When the power is cut. `None`: it is not.
    cut: Option<PowerCut>,
    darkness: Darkness,
    is_dark: bool,
    is_released: bool,
    /// Requests that wait for the end of their process. Dropping one answers it with EIO.
    unanswered: Vec<Box<dyn Any + Send>>,
    pub counts: Counts,
    history: VecDeque<String>,
}

/// What has happened since the power is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Operations that have changed something, or should have.
    pub begun: u64,
    /// Those that had a fault.
    pub faulted: u64,
    /// Segments of a journal that were made.
    pub segments: usize,
    /// Operations that failed since it was cut.
    pub failed: u64,
}

impl Default for Power {
    fn default() -> Self {
        Self {
            random: fastrand::Rng::with_seed(0),
            faults: Faults::default(),
            cut: None,
            darkness: Darkness::Blocks,
            is_dark: false,
            is_released: false,
            unanswered: Vec::new(),
            counts: Counts::default(),
            history: VecDeque::new(),
        }
    }
}

impl Power {
    /// Cuts the power later.
    pub fn cut(&mut self, cut: PowerCut) {
        self.darkness = cut.darkness;
        self.cut = Some(cut);
    }

    pub fn seed(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub fn is_dark(&self) -> bool {
        self.is_dark
    }

    /// Answers what waits. To be called when the process has got its SIGKILL.
    pub fn release(&mut self) {
        self.is_released = true;
        self.unanswered.clear();
    }

    /// The last operations, newest last.
    pub fn history(&self) -> Vec<String> {
        self.history.iter().cloned().collect()
    }

    /// It is back.
    pub fn restore(&mut self, line: String) {
        *self = Self {
            random: self.random.clone(),
            ..Self::default()
        };
        self.note(line);
    }

    fn note(&mut self, line: String) {
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(line);
    }

    /// Requests that are not answered.
    pub fn waiting(&self) -> usize {
        self.unanswered.len()
    }

    /// Keeps a request without an answer until the process is gone.
    pub fn keep_unanswered(&mut self, request: impl Any + Send) {
        self.unanswered.push(Box::new(request));
    }

    /// Refuses every operation while there is no power.
    pub fn powered(&mut self) -> Done<()> {
        match self.darkness {
            _ if !self.is_dark => Ok(()),
            Darkness::Blocks if !self.is_released => Err(Refusal::NoAnswer),
            Darkness::Blocks | Darkness::Fails => {
                self.counts.failed += 1;
                Err(Refusal::Fails(Errno::EIO))
            }
        }
    }

    /// Begins an operation that changes something.
    pub fn begin(&mut self, kind: Kind, what: String) -> Done<Fate> {
        self.powered()?;
        self.counts.begun += 1;
        let fate = self.fate(kind);
        self.note(match fate {
            Fate::Done => what,
            Fate::Cut => format!("{what}: POWER CUT"),
            Fate::Fails(code) => format!("{what}: fails, {code:?}"),
        });
        Ok(fate)
    }

    fn fate(&mut self, kind: Kind) -> Fate {
        let segments = self.counts.segments;
        if let Some(cut) = &mut self.cut {
            if let Some((wanted, operations)) = cut.segments
                && segments >= wanted
            {
                cut.operations = cut.operations.min(operations);
                cut.segments = None;
            }
            match cut.operations {
                0 if kind == Kind::Write && cut.writes_spared > 0 => cut.writes_spared -= 1,
                0 => {
                    self.is_dark = true;
                    return Fate::Cut;
                }
                _ => cut.operations -= 1,
            }
        }
        let (per_thousand, code) = match kind {
            Kind::Write => (self.faults.writes, Errno::EIO),
            Kind::Sync if self.random.bool() => (self.faults.syncs, Errno::EIO),
            Kind::Sync => (self.faults.syncs, Errno::ENOSPC),
            Kind::Room => (self.faults.room, Errno::ENOSPC),
            Kind::Removal => (0, Errno::EIO),
        };
        if self.random.u32(0..1000) < per_thousand {
            self.counts.faulted += 1;
            Fate::Fails(code)
        } else {
            Fate::Done
        }
    }

    /// The answer to an operation of this fate.
    pub fn end<T>(&self, fate: Fate, done: T) -> Done<T> {
        match (fate, self.darkness) {
            (Fate::Done, _) => Ok(done),
            (Fate::Fails(code), _) => Err(Refusal::Fails(code)),
            (Fate::Cut, Darkness::Blocks) => Err(Refusal::NoAnswer),
            (Fate::Cut, Darkness::Fails) => Err(Refusal::Fails(Errno::EIO)),
        }
    }
}
