//! Runs the code of several threads on one thread, in the order that a test decides, with a clock and a disk of its
//! own.
//!
//! The code of a thread is a [`Task`]. It runs until it waits for time, for a message or for the disk, and goes on when
//! the test resumes it. So one seed decides the whole run. What a task draws at random comes from `fastrand`, which the
//! test seeds.

pub(crate) mod disk;

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use self::disk::Machine;

/// Bytes of the stack of a task.
const STACK_BYTES: usize = 256 * 1024;

/// The first time of a simulation, in seconds since 1970.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Nothing: another task may run first.
    Step,
    /// Nothing, and no other task may run: only a crash may come first.
    Crash,
    /// This time.
    Until(Instant),
    /// Another task may have sent a message or released a lock; or this time.
    Wait(Option<Instant>),
}

type Yields = Yielder<(), Pause>;

thread_local! {
    static TASK: Cell<Option<NonNull<Yields>>> = const { Cell::new(None) };
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
    static SEGMENT_BLOCKS: Cell<u64> = const { Cell::new(0) };
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
    static NOTIFICATIONS: Cell<u64> = const { Cell::new(0) };
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// While it exists, this thread is simulated.
pub(crate) struct Simulated(());

impl Simulated {
    /// Starts the clock, and seeds what is random.
    pub(crate) fn start(seed: u64) -> Self {
        START.set(Some(Instant::now()));
        SEGMENT_BLOCKS.set(3 + seed % 3);
        rewind(seed);
        Self(())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        START.set(None);
        set_machine(None);
    }
}

/// Whether this thread is simulated.
pub(crate) fn is_on() -> bool {
    START.get().is_some()
}

/// Blocks of a new segment. `None`: this thread is not simulated.
pub(crate) fn segment_blocks() -> Option<u64> {
    is_on().then(|| SEGMENT_BLOCKS.get())
}

/// The simulated time. `None`: this thread is not simulated.
pub(crate) fn now() -> Option<Instant> {
    START.get().map(|start| start + NOW.get())
}

/// The time since 1970.
pub(crate) fn since_epoch() -> Option<Duration> {
    is_on().then(|| EPOCH + NOW.get())
}

/// Time since the simulation has begun.
pub(crate) fn elapsed() -> Duration {
    NOW.get()
}

/// Sets the clock, and what is random, to the begin of a simulation.
pub(crate) fn rewind(seed: u64) {
    fastrand::seed(seed);
    NOW.set(Duration::ZERO);
}

/// Sets the clock forward.
pub(crate) fn advance(to: Instant) {
    if let Some(start) = START.get() {
        NOW.set(NOW.get().max(to.saturating_duration_since(start)));
    }
}

/// Lets other tasks run. Does nothing outside of a task.
pub(crate) fn pause(what: Pause) {
    let Some(task) = TASK.get() else { return };
    #[expect(
        unsafe_code,
        reason = "the code of a thread cannot be handed a reference"
    )]
    // SAFETY: `resume` sets the pointer while its task runs, on the stack of which the yielder lives, and clears it
    // when the task stops.
    let yields = unsafe { task.as_ref() };
    yields.suspend(what);
}

/// Sleeps by the simulated clock.
pub(crate) fn sleep(wait: Duration) {
    if let Some(now) = now() {
        pause(Pause::Until(now + wait));
        IS_BUSY.set(true);
    }
}

/// Receives as `recv_timeout` does.
pub(crate) fn receive<T>(
    from: &Receiver<T>,
    wait: Option<Duration>,
) -> Result<T, RecvTimeoutError> {
    let until = wait.and_then(|wait| Some(now()? + wait));
    loop {
        match from.try_recv() {
            Ok(message) => {
                IS_BUSY.set(true);
                return Ok(message);
            }
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) if until.is_some_and(|until| now() >= Some(until)) => {
                IS_BUSY.set(true);
                return Err(RecvTimeoutError::Timeout);
            }
            // Outside of a task nobody else would run.
            Err(TryRecvError::Empty) if TASK.get().is_none() => {
                return Err(RecvTimeoutError::Timeout);
            }
            Err(TryRecvError::Empty) => pause(Pause::Wait(until)),
        }
    }
}

/// Counts that some shard was notified. Who waits for that asks the system only where this has changed.
pub(crate) fn count_notification() {
    NOTIFICATIONS.set(NOTIFICATIONS.get() + 1);
}

/// How often shards were notified on this thread.
pub(crate) fn notifications() -> u64 {
    NOTIFICATIONS.get()
}

/// Notes that the present task did something that another one may wait for.
pub(crate) fn set_busy() {
    IS_BUSY.set(true);
}

/// The machine whose disk the present task uses.
pub(crate) fn machine() -> Option<Machine> {
    MACHINE.with_borrow(Clone::clone)
}

/// Sets the machine whose disk is used from now on.
pub(crate) fn set_machine(machine: Option<Machine>) {
    MACHINE.set(machine);
}

/// The code of one thread.
pub(crate) struct Task {
    coroutine: Option<Coroutine<(), Pause, (), DefaultStack>>,
    yields: Rc<Cell<Option<NonNull<Yields>>>>,
    machine: Machine,
}

/// No task runs any more when this is dropped.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        TASK.set(None);
    }
}

/// How a task stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// `None`: it has ended.
    pub(crate) pause: Option<Pause>,
    /// Whether it did something before that.
    pub(crate) is_busy: bool,
}

impl Task {
    /// A task that runs `code` on this machine when it is first resumed.
    pub(crate) fn new(machine: Machine, code: impl FnOnce() + 'static) -> Self {
        let stack = STACKS.with_borrow_mut(Vec::pop);
        let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK_BYTES).unwrap());
        let yields: Rc<Cell<Option<NonNull<Yields>>>> = Rc::default();
        let own = Rc::clone(&yields);
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yields, ()| {
            own.set(Some(NonNull::from(yielder)));
            TASK.set(own.get());
            code();
        });
        Self {
            coroutine: Some(coroutine),
            yields,
            machine,
        }
    }

    /// Runs it until it pauses or ends.
    pub(crate) fn resume(&mut self) -> Stopped {
        let Some(coroutine) = &mut self.coroutine else {
            return Stopped {
                pause: None,
                is_busy: false,
            };
        };
        set_machine(Some(self.machine.clone()));
        IS_BUSY.set(false);
        TASK.set(self.yields.get());
        // Also when the code panics.
        let ended = Ended;
        let result = coroutine.resume(());
        drop(ended);
        let pause = match result {
            CoroutineResult::Yield(pause) => Some(pause),
            CoroutineResult::Return(()) => None,
        };
        if pause.is_none()
            && let Some(coroutine) = self.coroutine.take()
        {
            STACKS.with_borrow_mut(|stacks| stacks.push(coroutine.into_stack()));
        }
        let is_busy = IS_BUSY.get() || !matches!(pause, Some(Pause::Wait(_)));
        Stopped { pause, is_busy }
    }
}

impl Drop for Task {
    /// Unwinds its stack. The machine must be off by then, so that what is dropped changes nothing on its disk.
    fn drop(&mut self) {
        if let Some(mut coroutine) = self.coroutine.take() {
            let own = TASK.take();
            set_machine(Some(self.machine.clone()));
            coroutine.force_unwind();
            STACKS.with_borrow_mut(|stacks| stacks.push(coroutine.into_stack()));
            TASK.set(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn tasks_take_turns_and_wait_for_messages_and_for_time() {
        let _on = Simulated::start(1);
        let machine = Machine::new(1);
        let (send, received) = channel();
        let start = now().unwrap();
        let mut sender = Task::new(machine.clone(), move || {
            sleep(Duration::from_secs(5));
            send.send(7).unwrap();
        });
        let mut receiver = Task::new(machine, move || {
            let waited = receive(&received, Some(Duration::from_secs(1)));
            assert_eq!(waited, Err(RecvTimeoutError::Timeout));
            assert_eq!(receive(&received, None), Ok(7));
        });
        let second = start + Duration::from_secs(1);
        assert_eq!(receiver.resume().pause, Some(Pause::Wait(Some(second))));
        let end = start + Duration::from_secs(5);
        assert_eq!(sender.resume().pause, Some(Pause::Until(end)));
        assert!(!receiver.resume().is_busy);
        advance(second);
        assert_eq!(receiver.resume().pause, Some(Pause::Wait(None)));
        advance(end);
        assert_eq!(sender.resume().pause, None);
        assert_eq!(receiver.resume().pause, None);
    }
}
