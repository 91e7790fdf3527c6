//! How the time of an event becomes a value of the column `at`.
//!
//! `FROM_UNIXTIME` gives it in the session's time zone. Where a machine's clock is set to a time that the server's
//! `FROM_UNIXTIME` does not know, that is no fault of the row.

use std::ops::Range;

use mysql::Conn;
use mysql::prelude::Queryable;

use super::ROW;
use super::classify::sink_error;
use crate::event::batch::Batch;
use crate::sink::{Fault, SinkError};

/// The last second of 32 bits with a sign: where old servers end.
const OLDEST_END: u64 = 2_147_483_647;

/// Where others end: MySQL 8.0.28, and MariaDB 11.5.
const ENDS: [u64; 2] = [32_536_771_199, 4_294_967_295];

/// How far apart the seconds are at which a time zone is asked for its offset, and how many.
const SAMPLES: (u64, u64) = (10 * 86_400, 74);

/// Which function gives the time of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum At {
    /// `FROM_UNIXTIME`.
    Usual,
    /// The second before the first one that `FROM_UNIXTIME` of MariaDB 11.8 knows: the clock of the machine is set to 1970 or
    /// before.
    Start,
    /// The last second that `FROM_UNIXTIME` knows, and the seconds since. Exact where the zone keeps its offset.
    Late {
        /// That second.
        end: u64,
    },
}

impl At {
    /// One row of placeholders.
    pub(super) fn row(self) -> String {
        match self {
            Self::Usual => ROW.to_owned(),
            Self::Start => {
                "(FROM_UNIXTIME(1) + INTERVAL (CAST(? AS SIGNED) - 1) SECOND,?,?)".to_owned()
            }
            Self::Late { end } => {
                format!("(FROM_UNIXTIME({end}) + INTERVAL (? - {end}) SECOND,?,?)")
            }
        }
    }

    /// Its index among the kinds of statements that a session prepares.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Usual => 0,
            Self::Start => 1,
            Self::Late { .. } => 2,
        }
    }

    /// How many kinds there are.
    pub(super) const KINDS: usize = 3;
}

/// What a session has learned of late times.
#[derive(Debug, Default)]
pub(super) struct LateTimes(Option<u64>);

impl LateTimes {
    /// Parts `rows` of `batch` by how their time is given.
    pub(super) fn runs(
        &mut self,
        connection: &mut Conn,
        batch: &Batch,
        rows: Range<usize>,
    ) -> Result<Vec<(At, Range<usize>)>, SinkError> {
        let seconds = |row| batch.event(row).received_at.seconds();
        let is_usual = |row| (1..=OLDEST_END).contains(&seconds(row));
        if rows.clone().all(is_usual) {
            return Ok(vec![(At::Usual, rows)]);
        }
        let end = match rows.clone().any(|row| seconds(row) > OLDEST_END) {
            true => self.end(connection)?,
            false => OLDEST_END,
        };
        let mut runs: Vec<(At, Range<usize>)> = Vec::new();
        for row in rows {
            let at = match seconds(row) {
                0 => At::Start,
                late if late > end => At::Late { end },
                _ => At::Usual,
            };
            match runs.last_mut() {
                Some((last, run)) if *last == at => run.end = row + 1,
                _ => runs.push((at, row..row + 1)),
            }
        }
        if runs.iter().any(|(at, _)| matches!(at, At::Late { .. })) {
            keeps_its_offset(connection, end)?;
        }
        Ok(runs)
    }

    /// The last second that the server's `FROM_UNIXTIME` knows.
    fn end(&mut self, connection: &mut Conn) -> Result<u64, SinkError> {
        if let Some(end) = self.0 {
            return Ok(end);
        }
        let mut known = OLDEST_END;
        for end in ENDS {
            let query = format!("SELECT FROM_UNIXTIME({end}) IS NOT NULL");
            if connection.query_first(query).map_err(sink_error)? == Some(true) {
                known = end;
                break;
            }
        }
        self.0 = Some(known);
        Ok(known)
    }
}

/// Makes sure that the session's time zone has had one offset for two years before `end`: what it has after is
/// known then.
fn keeps_its_offset(connection: &mut Conn, end: u64) -> Result<(), SinkError> {
    let (apart, samples) = SAMPLES;
    let seconds: Vec<_> = (0..samples)
        .map(|sample| format!("SELECT {} AS t", end - sample * apart))
        .collect();
    let offsets: Option<u64> = connection
        .query_first(format!(
            "SELECT COUNT(DISTINCT TIMESTAMPDIFF(SECOND, '1970-01-01', FROM_UNIXTIME(t)) - t) FROM ({}) AS s",
            seconds.join(" UNION ALL ")
        ))
        .map_err(sink_error)?;
    if offsets == Some(1) {
        return Ok(());
    }
    let end = i64::try_from(end).ok();
    let end = end.and_then(|end| jiff::Timestamp::from_second(end).ok());
    let end = end.map_or_else(String::new, |end| end.to_string());
    Err(SinkError::Stop(Fault::new(format!(
        "events were received after {end}, which is the last time that FROM_UNIXTIME of this server knows, and the \
         session's time zone changes its offset in the year: see the clock of this machine; to store these events, \
         name an offset in the datasource (time_zone='+00:00'), or upgrade the server"
    ))))
}
