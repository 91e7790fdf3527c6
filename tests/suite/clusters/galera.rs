//! Galera: three nodes of this system's MariaDB.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use mysql::Conn;
use mysql::prelude::Queryable;
use nix::sys::signal::Signal;

use super::cluster::{Cluster, MEMBERS, View};
use super::network::address;
use crate::support::{Engine, run};

/// A node that is silent for two seconds is left out. The defaults are 5 s and 15 s.
const PROVIDER_OPTIONS: &str = "pc.recovery=no;gcache.size=128M;evs.keepalive_period=PT0.5S;\
    evs.inactive_check_period=PT0.5S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;\
    evs.install_timeout=PT4S;pc.announce_timeout=PT2S";

/// The user of the servers: state is copied by rsync, whose daemon changes its user if it is started by root.
const USER: &str = "mysql";

/// Starts the first node as a new cluster. The others have the same data, and need no copy of it.
pub fn begin(cluster: &mut Cluster) {
    let engine = Engine::of("galera-10.11");
    let directory = cluster.directory();
    // The engine may be where the user of the servers cannot read.
    let server = directory.join("server");
    run(
        "cp",
        &[engine.server().to_str().unwrap(), server.to_str().unwrap()],
    );
    std::fs::write(directory.join("provider"), engine.provider()).unwrap();
    run(
        "chmod",
        &["755", directory.to_str().unwrap(), server.to_str().unwrap()],
    );
    copy(&engine.data(), cluster, 0);
    let command = command(cluster, 0, &["--wsrep-new-cluster".to_owned()]);
    assert!(cluster.members[0].start(command), "the first node ends");
    cluster.members[0].end(Signal::SIGTERM);
    for member in 1..MEMBERS {
        copy(&cluster.members[0].data(), cluster, member);
    }
    let command = self::command(cluster, 0, &["--wsrep-new-cluster".to_owned()]);
    assert!(cluster.members[0].start(command), "the first node ends");
}

fn copy(from: &std::path::Path, cluster: &Cluster, member: usize) {
    let to = cluster.members[member].data();
    run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
    let directory = cluster.members[member].directory();
    run("chown", &["-R", USER, directory.to_str().unwrap()]);
}

fn command(cluster: &Cluster, member: usize, more: &[String]) -> Command {
    let mut command = cluster.network().command(member);
    let provider = std::fs::read_to_string(cluster.directory().join("provider")).unwrap();
    let all: Vec<String> = (0..MEMBERS).map(address).collect();
    command
        .args(["setpriv", "--pdeathsig", "KILL", "--clear-groups"])
        .args([format!("--reuid={USER}"), format!("--regid={USER}")])
        .arg(cluster.directory().join("server"))
        .args(cluster.members[member].files())
        .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
        .args([
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
        ])
        // A server is killed here, and the machine never is.
        .arg("--innodb-flush-log-at-trx-commit=2")
        .args(["--performance-schema=off", "--binlog-format=ROW"])
        .args(["--innodb-autoinc-lock-mode=2", "--wsrep-on=ON"])
        .arg(format!("--wsrep-provider={}", provider))
        .arg(format!("--wsrep-cluster-address=gcomm://{}", all.join(",")))
        .arg(format!("--wsrep-node-address={}", address(member)))
        .arg(format!("--wsrep-node-name=member-{member}"))
        .args(["--wsrep-cluster-name=test", "--wsrep-sst-method=rsync"])
        .arg(format!("--wsrep-provider-options={PROVIDER_OPTIONS}"))
        .args(more);
    command
}

/// Starts a node again, from the last transaction that it has.
pub fn start(cluster: &mut Cluster, member: usize) {
    let mut recover = command(cluster, member, &["--wsrep-recover".to_owned()]);
    let output = recover.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let position = text.lines().find_map(|line| {
        let (_, position) = line.split_once("Recovered position: ")?;
        Some(format!("--wsrep-start-position={}", position.trim()))
    });
    let position: Vec<String> = position.into_iter().collect();
    let command = command(cluster, member, &position);
    // One that cannot join ends by itself, and is tried again.
    cluster.members[member].start(command);
}

fn states(connection: &mut Conn) -> Option<HashMap<String, String>> {
    let rows: Vec<(String, String)> = connection
        .query(
            "SHOW GLOBAL STATUS WHERE Variable_name IN \
            ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state_comment', 'wsrep_cluster_size')",
        )
        .ok()?;
    Some(rows.into_iter().collect())
}

fn is_inside(states: &HashMap<String, String>) -> bool {
    states["wsrep_ready"] == "ON"
        && states["wsrep_cluster_status"] == "Primary"
        && states["wsrep_local_state_comment"] == "Synced"
}

/// What a node says of the cluster. `None`: it does not answer.
pub fn view(connection: &mut Conn, member: usize) -> Option<View> {
    let states = states(connection)?;
    Some(if is_inside(&states) {
        View::Inside {
            primary: Some(member),
        }
    } else {
        View::Outside
    })
}

/// Whether a node is in the whole cluster.
pub fn is_whole(connection: &mut Conn) -> bool {
    let states = states(connection);
    states.is_some_and(|states| {
        is_inside(&states) && states["wsrep_cluster_size"] == MEMBERS.to_string()
    })
}

/// Whether a node is in a cluster that lacks one node.
pub fn is_without_one(connection: &mut Conn) -> bool {
    let states = states(connection);
    states.is_some_and(|states| {
        is_inside(&states) && states["wsrep_cluster_size"] == (MEMBERS - 1).to_string()
    })
}

/// Whether a node knows that it has lost the majority.
pub fn is_alone(connection: &mut Conn) -> bool {
    let states = states(connection);
    states.is_some_and(|states| states["wsrep_cluster_status"] == "non-Primary")
}
