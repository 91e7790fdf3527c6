//! What kind of server it is, and its part among others.

use mysql::prelude::Queryable;

use super::Server;
use crate::commands::check::Observation;
use crate::sink::SinkError;
use crate::sink::mysql::classify::sink_error;
use crate::sink::mysql::engine::Engine;

/// The oldest supported version of MySQL. Every MariaDB since then has a higher number.
const OLDEST: (u32, u32) = (5, 7);

/// What to do about a server that takes no writes of its own.
const OTHER_SERVER: &str = "set the server that takes the writes in the datasource";

/// The statements that show from which server this one replicates: of MySQL 8.0.22 and MariaDB 10.5, and of older ones.
const REPLICA_STATUS: [&str; 2] = ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"];

/// The columns of their answers that name the other server.
const SOURCE_HOST: [&str; 2] = ["Source_Host", "Master_Host"];

pub(super) fn is_mariadb(server: &mut Server<'_>) -> Result<bool, SinkError> {
    let version: Option<String> = server.first("SELECT VERSION()")?;
    Ok(version.is_some_and(|version| Engine::of(&version) == Engine::MariaDb))
}

/// The engine and its version.
pub(super) fn version(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let engine = if is_mariadb(server)? {
        "MariaDB"
    } else {
        "MySQL"
    };
    let named: Option<(String, String)> = server.first("SELECT VERSION(), @@version_comment")?;
    let (version, comment) = named.unwrap_or_default();
    let found = Observation::new(format!("{engine} {version}, {comment}"));
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
        return Ok(found.warning("older than MySQL 5.7, the oldest supported version: upgrade it"));
    }
    Ok(found)
}

/// Whether it is the server that takes the writes.
pub(super) fn role(server: &mut Server<'_>) -> Result<Observation, SinkError> {
    let others = match source(server)? {
        Source::Host(host) => {
            let found = Observation::new(format!("a replica of {host}"));
            return Ok(found.error(OTHER_SERVER));
        }
        Source::None => "no replica of another server",
        Source::Hidden => {
            "the user may not see whether it is a replica (REPLICATION CLIENT, or REPLICA MONITOR)"
        }
    };
    let read_only: Option<String> = server.first("SELECT @@GLOBAL.read_only")?;
    if read_only.is_some_and(|value| value != "0" && value != "OFF") {
        return Ok(Observation::new("read-only, as a replica is").error(OTHER_SERVER));
    }
    if let Some(node) = galera(server)? {
        return Ok(node.judge());
    }
    if let Some(member) = group_member(server)? {
        return Ok(member.judge());
    }
    Ok(Observation::new(others))
}

/// From which server it replicates.
enum Source {
    None,
    Host(String),
    Hidden,
}

fn source(server: &mut Server<'_>) -> Result<Source, SinkError> {
    const UNKNOWN_STATEMENT: i32 = 1064;
    const ACCESS_DENIED: i32 = 1227;
    for statement in REPLICA_STATUS {
        let rows: Vec<mysql::Row> = match server.connection.query(statement).map_err(sink_error) {
            Ok(rows) => rows,
            Err(fault) => match fault.fault().code {
                Some(UNKNOWN_STATEMENT) => continue,
                Some(ACCESS_DENIED) => return Ok(Source::Hidden),
                _ => return Err(fault),
            },
        };
        let host = |row: &mysql::Row| {
            let named = |name: &&str| row.get_opt::<Option<String>, _>(*name)?.ok()?;
            SOURCE_HOST.iter().find_map(named)
        };
        // The channels of Group Replication name none, or an empty one.
        let mut hosts = rows.iter().filter_map(host);
        let found = hosts.find(|host| !host.is_empty() && host != "<NULL>");
        return Ok(found.map_or(Source::None, Source::Host));
    }
    Ok(Source::None)
}

/// A node of a Galera cluster.
#[derive(Debug)]
struct Node {
    /// Such as `Synced`.
    state: String,
    /// `Primary`, where it belongs to the majority.
    part: String,
    nodes: String,
    is_ready: bool,
}

fn galera(server: &mut Server<'_>) -> Result<Option<Node>, SinkError> {
    let mut status = |name: &str| -> Result<String, SinkError> {
        let row: Option<(String, String)> =
            server.first(&format!("SHOW GLOBAL STATUS LIKE 'wsrep_{name}'"))?;
        Ok(row.map(|(_, value)| value).unwrap_or_default())
    };
    let nodes = status("cluster_size")?;
    if nodes.is_empty() || nodes == "0" {
        return Ok(None);
    }
    Ok(Some(Node {
        state: status("local_state_comment")?,
        part: status("cluster_status")?,
        is_ready: status("ready")? == "ON",
        nodes,
    }))
}

impl Node {
    fn judge(&self) -> Observation {
        let Self {
            state, part, nodes, ..
        } = self;
        let found = Observation::new(format!(
            "a node of a Galera cluster: {state}, {part}, {nodes} nodes"
        ));
        if !self.is_ready || part != "Primary" {
            return found.error("the node takes no writes: look why it is not in the cluster, or set another one in the datasource");
        }
        if state != "Synced" {
            return found.warning(
                "the node is busy with another one: storing may be slow until it is Synced",
            );
        }
        found
    }
}

/// A member of a group of Group Replication.
#[derive(Debug)]
struct Member {
    /// Such as `ONLINE`.
    state: String,
    /// `PRIMARY` or `SECONDARY`.
    role: String,
}

fn group_member(server: &mut Server<'_>) -> Result<Option<Member>, SinkError> {
    const MEMBER: &str = "SELECT member_state, member_role FROM performance_schema.replication_group_members \
        WHERE member_id = @@server_uuid";
    if is_mariadb(server)? {
        return Ok(None);
    }
    // The user may not read it, and servers before 8.0 have no roles: nothing is known of a group then.
    let asked = server.first::<(String, String)>(MEMBER);
    let member = asked.or_else(|fault| match fault {
        SinkError::Stop(_) => Ok(None),
        lost => Err(lost),
    })?;
    let member = member.map(|(state, role)| Member { state, role });
    Ok(member.filter(|member| member.state != "OFFLINE"))
}

impl Member {
    fn judge(&self) -> Observation {
        let Self { state, role } = self;
        let found = Observation::new(format!("a member of Group Replication: {state}, {role}"));
        if state != "ONLINE" || role != "PRIMARY" {
            return found.error(OTHER_SERVER);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::check::Level;

    #[test]
    fn a_node_that_takes_no_writes_is_an_error() {
        let node = |state: &str, part: &str, is_ready| Node {
            state: state.to_owned(),
            part: part.to_owned(),
            nodes: "3".to_owned(),
            is_ready,
        };
        for (node, level) in [
            (node("Synced", "Primary", true), Level::Ok),
            (node("Donor/Desynced", "Primary", true), Level::Warning),
            (node("Initialized", "non-Primary", false), Level::Error),
        ] {
            assert_eq!(node.judge().level, level, "{node:?}");
        }
    }

    #[test]
    fn a_member_that_is_not_the_primary_is_an_error() {
        for (state, role, level) in [
            ("ONLINE", "PRIMARY", Level::Ok),
            ("ONLINE", "SECONDARY", Level::Error),
            ("ERROR", "PRIMARY", Level::Error),
        ] {
            let (state, role) = (state.to_owned(), role.to_owned());
            let member = Member { state, role };
            assert_eq!(member.judge().level, level, "{member:?}");
        }
    }
}
