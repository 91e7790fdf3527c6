//! What systemd, or whoever else set `NOTIFY_SOCKET`, is told of the process. Without it nothing is.

use std::time::Duration;

use sd_notify::NotifyState;

/// Requests are answered from now on, and this is the process to look at.
pub(super) fn ready(status: &str) {
    tell(&[
        NotifyState::MainPid(std::process::id()),
        NotifyState::Status(status),
        NotifyState::Ready,
    ]);
}

/// A successor is being started; [`ready`] ends it, of the successor or of this process.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(fault) => log::debug!("the clock cannot be read: {fault}"),
    }
}

/// The process drains.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The process is alive.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(fault) = sd_notify::notify(states) {
        log::debug!("NOTIFY_SOCKET: {fault}");
    }
}

/// How often the process must say that it is alive: at half of the time after which it is taken for
/// dead. `None` where nobody listens.
pub(super) fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval(
        variable("WATCHDOG_USEC").as_deref(),
        variable("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

/// A process id that is not ours makes it another's watchdog; a successor is told none.
fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid != own.to_string()) {
        return None;
    }
    let usec = usec?.parse().ok().filter(|&usec| usec > 0)?;
    Some(Duration::from_micros(usec) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_fed_at_half_of_its_time_and_only_our_own() {
        let half = Some(Duration::from_secs(15));
        assert_eq!(interval(Some("30000000"), Some("7"), 7), half);
        assert_eq!(interval(Some("30000000"), None, 7), half);
        assert_eq!(interval(Some("30000000"), Some("8"), 7), None);
        assert_eq!(interval(Some("0"), None, 7), None);
        assert_eq!(interval(None, Some("7"), 7), None);
    }
}
