//! A round on a cluster: processes under load, one trouble after the other, and what must hold then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cluster::{Cluster, Kind, MEMBERS};
use super::draw::{Blow, Drawn, Trouble};
use super::front::Front;
use super::watch::{Waits, Watch};
use super::{group_replication, judge};
use crate::support::{Hakaru, Settings, wait_until};
use crate::torture::draw::Ack;
use crate::torture::history::History;
use crate::torture::node::Node;
use crate::torture::senders::Load;
use crate::torture::setting;
use crate::torture::stats::ask;

/// hakaru stores again within this time after the cluster does. Beside all the other tests a machine may be too busy for
/// that: it is a rule where `HAKARU_CLUSTER_ROUNDS` asks for rounds.
const LATER: Duration = Duration::from_secs(2);

/// Most lines about failures of one process and one trouble. A trouble may be a few for hakaru: the front changes its
/// member when one is lost, and again when it comes back.
const LINES: usize = 20;

/// How long a member may take to come back while events are stored.
const UNDER_LOAD: Duration = Duration::from_secs(30);

/// The member goes to another one this often in a row.
const FLIPS: usize = 4;

pub struct Round<'a> {
    pub drawn: &'a Drawn,
    pub history: &'a History,
    pub cluster: &'a mut Cluster,
    pub fronts: &'a [Front],
    pub watch: &'a Watch,
    pub loads: &'a [Load<'a>],
    /// Where each process is started.
    pub directories: &'a [&'a Path],
    pub random: fastrand::Rng,
    pub nodes: Vec<Option<Node<'a>>>,
    pub started: u32,
    /// What was measured, by trouble.
    pub waits: &'a mut Vec<(Trouble, Waits)>,
    /// How many warnings of each kind were logged.
    pub lines: &'a mut BTreeMap<String, u32>,
}

impl<'a> Round<'a> {
    pub fn live(&mut self) {
        for writer in 0..self.drawn.writers {
            self.start(writer);
        }
        for &trouble in &self.drawn.troubles {
            self.watch.wait_for_rows(self.drawn.writers);
            self.history.note(format!("TROUBLE: {trouble:?}"));
            self.watch.begin();
            self.meet(trouble);
            self.history.note("the cluster is made whole");
            let is_whole = self.cluster.is_whole_within(UNDER_LOAD);
            self.watch.wait_for_rows(self.drawn.writers);
            self.measure(trouble);
            if !is_whole {
                self.make_whole_at_rest();
            }
        }
        self.finish();
    }

    /// On a busy machine a member does not catch up with what is stored meanwhile.
    fn make_whole_at_rest(&mut self) {
        self.history.note("the senders pause");
        for load in self.loads {
            load.pause();
        }
        self.cluster.make_whole();
        for load in self.loads {
            load.resume();
        }
    }

    fn start(&mut self, writer: usize) {
        let drawn = self.drawn;
        let number = self.started;
        self.started += 1;
        let directory = self.directories[writer];
        let hakaru = Settings::datasource(&self.fronts[writer].dsn())
            .directory(directory)
            .flag(drawn.ack.flag())
            .flag(&format!("--io={}", drawn.io))
            .flag(&format!("--cores={}", drawn.cores))
            .flag(&format!("--batch-events={}", drawn.batch_events))
            .flag(&format!("--linger={}ms", drawn.linger))
            .start();
        self.history
            .note(format!("process {number} serves as writer {writer}"));
        let node = Node {
            number,
            database: 0,
            directory: directory.to_owned(),
            hakaru,
            reloads: 0,
            history: self.history,
        };
        self.loads[writer].send_to(&[node.target()]);
        self.nodes[writer] = Some(node);
    }

    fn meet(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Member {
                blow,
                is_writer,
                and_hakaru,
            } => self.strike(blow, is_writer, and_hakaru),
            Trouble::Flip { and_hakaru } => {
                for _ in 0..FLIPS {
                    self.flip();
                    self.restart_if(and_hakaru);
                    self.watch.wait_for_rows(self.drawn.writers);
                }
            }
            Trouble::KillHakaru => self.restart_if(true),
        }
    }

    fn strike(&mut self, blow: Blow, is_writer: bool, and_hakaru: bool) {
        let member = self.victim(is_writer);
        self.history.note(format!("member {member}: {blow:?}"));
        match blow {
            Blow::Kill => self.cluster.kill(member),
            Blow::Stop => self.cluster.stop(member),
            Blow::Freeze => self.cluster.members[member].freeze(),
            Blow::Split => self.cluster.network().split(member),
        }
        self.restart_if(and_hakaru);
        wait_until("the others go on without it", || {
            self.cluster.is_without(member)
        });
        self.history
            .note(format!("the others go on without member {member}"));
        self.watch.wait_for_rows(self.drawn.writers);
        match blow {
            Blow::Kill | Blow::Stop => {}
            Blow::Freeze => self.cluster.members[member].revive(),
            Blow::Split => self.cluster.network().join(member),
        }
    }

    fn victim(&mut self, is_writer: bool) -> usize {
        let written: Vec<usize> = self.fronts.iter().filter_map(Front::member).collect();
        let others: Vec<usize> = (0..MEMBERS)
            .filter(|member| !written.contains(member))
            .collect();
        let among = if is_writer { &written } else { &others };
        *self.random.choice(among).expect("a member")
    }

    /// Has another member take the writes.
    fn flip(&mut self) {
        let from = self.random.usize(0..MEMBERS);
        let candidates = (0..MEMBERS).map(|more| (from + more) % MEMBERS);
        match self.cluster.kind {
            Kind::Galera => {
                let front = &self.fronts[self.random.usize(0..self.drawn.writers)];
                let now = front.member();
                let mut able = candidates.filter(|member| self.watch.takes_writes(*member));
                let other = able.find(|member| Some(*member) != now);
                self.history
                    .note(format!("a front goes from {now:?} to {other:?}"));
                if other.is_some() {
                    front.point_to(other);
                }
            }
            Kind::GroupReplication => {
                let now = self.fronts[0].member();
                let mut others = candidates.filter(|member| Some(*member) != now);
                let other = others.next().expect("another member");
                self.history
                    .note(format!("member {other} becomes the primary"));
                group_replication::make_primary(&self.cluster.members[other]);
            }
        }
    }

    fn restart_if(&mut self, is_wanted: bool) {
        if !is_wanted {
            return;
        }
        let writer = self.random.usize(0..self.drawn.writers);
        let node = self.nodes[writer].take().expect("it serves");
        self.history
            .note(format!("process {} is killed", node.number));
        self.judge_log(&node.hakaru, node.number);
        self.loads[writer].forget(node.number);
        node.kill();
        self.start(writer);
    }

    fn measure(&mut self, trouble: Trouble) {
        for writer in 0..self.drawn.writers {
            let waits = self.watch.waits(writer);
            self.history.note(format!("writer {writer}: {waits:?}"));
            let is_rule = setting::<usize>("HAKARU_CLUSTER_ROUNDS").is_some();
            if is_rule && waits.stored > waits.cluster + LATER {
                self.history.accuse(
                    format!("{trouble:?}: writer {writer} stored nothing for too long: {waits:?}"),
                    [],
                );
            }
            self.waits.push((trouble, waits));
        }
    }

    /// What heals by itself is no error, and needs few lines.
    fn judge_log(&mut self, hakaru: &Hakaru, number: u32) {
        let mut wrong: Vec<String> = hakaru.errors().iter().map(ToString::to_string).collect();
        for event in ["lane_held", "lane_forked", "dead_letters_written"] {
            wrong.extend(hakaru.events(event).iter().map(ToString::to_string));
        }
        let warnings = hakaru.warnings();
        let lines = warnings.len();
        for line in warnings {
            let event = line["event"].as_str().unwrap_or_default();
            *self
                .lines
                .entry(format!("{event} {}", line["code"]))
                .or_default() += 1;
        }
        if lines > LINES * self.drawn.troubles.len() {
            wrong.push(format!("{lines} warnings"));
        }
        for text in wrong {
            self.history.accuse(format!("process {number}: {text}"), []);
        }
    }

    /// Everything is stored, and all members have the same.
    fn finish(&mut self) {
        let is_in_memory = self.drawn.ack == Ack::Received;
        for load in self.loads {
            load.pause();
        }
        let admins: Vec<_> = self
            .nodes
            .iter()
            .flatten()
            .map(|node| node.hakaru.admin())
            .collect();
        // What a killed process left in the journal is counted when it is read.
        wait_until("everything is stored", || {
            let mut asked = admins.iter().map(|admin| ask(*admin));
            asked.all(|numbers| numbers.is_some_and(|numbers| numbers.pending == 0))
                && judge::has_all(&self.cluster.members[0], self.history, is_in_memory)
        });
        for load in self.loads {
            load.stop.store(true, Ordering::SeqCst);
        }
        for writer in 0..self.drawn.writers {
            let node = self.nodes[writer].take().expect("it serves");
            self.judge_log(&node.hakaru, node.number);
            node.end();
        }
        judge::wait_until_equal(self.cluster);
        judge::judge(self.cluster, self.history, is_in_memory);
        let wrong = self.history.accusations();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
