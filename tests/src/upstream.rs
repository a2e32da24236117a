//! Servers to forward to: one that answers as a test says, byte for byte if it wants, and a real one.

use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tempfile::TempDir;

use crate::http::{Connection, Message};
use crate::net::{Net, UPSTREAM_V4};
use crate::poll::eventually;

/// A server in the upstream namespace, a thread a connection.
#[derive(Debug)]
pub struct Upstream {
    listener: TcpListener,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Upstream {
    /// Answers every request with 200 and its path as the body, and remembers it.
    pub fn echo(net: &Net) -> Self {
        Self::answering(net, UPSTREAM_V4, |request| {
            let path = request.start.split(' ').nth(1).unwrap_or_default();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            )
        })
    }

    /// Answers every request with the bytes that `answer` makes of it, and remembers it.
    pub fn answering(
        net: &Net,
        address: IpAddr,
        answer: impl Fn(&Message) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::serving(net, address, move |connection, request| {
            let _ = connection.send(answer(request));
        })
    }

    /// Hands every request and its connection to `serve`, which may answer slowly, wrongly or not at all.
    pub fn serving(
        net: &Net,
        address: IpAddr,
        serve: impl Fn(&mut Connection, &Message) + Send + Sync + 'static,
    ) -> Self {
        let listener = net.upstream.run(|| TcpListener::bind((address, 0))).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (accepting, log, serve) = (listener.try_clone().unwrap(), Arc::clone(&seen), Arc::new(serve));
        std::thread::spawn(move || {
            // The listener is shut down when the server is dropped, and `accept` fails.
            while let Ok((stream, _)) = accepting.accept() {
                let (log, serve) = (Arc::clone(&log), Arc::clone(&serve));
                std::thread::spawn(move || {
                    let mut connection = Connection::over(stream);
                    while let Ok(Some(request)) = connection.request() {
                        log.lock().unwrap().push(request.clone());
                        serve(&mut connection, &request);
                    }
                });
            }
        });
        Self { listener, seen }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// The name of its socket.
const SOCKET: &str = "nginx.sock";

/// nginx in the upstream namespace, serving `/1k` (1 KiB) and `/1m` (1 MiB).
#[derive(Debug)]
pub struct Nginx {
    process: Child,
    socket: PathBuf,
    _directory: TempDir,
}

impl Nginx {
    /// Where it listens.
    pub const PORT: u16 = 8081;
    /// Where one of files listens under TLS.
    pub const SECURE_PORT: u16 = 8443;

    /// Starts it; `None` where it is not installed.
    pub fn start(net: &Net) -> Option<Self> {
        Self::listening(net, "", "")
    }

    /// The same under TLS, with `site.pem` and `site.key` of a directory; it asks clients for certificates that `ca.pem`
    /// there has signed, and takes no others.
    pub fn secure(net: &Net, certificates: &Path) -> Option<Self> {
        let at = certificates.display();
        let settings = format!(
            "ssl_certificate {at}/site.pem; ssl_certificate_key {at}/site.key;\n\
             ssl_client_certificate {at}/ca.pem; ssl_verify_client on;\n"
        );
        Self::listening(net, " ssl", &settings)
    }

    /// One that listens in the clear, on a socket of the host, and under TLS with HTTP/2, with `site.pem` and `site.key` of a
    /// directory. Beside the files it serves `/included.html`, whose length it does not know beforehand, and `/version`, the
    /// version of HTTP that it is spoken to in; and it takes files by PUT.
    pub fn of_files(net: &Net, certificates: &Path) -> Option<Self> {
        let at = certificates.display();
        let settings = format!(
            "listen {secure} ssl http2; ssl_certificate {at}/site.pem; ssl_certificate_key {at}/site.key;\n\
             listen unix:{at}/{SOCKET}; client_max_body_size 64m; dav_methods PUT; ssi on;\n\
             location = /version {{ return 200 $server_protocol; }}\n",
            secure = Self::SECURE_PORT
        );
        let mut nginx = Self::listening(net, "", &settings)?;
        nginx.socket = certificates.join(SOCKET);
        Some(nginx)
    }

    /// Where one of files listens on its host.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn listening(net: &Net, how: &str, settings: &str) -> Option<Self> {
        Command::new("nginx").arg("-v").stderr(Stdio::null()).status().ok()?;
        let directory = tempfile::Builder::new().prefix(&format!("{}-nginx", net.id())).tempdir().unwrap();
        let root = directory.path();
        std::fs::write(root.join("1k"), vec![b'k'; 1024]).unwrap();
        std::fs::write(root.join("1m"), vec![b'm'; 1024 * 1024]).unwrap();
        let including = "begin<!--#include virtual=\"/1k\" -->end\n";
        std::fs::write(root.join("included.html"), including).unwrap();
        let path = root.display();
        let config = format!(
            "daemon off; master_process off; error_log stderr; pid {path}/pid;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {path}/b; proxy_temp_path {path}/p;\n\
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             server {{ listen {port}{how}; listen [::]:{port}{how}; {settings} root {path}; }} }}\n",
            port = Self::PORT
        );
        let file = root.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let spawn = || Command::new("nginx").arg("-e").arg("stderr").arg("-c").arg(&file).spawn();
        let process = net.upstream.run(spawn).unwrap();
        let address = SocketAddr::new(UPSTREAM_V4, Self::PORT);
        eventually("nginx listens", Duration::from_secs(5), || {
            Connection::open(&net.upstream, UPSTREAM_V4, address)
        });
        Some(Self { process, socket: PathBuf::new(), _directory: directory })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
