//! Who is measured, and how each is set up: one worker, keep-alive on both sides, no access log, the same upstream.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use super::load::Scene;
use super::machine;
use crate::{process, workspace};

/// Idle connections that a proxy keeps to the upstream; more than the load opens, so that none is ever closed.
pub(crate) const UPSTREAM_IDLE_MAX: usize = 64;

/// One proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Gateway,
    Nginx,
    Haproxy,
    /// Bytes from socket to socket: what no proxy can go below
    Relay,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Gateway, Self::Nginx, Self::Haproxy, Self::Relay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Relay => "TCP relay",
        }
    }

    /// Where its program is.
    pub(crate) fn program(self) -> Result<PathBuf> {
        match self {
            Self::Gateway => Ok(workspace::target_dir().join("release/gateway")),
            Self::Nginx => process::find("nginx").context("nginx is missing (apt-get install nginx)"),
            Self::Haproxy => process::find("haproxy").context("haproxy is missing (apt-get install haproxy)"),
            Self::Relay => env::current_exe().context("the path of this program"),
        }
    }

    pub(crate) fn version(self) -> Result<String> {
        Ok(match self {
            Self::Gateway => machine::version_of(&self.program()?, "--version"),
            Self::Nginx | Self::Haproxy => machine::version_of(&self.program()?, "-v"),
            Self::Relay => "this program".into(),
        })
    }

    /// Whether it can take part: a relay of bytes knows nothing of TLS.
    pub(crate) fn speaks(self, scene: Scene) -> bool {
        self != Self::Relay || !scene.is_secure()
    }

    /// The command that serves `listen` from `upstream`, its files written into `dir`; under TLS with the certificate
    /// that [`certificate`] made there.
    pub(crate) fn command(
        self,
        dir: &Path,
        scene: Scene,
        listen: SocketAddr,
        upstream: SocketAddr,
    ) -> Result<Command> {
        let pem = scene.is_secure().then(|| dir.join(PEM));
        let pem = pem.as_deref();
        let dir = dir.join(self.name());
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let mut command = process::command(self.program()?);
        match self {
            Self::Gateway => {
                let config = write(&dir, "gateway.yaml", &gateway_config(&dir, pem, listen, upstream)?)?;
                command.args(["run", "--config"]).arg(config);
            }
            Self::Nginx => nginx(&mut command, &dir, &nginx_proxy(pem, listen, upstream))?,
            Self::Haproxy => {
                let config = write(&dir, "haproxy.cfg", &haproxy_config(pem, listen, upstream))?;
                command.args(["-db", "-q", "-f"]).arg(config);
            }
            Self::Relay => {
                command.args(["relay", "--listen", &listen.to_string(), "--to", &upstream.to_string()]);
            }
        }
        Ok(command)
    }
}

/// The upstream of all: nginx, answering from memory.
pub(crate) fn upstream(dir: &Path, listen: SocketAddr, body: &str) -> Result<Command> {
    let dir = dir.join("upstream");
    fs::create_dir_all(&dir)?;
    let mut command = process::command(Peer::Nginx.program()?);
    let server = format!(
        "  server {{\n    listen {listen} backlog=1024;\n    default_type text/plain;\n    \
         location / {{ return 200 \"{body}\"; }}\n  }}\n"
    );
    nginx(&mut command, &dir, &server)?;
    Ok(command)
}

/// The certificate and the key of all peers in one file.
const PEM: &str = "site.pem";

/// Makes a certificate for all peers: P-256, as most sites have today.
pub(crate) fn certificate(dir: &Path) -> Result<()> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut openssl = process::command("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "7",
    ]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert);
    let output = openssl.output().context("`openssl` could not be started (apt-get install openssl)")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(dir.join(PEM), fs::read_to_string(cert)? + &fs::read_to_string(key)?)?;
    Ok(())
}

/// An address on loopback where nobody listens now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?)
}

fn gateway_config(
    dir: &Path,
    pem: Option<&Path>,
    listen: SocketAddr,
    upstream: SocketAddr,
) -> Result<String> {
    let admin = free_address()?;
    let socket = dir.join("admin.sock");
    let tls = pem.map_or_else(String::new, |pem| {
        format!(", tls: {{certificates: [{{cert: \"{0}\", key: \"{0}\"}}]}}", pem.display())
    });
    Ok(format!(
        "workers: 1\nkernel: {{attach: \"off\"}}\nlisteners:\n  web: {{address: \"{listen}\"{tls}}}\nupstreams:\n  \
         origin: {{endpoints: [\"http://{upstream}\"]}}\nroutes:\n  all: {{match: {{path: \"/**\"}}, upstream: origin}}\n\
         admin: {{address: \"{admin}\", socket: \"{}\"}}\n",
        socket.display()
    ))
}

/// The request goes on as the gateway sends it: the client's Host, and its address in X-Forwarded-For.
fn nginx_proxy(pem: Option<&Path>, listen: SocketAddr, upstream: SocketAddr) -> String {
    let tls = pem.map_or_else(String::new, |pem| {
        format!(
            "    ssl_certificate {0};\n    ssl_certificate_key {0};\n    ssl_protocols TLSv1.2 TLSv1.3;\n",
            pem.display()
        )
    });
    let ssl = if pem.is_some() { " ssl" } else { "" };
    format!(
        "  upstream origin {{\n    server {upstream};\n    keepalive {UPSTREAM_IDLE_MAX};\n    \
         keepalive_requests 1000000000;\n    keepalive_time 1d;\n  }}\n  server {{\n    listen {listen}{ssl} backlog=1024;\n{tls}    \
         location / {{\n      proxy_pass http://origin;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n    }}\n  }}\n"
    )
}

fn nginx(command: &mut Command, dir: &Path, servers: &str) -> Result<()> {
    // As root, nginx would give its worker to a user who cannot reach this directory.
    let user = if workspace::is_root() { "user root;\n" } else { "" };
    let dir_shown = dir.display();
    let config = format!(
        "{user}daemon off;\nworker_processes 1;\npid {dir_shown}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000000;\n  \
         keepalive_timeout 1h;\n  keepalive_time 1d;\n  tcp_nodelay on;\n  client_body_temp_path {dir_shown}/body;\n  \
         proxy_temp_path {dir_shown}/proxy;\n  fastcgi_temp_path {dir_shown}/fastcgi;\n  uwsgi_temp_path {dir_shown}/uwsgi;\n  \
         scgi_temp_path {dir_shown}/scgi;\n{servers}}}\n"
    );
    let config = write(dir, "nginx.conf", &config)?;
    command.arg("-q").arg("-e").arg("stderr").arg("-p").arg(dir).arg("-c").arg(config);
    Ok(())
}

fn haproxy_config(pem: Option<&Path>, listen: SocketAddr, upstream: SocketAddr) -> String {
    let tls = pem.map_or_else(String::new, |pem| format!(" ssl crt {} ssl-min-ver TLSv1.2", pem.display()));
    format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1m\n  \
         timeout server 1m\n  option http-keep-alive\n  http-reuse always\n  option forwardfor\nfrontend web\n  \
         bind {listen}{tls}\n  default_backend origin\nbackend origin\n  server one {upstream} pool-max-conn {UPSTREAM_IDLE_MAX}\n"
    )
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
