//! What must hold of the events of one request: all of them are stored, or none.

use std::collections::BTreeSet;

use super::senders::{Sent, is_twin};
use crate::event::ack::Ack;

/// All events of a request are in one group of the journal, of which a kill or a power cut leaves all or nothing. In memory
/// nothing holds them together. Those that were sent more than once may be stored for another request.
pub(super) fn check_requests(
    all: &[Sent],
    repeated: &BTreeSet<u32>,
    is_stored: impl Fn(&Sent) -> bool,
    is_excused: impl Fn(&Sent) -> bool,
) -> Result<(), String> {
    let is_one = |one: &Sent, next: &Sent| one.body.is_some() && one.body == next.body;
    for request in all.chunk_by(is_one) {
        if request
            .iter()
            .any(|sent| sent.ack == Ack::Received || is_excused(sent))
        {
            continue;
        }
        let is_single = |sent: &&Sent| !is_twin(sent.value) && !repeated.contains(&sent.value);
        let singles: Vec<_> = request.iter().filter(is_single).collect();
        let stored = singles.iter().filter(|sent| is_stored(sent)).count();
        if stored > 0 && stored < singles.len() {
            return Err(format!(
                "{stored} of {} events of one request are stored: {:?}",
                singles.len(),
                singles[0]
            ));
        }
    }
    Ok(())
}
