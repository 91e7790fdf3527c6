//! What goes wrong in a round. Each trouble ends with two servers.

use std::thread;
use std::time::{Duration, Instant};

use super::draw::{Side, Trouble};
use super::round::Round;
use crate::support::{DatabaseServer, NetworkFault, wait_until};
use crate::torture::database::Database;
use crate::torture::draw::Ack;

impl Round<'_> {
    pub fn meet(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Kill(side) => self.restart(side),
            Trouble::KillBoth => {
                for side in 0..2 {
                    let node = self.take(side);
                    self.kill(node);
                }
                self.start(0);
                self.start(1);
            }
            Trouble::End(side) => {
                let node = self.take(side);
                self.end(node);
                self.load.wait_for_answers(30);
                self.start(side);
            }
            Trouble::Reload(side) => self.reload(side),
            Trouble::KillDatabase(and_hakaru) => {
                self.database[0].crash(|_| ());
                self.restart_if(and_hakaru);
            }
            Trouble::FreezeDatabase => self.freeze_database(),
            Trouble::Cut => self.proxy.cut(),
            Trouble::Network(fault, and_hakaru) => self.cut_at(fault, and_hakaru),
            Trouble::Freeze(side) => self.freeze(side),
            Trouble::TakeOver(side, then_kill) => self.take_over(side, then_kill),
            Trouble::FullDisk => self.fill_disk(),
            Trouble::TakeBackup(how) => {
                let rows = self.database[0].rows().len();
                wait_until("rows are stored", || self.database[0].rows().len() > rows);
                self.backup = Some(self.database[0].back_up(how, self.scratch));
            }
            Trouble::Restore => self.restore(),
            Trouble::Quiet => self.settle(),
        }
    }

    fn restart(&mut self, side: Side) {
        let node = self.take(side);
        self.kill(node);
        self.start(side);
    }

    fn restart_if(&mut self, side: Option<Side>) {
        if let Some(side) = side {
            self.restart(side);
        }
    }

    fn reload(&mut self, side: Side) {
        let node = self.nodes[side].as_mut().expect("it serves");
        let number = node.number;
        self.watch.change(|watched| {
            watched.is_reloaded |= watched.node == number;
        });
        node.reload();
    }

    fn server(&self) -> &DatabaseServer {
        match &self.database[0] {
            Database::Server(server) => server,
            Database::Sqlite(_) => unreachable!("these rounds have a server"),
        }
    }

    /// Until hakaru has given a connection up, if it has one that it waits for.
    fn freeze_database(&mut self) {
        let before = self.proxy.connections();
        self.server().freeze();
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.proxy.connections() == before && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
        self.server().revive();
    }

    fn cut_at(&mut self, fault: NetworkFault, and_hakaru: Option<Side>) {
        if !self.proxy.inject_soon(fault) {
            self.history.note("the fault was not met");
        }
        self.restart_if(and_hakaru);
    }

    /// Until some senders have given up and repeat at the other server. A transaction of the frozen one may have locks
    /// for which the other one waits.
    fn freeze(&mut self, side: Side) {
        let unanswered = self.history.unanswered();
        let node = self.take(side);
        node.freeze();
        wait_until("senders give up", || {
            self.history.unanswered() > unanswered + 50
        });
        self.history
            .note(format!("process {} is revived", node.number));
        node.revive();
        self.nodes[side] = Some(node);
        self.load.wait_for_answers(50);
    }

    /// Until the servers have taken some requests. Those whose answers wait for rows, or for memory, may all wait for the
    /// ids in a transaction of the frozen process, which has its locks until `wait_timeout`: these wait five seconds.
    fn wait_beside_frozen(&self) {
        if self.drawn.ack == Ack::Journaled {
            return self.load.wait_for_answers(50);
        }
        let before = self.history.requests();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.history.requests() <= before + 50 && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn take_over(&mut self, side: Side, then_kill: bool) {
        // Of events that another process has stored, a process does not know how many were duplicates.
        self.is_counted = false;
        let old = self.take(side);
        old.freeze();
        self.start(side);
        self.wait_beside_frozen();
        self.history
            .note(format!("process {} is revived", old.number));
        old.revive();
        self.load.wait_for_answers(50);
        if then_kill {
            self.kill(old);
        } else {
            self.end(old);
        }
    }

    /// The other server takes what this one sheds.
    fn fill_disk(&mut self) {
        let disk = self.disk.expect("the disk is small");
        let node = self.take(0);
        self.kill(node);
        disk.fill();
        let shed = self.history.shed();
        if self.starts(0) && self.drawn.ack != Ack::Received {
            let requests = self.history.requests();
            wait_until("events are shed", || {
                // The janitor gives back what the lane of the killed process does not need.
                disk.fill();
                self.history.shed() > shed + 20 || self.history.requests() > requests + 500
            });
            let shed = self.history.shed() - shed;
            self.history.note(format!("{shed} events were shed"));
        }
        disk.empty();
        self.history.note("the disk has room again");
        // On a full disk the journal keeps nothing that is stored: an older backup cannot be filled up from it.
        self.backup = None;
        if self.nodes[0].is_none() {
            self.start(0);
        }
    }

    fn restore(&mut self) {
        let Some(backup) = self.backup.take() else {
            self.history.note("there is no backup");
            return;
        };
        (self.is_undone, self.is_counted) = (true, false);
        // Events in memory are lost with it.
        let may_lose = self.drawn.ack == Ack::Received;
        self.watch.change(|watched| watched.may_lose |= may_lose);
        let rows = self.database[0].restore(&backup);
        self.history.restored(&rows);
        self.history
            .note(format!("the database has {} rows", rows.len()));
        self.backup = Some(backup);
        // A restore under a running process is noticed at the next batch.
        self.load.wait_for_answers(100);
    }
}
