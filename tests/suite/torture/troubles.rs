//! What goes wrong in a round, and what an operator does. Each ends with one process that serves the first database.

use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::checker::{Letters, letters};
use super::draw::{Ack, Kind, Trouble};
use super::node::{Node, data_dir};
use super::round::{MAIN, OTHER, Round};
use crate::support::{NetworkFault, run, wait_until};

impl<'a> Round<'a> {
    pub fn meet(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Kill => self.restart(),
            Trouble::End => {
                let node = self.take_node();
                self.end(node);
                let node = self.start(self.directory, MAIN);
                self.serve_with(node);
            }
            Trouble::KillDatabase { and_hakaru } => {
                self.databases[MAIN].crash(|_| ());
                self.restart_if(and_hakaru);
            }
            Trouble::Cut => self.proxy.cut(),
            Trouble::Network { fault, and_hakaru } => self.cut_at(fault, and_hakaru),
            Trouble::Overlap => {
                let new = self.start(self.directory, MAIN);
                let old = self.take_node();
                self.serve_with(new);
                self.end(old);
            }
            Trouble::Reload { then_kill } => {
                let number = self.node().number;
                self.watch.change(|watched| {
                    watched.is_reloaded |= watched.node == number;
                });
                self.node().reload();
                self.restart_if(then_kill);
            }
            Trouble::Freeze { then_kill } => self.freeze(then_kill),
            Trouble::FreezeAndCopy => self.freeze_and_copy(),
            Trouble::Copy { beside } => self.serve_copy(beside),
            Trouble::TakeBackup(how) => {
                self.wait_for_rows();
                self.backup = Some(self.databases[MAIN].back_up(how, self.scratch));
            }
            Trouble::Restore { while_running } => self.restore(while_running),
            Trouble::Repoint => self.repoint(),
            Trouble::ServeOther { kill } => self.serve_other(kill),
            Trouble::Replay { killed_after } => self.replay(killed_after),
            Trouble::FullDisk => self.fill_disk(),
            Trouble::RefuseAll => self.refuse_all(),
            Trouble::Quiet => self.settle(&[], MAIN),
        }
    }

    /// Until the process has met its database.
    fn wait_for_rows(&self) {
        let before = self.databases[MAIN].rows().len();
        wait_until("rows are stored", || {
            self.databases[MAIN].rows().len() > before
        });
    }

    fn cut_at(&mut self, fault: NetworkFault, and_hakaru: bool) {
        if !self.proxy.inject_soon(fault) {
            self.history.note("the fault was not met");
        }
        self.restart_if(and_hakaru);
    }

    fn freeze(&mut self, then_kill: bool) {
        let old = self.take_node();
        old.freeze();
        let new = self.start(self.directory, MAIN);
        let number = new.number;
        self.serve_with(new);
        self.wait_beside_frozen(number);
        self.history
            .note(format!("process {} is revived", old.number));
        old.revive();
        self.load.wait_for_answers(100);
        if then_kill {
            self.kill(old);
        } else {
            self.end(old);
        }
    }

    /// The frozen process may have locked a checkpoint, or the whole file of SQLite. Then rows come late, or not at all.
    fn wait_beside_frozen(&self, node: u32) {
        if self.drawn.ack == Ack::Stored {
            self.load.wait_for_requests(node, 5);
        } else {
            self.load.wait_for_answers(100);
        }
    }

    /// Copies the data directory of a frozen process. Returns where a process is to be started on it.
    fn copy(&mut self, node: &Node<'_>) -> std::path::PathBuf {
        let place = self.scratch.join(format!("copy-{}", self.nodes));
        std::fs::create_dir(&place).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        run(
            "cp",
            &["-a", &text(&node.data_dir()), &text(&data_dir(&place))],
        );
        self.copy = Some(place.clone());
        place
    }

    fn freeze_and_copy(&mut self) {
        let old = self.take_node();
        old.freeze();
        let place = self.copy(&old);
        let copied = letters(&data_dir(&place));
        let other = self.start(&place, MAIN);
        self.load.send_to(&[other.target()]);
        self.wait_beside_frozen(other.number);
        self.history
            .note(format!("process {} is revived", old.number));
        old.revive();
        self.load.send_to(&[old.target(), other.target()]);
        self.load.wait_for_answers(200);
        self.node = Some(old);
        self.end_copy(other, &place, &copied);
    }

    fn serve_copy(&mut self, beside: bool) {
        let node = self.take_node();
        node.freeze();
        let place = self.copy(&node);
        node.revive();
        let copied = letters(&data_dir(&place));
        if beside {
            let other = self.start(&place, MAIN);
            self.load.send_to(&[node.target(), other.target()]);
            self.load.wait_for_answers(200);
            self.node = Some(node);
            self.end_copy(other, &place, &copied);
            return;
        }
        self.load.wait_for_answers(100);
        self.kill(node);
        let other = self.start(&place, MAIN);
        self.load.send_to(&[other.target()]);
        self.load.wait_for_answers(100);
        // The events that only the first directory has are stored while it is served again.
        let node = self.start(self.directory, MAIN);
        self.load.send_to(&[node.target(), other.target()]);
        self.node = Some(node);
        self.end_copy(other, &place, &copied);
    }

    /// Ends the process on a copy when everything is stored. As a person does it, the letters that it has written are
    /// added to those of the data directory.
    fn end_copy(&mut self, other: Node<'a>, place: &Path, copied: &Letters) {
        self.settle(&[&other], MAIN);
        let node = self.take_node();
        self.load.send_to(&[node.target()]);
        self.end(other);
        self.load.wait_for_answers(50);
        self.kill(node);
        let known = letters(&data_dir(self.directory));
        let mut added = String::new();
        for (place, (_, line)) in letters(&data_dir(place)) {
            if !known.contains_key(&place) && !copied.contains_key(&place) {
                writeln!(added, "{line}").unwrap();
            }
        }
        let path = data_dir(self.directory).join("dead-letters.ndjson");
        let own = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, format!("{own}\n{added}")).unwrap();
        // The events that the copy took are in no other journal.
        self.copy = None;
        self.backup = None;
        let node = self.start(self.directory, MAIN);
        self.serve_with(node);
    }

    fn restore(&mut self, while_running: bool) {
        let Some(backup) = self.backup.take() else {
            self.history.note("there is no backup");
            return;
        };
        self.is_unsettled = true;
        let is_dump = matches!(backup, super::database::Moment::Dump(_));
        if is_dump || !while_running {
            let node = self.take_node();
            self.kill(node);
        }
        // Events in memory are lost with it.
        let may_lose = self.drawn.ack == Ack::Received;
        self.watch.change(|watched| watched.may_lose = may_lose);
        let rows = self.databases[MAIN].restore(&backup);
        self.history.restored(&rows);
        self.history
            .note(format!("the database has {} rows", rows.len()));
        self.backup = Some(backup);
        if self.node.is_none() {
            let node = self.start(self.directory, MAIN);
            self.serve_with(node);
        }
        // A restore under a running process is noticed at the next batch.
        self.load.wait_for_answers(100);
    }

    fn repoint(&mut self) {
        // The first database that answers is the one that this process serves.
        self.wait_for_rows();
        self.proxy.point_to(self.other_port());
        self.proxy.cut();
        let before = self.proxy.connections();
        wait_until("hakaru connects to the other database", || {
            self.proxy.connections() > before + 1
        });
        // With `received` few events fit into memory, and the others are shed.
        let number = self.node().number;
        self.load.wait_for_requests(number, 5);
        self.proxy.point_to(self.port(MAIN));
        self.proxy.cut();
    }

    fn port(&self, database: usize) -> u16 {
        match &self.databases[database] {
            super::database::Database::Server(server) => server.port(),
            super::database::Database::Sqlite(_) => panic!("SQLite has no port"),
        }
    }

    fn other_port(&self) -> u16 {
        self.port(OTHER)
    }

    fn serve_other(&mut self, kill: bool) {
        let node = self.take_node();
        if kill {
            self.kill(node);
        } else {
            self.end(node);
        }
        self.start_other();
        self.load.wait_for_answers(100);
        self.settle(&[], OTHER);
        let node = self.take_node();
        self.end(node);
        let node = self.start(self.directory, MAIN);
        self.serve_with(node);
    }

    pub fn start_other(&mut self) {
        let node = self.start(self.directory, OTHER);
        self.serve_with(node);
        self.has_served_other = true;
    }

    fn replay(&mut self, killed_after: Option<u64>) {
        self.is_unsettled = true;
        if let Some(micros) = killed_after {
            let mut command = self.start_replay();
            thread::park_timeout(Duration::from_micros(micros));
            command.kill().unwrap();
            command.wait().unwrap();
            let then_kill = self.random.bool();
            self.restart_if(then_kill);
        }
        // What was cut short is finished.
        assert!(self.start_replay().wait().unwrap().success());
    }

    fn start_replay(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_hakaru"))
            .current_dir(self.directory)
            .args(["dead-letters", "replay"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn fill_disk(&mut self) {
        let disk = self.disk.expect("the disk is small");
        let node = self.take_node();
        self.kill(node);
        disk.fill();
        let shed = self.history.shed();
        if let Some(node) = self.try_start(self.directory, MAIN) {
            self.serve_with(node);
            if self.drawn.ack == Ack::Received {
                self.load.wait_for_answers(100);
            } else {
                // The janitor gives back what the lane of the killed process does not need.
                let (taken, unanswered) = (self.history.taken(), self.history.unanswered());
                wait_until("events are shed", || {
                    disk.fill();
                    // With `stored` answers wait while no letter can be written.
                    self.history.shed() > shed + 20
                        || self.history.taken() > taken + 200
                        || self.history.unanswered() > unanswered + 5
                });
                let shed = self.history.shed() - shed;
                self.history.note(format!("{shed} events were shed"));
            }
        }
        disk.empty();
        self.history.note("the disk has room again");
        // On a full disk the journal keeps nothing that is stored: an older backup cannot be filled up from it.
        self.backup = None;
        if self.node.is_none() {
            let node = self.start(self.directory, MAIN);
            self.serve_with(node);
        }
    }

    fn refuse_all(&mut self) {
        let body = match self.drawn.kind {
            Kind::Server => "FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'",
            Kind::Sqlite => "BEGIN SELECT RAISE(ABORT, 'no'); END",
        };
        let stopped = self.node().hakaru.events("storing_stopped").len();
        self.databases[MAIN].run(&format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON eventlog {body}"
        ));
        let node = self.node();
        wait_until("storing stops", || {
            node.hakaru.events("storing_stopped").len() > stopped
        });
        self.databases[MAIN].run("DROP TRIGGER refuse");
    }
}
