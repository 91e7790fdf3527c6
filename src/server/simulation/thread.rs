//! A thread of a simulated process: a task, and what it waits for.

use std::time::Instant;

use crate::os::simulated::disk::Machine;
use crate::os::simulated::{Pause, Task};

/// What a task is waiting for, as the schedule sees it.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) name: String,
    task: Option<Task>,
    waits: Pause,
    /// It looked in vain since the last time that another thread did something.
    pub(super) is_idle: bool,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Task")
    }
}

impl Thread {
    pub(super) fn new(name: String, machine: &Machine, code: impl FnOnce() + 'static) -> Self {
        Self {
            name,
            task: Some(Task::new(machine.clone(), code)),
            waits: Pause::Step,
            is_idle: false,
        }
    }

    /// Whether it can go on now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.task.is_some()
            && match self.waits {
                Pause::Step | Pause::Crash => true,
                Pause::Until(at) => at <= now,
                Pause::Wait(at) => !self.is_idle || at.is_some_and(|at| at <= now),
            }
    }

    /// When it goes on by itself.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.task.as_ref()?;
        match self.waits {
            Pause::Until(at) | Pause::Wait(Some(at)) => Some(at),
            Pause::Step | Pause::Crash | Pause::Wait(None) => None,
        }
    }

    /// Runs it until it pauses. Returns whether it did something.
    pub(super) fn step(&mut self) -> bool {
        let Some(task) = &mut self.task else {
            return false;
        };
        let stopped = task.resume();
        match stopped.pause {
            Some(pause) => self.waits = pause,
            None => self.task = None,
        }
        self.is_idle = !stopped.is_busy;
        stopped.is_busy
    }

    /// Whether no other thread may run before it goes on.
    pub(super) fn is_alone(&self) -> bool {
        self.task.is_some() && self.waits == Pause::Crash
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_none()
    }
}
