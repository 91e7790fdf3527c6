//! A round: a process under load, one trouble after the other, and what must hold then.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::checker::{Found, Numbers, Verdict};
use super::database::{Database, Moment};
use super::draw::{Ack, Drawn, Kind};
use super::history::{History, Outcome};
use super::node::{Ended, Node, data_dir};
use super::operator;
use super::senders::{Load, Target};
use super::settled::Settling;
use super::stats::{Watch, Watched, ask};
use crate::support::{Proxy, SmallDisk};

/// The database that is served at first, and another one.
pub const MAIN: usize = 0;
pub const OTHER: usize = 1;

pub struct Round<'a> {
    pub drawn: &'a Drawn,
    pub history: &'a History,
    pub load: &'a Load<'a>,
    pub watch: &'a Watch,
    pub databases: [Database<'a>; 2],
    /// In front of MariaDB.
    pub proxy: &'a Proxy,
    /// Where hakaru is started.
    pub directory: &'a Path,
    /// For backups and copies.
    pub scratch: &'a Path,
    pub disk: Option<&'a SmallDisk<'a>>,
    pub random: fastrand::Rng,
    pub node: Option<Node<'a>>,
    pub backup: Option<Moment>,
    /// A directory in which a copy of the data directory is served.
    pub copy: Option<PathBuf>,
    pub nodes: u32,
    pub ended: &'a mut Vec<Ended>,
    /// Something was undone, and is not done again yet.
    pub is_unsettled: bool,
    pub has_served_other: bool,
}

impl<'a> Round<'a> {
    pub fn live(&mut self) {
        for database in &self.databases {
            database.reset();
        }
        if self.drawn.other_has_id {
            let id = (self.random.u32(..), self.random.u32(..));
            self.databases[OTHER].name(id);
        }
        let node = self.start(self.directory, MAIN);
        self.serve_with(node);
        for &trouble in &self.drawn.troubles {
            self.load.wait_for_answers(50);
            self.glance();
            self.history.note(format!("TROUBLE: {trouble:?}"));
            self.meet(trouble);
        }
        self.load.wait_for_answers(50);
        self.settle(&[], MAIN);
        if self.has_served_other {
            // Letters of the other database that were replayed wait for it.
            let node = self.take_node();
            self.end(node);
            self.start_other();
            self.settle(&[], OTHER);
        }
        self.load.stop.store(true, Ordering::SeqCst);
        let node = self.node.take().expect("a process serves");
        self.end(node);
        self.check_last_lines();
        let verdict = self.look();
        self.accuse(&verdict, true);
        self.fail();
    }

    /// Starts a process in a directory.
    pub fn start(&mut self, directory: &Path, database: usize) -> Node<'a> {
        self.try_start(directory, database).expect("it serves")
    }

    /// `None`: it refuses to start.
    pub fn try_start(&mut self, directory: &Path, database: usize) -> Option<Node<'a>> {
        let drawn = self.drawn;
        let dsn = match drawn.kind {
            Kind::Server if database == MAIN => self.proxy.dsn(),
            _ => self.databases[database].dsn(),
        };
        let number = self.nodes;
        self.nodes += 1;
        let place = directory
            .strip_prefix(self.scratch)
            .map_or("", |_| " in a copy");
        self.history.note(format!(
            "process {number} is to serve database {database}{place}"
        ));
        let node = Node::start(drawn, &dsn, number, database, directory, self.history)?;
        self.watch.begin(Watched::new(&node));
        Some(node)
    }

    /// From now on the senders ask this process alone.
    pub fn serve_with(&mut self, node: Node<'a>) {
        self.load.send_to(&[node.target()]);
        self.node = Some(node);
    }

    pub fn node(&mut self) -> &mut Node<'a> {
        self.node.as_mut().expect("a process serves")
    }

    pub fn take_node(&mut self) -> Node<'a> {
        self.node.take().expect("a process serves")
    }

    pub fn kill(&mut self, node: Node<'a>) {
        self.ended.push(node.leave(true, self.watch, self.load));
    }

    pub fn end(&mut self, node: Node<'a>) {
        self.ended.push(node.leave(false, self.watch, self.load));
    }

    /// Kills the process, and starts another one.
    pub fn restart(&mut self) {
        let node = self.take_node();
        self.kill(node);
        let node = self.start(self.directory, MAIN);
        self.serve_with(node);
    }

    pub fn restart_if(&mut self, is_wanted: bool) {
        if is_wanted {
            self.restart();
        }
    }

    fn data_dirs(&self) -> Vec<PathBuf> {
        let copy = self.copy.iter().map(|copy| data_dir(copy));
        copy.chain([data_dir(self.directory)]).collect()
    }

    fn find(&self) -> Found {
        Found::read(&self.databases, &self.data_dirs())
    }

    fn look(&self) -> Verdict {
        self.judge(&self.find())
    }

    fn judge(&self, found: &Found) -> Verdict {
        let invocations = self.history.invocations(self.drawn.ack == Ack::Received);
        let mut verdict = found.judge(&invocations, self.drawn.ack);
        // The documented exception.
        if self.ended.iter().any(|ended| ended.end_not_written) {
            verdict.wrong.retain(|(_, text)| !text.contains("503"));
        }
        verdict
    }

    fn accuse(&self, verdict: &Verdict, with_missing: bool) {
        for (id, text) in &verdict.wrong {
            self.history.accuse(text.clone(), *id);
        }
        if with_missing {
            verdict.accuse_missing(self.history);
        }
    }

    /// Ends the round if something was found.
    pub fn fail(&self) {
        let found = self.history.accusations();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    /// Looks at everything under load. With `stored` each answered event is a row at once.
    fn glance(&mut self) {
        let answered: Vec<_> = self
            .history
            .invocations(false)
            .into_iter()
            .filter(|event| matches!(event.outcome, Outcome::Ok | Outcome::Refused))
            .map(|event| event.id)
            .collect();
        let mut verdict = self.look();
        let is_at_once = self.drawn.ack == Ack::Stored && !self.is_unsettled;
        let answered: std::collections::HashSet<_> = answered.into_iter().collect();
        verdict
            .missing
            .retain(|(id, database)| *database == MAIN && answered.contains(id));
        // The others of a request may come with the next batch.
        verdict.halves.clear();
        self.accuse(&verdict, is_at_once);
        self.fail();
    }

    /// Has the senders pause until everything that was promised to `database` is stored. Then all numbers are exact.
    /// `others` serve beside the process.
    pub fn settle(&mut self, others: &[&Node<'_>], database: usize) {
        self.load.pause();
        self.history.note("the senders pause");
        let mut settling = Settling::begin();
        let mut decided = BTreeSet::new();
        let mut nodes: Vec<Target> = others.iter().map(|node| node.target()).collect();
        nodes.extend(self.node.iter().map(Node::target));
        loop {
            let found = self.find();
            let mut verdict = self.judge(&found);
            verdict.missing.retain(|(_, of)| *of == database);
            verdict.halves.retain(|(_, of)| *of == database);
            let is_late = settling.is_late(&found);
            self.accuse(&verdict, is_late);
            self.fail();
            let numbers: Vec<_> = nodes.iter().map(|node| self.numbers(*node)).collect();
            let are_stored = numbers
                .iter()
                .all(|(_, numbers)| numbers.is_some_and(|numbers| numbers.pending == 0));
            if verdict.is_whole() && are_stored {
                break;
            }
            assert!(!is_late, "events are pending: {numbers:?}");
            if settling.is_undisturbed() {
                for directory in self
                    .copy
                    .iter()
                    .map(PathBuf::as_path)
                    .chain([self.directory])
                {
                    operator::settle(directory, &found, &mut decided, self.history);
                }
            }
            settling.pause();
        }
        if database == MAIN {
            self.history.all_is_safe();
            self.is_unsettled = false;
        }
        self.history.note("everything is stored");
        self.load.resume();
    }

    /// The numbers of a process. Compares them with what the senders have counted, who pause.
    fn numbers(&self, target: Target) -> (u32, Option<Numbers>) {
        let watched = self.watch.of(target.node).expect("it is watched");
        let numbers = ask(watched.admin);
        let counts = self.history.counts(target.node);
        let differ = numbers.and_then(|numbers| numbers.differ(counts, counts));
        if let Some(text) = differ.filter(|_| !watched.is_reloaded) {
            self.history
                .accuse(format!("process {}, at rest: {text}", target.node), []);
        }
        (target.node, numbers)
    }

    /// The last line of each process adds up. Where none was killed, it agrees with what the senders have counted, for
    /// a process and its successors together.
    fn check_last_lines(&self) {
        for ended in self.ended.iter() {
            let lines: Vec<_> = ended.last_lines.iter().map(Numbers::of).collect();
            let may_lose = self.drawn.ack == Ack::Received;
            let mut wrong: Vec<_> = lines
                .iter()
                .filter_map(|line| line.wrong(may_lose))
                .collect();
            let taken: u64 = lines
                .iter()
                .map(|line| line.received - line.recovered)
                .sum();
            let counts = self.history.counts(ended.number);
            let promised = counts.ok + counts.refused;
            let is_counted = (promised..=promised + counts.unanswered).contains(&taken);
            if !ended.was_killed && !is_counted {
                wrong.push(format!(
                    "the senders counted {counts:?}, the process {lines:?}"
                ));
            }
            for text in wrong {
                self.history
                    .accuse(format!("process {}, at its end: {text}", ended.number), []);
            }
        }
    }
}
