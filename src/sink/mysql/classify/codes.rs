//! What the error numbers of servers mean.
//!
//! The numbers are from the server error references of MySQL (errmsg-utf8.txt) and MariaDB. Others give numbers of their
//! own: TiDB from 8000 (`pkg/errno/errcode.go`), ProxySQL from 9001 (`PROXYSQL_MYSQL_ERR`), RDS Proxy 9501. Vitess gives the
//! number of MySQL where it knows one (`go/mysql/sqlerror/sql_error.go`), and otherwise 1105.

/// The server rolled the transaction back, as a rule because of another one. The same transaction may succeed now.
pub(super) fn is_retry(reported: &mysql::MySqlError) -> bool {
    // 40000 is a rollback, 40001 one that another transaction caused.
    reported.state.starts_with("40")
        || matches!(
            reported.code,
            1020 // record has changed since the last read (MariaDB, innodb_snapshot_isolation)
            | 1205 // lock wait timeout
            | 1206 // no memory left for locks, which other transactions give back
            | 1213 // deadlock
            | 1297 // NDB: temporary error
            | 1412 // table definition has changed, retry transaction
            | 1637 // too many active transactions
            | 3572 // NOWAIT and a lock held
            // TiDB has rolled the transaction back: the manual says "can safely retry" ("Error Codes and
            // Troubleshooting"), also of a COMMIT.
            | 8002 // a locking SELECT that conflicts
            | 8005 | 9007 // write conflict
            | 8022 // the commit failed
            | 8028 // the schema has changed
            // TiDB: later it succeeds.
            | 8020 // another session has locked the table
            | 8229 // the transaction was open for too long
            | 8252 // the resource group has used up its quota
        )
}

/// The connection or its server cannot be used. A new connection may work.
pub(super) fn is_reconnect(reported: &mysql::MySqlError) -> bool {
    // Faults of the account or the protocol, which a new connection has too. 3159: the server demands TLS.
    let is_for_a_person = matches!(reported.code, 1043 | 1251 | 3159);
    // 08: a connection exception. From 2000: errors of a client, passed on by a proxy or by a storage engine that is a
    // client itself.
    (reported.state.starts_with("08") && !is_for_a_person)
        || matches!(
            reported.code,
            1040 // too many connections
            | 1041 // out of memory; Vitess: transactions are throttled
            | 1047 // Galera: node not ready
            | 1053 // shutdown in progress
            // Vitess: all that has no number of MySQL, such as Unavailable, FailedPrecondition, a primary that does not serve,
            // and in older versions a transaction that has timed out. TiDB: all errors without a number, such as a lost
            // connection to TiKV. What it means is in its text alone; servers of MySQL and MariaDB hardly send it.
            | 1105
            | 1077 | 1079 | 1080 // shutdown
            | 1135 // no thread for the connection
            | 1153 // packet larger than the server takes; the limit is read again on connecting
            | 1152 | 1156
                ..=1161 | 1184 // connection aborted, packets out of order, network errors
            | 1180 // error during COMMIT: Galera, of a node that was frozen and comes back (handler.cc, ha_commit_trans)
            | 1203 // user has too many connections
            | 1226 // user has exceeded a resource
            | 1243 // unknown prepared statement: a proxy has changed the server
            | 1290 | 1792 | 1836 // read only, as after a failover
            | 1317 // query interrupted
            | 1429 | 1430 // the server of a federated table is unreachable
            | 1615 // prepared statement needs to be re-prepared, which a new connection does
            // Vitess: a call that broke off with the code Internal, as when a stream is reset. MySQL: an internal error.
            | 1815
            | 1835 // malformed packet
            | 1874 // InnoDB is read only
            | 1927 // connection was killed
            | 1969 | 3024 // statement took longer than its limit
            | 2000..=2999 // such as 2006, server has gone away, and 2013, connection lost
            | 3032 | 3168 // server is offline, or is not available
            // Group Replication: the member leaves, has left or has lost the group (rpl_handler.cc). The group may have
            // taken a transaction that fails with it at COMMIT.
            | 3100
            | 3796
                ..=3799 // Group Replication: the member is not ready, or stops (group_replication_consistency)
            | 3169 // session was killed
            | 4031 // disconnected for inactivity
            | 8024 // TiDB: the transaction is not valid any more
            | 8027 // TiDB: the schema could not be loaded in time
            | 8055 | 9006 // TiDB: the snapshot is too old. ProxySQL (9006): the session is tied to another hostgroup
            | 8111 | 8113 // TiDB: the prepared statement is unknown, or older than the schema
            | 8120 // TiDB: no timestamp for the transaction
            | 8176 // TiDB: the instance is short of memory
            | 8253 // TiDB: interrupted as a runaway
            // TiDB: PD, TiKV or a region did not answer, is busy or not there (9009 is about Prometheus). After a COMMIT whose
            // outcome it does not know TiDB sends no error, and closes the connection (`ErrResultUndetermined`,
            // pkg/server/conn.go). ProxySQL: no server was reached, or it did not answer a check.
            | 9001..=9005
            | 9008
            | 9010..=9020
            | 9501 // RDS Proxy: no connection to the database became free
        )
}

/// No more statements can be prepared on the server.
pub(super) const PREPARED_STATEMENTS_USED_UP: u16 = 1461;

/// The table takes no row of that id or time, whatever else is in it. Servers send these with the SQLSTATE of a refused
/// row.
pub(super) fn is_of_the_table(reported: &mysql::MySqlError) -> bool {
    // A SIGNAL may have any code.
    !reported.state.starts_with("45")
        && matches!(
            reported.code,
            167 // MariaDB: the ids of the column are used up
            | 1467 // the next id cannot be read: they are used up
            | 1526 // no partition for the value
        )
}

/// Whether a row repeats a primary key. The name of that key is the same in each language, and ends the message. A vttablet
/// adds the number and the statement to it.
pub(super) fn repeats_primary_key(reported: &mysql::MySqlError) -> bool {
    let message = reported.message.split(" (errno ").next();
    matches!(reported.code, 1062 | 1586)
        && message.is_some_and(|message| message.trim_end().ends_with("PRIMARY'"))
}

/// Whether an INSERT failed because of a row. By SQLSTATE: a data exception (22), a violated constraint (23) or a
/// SIGNAL (45). Or by one of the codes that servers send with SQLSTATE `HY000`.
pub(super) fn refuses_row(reported: &mysql::MySqlError) -> bool {
    match reported.state.get(..2) {
        Some("22" | "23" | "45") => true,
        // A SIGNAL with one of these has the same code as one with 45: 1644.
        Some("08" | "40") => false,
        _ => is_about_a_row(reported.code),
    }
}

/// Whether a value does not fit its column, or a constraint or trigger refuses the row.
pub(in crate::sink::mysql) fn is_about_a_row(code: u16) -> bool {
    matches!(
        code,
        1048 // column cannot be null
        | 1062 // duplicate entry
        | 1264 // out of range
        | 1265 // data truncated
        | 1292 // incorrect value
        | 1366 // incorrect string or integer value
        | 1406 // data too long
        | 1452 // foreign key
        | 1644 // a trigger's SIGNAL
        | 1690 // out of range in an expression
        | 3819 | 4025 // check constraint
        | 3988 // no such character in the column's set
    )
}
