//! What a life of the binary is to be, and what all of them were.

use std::collections::BTreeMap;
use std::fmt;

use super::power::{Darkness, Faults, PowerCut};

/// What a life is to be, chosen by its seed alone.
#[derive(Debug, Clone)]
pub struct Plan {
    pub cores: u8,
    pub linger: u64,
    pub batch_events: u32,
    pub keep: &'static str,
    /// Whether senders fill segments.
    pub is_heavy: bool,
    pub cut: PowerCut,
    /// Operations that fail at first, and how many there may be until then.
    pub faulty: Option<(u64, u64, Faults)>,
    /// Operations that fail until the binary is killed, where they fail after the power cut.
    pub failing: u64,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_faulty = random.u8(0..10) == 0;
        let is_heavy = random.u8(0..20) == 0;
        // With faults, an answer must tell that the lane that has failed is closed.
        let cores = if is_faulty { 1 } else { random.u8(1..=2) };
        Self {
            cores,
            linger: random.u64(1..150),
            batch_events: *random.choice(&[20, 500, 5_000]).unwrap(),
            keep: random.choice(&["0s", "1s", "1h"]).unwrap(),
            is_heavy,
            cut: PowerCut {
                operations: match random.u8(0..4) {
                    _ if is_heavy => 4_000,
                    0 => random.u64(0..40),
                    1 => random.u64(0..300),
                    _ => random.u64(100..1_000),
                },
                writes_spared: *random.choice(&[0, 0, 1_000]).unwrap(),
                segments: is_heavy.then(|| (usize::from(cores) + 1, random.u64(0..40))),
                darkness: *random
                    .choice(&[Darkness::Blocks, Darkness::Blocks, Darkness::Fails])
                    .unwrap(),
            },
            faulty: is_faulty.then(|| {
                let faults = Faults {
                    writes: *random.choice(&[0, 5, 30]).unwrap(),
                    syncs: *random.choice(&[0, 20, 100]).unwrap(),
                    room: *random.choice(&[0, 20, 100]).unwrap(),
                };
                (random.u64(1..=2), random.u64(20..1_000), faults)
            }),
            failing: random.u64(1..5),
        }
    }
}

/// What the lives were.
#[derive(Debug, Default)]
pub struct Summary {
    pub power_cuts: u64,
    pub after_faults: u64,
    pub operations: u64,
    pub acknowledged: usize,
    pub shed: usize,
    pub segments: u64,
    /// How often the power was cut during which operation.
    pub cut_in: BTreeMap<String, u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} power cuts, {} of them after faults, {} operations, {} segments, {} events answered 200, {} answered \
             503; cut in {:?}",
            self.power_cuts,
            self.after_faults,
            self.operations,
            self.segments,
            self.acknowledged,
            self.shed,
            self.cut_in,
        )
    }
}
