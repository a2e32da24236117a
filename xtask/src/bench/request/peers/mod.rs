//! Who is measured, and how each is set up: one worker, keep-alive on both sides, no access log, the same upstream.

mod caddy;
mod envoy;
mod gateway;
mod haproxy;
mod nginx;
mod pingora;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use super::load::{self, idle};
use super::scene::Scene;
use crate::bench::machine;
use crate::{process, tools};

/// Idle connections that a proxy keeps to the upstream; more than the load opens, so that none is ever closed.
const UPSTREAM_IDLE_MAX: usize = 64;
/// Without a pooled connection for each of the load's, a proxy would be measured opening connections.
const _: () = assert!(load::CONNECTIONS <= UPSTREAM_IDLE_MAX);

/// Client connections that a proxy takes.
const CONNECTIONS_MAX: usize = idle::CONNECTIONS + 1000;

/// One proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Gateway,
    Nginx,
    Haproxy,
    /// Bytes from socket to socket: what no proxy can go below
    Relay,
    /// From a wheel
    Envoy,
    /// From a wheel
    Caddy,
    /// A proxy on that framework, built here, which takes minutes
    Pingora,
}

/// What a peer serves, and for whom.
pub(crate) struct Setting<'a> {
    /// A directory of its own.
    pub(crate) dir: &'a Path,
    pub(crate) scene: Scene,
    /// Certificate and key, where TLS is spoken.
    pub(crate) pem: Option<&'a Path>,
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
}

impl Peer {
    /// Those that are measured if nothing else is asked for.
    pub(crate) const USUAL: [Self; 4] = [Self::Gateway, Self::Nginx, Self::Haproxy, Self::Relay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Relay => "TCP relay",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
            Self::Pingora => "pingora",
        }
    }

    /// Whether it is a proxy of others, with which ours is compared.
    pub(crate) fn is_rival(self) -> bool {
        !matches!(self, Self::Gateway | Self::Relay)
    }

    /// Finds its program, or builds or installs it.
    pub(crate) fn provide(self) -> Result<()> {
        let of_debian = |name| match tools::ensure_system_programs(&[name]).first() {
            Some(missing) => Err(anyhow::anyhow!("{}", missing.advice())),
            None => Ok(()),
        };
        match self {
            Self::Gateway => gateway::build(),
            Self::Nginx => of_debian("nginx"),
            Self::Haproxy => of_debian("haproxy"),
            Self::Relay => Ok(()),
            Self::Envoy => envoy::PACKAGE.install(),
            Self::Caddy => caddy::PACKAGE.install(),
            Self::Pingora => pingora::build(),
        }
    }

    fn program(self) -> Result<PathBuf> {
        match self {
            Self::Gateway => Ok(gateway::program()),
            Self::Nginx => process::find("nginx").context("nginx is missing (apt-get install nginx)"),
            Self::Haproxy => process::find("haproxy").context("haproxy is missing (apt-get install haproxy)"),
            Self::Relay => env::current_exe().context("the path of this program"),
            Self::Envoy => envoy::program(),
            Self::Caddy => Ok(caddy::PACKAGE.program("caddy")),
            Self::Pingora => Ok(pingora::program()),
        }
    }

    pub(crate) fn version(self) -> Result<String> {
        Ok(match self {
            Self::Gateway => machine::version_of(&self.program()?, "--version"),
            Self::Nginx | Self::Haproxy => machine::version_of(&self.program()?, "-v"),
            Self::Relay => "this program".into(),
            Self::Envoy => envoy::version(&self.program()?)?,
            Self::Caddy => machine::version_of(&self.program()?, "version"),
            Self::Pingora => pingora::version()?,
        })
    }

    /// Whether it could take part: bytes that are copied have no routes, and the proxy on pingora has one upstream.
    pub(crate) fn takes_part(self, scene: Scene) -> bool {
        match self {
            _ if scene == Scene::Reloads => self.reloaded_file().is_some(),
            Self::Relay => !scene.is_secure() && scene.routes() == 0 && scene != Scene::Idle,
            Self::Pingora => scene.routes() == 0,
            _ => true,
        }
    }

    /// The file that it reads anew at SIGHUP. nginx closes the connections that wait at that moment, a request on its way
    /// or not, which the load takes for the failure that it is; the others are not reloaded by a signal.
    pub(crate) fn reloaded_file(self) -> Option<&'static str> {
        (self == Self::Gateway).then_some("gateway.yaml")
    }

    /// The command that serves, its files written into its directory.
    pub(crate) fn command(self, setting: &Setting) -> Result<Command> {
        let mut command = process::command(self.program()?);
        match self {
            Self::Gateway => gateway::configure(&mut command, setting)?,
            Self::Nginx => nginx::configure(&mut command, setting)?,
            Self::Haproxy => haproxy::configure(&mut command, setting)?,
            Self::Envoy => envoy::configure(&mut command, setting)?,
            Self::Caddy => command = caddy::configure(&command, setting)?,
            Self::Pingora => pingora::configure(&mut command, setting),
            Self::Relay => {
                let (listen, to) = (setting.listen.to_string(), setting.upstream.to_string());
                command.args(["relay", "--listen", &listen, "--to", &to]);
            }
        }
        Ok(command)
    }
}

/// Makes a certificate for all peers, P-256, as most sites have today; certificate and key in one file.
pub(crate) fn certificate(dir: &Path) -> Result<PathBuf> {
    let (cert, key, pem) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("site.pem"));
    let mut openssl = process::command("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "7", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert);
    let output = openssl.output().context("`openssl` could not be started (apt-get install openssl)")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(&pem, fs::read_to_string(cert)? + &fs::read_to_string(key)?)?;
    Ok(pem)
}
