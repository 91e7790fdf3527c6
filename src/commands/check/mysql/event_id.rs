//! The column for the ids of events: whether each id is stored once, and how to have that.

use super::Server;
use super::columns::columns_of;
use crate::commands::check::Observation;
use crate::sink::SinkError;
use crate::sink::mysql::id_column::{ADD_COLUMN, FoundColumn, find};
use crate::sink::mysql::id_refusal::refusal;

/// Whether the table is partitioned.
const IS_PARTITIONED: &str = "SELECT COUNT(*) > 0 FROM information_schema.partitions \
    WHERE table_schema = DATABASE() AND table_name = 'eventlog' AND partition_name IS NOT NULL";

/// Whether the ids of events are stored.
pub(super) fn event_id(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    if columns_of(server)?.is_empty() {
        return Ok(Observation::new(
            "will be missing: the ids of events are ignored",
        ));
    }
    let reason = match find(&mut server.connection)? {
        FoundColumn::Missing => return missing(server),
        FoundColumn::Usable(_) => return usable(server),
        FoundColumn::Unusable(reason) => reason,
    };
    let found = Observation::new("cannot be used: the ids of events are ignored");
    Ok(found.warning(reason))
}

fn missing(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let advice = if server.first(IS_PARTITIONED)? == Some(true) {
        "each id could be stored once only if the table were not partitioned, or by event_id alone, since a unique key \
         must hold the columns by which it is"
            .to_owned()
    } else {
        let (database, user) = (&server.target.database, &server.user);
        format!(
            "to store each id once: {ADD_COLUMN}; GRANT UPDATE ON `{database}`.eventlog TO {user}"
        )
    };
    Ok(Observation::new(format!(
        "missing: the ids of events are ignored; {advice}"
    )))
}

/// The column is there. The statement is prepared, which needs the right to execute it.
fn usable(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    match refusal(&mut server.connection)? {
        None => Ok(Observation::new(
            "an event whose id the table has is no second row",
        )),
        Some(fault) => {
            let found = format!("cannot be used: the ids of events are ignored: {fault}");
            let (database, user) = (&server.target.database, &server.user);
            let advice = format!("GRANT UPDATE ON `{database}`.eventlog TO {user}");
            Ok(Observation::new(found).warning(advice))
        }
    }
}
