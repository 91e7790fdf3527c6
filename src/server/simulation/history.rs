//! What happened in a simulation, one line a step, for people. Off while many seeds run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use std::sync::Once;

use log::kv::Key;

use crate::os::simulated;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    static UNREADABLE: Cell<u64> = const { Cell::new(0) };
    static EVENTS: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts the lines of the log from now on, by their events.
pub(super) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Log).expect("no other test sets a logger");
        log::set_max_level(log::LevelFilter::Debug);
    });
}

/// How many events the log has called unreadable since [`take_events`].
pub(super) fn unreadable() -> u64 {
    UNREADABLE.get()
}

/// How often each event was logged on this thread since this was last asked.
pub(super) fn take_events() -> BTreeMap<String, u64> {
    UNREADABLE.set(0);
    EVENTS.take()
}

/// Notes lines from now on, those of the log included.
pub(super) fn start() {
    LINES.set(Some(Vec::new()));
}

/// The lines since [`start`].
pub(super) fn take() -> Vec<String> {
    LINES.take().unwrap_or_default()
}

/// What was noted and counted.
pub(super) struct Kept {
    lines: Option<Vec<String>>,
    unreadable: u64,
    events: BTreeMap<String, u64>,
}

/// Notes and counts anew, without lines.
pub(super) fn pause() -> Kept {
    Kept {
        lines: LINES.take(),
        unreadable: UNREADABLE.take(),
        events: EVENTS.take(),
    }
}

/// Goes on as before [`pause`].
pub(super) fn go_on(kept: Kept) {
    LINES.set(kept.lines);
    UNREADABLE.set(kept.unreadable);
    EVENTS.set(kept.events);
}

/// Adds a line.
pub(super) fn note(line: impl FnOnce() -> String) {
    LINES.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            let at = simulated::elapsed().as_secs_f64();
            lines.push(format!("{at:10.3} s  {}", line()));
        }
    });
}

/// Puts the log of the server among the lines.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if !simulated::is_on() {
            return;
        }
        let event = record.key_values().get(Key::from("event"));
        if let Some(event) = event.as_ref().and_then(|event| event.to_borrowed_str()) {
            if event == "events_unreadable" {
                let events = record.key_values().get(Key::from("events"));
                let more = events.and_then(|events| events.to_u64()).unwrap_or(0);
                UNREADABLE.set(UNREADABLE.get() + more);
            }
            EVENTS.with_borrow_mut(|events| match events.get_mut(event) {
                Some(times) => *times += 1,
                None => drop(events.insert(event.to_owned(), 1)),
            });
        }
        note(|| {
            format!(
                "    {}: {}",
                record.level().as_str().to_lowercase(),
                record.args()
            )
        });
    }

    fn flush(&self) {}
}
