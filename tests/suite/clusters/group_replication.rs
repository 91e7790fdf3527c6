//! Group Replication: three members of MySQL, with a single primary.

use std::process::Command;

use mysql::Conn;
use mysql::prelude::Queryable;

use super::cluster::{Cluster, MEMBERS, View};
use super::member::Member;
use super::network::address;
use crate::support::{Engine, run};

/// The name of the group: any UUID.
const GROUP: &str = "7b8b6f4e-8a67-4a0c-9d3c-2f6f0c0c6a11";

/// A member of the group, as another one sees it: its address, state and role.
type Seen = (String, String, String);

const SEEN: &str = "SELECT member_host, member_state, member_role FROM performance_schema.replication_group_members";

/// Starts the first member as a new group.
pub fn begin(cluster: &mut Cluster) {
    let engine = Engine::of("mysql-9.7");
    for member in 0..MEMBERS {
        let data = cluster.members[member].data();
        run(
            "cp",
            &[
                "-a",
                engine.data().to_str().unwrap(),
                data.to_str().unwrap(),
            ],
        );
        // Each server makes an id of its own.
        drop(std::fs::remove_file(data.join("auto.cnf")));
        start(cluster, member);
        prepare(&cluster.members[member]);
    }
    let first = &cluster.members[0];
    first.run("SET GLOBAL group_replication_bootstrap_group = ON");
    first.try_run("START GROUP_REPLICATION").expect("a group");
    first.run("SET GLOBAL group_replication_bootstrap_group = OFF");
}

/// Makes the account by which a member that joins copies what it lacks. Each member makes its own, outside of the group.
fn prepare(member: &Member) {
    let mut connection = member.connect().expect("it answers");
    for sql in [
        "SET SQL_LOG_BIN = 0",
        "CREATE USER copy@'%' IDENTIFIED BY 'copy'",
        "GRANT REPLICATION SLAVE, CONNECTION_ADMIN, BACKUP_ADMIN, GROUP_REPLICATION_STREAM ON *.* TO copy@'%'",
        "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'copy', SOURCE_PASSWORD = 'copy' \
         FOR CHANNEL 'group_replication_recovery'",
    ] {
        connection.query_drop(sql).unwrap();
    }
}

fn command(cluster: &Cluster, member: usize) -> Command {
    let engine = Engine::of("mysql-9.7");
    let mut command = cluster.network().command(member);
    let seeds: Vec<String> = (0..MEMBERS)
        .map(|member| format!("{}:33061", address(member)))
        .collect();
    let own = address(member);
    command
        .args(["setpriv", "--pdeathsig", "KILL"])
        .arg(engine.server())
        .args(cluster.members[member].files())
        .args(["--user=root", "--bind-address=0.0.0.0", "--port=3306"])
        .args([
            "--skip-name-resolve",
            "--mysqlx=OFF",
            "--secure-file-priv=NULL",
        ])
        .args([
            "--innodb-buffer-pool-size=64M",
            "--innodb-redo-log-capacity=32M",
        ])
        // A server is killed here, and the machine never is.
        .args(["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"])
        .arg(format!("--server-id={}", member + 1))
        .args([
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--log-bin=binlog",
        ])
        .args([
            format!("--report-host={own}"),
            "--report-port=3306".to_owned(),
        ])
        .arg("--plugin-load-add=group_replication.so")
        .arg(format!("--loose-group-replication-group-name={GROUP}"))
        .arg(format!(
            "--loose-group-replication-local-address={own}:33061"
        ))
        .arg(format!(
            "--loose-group-replication-group-seeds={}",
            seeds.join(",")
        ))
        .arg("--loose-group-replication-ip-allowlist=10.0.0.0/24")
        .args([
            "--loose-group-replication-start-on-boot=OFF",
            "--loose-group-replication-bootstrap-group=OFF",
        ])
        .arg("--loose-group-replication-recovery-get-public-key=ON")
        .arg("--loose-group-replication-recovery-reconnect-interval=1")
        .arg("--loose-group-replication-member-expel-timeout=0")
        .arg("--loose-group-replication-unreachable-majority-timeout=3");
    command
}

/// Starts a server. It joins by [`rejoin`].
pub fn start(cluster: &mut Cluster, member: usize) {
    let command = command(cluster, member);
    let started = cluster.members[member].start(command);
    assert!(started, "{:?}", cluster.members[member].log());
}

/// Leaves the group.
pub fn leave(member: &Member) {
    member
        .try_run("STOP GROUP_REPLICATION")
        .expect("it answers");
}

/// Has a server that is no member join. The group must have left its old life out.
pub fn rejoin(cluster: &Cluster, member: usize) {
    let own = address(member);
    let others = cluster.members.iter().enumerate();
    let mut others = others.filter(|(other, _)| *other != member);
    let is_known = others.any(|(_, other)| {
        let seen = other
            .connect()
            .and_then(|mut other| other.query::<Seen, _>(SEEN).ok());
        seen.is_some_and(|seen| seen.iter().any(|(host, ..)| *host == own))
    });
    let server = &cluster.members[member];
    let connection = server.connect();
    let state = connection.and_then(|mut connection| own_state(&mut connection));
    let is_out = state.is_some_and(|state| state == "OFFLINE" || state == "ERROR");
    if is_known || !is_out {
        return;
    }
    // It may be about to join by itself. What fails is tried again.
    server.try_run("STOP GROUP_REPLICATION");
    server.try_run("START GROUP_REPLICATION");
}

fn own_state(connection: &mut Conn) -> Option<String> {
    let own = "SELECT member_state FROM performance_schema.replication_group_members WHERE member_id = @@server_uuid";
    let state: Option<String> = connection.query_first(own).ok()?;
    // There is no row before it has joined for the first time.
    Some(state.unwrap_or("OFFLINE".to_owned()))
}

/// What a member says of the group. `None`: it does not answer.
pub fn view(connection: &mut Conn, member: usize) -> Option<View> {
    let seen: Vec<Seen> = connection.query(SEEN).ok()?;
    let is_there = |state: &str| state == "ONLINE" || state == "RECOVERING";
    let own = address(member);
    let is_online = seen
        .iter()
        .any(|(host, state, _)| *host == own && state == "ONLINE");
    let there = seen.iter().filter(|(_, state, _)| is_there(state)).count();
    if !is_online || there * 2 <= seen.len() {
        return Some(View::Outside);
    }
    let primary = seen
        .iter()
        .find(|(_, state, role)| role == "PRIMARY" && state == "ONLINE");
    let primary =
        primary.and_then(|(host, ..)| (0..MEMBERS).find(|&other| address(other) == *host));
    Some(View::Inside { primary })
}

/// Whether a member sees the whole group.
pub fn is_whole(connection: &mut Conn) -> bool {
    let seen: Vec<Seen> = connection.query(SEEN).unwrap_or_default();
    let primaries = seen.iter().filter(|(.., role)| role == "PRIMARY").count();
    seen.len() == MEMBERS && primaries == 1 && seen.iter().all(|(_, state, _)| state == "ONLINE")
}

/// Whether a member does not see another one, and its group has a primary.
pub fn is_without(connection: &mut Conn, member: usize) -> bool {
    let seen: Vec<Seen> = connection.query(SEEN).unwrap_or_default();
    let left_out = address(member);
    let is_primary = |(_, state, role): &Seen| state == "ONLINE" && role == "PRIMARY";
    seen.iter().any(is_primary) && seen.iter().all(|(host, ..)| *host != left_out)
}

pub fn is_primary(connection: &mut Conn) -> bool {
    let own = "SELECT member_role FROM performance_schema.replication_group_members WHERE member_id = @@server_uuid";
    let role: Option<String> = connection.query_first(own).ok().flatten();
    role.is_some_and(|role| role == "PRIMARY")
}

/// Makes a member the primary, as an operator does.
pub fn make_primary(member: &Member) {
    let id: Vec<String> = member.query("SELECT @@server_uuid").expect("it answers");
    let sql = format!("SELECT group_replication_set_as_primary('{}')", id[0]);
    member.query::<String>(&sql).expect("the primary changes");
}
