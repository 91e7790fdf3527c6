//! Senders that repeat themselves. Two servers store in one database, each with a journal of its own. Each event has an
//! id, and a request is sent again, to any of the two, until it is answered 200, 422 or 400. Whatever fails, each event
//! is one row in the end.

mod draw;
mod judge;
mod round;
mod senders;
mod troubles;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;

use self::draw::{Trouble, draw};
use self::round::{Faults, Round};
use super::database::Database;
use super::draw::Drawn;
use super::history::{History, Sent};
use super::senders::{Load, SENDERS};
use super::stats::Watch;
use super::{failed_round, run_rounds};
use crate::support::{DatabaseServer, NetworkFault, Proxy, SmallDisk, StopWhenDropped};

/// Rounds that are under way at the same time.
const AT_ONCE: usize = 2;

/// Rounds where nobody asks for more.
const ROUNDS: usize = 4;

/// What one round after the other uses.
struct Site {
    server: DatabaseServer,
    proxy: Proxy,
}

impl Site {
    fn start() -> Self {
        let server = DatabaseServer::start();
        Self {
            proxy: Proxy::start(server.port()),
            server,
        }
    }
}

/// What was done in all rounds.
#[derive(Debug, Default)]
struct Summary {
    sent: Sent,
    lost: u64,
    doubled: u64,
    looks: u64,
    /// How often each trouble was drawn.
    drawn: BTreeMap<String, u32>,
}

fn live(
    drawn: &Drawn,
    troubles: &[Trouble],
    site: &mut Site,
    history: &History,
    summary: &Mutex<Summary>,
) {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let scratch = tempfile::tempdir().unwrap();
    let disk = troubles
        .contains(&Trouble::FullDisk)
        .then(|| SmallDisk::mount(places[0].path(), "256m"));
    site.proxy.inject(NetworkFault::None);
    site.proxy.cut();
    let (load, watch) = (
        Load::new(history, drawn.pace, drawn.batch_events),
        Watch::default(),
    );
    let (mut ended, mut faults) = (Vec::new(), Faults::default());
    let lived = thread::scope(|scope| {
        let _stopped = StopWhenDropped(&load.stop);
        for sender in 0..SENDERS {
            let load = &load;
            scope.spawn(move || senders::send(load, sender, drawn.seed));
        }
        scope.spawn(|| watch.run(&load));
        let mut round = Round {
            drawn,
            history,
            load: &load,
            watch: &watch,
            database: [Database::Server(&mut site.server)],
            proxy: &site.proxy,
            directories: places.each_ref().map(tempfile::TempDir::path),
            scratch: scratch.path(),
            disk: disk.as_ref(),
            nodes: [None, None],
            started: 0,
            ended: &mut ended,
            backup: None,
            is_undone: false,
            is_counted: true,
            faults: &mut faults,
        };
        let lived = catch_unwind(AssertUnwindSafe(|| round.live(troubles)));
        for side in 0..2 {
            if let (Err(_), Some(node)) = (&lived, round.nodes[side].take()) {
                round.kill(node);
            }
        }
        lived
    });
    let mut summary = summary.lock().unwrap();
    summary.sent.add(&history.sent());
    summary.lost += faults.lost;
    summary.doubled += faults.doubled;
    summary.looks += watch.looks.load(Ordering::Relaxed);
    for trouble in troubles {
        *summary.drawn.entry(format!("{trouble:?}")).or_default() += 1;
    }
    drop(summary);
    if let Err(panic) = lived {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn what_a_sender_repeats_is_one_row_whatever_fails() {
    let summary = Mutex::default();
    let (rounds, seed, failed) = run_rounds(ROUNDS, AT_ONCE, Site::start, |seed, site| {
        let ((drawn, troubles), history) = (draw(seed), History::new());
        let lived = catch_unwind(AssertUnwindSafe(|| {
            live(&drawn, &troubles, site, &history, &summary);
        }));
        let panic = lived.err()?;
        // The server may be down.
        *site = Site::start();
        let drawn = format!("{drawn:#?}\n{troubles:?}");
        Some(failed_round(seed, &drawn, &history, panic.as_ref()))
    });
    let summary = summary.into_inner().unwrap();
    println!(
        "{rounds} rounds from seed {seed}: {}, {} lost, {} doubled, /stats.json compared {} times",
        summary.sent, summary.lost, summary.doubled, summary.looks
    );
    for (trouble, count) in &summary.drawn {
        println!("{count:5}  {trouble}");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
