//! nginx as a proxy.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command};

use super::{Hakaru, free_port, wait_until};

/// An nginx that passes all requests on to hakaru over keep-alive connections.
pub struct Nginx {
    pub port: u16,
    _directory: tempfile::TempDir,
    server: Child,
}

impl Nginx {
    /// `options` are further lines for the location.
    pub fn start(hakaru: &Hakaru, options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let configuration = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
             events {{ worker_connections 64; }}
             http {{
               access_log off; client_max_body_size 4m;
               client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
               fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
               upstream hakaru {{ server {address}; keepalive 8; }}
               server {{
                 listen 127.0.0.1:{port};
                 location / {{
                   proxy_pass http://hakaru; proxy_http_version 1.1; proxy_set_header Connection '';
                   {options}
                 }}
               }}
             }}",
            path = directory.path().display(),
            address = hakaru.address,
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let server = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "/usr/sbin/nginx",
                "-c",
                file.to_str().unwrap(),
            ])
            .args(["-e", "stderr"])
            .spawn()
            .expect("nginx, from Debian's nginx-light");
        wait_until("nginx listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            port,
            _directory: directory,
            server,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
