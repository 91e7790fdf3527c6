//! What must hold of each row by itself.

use super::database::Server;
use super::senders::{Senders, is_twin};

/// A row has what was sent, and the time at which it was received.
pub(super) fn check_content(senders: &Senders, server: &Server) -> Result<(), String> {
    let all = senders.all();
    let mut sent: Vec<_> = all
        .iter()
        .map(|event| (event.value, event.received_at.seconds(), &*event.name))
        .collect();
    sent.sort_unstable();
    for row in server.all_rows().filter(|row| !is_twin(row.value)) {
        let found = (row.value, row.at, &*row.name);
        if sent.binary_search(&found).is_err() {
            let known = sent.iter().filter(|known| known.0 == row.value);
            return Err(format!(
                "the row of event {} has {found:?}, and was sent as {:?}",
                row.value,
                known.collect::<Vec<_>>()
            ));
        }
    }
    Ok(())
}
