//! The address at which hakaru finds a cluster: it leads to the member that takes the writes, as a router does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Clone)]
pub struct Front {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    sockets: Vec<PathBuf>,
    member: Option<usize>,
    open: Vec<(TcpStream, UnixStream)>,
}

impl Front {
    /// A front that leads nowhere yet. It ends with the process.
    pub fn start(sockets: Vec<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            sockets,
            member: None,
            open: Vec::new(),
        }));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Without a member the connection is closed.
                accepting.lock().unwrap().join(client);
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The data source for hakaru, with the timeouts that are the default.
    pub fn dsn(&self) -> String {
        format!("root@tcp({})/hakaru", self.address)
    }

    /// To which member it leads.
    pub fn member(&self) -> Option<usize> {
        self.shared.lock().unwrap().member
    }

    /// Leads to another member from now on. Connections to the one before are cut, whether it answers or not.
    pub fn point_to(&self, member: Option<usize>) {
        let mut shared = self.shared.lock().unwrap();
        if shared.member == member {
            return;
        }
        shared.member = member;
        for (client, server) in shared.open.drain(..) {
            drop(client.shutdown(Shutdown::Both));
            drop(server.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn join(&mut self, client: TcpStream) {
        let Some(member) = self.member else {
            return;
        };
        let Ok(server) = UnixStream::connect(&self.sockets[member]) else {
            return;
        };
        drop(client.set_nodelay(true));
        self.open
            .push((client.try_clone().unwrap(), server.try_clone().unwrap()));
        let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            pump(&from_client, &to_server);
            drop(from_client.shutdown(Shutdown::Both));
            drop(to_server.shutdown(Shutdown::Both));
        });
        thread::spawn(move || {
            pump(&server, &client);
            drop(client.shutdown(Shutdown::Both));
            drop(server.shutdown(Shutdown::Both));
        });
    }
}

fn pump<'a, F, T>(mut from: &'a F, mut to: &'a T)
where
    &'a F: Read,
    &'a T: Write,
{
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
