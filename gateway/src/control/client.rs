//! The commands' end of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request as HttpRequest, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::filter::Filter;
use super::request::{Reply, Request};
use super::server::MAX_BODY_BYTES;
use super::status::{Identity, Problem, Reloaded, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest order is a list of a million entries; a reload with such a list takes its time, too.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of one line of events.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Why the agent did not do what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no gateway answers on {}; start one with `gateway run`, or name its socket with --socket", .0.display())]
    Absent(PathBuf),
    /// Somebody may, but not for us.
    #[error("cannot talk to the gateway on {}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's answer, or the protocol's.
        error: io::Error,
    },
    /// Somebody else than was meant.
    #[error(
        "the gateway on {} uses the pin directory {} and not {}; name its directory with --pin-dir, or another gateway's socket with --socket",
        socket.display(), theirs.display(), meant.display()
    )]
    Another {
        /// The socket.
        socket: PathBuf,
        /// The pin directory of who answers there.
        theirs: PathBuf,
        /// The one that was meant.
        meant: PathBuf,
    },
    /// More than an agent takes in one piece, so nothing was sent.
    #[error(
        "the list takes {} MiB on its way to the agent, which takes at most {} MiB in one piece (about a million entries), so nothing of it was applied; name the file in kernel.deny or kernel.allow of the configuration and `gateway reload`, or import it as several shorter files",
        bytes.div_ceil(1 << 20), MAX_BODY_BYTES >> 20
    )]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// The agent refused.
    #[error("{}", .0.detail)]
    Refused(Problem),
}

/// A client of one admin socket. Every call is a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The agent on this socket and who it is, if it is the one that uses this pin directory: a default
    /// socket may be that of another gateway than the one that is meant.
    ///
    /// # Errors
    /// [`ClientError::Another`], or that the agent does not answer.
    pub fn find(socket: &Path, pin_dir: &Path) -> Result<(Self, Identity), ClientError> {
        let client = Self::new(socket);
        let identity = client.identity()?;
        if identity.pin_dir == pin_dir {
            return Ok((client, identity));
        }
        let (socket, meant) = (socket.to_owned(), pin_dir.to_owned());
        Err(ClientError::Another { socket, theirs: identity.pin_dir, meant })
    }

    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Who answers.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for every call.
    pub(super) fn identity(&self) -> Result<Identity, ClientError> {
        self.exchange(Method::GET, "/api/v1/identity", Vec::new())
    }

    /// The agent's status.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<Status, ClientError> {
        self.exchange(Method::GET, "/api/v1/status", Vec::new())
    }

    /// Loads the configuration again.
    ///
    /// # Errors
    /// See [`ClientError`]; a configuration that is refused is a problem with all of its mistakes.
    pub fn reload(&self) -> Result<Reloaded, ClientError> {
        self.exchange(Method::POST, "/api/v1/reload", Vec::new())
    }

    /// Asks the rules.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call(&self, request: &Request) -> Result<Reply, ClientError> {
        let (method, path) = request.route();
        let body = request.body().map_err(|error| self.io(error.into()))?;
        if body.len() > MAX_BODY_BYTES {
            // In parts, it could not be all or nothing.
            return Err(ClientError::TooLong { bytes: body.len() });
        }
        self.exchange(method, &path, body)
    }

    /// Hands every line of the stream of events that a filter lets through to `sink` until the agent ends it or `sink` fails.
    ///
    /// # Errors
    /// See [`ClientError`]; a failure of `sink` comes back as it is, in the inner result.
    pub fn events(
        &self,
        filter: &Filter,
        sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ClientError> {
        let path = format!("/api/v1/events?{}", filter.to_query());
        self.block_on(async {
            let response = self.send(Method::GET, &path, Vec::new()).await?;
            if !response.status().is_success() {
                return Err(self.problem(response).await);
            }
            self.lines(response.into_body(), sink).await
        })
    }

    async fn lines(
        &self,
        mut body: Incoming,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ClientError> {
        let mut partial: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.io(io::Error::other(error)))?;
            let Ok(data) = frame.into_data() else { continue };
            partial.extend_from_slice(&data);
            while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = partial.drain(..=end).collect();
                if let Err(error) = sink(&line) {
                    return Ok(Err(error));
                }
            }
            if partial.len() > MAX_LINE_BYTES {
                return Err(self.io(io::Error::other("an event that does not end")));
            }
        }
        Ok(Ok(()))
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        self.block_on(async {
            let exchange = async {
                let response = self.send(method, path, body).await?;
                if !response.status().is_success() {
                    return Err(self.problem(response).await);
                }
                let body = response.into_body().collect().await;
                let body = body.map_err(|error| self.io(io::Error::other(error)))?.to_bytes();
                serde_json::from_slice(&body).map_err(|error| self.io(error.into()))
            };
            timeout(REPLY_TIMEOUT, exchange).await.map_err(|_| self.io(io::ErrorKind::TimedOut.into()))?
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::Absent(self.socket.clone())
                }
                _ => self.io(error),
            })?;
        let broken = |error: hyper::Error| self.io(io::Error::other(error));
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        // The connection lives as long as the runtime of this one call.
        tokio::spawn(connection);
        let request = HttpRequest::builder()
            .method(method)
            .uri(path)
            .header(HOST, "gateway")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.io(io::Error::other(error)))?;
        sender.send_request(request).await.map_err(broken)
    }

    async fn problem(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let problem = match response.into_body().collect().await {
            Ok(body) => serde_json::from_slice(&body.to_bytes()).ok(),
            Err(_) => None,
        };
        problem.map_or_else(
            || self.io(io::Error::other(format!("it answered {status} without a reason"))),
            ClientError::Refused,
        )
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| self.io(error))?.block_on(work)
    }

    fn io(&self, error: io::Error) -> ClientError {
        ClientError::Io { path: self.socket.clone(), error }
    }
}
