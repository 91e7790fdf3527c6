//! The side that hands sockets over.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access};

use super::{FIRST_FD, PREDECESSOR, SocketUse};
use crate::server::threads::{Notice, Role, Threads};

/// How long a successor may take until it serves: the database's timeouts are far below.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How this process was started, to start another one the same way.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Of this process. Comes before passwords are taken out of its arguments.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let path = match arguments.next() {
            // By the name that was used: it may be a link that is made to point to another version.
            Some(name) if name.as_bytes().contains(&b'/') => name.into(),
            // Asked now, while the file is there.
            name => match name.and_then(|name| in_path(&name)) {
                Some(path) => path,
                None => env::current_exe()?,
            },
        };
        Ok(Self {
            path,
            arguments: arguments.collect(),
        })
    }
}

/// The file that a shell finds by `name`.
fn in_path(name: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).map(|directory| directory.join(name));
    files.find(|file| access(file, AccessFlags::X_OK).is_ok())
}

/// A process that is to serve in our place.
#[derive(Debug)]
pub struct Successor {
    pid: Pid,
}

impl Successor {
    /// Starts `program` with `sockets`. A notice reports that it serves, or that it does not and why; in
    /// the second case it has ended.
    pub(in crate::server) fn start(
        program: &Program,
        sockets: &[(SocketUse, TcpListener)],
        threads: &Threads,
    ) -> io::Result<Self> {
        if std::process::id() == 1 {
            // All of a container ends with its first process.
            return Err(io::Error::other(
                "this is process 1, whose end is that of its container; start another container instead",
            ));
        }
        let names: Vec<_> = sockets.iter().map(|(of, _)| of.name()).collect();
        let mappings = (FIRST_FD..).zip(sockets).map(|(child_fd, (_, socket))| {
            Ok(FdMapping {
                parent_fd: OwnedFd::from(socket.try_clone()?),
                child_fd: i32::try_from(child_fd).map_err(io::Error::other)?,
            })
        });
        let (heard, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env("LISTEN_FDS", sockets.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env(PREDECESSOR, std::process::id().to_string())
            // They name us, and would be taken for another's.
            .env_remove("LISTEN_PID")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        command
            .fd_mappings(mappings.collect::<io::Result<_>>()?)
            .map_err(io::Error::other)?;
        let mut child = command.spawn().map_err(|fault| {
            let path = program.path.display();
            io::Error::new(fault.kind(), format!("{path}: {fault}"))
        })?;
        // Holds our copy of its end: without it, the end of the successor can be heard.
        drop(command);
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        // Who cannot be waited for must not serve: shared with the thread that waits, if it can be had.
        let (hand, taken) = sync_channel::<(Child, UnixStream)>(1);
        let main = threads.clone();
        let waits = threads.start("successor", Role::Successor, move || {
            if let Ok((child, heard)) = taken.recv() {
                main.notify(Notice::Successor(wait(child, heard)));
            }
            Ok(())
        });
        if let Err(fault) = waits {
            child.kill()?;
            child.wait()?;
            return Err(fault);
        }
        if hand.send((child, heard)).is_err() {
            return Err(io::Error::other("the thread that waits for it has ended"));
        }
        Ok(Self { pid })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends it as we are ended: it drains.
    pub fn end(&self) {
        if let Err(fault) = kill(self.pid, Signal::SIGTERM) {
            log::debug!("the successor {} cannot be ended: {fault}", self.pid);
        }
    }
}

/// Reads the one byte that says that the successor serves; nothing is its end.
fn hear(heard: &mut UnixStream) -> io::Result<usize> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        heard.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match heard.read(&mut [0]) {
            // A signal that came to this thread.
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            heard => return heard,
        }
    }
}

/// Waits until the successor serves; ends one that does not.
fn wait(mut child: Child, mut heard: UnixStream) -> Result<(), String> {
    match hear(&mut heard) {
        Ok(1) => Ok(()),
        // It has ended, or lives on without a way to tell us anything.
        Ok(_) => match child.kill().and_then(|()| child.wait()) {
            Ok(status) => Err(format!("it ended before it served, with {status}")),
            Err(fault) => Err(format!("it ended before it served: {fault}")),
        },
        Err(fault) => {
            let ended = child.kill().and_then(|()| child.wait());
            log::debug!("the successor said nothing ({fault}) and was killed: {ended:?}");
            Err(format!(
                "it did not serve within {START_PATIENCE:?} and was killed"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_started_is_named() {
        let program = Program {
            path: "/nowhere/hakaru".into(),
            arguments: Vec::new(),
        };
        let (threads, _notices) = Threads::new();
        let refused = Successor::start(&program, &[], &threads).unwrap_err();
        assert!(
            refused.to_string().starts_with("/nowhere/hakaru: "),
            "{refused}"
        );
    }

    #[test]
    fn one_that_ends_before_it_serves_is_not_taken_for_a_server() {
        let program = Program {
            path: "/bin/sh".into(),
            arguments: ["-c", "exit 7"].map(OsString::from).to_vec(),
        };
        let (threads, notices) = Threads::new();
        Successor::start(&program, &[], &threads).unwrap();
        let Notice::Successor(Err(why)) = notices.recv().unwrap() else {
            panic!()
        };
        assert!(why.contains("exit status: 7"), "{why}");
        let ended = Notice::Ended(Role::Successor, Ok(()));
        assert_eq!(notices.recv().unwrap(), ended);
    }
}
