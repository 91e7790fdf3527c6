//! What must hold of the counters of processes.

use super::oracle::Broken;
use super::process::Process;
use super::senders::{Answer, Senders};
use crate::event::UnixMillis;

/// How long a writer may wait for the database where nothing is wrong, in milliseconds.
const WAITS_MILLIS: u64 = 3_000;

/// The counters of each process that has come to rest, compared with what its senders have counted.
pub(super) fn check_identity(processes: &[Process], senders: &Senders) -> Result<(), Broken> {
    for process in processes {
        // What a copy has received was sent to the other one.
        if !process.is_copy {
            check_received(process, senders)?;
        }
        check_answered(process)?;
        let totals = process.metrics.totals();
        let ends = totals.settled() + totals.pending();
        if totals.received != ends {
            return Err(Broken::Final(format!(
                "process {}: received {} is not {ends}: {totals:?}",
                process.number, totals.received
            )));
        }
        if totals.pending() > 0 && process.served.held().0 == 0 {
            return Err(Broken::Final(format!(
                "process {}: {} events are pending for ever",
                process.number,
                totals.pending()
            )));
        }
    }
    Ok(())
}

/// No writer waits for the database.
fn check_answered(process: &Process) -> Result<(), Broken> {
    for counters in process.metrics.writers() {
        let since = counters.attempt_since.get();
        let waited = UnixMillis::now().0.saturating_sub(since);
        if since > 0 && waited > WAITS_MILLIS {
            return Err(Broken::Final(format!(
                "process {}: a writer says that it has waited {waited} ms for the database",
                process.number
            )));
        }
    }
    Ok(())
}

/// A process has received as many events as its senders know.
fn check_received(process: &Process, senders: &Senders) -> Result<(), Broken> {
    let (mut taken, mut shed, mut sent) = (0, 0, 0);
    senders.each(|_, event| {
        if event.process == process.number {
            sent += 1;
            taken += u64::from(matches!(event.answer, Answer::Ok | Answer::Refused));
            shed += u64::from(event.answer == Answer::Shed);
        }
    });
    let totals = process.metrics.totals();
    let received = totals.received.saturating_sub(totals.recovered);
    if totals.shed != shed {
        return Err(Broken::Final(format!(
            "process {}: counts {} events as shed, and has answered {shed} so",
            process.number, totals.shed
        )));
    }
    if (taken..=sent - shed).contains(&received) {
        return Ok(());
    }
    Err(Broken::Final(format!(
        "process {}: received {received} events, and its senders know of {taken} to {}",
        process.number,
        sent - shed
    )))
}
