//! A fake of a database that cannot be had here: a proxy before a real server that reads the commands of its clients and
//! answers some of them by itself.

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::packets::{Command, Packet, ServerError, prepared, renumber};
use crate::support::DEADLINE;

/// How a command is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// By the server.
    Servers,
    /// As if it had succeeded. The server does not get it.
    Ignored,
    /// By an error. The server does not get it.
    Refused(ServerError),
    /// By an error, after the transaction was rolled back.
    RolledBack(ServerError),
    /// By an error, after the server has done it.
    Done(ServerError),
    /// The connection is cut, and the server does not get it.
    Cut,
    /// The connection is cut after the server has done it.
    CutWhenDone,
}

/// When a fault happens. But for the first, in a transaction that stores a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The login is over, and the first statement is sent.
    Connect,
    Begin,
    /// The checkpoint is moved.
    Step,
    Rows,
    Commit,
}

impl At {
    fn is(self, command: &Command, session: &Session) -> bool {
        let progress = session.progress.lock().unwrap();
        match self {
            Self::Connect => !progress.is_used,
            Self::Begin => progress.has_looked && command.begins(BEGIN),
            Self::Step => is_step(command),
            Self::Rows => {
                matches!(command, Command::Execute(number) if progress.inserts.contains(number))
            }
            Self::Commit => progress.has_stepped && command.begins("COMMIT"),
        }
    }
}

const BEGIN: &str = "START TRANSACTION";
const STEP: &str = "UPDATE hakaru_checkpoint SET position = ";
const PROBE: &str = "UPDATE hakaru_checkpoint SET position = position";
const LOOK: &str = "SELECT 1 FROM eventlog WHERE id = ";

fn is_step(command: &Command) -> bool {
    command.begins(STEP) && !command.begins(PROBE)
}

/// What a session has done so far.
#[derive(Default)]
struct Progress {
    is_used: bool,
    is_in_transaction: bool,
    /// It has moved a checkpoint in this transaction.
    has_stepped: bool,
    /// It has looked for a row by its id, once for each connection. It takes over lanes before, in transactions of their own.
    has_looked: bool,
    /// The numbers of prepared INSERTs.
    inserts: BTreeSet<u32>,
}

impl Progress {
    fn sees(&mut self, command: &Command) {
        self.is_used = true;
        if command.begins(BEGIN) {
            self.is_in_transaction = true;
        }
        if command.begins("COMMIT") || command.begins("ROLLBACK") {
            self.is_in_transaction = false;
            self.has_stepped = false;
        }
        self.has_stepped |= is_step(command);
        self.has_looked |= matches!(command, Command::Prepare(sql) if sql.starts_with(LOOK));
    }
}

/// What a fake always does with commands, beside the faults that are ordered.
type Habit = dyn Fn(&Command, &Session) -> Answer + Send + Sync;

pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    habit: Box<Habit>,
    /// The fault that happens next.
    fault: Mutex<Option<(At, Answer)>>,
    connections: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Fake {
    /// Starts a fake before the server on this port. It ends with the process.
    pub fn start(
        port: u16,
        habit: impl Fn(&Command, &Session) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to: port,
            habit: Box::new(habit),
            fault: Mutex::default(),
            connections: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.join(client);
            }
        });
        Self { address, shared }
    }

    pub fn dsn(&self, parameters: &str) -> String {
        format!(
            "root@tcp({})/hakaru?tls=false&readTimeout=5s&timeout=5s{parameters}",
            self.address
        )
    }

    /// Has this happen once.
    pub fn order(&self, at: At, answer: Answer) {
        *self.shared.fault.lock().unwrap() = Some((at, answer));
    }

    /// Whether what was ordered has happened.
    pub fn has_happened(&self) -> bool {
        self.shared.fault.lock().unwrap().is_none()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Closes every connection.
    pub fn close(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.to)) else {
            return;
        };
        self.connections.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap();
        open.push(client.try_clone().unwrap());
        open.push(server.try_clone().unwrap());
        drop((client.set_nodelay(true), server.set_nodelay(true)));
        let next = Arc::new(Mutex::new(Some(Next::Greeting)));
        let progress = Arc::default();
        let answers = Answers {
            client: client.try_clone().unwrap(),
            server: server.try_clone().unwrap(),
            next: Arc::clone(&next),
            progress: Arc::clone(&progress),
        };
        thread::spawn(move || answers.pump());
        let session = Session {
            client,
            server,
            next,
            progress,
        };
        let shared = Arc::clone(self);
        thread::spawn(move || {
            drop(session.serve(&shared));
            session.cut();
        });
    }

    fn answer(&self, command: &Command, session: &Session) -> Answer {
        let mut fault = self.fault.lock().unwrap();
        match fault.take_if(|(at, _)| at.is(command, session)) {
            Some((_, answer)) => answer,
            None => {
                drop(fault);
                (self.habit)(command, session)
            }
        }
    }
}

/// What becomes of the next answer of the server.
enum Next {
    /// It is the first one.
    Greeting,
    /// It has the number of a prepared INSERT.
    Insert,
    /// The client does not get it, but whoever waits here is told.
    Swallow(Sender<()>),
    /// The client gets an error instead.
    Replace(ServerError),
    Cut,
}

/// One connection of a client, and the one to the server.
pub struct Session {
    client: TcpStream,
    server: TcpStream,
    next: Arc<Mutex<Option<Next>>>,
    progress: Arc<Mutex<Progress>>,
}

impl Session {
    /// Forwards what the client sends, until one of the two ends.
    fn serve(&self, shared: &Shared) -> io::Result<()> {
        loop {
            let packet = Packet::read(&mut &self.client)?;
            // What is not numbered 0 belongs to the login.
            if packet.sequence > 0 {
                packet.write(&mut &self.server)?;
                continue;
            }
            let command = Command::of(&packet.payload);
            let answer = shared.answer(&command, self);
            self.progress.lock().unwrap().sees(&command);
            if matches!(&command, Command::Prepare(sql) if sql.starts_with("INSERT")) {
                *self.next.lock().unwrap() = Some(Next::Insert);
            }
            self.act(&packet, answer)?;
        }
    }

    /// Whether a transaction is open.
    pub fn is_in_transaction(&self) -> bool {
        self.progress.lock().unwrap().is_in_transaction
    }

    fn act(&self, packet: &Packet, answer: Answer) -> io::Result<()> {
        let answered = packet.sequence + 1;
        match answer {
            Answer::Servers => packet.write(&mut &self.server),
            Answer::Ignored => Packet::ok(answered).write(&mut &self.client),
            Answer::Refused(error) => error.packet(answered).write(&mut &self.client),
            Answer::RolledBack(error) => {
                self.run("ROLLBACK");
                error.packet(answered).write(&mut &self.client)
            }
            Answer::Done(error) => {
                *self.next.lock().unwrap() = Some(Next::Replace(error));
                packet.write(&mut &self.server)
            }
            Answer::Cut => Err(io::ErrorKind::ConnectionAborted.into()),
            Answer::CutWhenDone => {
                *self.next.lock().unwrap() = Some(Next::Cut);
                packet.write(&mut &self.server)
            }
        }
    }

    /// Runs a statement without rows on the server, of which the client does not learn.
    pub fn run(&self, sql: &str) {
        let (done, wait) = channel();
        *self.next.lock().unwrap() = Some(Next::Swallow(done));
        if Packet::query(sql).write(&mut &self.server).is_ok() {
            wait.recv_timeout(DEADLINE).expect("the server answers");
        }
    }

    fn cut(&self) {
        drop(self.client.shutdown(Shutdown::Both));
        drop(self.server.shutdown(Shutdown::Both));
    }
}

/// The way of answers from the server to the client.
struct Answers {
    client: TcpStream,
    server: TcpStream,
    next: Arc<Mutex<Option<Next>>>,
    progress: Arc<Mutex<Progress>>,
}

impl Answers {
    fn pump(mut self) {
        while let Ok(mut packet) = Packet::read(&mut self.server) {
            let next = self.next.lock().unwrap().take();
            let written = match next {
                None => packet.write(&mut self.client),
                Some(Next::Greeting) => {
                    renumber(&mut packet.payload);
                    packet.write(&mut self.client)
                }
                Some(Next::Insert) => {
                    let mut progress = self.progress.lock().unwrap();
                    progress.inserts.extend(prepared(&packet.payload));
                    drop(progress);
                    packet.write(&mut self.client)
                }
                Some(Next::Replace(error)) => {
                    assert_eq!(packet.payload[0], 0, "the server has done it");
                    error.packet(packet.sequence).write(&mut self.client)
                }
                Some(Next::Swallow(done)) => {
                    assert_eq!(packet.payload[0], 0, "the server has done it");
                    done.send(()).unwrap_or_default();
                    Ok(())
                }
                Some(Next::Cut) => break,
            };
            if written.is_err() {
                break;
            }
        }
        drop(self.client.shutdown(Shutdown::Both));
        drop(self.server.shutdown(Shutdown::Both));
    }
}
