//! A connection to an upstream over HTTP/2: requests share it, and a task of its own runs it.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use super::super::body::RequestBody;
use super::super::stream::Stream;
use super::super::watch::Watch;
use super::link::{Lost, Unsent};
use super::slots::Slot;

/// Requests at a time on one connection; the upstream may allow fewer. A hundred is what RFC 9113 recommends to
/// allow at least, and more connections spread over more of the upstream's threads.
const MAX_STREAMS: usize = 100;

/// How much of a response may wait in the gateway, for one stream and for all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 10 * STREAM_WINDOW;

/// How much of a request's body may wait for the upstream.
const MAX_BUFFER: usize = 64 * 1024;

/// The head of a response.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

pub(super) struct Shared {
    sender: SendRequest<RequestBody>,
    scheme: Scheme,
    streams: Cell<usize>,
    /// As many as the upstream takes at a time, and we want.
    allowed: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
    /// An answer did not come in time. The connection itself may be dead, and nothing else would tell: the requests
    /// that are on it go on, others take another.
    is_doubtful: Cell<bool>,
    /// Where the number of connections is bounded.
    slot: OnceCell<Slot>,
}

impl Shared {
    pub(super) async fn handshake(stream: Stream, is_secure: bool) -> Result<Rc<Self>, hyper::Error> {
        let (sender, connection) = Builder::new(Executor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_BUFFER)
            .max_header_list_size(MAX_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let allowed = Rc::new(Cell::new(MAX_STREAMS));
        let known = Rc::clone(&allowed);
        spawn_local(async move {
            let mut connection = pin!(connection);
            // It ends when the upstream closes it, or when nobody holds its sender any more.
            let ended = poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                known.set(connection.current_max_send_streams().clamp(1, MAX_STREAMS));
                ended
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a connection to an upstream over HTTP/2 ended");
            }
        });
        let scheme = if is_secure { Scheme::HTTPS } else { Scheme::HTTP };
        Ok(Rc::new(Self {
            sender,
            scheme,
            streams: Cell::new(0),
            allowed,
            idle_since: Cell::new(Instant::now()),
            is_doubtful: Cell::new(false),
            slot: OnceCell::new(),
        }))
    }

    pub(super) fn occupy(&self, slot: Option<Slot>) {
        // One that is too much is dropped.
        let _ = slot.map(|slot| self.slot.set(slot));
    }

    /// Whether it takes a request.
    pub(super) fn has_room(&self) -> bool {
        !self.is_over() && self.streams.get() < self.allowed.get()
    }

    /// Whether it will never take one again.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed() || self.is_doubtful.get()
    }

    /// Whether nobody has used it for so long.
    pub(super) fn is_idle(&self, now: Instant, keepalive: Duration) -> bool {
        self.streams.get() == 0 && now.saturating_duration_since(self.idle_since.get()) >= keepalive
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    pub(super) fn begin(&self) {
        self.streams.set(self.streams.get() + 1);
        if let Some(slot) = self.slot.get().filter(|_| self.has_room()) {
            slot.offer();
        }
    }

    pub(super) fn end(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.idle_since.set(Instant::now());
        if let Some(slot) = self.slot.get() {
            slot.offer();
        }
    }

    /// Sends the request and waits for the head of its response.
    pub(super) async fn exchange(
        &self,
        unsent: &mut Unsent,
        watch: &Watch,
    ) -> Result<Response<Incoming>, Lost> {
        let Some(mut request) = unsent.take() else { return Err(Lost::Expired { client: false }) };
        address(&mut request, &self.scheme);
        let mut answer = pin!(self.sender.clone().try_send_request(request));
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if watch.is_expired() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match answer {
            None => {
                let client = watch.awaits_client();
                self.is_doubtful.set(self.is_doubtful.get() || !client);
                Err(Lost::Expired { client })
            }
            Some(Ok(response)) => Ok(response),
            Some(Err(mut failed)) => {
                *unsent = failed.take_message();
                Err(Lost::Failed(failed.into_error()))
            }
        }
    }
}

/// HTTP/2 has the host in a field of its own, and no connection that fields could be about.
fn address(request: &mut Request<RequestBody>, scheme: &Scheme) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let mut parts = Parts::default();
    parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.scheme = parts.authority.is_some().then(|| scheme.clone());
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    for of_connections in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(of_connections);
    }
}

/// Runs hyper's tasks in the worker's own thread.
#[derive(Clone)]
pub(super) struct Executor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
