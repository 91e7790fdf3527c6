//! Statement sizes: a few prepared statements are enough for batches of any size.

use super::engine::Engine;
use crate::event::batch::BatchEvents;

/// Rows of the prepared statements below the largest. Each is a quarter of the one before, so that the rest of a
/// batch takes at most thirteen statements.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// Most statements that a connection keeps prepared: without ids, and with them where they are stored. Where the clock of
/// the machine is set to a time that `FROM_UNIXTIME` of a server does not know, there are as many more: for 1970, and for
/// what comes late.
pub(super) const STATEMENTS_MAX: usize = 2 * (1 + SIZES.len());

/// Most rows of one statement, of any server.
pub(super) const ROWS_MAX: usize = 512;

/// Most rows of one statement to a server. A server reads all parameters of a statement several times. Up to some size they
/// stay in the CPU's cache: on MariaDB a row then takes a fifth less CPU time than in a statement of 5,000 rows, and on MySQL
/// about a tenth less than in one of 500.
const fn rows_max(engine: Engine) -> usize {
    match engine {
        Engine::MariaDb => ROWS_MAX,
        Engine::MySql => 256,
    }
}

/// Most placeholders of a prepared statement, in MySQL and MariaDB.
const PLACEHOLDERS_MAX: usize = 65_535;

const _: () = assert!(ROWS_MAX * super::PLACEHOLDERS_PER_ROW_MAX <= PLACEHOLDERS_MAX);

/// One statement size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatementSize {
    index: usize,
    rows: usize,
}

impl StatementSize {
    /// Rows of its statement, at least one.
    pub(super) fn rows(self) -> usize {
        self.rows
    }

    /// Its index, from 0 for the largest.
    pub(super) fn index(self) -> usize {
        self.index
    }
}

/// The statement sizes of a session, from the largest to one row.
#[derive(Debug)]
pub(super) struct StatementSizes(Vec<usize>);

impl StatementSizes {
    /// The largest size is an equal part of a full batch, rounded up, so that a full batch takes few other sizes.
    pub(super) fn new(events_max: BatchEvents, engine: Engine) -> Self {
        let events = events_max.get();
        let top = events.div_ceil(events.div_ceil(rows_max(engine)));
        let mut rows = vec![top];
        rows.extend(SIZES.into_iter().filter(|&size| size < top));
        Self(rows)
    }

    /// Number of sizes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The largest size that is not more than `rows`, which is at least one.
    pub(super) fn fitting(&self, rows: usize) -> StatementSize {
        self.from(
            self.0
                .iter()
                .position(|&size| size <= rows)
                .unwrap_or(self.0.len() - 1),
        )
    }

    /// The next smaller size. After the smallest: the smallest.
    pub(super) fn below(&self, size: StatementSize) -> StatementSize {
        self.from((size.index + 1).min(self.0.len() - 1))
    }

    fn from(&self, index: usize) -> StatementSize {
        StatementSize {
            index,
            rows: self.0[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINES: [Engine; 2] = [Engine::MariaDb, Engine::MySql];

    fn sizes(events: u32, engine: Engine) -> StatementSizes {
        StatementSizes::new(BatchEvents::new(events).unwrap(), engine)
    }

    #[test]
    fn sizes_end_at_one_row_and_are_within_the_bound() {
        for events in [1, 2, 4, 5, 1024, 5000, 21_845, 100_000] {
            for engine in ENGINES {
                let sizes = sizes(events, engine);
                assert_eq!(sizes.0.last(), Some(&1), "{events}");
                assert!(
                    sizes.0.is_sorted_by(|larger, smaller| larger > smaller),
                    "{sizes:?}"
                );
                assert!(sizes.0[0] <= rows_max(engine) && rows_max(engine) <= ROWS_MAX);
                assert!(sizes.len() <= STATEMENTS_MAX / 2);
            }
        }
    }

    #[test]
    fn a_full_batch_is_a_few_statements_of_one_size() {
        for events in [512, 1000, 5000, 10_000] {
            for engine in ENGINES {
                let top = sizes(events, engine).0[0];
                assert_eq!(events as usize % top, 0, "{events} in parts of {top}");
            }
        }
    }

    #[test]
    fn mysql_gets_half_as_many_rows() {
        let top = |engine| sizes(5000, engine).fitting(5000).rows();
        assert_eq!(ENGINES.map(top), [500, 250]);
    }

    #[test]
    fn the_largest_size_that_fits_is_chosen() {
        let sizes = sizes(5000, Engine::MariaDb);
        for (rows, taken) in [(5000, 500), (499, 256), (255, 64), (3, 1), (1, 1)] {
            assert_eq!(sizes.fitting(rows).rows(), taken, "{rows}");
        }
        assert_eq!(sizes.below(sizes.fitting(5000)).rows(), 256);
        assert_eq!(sizes.below(sizes.fitting(1)).rows(), 1);
    }
}
