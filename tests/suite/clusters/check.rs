//! `hakaru check` on members of clusters.

use super::cluster::{Cluster, Kind};
use super::member::Member;
use super::{galera, group_replication};
use crate::check::{Checked, check};
use crate::support::{Settings, wait_until};

fn check_member(member: &Member) -> Checked {
    let socket = member.socket();
    check(Settings::datasource(&format!(
        "root@unix({})/hakaru",
        socket.display()
    )))
}

#[test]
fn a_galera_node_tells_whether_it_takes_writes() {
    let Some(cluster) = Cluster::start(Kind::Galera) else {
        return;
    };
    cluster.reset();
    for member in &cluster.members {
        let checked = check_member(member);
        checked.fails_over(&[]);
        checked.has("role", "ok", "Synced, Primary, 3 nodes");
    }
    // As while another node copies its state.
    let donor = &cluster.members[1];
    donor.run("SET GLOBAL wsrep_desync = ON");
    let checked = check_member(donor);
    checked.fails_over(&[]);
    checked.has("role", "warning", "Donor/Desynced");
    donor.run("SET GLOBAL wsrep_desync = OFF");
    let alone = &cluster.members[2];
    cluster.network().split(2);
    wait_until("the node knows that it is alone", || {
        let connection = alone.connect();
        connection.is_some_and(|mut connection| galera::is_alone(&mut connection))
    });
    check_member(alone).has("role", "error", "non-Primary");
    check_member(donor).has("role", "ok", "2 nodes");
}

#[test]
fn a_member_of_a_group_tells_whether_it_is_the_primary() {
    let Some(cluster) = Cluster::start(Kind::GroupReplication) else {
        return;
    };
    cluster.reset();
    let is_primary = |member: &Member| {
        let mut connection = member.connect().expect("it answers");
        group_replication::is_primary(&mut connection)
    };
    for member in &cluster.members {
        let checked = check_member(member);
        if is_primary(member) {
            checked.fails_over(&[]);
            checked.has("role", "ok", "ONLINE, PRIMARY");
        } else {
            // A secondary is read-only. It has the database as soon as it has caught up.
            checked.has("role", "error", "the server that takes the writes");
        }
    }
}
