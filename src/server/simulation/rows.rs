//! What must hold of each row by itself.

use std::collections::BTreeMap;

use super::database::Server;
use super::senders::{Senders, is_twin};

/// A row has what was sent, and the time at which it was received.
pub(super) fn check_content(senders: &Senders, server: &Server) -> Result<(), String> {
    let mut sent: BTreeMap<u32, Vec<(String, u64)>> = BTreeMap::new();
    senders.each(|_, event| {
        let content = (event.name.clone(), event.received_at.seconds());
        sent.entry(event.value).or_default().push(content);
    });
    for row in server.all_rows().filter(|row| !is_twin(row.value)) {
        let found = (row.name.clone(), row.at);
        let known = sent.get(&row.value);
        if !known.is_some_and(|known| known.contains(&found)) {
            return Err(format!(
                "the row of event {} has {found:?}, and was sent as {:?}",
                row.value, known
            ));
        }
    }
    Ok(())
}
