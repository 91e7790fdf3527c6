//! What happened in a simulation, one line a step, for people. Off while many seeds run.

use std::cell::RefCell;

use crate::os::simulated;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Notes lines from now on, those of the log included.
pub(super) fn start() {
    LINES.set(Some(Vec::new()));
    // Another test may have set one: then the history has no lines of the log.
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

/// The lines since [`start`].
pub(super) fn take() -> Vec<String> {
    LINES.take().unwrap_or_default()
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
