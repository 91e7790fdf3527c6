//! Threads that ask each member what it says of the cluster and which rows it has. They lead the fronts, and measure how
//! long no row was stored, and how long the cluster itself took no write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

use super::cluster::{Cluster, Kind, MEMBERS, View};
use super::front::Front;
use super::member::connect;
use super::{galera, group_replication};
use crate::support::wait_until;
use crate::torture::senders::SENDERS;

/// How often a member is asked.
const EVERY: Duration = Duration::from_millis(50);

/// What a member has said is not true any more after this time.
const STALE: Duration = Duration::from_millis(1500);

/// How often the cluster is written to.
const BEAT: Duration = Duration::from_millis(20);

/// Most processes that store at the same time.
pub const WRITERS: usize = 2;

/// When something happened last, and the longest time without it.
#[derive(Debug, Clone, Copy)]
struct Gaps {
    last: Instant,
    longest: Duration,
    count: u64,
}

impl Gaps {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            longest: Duration::ZERO,
            count: 0,
        }
    }

    fn happens(&mut self) {
        self.longest = self.longest();
        self.last = Instant::now();
        self.count += 1;
    }

    fn longest(&self) -> Duration {
        self.longest.max(self.last.elapsed())
    }
}

/// The longest times of one writer during a trouble.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    /// Without a stored row.
    pub stored: Duration,
    /// Without a write of the test's own, at the same address.
    pub cluster: Duration,
}

struct State {
    views: [Option<(Instant, View)>; MEMBERS],
    highest_id: u64,
    stored: [Gaps; WRITERS],
    beats: [Gaps; WRITERS],
}

pub struct Watch {
    kind: Kind,
    fronts: Vec<Front>,
    state: Mutex<State>,
    pub stop: AtomicBool,
}

impl Watch {
    pub fn new(cluster: &Cluster, fronts: &[Front]) -> Self {
        Self {
            kind: cluster.kind,
            fronts: fronts.to_vec(),
            state: Mutex::new(State {
                views: [None; MEMBERS],
                highest_id: 0,
                stored: [Gaps::new(); WRITERS],
                beats: [Gaps::new(); WRITERS],
            }),
            stop: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks a member until the round ends.
    pub fn follow(&self, member: usize, socket: &std::path::Path) {
        let mut connection = None;
        while !self.is_stopped() {
            if connection.is_none() {
                connection = connect(socket);
            }
            let view = connection.as_mut().and_then(|connection| match self.kind {
                Kind::Galera => galera::view(connection, member),
                Kind::GroupReplication => group_replication::view(connection, member),
            });
            self.lock().views[member] = view.map(|view| (Instant::now(), view));
            self.lead();
            let sees = view.is_some_and(|view| view != View::Outside);
            let is_well = connection
                .as_mut()
                .is_some_and(|connection| !sees || self.count_rows(connection));
            if view.is_none() || !is_well {
                connection = None;
            }
            thread::park_timeout(EVERY);
        }
    }

    /// Notes which writers have stored since the last look. Whether the member answers.
    fn count_rows(&self, connection: &mut Conn) -> bool {
        let before = self.lock().highest_id;
        let sql = format!(
            "SELECT MAX(id), SUM(name < 'sender{SENDERS}'), SUM(name >= 'sender{SENDERS}') FROM hakaru.eventlog WHERE id > {before}"
        );
        type Row = (Option<u64>, Option<u64>, Option<u64>);
        let row: mysql::Result<Option<Row>> = connection.query_first(sql);
        match row {
            Ok(Some((Some(highest), first, second))) => {
                let mut state = self.lock();
                // A member that comes back has fewer rows than others.
                if highest > state.highest_id {
                    state.highest_id = highest;
                    for (writer, rows) in [first, second].into_iter().enumerate() {
                        if rows.unwrap_or(0) > 0 {
                            state.stored[writer].happens();
                        }
                    }
                }
                true
            }
            Ok(_) => true,
            // There may be no table yet.
            Err(mysql::Error::MySqlError(_)) => true,
            Err(_) => false,
        }
    }

    /// Leads each front to a member that takes writes.
    fn lead(&self) {
        let state = self.lock();
        let fresh = |(at, view): (Instant, View)| match view {
            View::Inside { primary } if at.elapsed() < STALE => primary,
            _ => None,
        };
        let named: Vec<usize> = state
            .views
            .iter()
            .flatten()
            .filter_map(|v| fresh(*v))
            .collect();
        let votes = |member: usize| named.iter().filter(|named| **named == member).count();
        let most = (0..MEMBERS).map(votes).max().unwrap_or(0);
        for front in &self.fronts {
            let now = front.member();
            // The one that most members name. With Galera each names itself, and it is kept while it does.
            let is_best = |member: &usize| most > 0 && votes(*member) == most;
            let next = now.map_or(0, |now| now + 1);
            let others = (0..MEMBERS).map(|more| (next + more) % MEMBERS);
            front.point_to(now.filter(is_best).or_else(|| others.clone().find(is_best)));
        }
    }

    /// Writes by a front until the round ends, as any client may.
    pub fn beat(&self, writer: usize) {
        let mut connection: Option<Conn> = None;
        let address = self.fronts[writer].address();
        while !self.is_stopped() {
            if connection.is_none() {
                let options = OptsBuilder::new()
                    .ip_or_hostname(Some(address.ip().to_string()))
                    .tcp_port(address.port())
                    .user(Some("root"))
                    .prefer_socket(false)
                    .read_timeout(Some(STALE));
                connection = Conn::new(options).ok();
            }
            let written = connection.as_mut().is_some_and(|connection| {
                let sql =
                    format!("UPDATE beats.beat SET beats = beats + 1 WHERE writer = {writer}");
                connection.query_drop(sql).is_ok() && connection.affected_rows() == 1
            });
            if written {
                self.lock().beats[writer].happens();
            } else {
                connection = None;
            }
            thread::park_timeout(BEAT);
        }
    }

    /// A trouble begins now.
    pub fn begin(&self) {
        let mut state = self.lock();
        let State { stored, beats, .. } = &mut *state;
        for gaps in stored.iter_mut().chain(beats) {
            gaps.longest = Duration::ZERO;
        }
    }

    /// The longest waits since it has begun.
    pub fn waits(&self, writer: usize) -> Waits {
        let state = self.lock();
        Waits {
            stored: state.stored[writer].longest(),
            cluster: state.beats[writer].longest(),
        }
    }

    /// Waits until each of these writers has stored a few times more.
    pub fn wait_for_rows(&self, writers: usize) {
        let counts = || self.lock().stored.map(|gaps| gaps.count);
        let before = counts();
        wait_until("rows are stored", || {
            let now = counts();
            (0..writers).all(|writer| now[writer] > before[writer] + 3)
        });
    }

    /// Whether a member has said of late that it takes writes.
    pub fn takes_writes(&self, member: usize) -> bool {
        let view = self.lock().views[member];
        let inside = View::Inside {
            primary: Some(member),
        };
        view.is_some_and(|(at, view)| at.elapsed() < STALE && view == inside)
    }
}
