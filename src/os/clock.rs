//! The clock, and all that waits for it or for another thread.
//!
//! A simulation takes the place of both in tests (`os/simulated`). Elsewhere these are the functions of the standard
//! library.

use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(test)]
use super::simulated;

/// A point in time, to measure from.
#[inline]
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    Instant::now()
}

/// The time that has passed since `earlier`.
#[inline]
pub fn since(earlier: Instant) -> Duration {
    now().saturating_duration_since(earlier)
}

/// The time since 1970. Zero if the clock of the system is set to an earlier one.
#[inline]
pub fn since_epoch() -> Duration {
    #[cfg(test)]
    if let Some(now) = simulated::since_epoch() {
        return now;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Sleeps.
pub fn sleep(wait: Duration) {
    #[cfg(test)]
    if simulated::is_on() {
        return simulated::sleep(wait);
    }
    thread::sleep(wait);
}

/// Waits for the next message.
pub fn receive<T>(from: &Receiver<T>) -> Result<T, RecvError> {
    #[cfg(test)]
    if simulated::is_on() {
        return simulated::receive(from, None).or(Err(RecvError));
    }
    from.recv()
}

/// Waits for the next message, at most this long.
pub fn receive_within<T>(from: &Receiver<T>, wait: Duration) -> Result<T, RecvTimeoutError> {
    #[cfg(test)]
    if simulated::is_on() {
        return simulated::receive(from, Some(wait));
    }
    from.recv_timeout(wait)
}
