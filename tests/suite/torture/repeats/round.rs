//! A round: two servers under load with one database, one trouble after the other, and what must hold then.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::draw::{Side, Trouble};
use super::judge::{Verdict, judge};
use crate::support::{Proxy, SmallDisk};
use crate::torture::checker::{Found, Numbers};
use crate::torture::database::{Database, Moment};
use crate::torture::draw::{Ack, Drawn};
use crate::torture::history::{History, Id, Outcome};
use crate::torture::node::{Ended, Node, data_dir};
use crate::torture::operator;
use crate::torture::senders::Load;
use crate::torture::settled::Settling;
use crate::torture::stats::{Watch, Watched, ask};

/// What an operator runs to have each id stored once.
const ADD_COLUMN: &str = "ALTER TABLE eventlog ADD COLUMN event_id varbinary(64) DEFAULT NULL, \
    ADD UNIQUE KEY event_id (event_id)";

/// Rows whose id is not the one that the sender of this name and value gave.
const WRONG_IDS: &str = "SELECT name, value FROM eventlog \
    WHERE event_id IS NULL OR event_id <> CONCAT(SUBSTR(name, 7), '-', value)";

pub struct Round<'a> {
    pub drawn: &'a Drawn,
    pub history: &'a History,
    pub load: &'a Load<'a>,
    pub watch: &'a Watch,
    pub database: [Database<'a>; 1],
    pub proxy: &'a Proxy,
    /// Where each server is started.
    pub directories: [&'a Path; 2],
    /// For backups.
    pub scratch: &'a Path,
    pub disk: Option<&'a SmallDisk<'a>>,
    pub nodes: [Option<Node<'a>>; 2],
    pub started: u32,
    pub ended: &'a mut Vec<Ended>,
    pub backup: Option<Moment>,
    /// Rows were taken away, and may not be back yet.
    pub is_undone: bool,
    /// Each stored event is counted once, by a process that tells it at its end.
    pub is_counted: bool,
    pub faults: &'a mut Faults,
}

/// Events that were found to be wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// Promised, and nowhere.
    pub lost: u64,
    /// With more than one row.
    pub doubled: u64,
}

impl<'a> Round<'a> {
    pub fn live(&mut self, troubles: &[Trouble]) {
        self.database[0].reset();
        self.database[0].run(ADD_COLUMN);
        self.start(0);
        self.start(1);
        for &trouble in troubles {
            self.load.wait_for_answers(50);
            self.glance();
            self.history.note(format!("TROUBLE: {trouble:?}"));
            self.meet(trouble);
        }
        self.load.wait_for_answers(50);
        self.settle();
        self.load.stop.store(true, Ordering::SeqCst);
        for side in 0..2 {
            let node = self.take(side);
            self.end(node);
        }
        self.check_last_lines();
        let verdict = self.look();
        self.accuse(&verdict, true);
        self.fail();
    }

    fn try_start(&mut self, side: Side) -> Option<Node<'a>> {
        let number = self.started;
        self.started += 1;
        self.history
            .note(format!("process {number} is to be server {side}"));
        let (dsn, directory) = (self.proxy.dsn(), self.directories[side]);
        let node = Node::start(self.drawn, &dsn, number, 0, directory, self.history)?;
        self.watch.begin(Watched::new(&node));
        Some(node)
    }

    /// Starts a server, and has the senders ask it too. Whether it serves.
    pub fn starts(&mut self, side: Side) -> bool {
        self.nodes[side] = self.try_start(side);
        self.send_to_all();
        self.nodes[side].is_some()
    }

    pub fn start(&mut self, side: Side) {
        assert!(self.starts(side), "server {side} serves");
    }

    pub fn send_to_all(&self) {
        let nodes = self.nodes.iter().flatten();
        self.load
            .send_to(&nodes.map(Node::target).collect::<Vec<_>>());
    }

    pub fn take(&mut self, side: Side) -> Node<'a> {
        self.nodes[side].take().expect("it serves")
    }

    pub fn kill(&mut self, node: Node<'a>) {
        self.ended.push(node.leave(true, self.watch, self.load));
    }

    pub fn end(&mut self, node: Node<'a>) {
        self.ended.push(node.leave(false, self.watch, self.load));
    }

    fn find(&self) -> Found {
        let directories: Vec<_> = self.directories.iter().map(|path| data_dir(path)).collect();
        let mut found = Found::read(&self.database, &directories);
        if let Database::Server(server) = &self.database[0] {
            let wrong: Vec<(String, u32)> = server.query(WRONG_IDS);
            let text = |row| format!("a row with the id of another event, or none: {row:?}");
            found.strange.extend(wrong.into_iter().map(text));
        }
        found
    }

    fn judge(&self, found: &Found) -> Verdict {
        let invocations = self.history.invocations(self.drawn.ack == Ack::Received);
        // The documented exception.
        let may_keep_shed = self.ended.iter().any(|ended| ended.end_not_written);
        let mut verdict = judge(found, &invocations, may_keep_shed);
        // What one process has lost with its memory was half stored by it, whatever another one has answered.
        let lost = invocations.iter().filter(|event| event.may_be_lost);
        let lost: HashSet<Id> = lost.map(|event| event.id).collect();
        let halves = found.halves(&invocations);
        let halves = halves.into_iter().map(|(id, _)| id);
        verdict
            .halves
            .extend(halves.filter(|id| !lost.contains(id)));
        verdict
    }

    fn look(&self) -> Verdict {
        self.judge(&self.find())
    }

    fn accuse(&mut self, verdict: &Verdict, with_missing: bool) {
        self.faults.doubled = self.faults.doubled.max(verdict.doubled);
        for (id, text) in &verdict.wrong {
            self.history.accuse(text.clone(), *id);
        }
        if with_missing {
            self.faults.lost = verdict.missing.len() as u64;
            verdict.accuse_missing(self.history);
        }
    }

    /// Ends the round if something was found.
    fn fail(&self) {
        let found = self.history.accusations();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    /// Looks at everything under load. With `stored` each answered event is a row at once.
    fn glance(&mut self) {
        let answered: HashSet<Id> = self
            .history
            .invocations(false)
            .into_iter()
            .filter(|event| matches!(event.outcome, Outcome::Ok | Outcome::Refused))
            .map(|event| event.id)
            .collect();
        let mut verdict = self.look();
        verdict.missing.retain(|id| answered.contains(id));
        verdict.halves.clear();
        let is_at_once = self.drawn.ack == Ack::Stored && !self.is_undone;
        self.accuse(&verdict, is_at_once);
        self.fail();
    }

    /// Has the senders pause until everything that was promised is stored. Then all numbers are exact.
    pub fn settle(&mut self) {
        self.load.pause();
        self.history.note("the senders pause");
        let mut settling = Settling::begin();
        let mut decided = BTreeSet::new();
        loop {
            let found = self.find();
            let verdict = self.judge(&found);
            let is_late = settling.is_late(&found);
            self.accuse(&verdict, is_late);
            self.fail();
            if verdict.is_whole() && self.nothing_is_pending() {
                break;
            }
            assert!(!is_late, "events are pending");
            if settling.is_undisturbed() {
                for directory in self.directories {
                    operator::settle(directory, &found, &mut decided, self.history);
                }
            }
            settling.pause();
        }
        self.history.all_is_safe();
        self.is_undone = false;
        self.history.note("everything is stored");
        self.load.resume();
    }

    /// Asks both servers, and compares with what the senders have counted, who pause.
    fn nothing_is_pending(&self) -> bool {
        let nodes = self.nodes.iter().flatten();
        let mut pending = nodes.map(|node| {
            let watched = self.watch.of(node.number).expect("it is watched");
            let counts = self.history.counts(node.number);
            let numbers = ask(watched.admin)?;
            let differ = numbers.differ(counts, counts);
            if let Some(text) = differ.filter(|_| !watched.is_reloaded) {
                self.history
                    .accuse(format!("process {}, at rest: {text}", node.number), []);
            }
            Some(numbers.pending)
        });
        pending.all(|pending| pending == Some(0))
    }

    /// The last line of each process adds up, and agrees with what the senders have counted. Where each process could
    /// write one, no row was taken away, and no lane was taken over, as many events are counted as stored as there are
    /// rows: the others are duplicates.
    fn check_last_lines(&self) {
        let mut stored = 0;
        for ended in self.ended.iter() {
            let lines: Vec<_> = ended.last_lines.iter().map(Numbers::of).collect();
            let may_lose = self.drawn.ack == Ack::Received;
            let wrong = lines.iter().filter_map(|line| line.wrong(may_lose));
            let mut wrong: Vec<_> = wrong.collect();
            let taken: u64 = lines
                .iter()
                .map(|line| line.received - line.recovered)
                .sum();
            let counts = self.history.counts(ended.number);
            let promised = counts.ok + counts.refused;
            if !ended.was_killed && !(promised..=promised + counts.unanswered).contains(&taken) {
                wrong.push(format!(
                    "the senders counted {counts:?}, the process {lines:?}"
                ));
            }
            stored += lines.iter().map(|line| line.stored).sum::<u64>();
            for text in wrong {
                self.history
                    .accuse(format!("process {}, at its end: {text}", ended.number), []);
            }
        }
        let rows = self.database[0].rows().len() as u64;
        let is_exact = self.is_counted && self.ended.iter().all(|ended| !ended.was_killed);
        if is_exact && stored != rows {
            self.history.accuse(
                format!("all processes count {stored} events as stored, and there are {rows} rows"),
                [],
            );
        }
    }
}
