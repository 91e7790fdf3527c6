//! Databases that cannot be had here, by a fake before a real server: Vitess and PlanetScale, TiDB, RDS Proxy, ProxySQL.
//!
//! Each error is one that the source or the manual of the database names. SQL is executed by the real server, so that
//! what must hold is asked of real rows.

mod fake;
mod packets;
mod prepared;
mod proxies;
mod sessions;
mod tidb;
mod vitess;

pub use self::fake::{Answer, At, Fake, Session};
pub use self::packets::{Command, ServerError};

use crate::support::{Client, DatabaseServer, Hakaru, Settings, wait_until};

/// hakaru before a fake, which is before a real server.
struct Run {
    database: DatabaseServer,
    fake: Fake,
    hakaru: Hakaru,
    sent: u32,
}

impl Run {
    /// Starts all three, and stores an event.
    fn start() -> Self {
        Self::start_with("", |_, _| Answer::Servers)
    }

    /// With these further parameters of the datasource, and with what the fake always does.
    fn start_with(
        parameters: &str,
        habit: impl Fn(&Command, &Session) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let database = DatabaseServer::start();
        let fake = Fake::start(database.port(), habit);
        let hakaru = Settings::datasource(&fake.dsn(parameters))
            .flag("--cores=1")
            .flag("--linger=10ms")
            .start();
        let mut run = Self {
            database,
            fake,
            hakaru,
            sent: 0,
        };
        run.store();
        run
    }

    /// Has a few events stored.
    fn store(&mut self) {
        let first = self.sent;
        self.sent += 3;
        self.hakaru.send(first..self.sent);
        self.all_stored();
    }

    fn all_stored(&self) {
        let sent = u64::from(self.sent);
        wait_until("all events are stored", || self.database.count() >= sent);
    }

    /// Has a few events stored while this happens once.
    fn store_through(&mut self, at: At, answer: &Answer) {
        self.fake.order(at, answer.clone());
        if at == At::Connect {
            self.fake.close();
        }
        self.store();
        assert!(self.fake.has_happened(), "{at:?}: {answer:?}");
    }

    /// How often hakaru has counted this error, by what it did next.
    fn counted(&self, class: &str, code: &str) -> u64 {
        let metrics = Client::connect(self.hakaru.admin()).get("/metrics").body;
        let label = format!("class=\"{class}\",code=\"{code}\"");
        let lines = metrics.lines().filter(|line| {
            line.starts_with("hakaru_database_errors_total") && line.contains(&label)
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Has events stored while the fake gives an error of each kind, and checks that hakaru has taken it for one of `class`.
    fn store_through_errors(&mut self, at: At, class: &str, answers: &[Answer]) {
        for answer in answers {
            let code = code(answer);
            let before = self.counted(class, &code);
            self.store_through(at, answer);
            // A row may be there before its COMMIT was answered.
            let what = format!("{class} is counted after {answer:?} at {at:?}");
            wait_until(&what, || self.counted(class, &code) > before);
        }
    }

    /// Checks that each event is one row, and that nothing was logged on which a person must act.
    fn end(self) {
        self.all_stored();
        let values: Vec<u32> = (0..self.sent).collect();
        assert_eq!(self.database.values(), values, "{}", self.hakaru.log());
        for event in ["storing_stopped", "dead_letters_written"] {
            assert_eq!(self.hakaru.events(event).len(), 0, "{}", self.hakaru.log());
        }
        assert_eq!(self.hakaru.errors().len(), 0, "{}", self.hakaru.log());
        let identity = self.hakaru.stop();
        let stored = u64::from(self.sent);
        assert_eq!((identity.stored, identity.dead_lettered), (stored, 0));
    }
}

/// The value of the label `code` of the error in an answer.
fn code(answer: &Answer) -> String {
    match answer {
        Answer::Refused(error) | Answer::RolledBack(error) | Answer::Done(error) => {
            error.code.to_string()
        }
        _ => "none".to_owned(),
    }
}

/// Each of these errors twice: where the server has not done what was asked for, and where it has.
fn both_ways(errors: &[ServerError]) -> Vec<Answer> {
    let each = errors.iter();
    each.flat_map(|error| {
        [
            Answer::RolledBack(error.clone()),
            Answer::Done(error.clone()),
        ]
    })
    .collect()
}

/// Each of these errors after the transaction was rolled back.
fn rolled_back(errors: &[ServerError]) -> Vec<Answer> {
    errors.iter().cloned().map(Answer::RolledBack).collect()
}
