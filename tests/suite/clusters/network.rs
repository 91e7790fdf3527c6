//! A network for each server of a cluster, which the test can unplug. None of it is seen outside: servers of other tests
//! may have the same addresses and ports. Clients come by Unix socket.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::support::run;

/// The networks of a cluster. They end with the test, also when it is killed: nothing but open files keeps them.
pub struct Network {
    hub: File,
    members: Vec<File>,
}

impl Network {
    /// Joins `count` members by a bridge.
    pub fn new(count: usize) -> Self {
        let network = Self {
            hub: space(),
            members: (0..count).map(|_| space()).collect(),
        };
        ip(&network.hub, "link add hub type bridge");
        ip(&network.hub, "link set hub up");
        for (number, member) in network.members.iter().enumerate() {
            let peer = path(member);
            ip(
                &network.hub,
                &format!("link add m{number} type veth peer name eth0 netns {peer}"),
            );
            ip(&network.hub, &format!("link set m{number} master hub up"));
            ip(member, &format!("addr add {}/24 dev eth0", address(number)));
            ip(member, "link set eth0 up");
            ip(member, "link set lo up");
        }
        network
    }

    /// A command that will run in the network of a member.
    pub fn command(&self, member: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", path(&self.members[member])));
        command
    }

    /// Splits a member off from the others. What is sent is lost, and no connection is closed.
    pub fn split(&self, member: usize) {
        ip(&self.hub, &format!("link set m{member} down"));
    }

    /// Joins a member with the others again.
    pub fn join(&self, member: usize) {
        ip(&self.hub, &format!("link set m{member} up"));
    }
}

/// The address of a member among the others.
pub fn address(member: usize) -> String {
    format!("10.0.0.{}", member + 1)
}

/// A network without anything in it.
fn space() -> File {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make networks");
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    made.join().unwrap()
}

fn path(space: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), space.as_raw_fd())
}

fn ip(space: &File, arguments: &str) {
    let within = format!("--net={}", path(space));
    let all: Vec<&str> = [within.as_str(), "ip"]
        .into_iter()
        .chain(arguments.split(' '))
        .collect();
    run("nsenter", &all);
}
