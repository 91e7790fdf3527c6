//! What of a batch is inserted when some of its events are refused.

use std::ops::Range;

use crate::sink::Refused;

/// The ranges of `rows` between the refused ones.
pub(super) fn gaps(rows: Range<usize>, refused: &Refused) -> Vec<Range<usize>> {
    let mut start = rows.start;
    let mut gaps = Vec::with_capacity(refused.len() + 1);
    let inside = refused.range(rows.clone()).map(|(&index, _)| index);
    for index in inside.chain([rows.end]) {
        gaps.push(start..index);
        start = index + 1;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Fault;

    #[test]
    fn gaps_leave_out_what_was_refused() {
        let refused = |rows: &[usize]| rows.iter().map(|&row| (row, Fault::new(""))).collect();
        assert_eq!(gaps(0..4, &refused(&[])), vec![0..4]);
        assert_eq!(gaps(0..4, &refused(&[0, 2])), [0..0, 1..2, 3..4]);
        assert_eq!(gaps(0..4, &refused(&[3])), [0..3, 4..4]);
        assert_eq!(gaps(2..4, &refused(&[0, 1, 3])), [2..3, 4..4]);
    }
}
