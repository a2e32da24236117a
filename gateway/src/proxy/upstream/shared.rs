//! A connection to an upstream over HTTP/2: requests share it, and a task of its own runs it.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{Method, Request, Response, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::task::{AbortHandle, spawn_local};

use super::super::body::{BodyError, RequestBody};
use super::super::incoming::Incoming;
use super::super::outgoing::Outgoing;
use super::super::stream::Stream;
use super::super::watch::Watch;
use super::link::{Lost, NoResponse, Unsent};
use super::replay;
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
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    streams: Cell<usize>,
    /// As many as the upstream takes at a time, and we want.
    allowed: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
    /// It has ended, or takes no more requests: those that are on it go on, others take another. So it is, too, when an
    /// answer did not come in time: the connection itself may be dead, and nothing else would tell.
    is_over: Rc<Cell<bool>>,
    /// Where the number of connections is bounded.
    slot: OnceCell<Slot>,
}

impl Shared {
    pub(super) async fn handshake(stream: Stream, is_secure: bool) -> Result<Rc<Self>, h2::Error> {
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(MAX_STREAMS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(MAX_BUFFER)
            .max_header_list_size(MAX_HEADER_BYTES)
            .handshake(stream)
            .await?;
        let (allowed, is_over) = (Rc::new(Cell::new(MAX_STREAMS)), Rc::new(Cell::new(false)));
        let (known, over) = (Rc::clone(&allowed), Rc::clone(&is_over));
        spawn_local(async move {
            let mut connection = pin!(connection);
            // It ends when the upstream closes it, or when nobody holds its sender any more.
            let ended = poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                known.set(connection.max_concurrent_send_streams().clamp(1, MAX_STREAMS));
                ended
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a connection to an upstream over HTTP/2 ended");
            }
            over.set(true);
        });
        let scheme = if is_secure { Scheme::HTTPS } else { Scheme::HTTP };
        let (streams, idle_since) = (Cell::new(0), Cell::new(Instant::now()));
        Ok(Rc::new(Self { sender, scheme, streams, allowed, idle_since, is_over, slot: OnceCell::new() }))
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
        self.is_over.get()
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

    /// Sends the request and waits for the head of its response. What is left of its body then is `upload`'s.
    ///
    /// Where the upstream says that it has not looked at the request, it is there again afterwards, unless too much of its
    /// body has gone.
    pub(super) async fn exchange(
        &self,
        unsent: &mut Unsent,
        watch: &Watch,
        upload: &mut Option<Upload>,
    ) -> Result<Response<Incoming>, Lost> {
        let Some(mut request) = unsent.take() else { return Err(Lost::Expired { client: false }) };
        let mut sender = self.sender.clone();
        if let Err(error) = self.unless_expired(watch, |cx| sender.poll_ready(cx)).await? {
            // The upstream has said good-bye, or is gone.
            self.is_over.set(true);
            *unsent = Some(request);
            return Err(Lost::Failed(NoResponse::Http2(error)));
        }
        let kept = replay::head(&request);
        address(&mut request, &self.scheme);
        let (head, body) = request.into_parts();
        let is_whole = body.is_end_stream();
        let failed = |error| Lost::Failed(NoResponse::Http2(error));
        let (mut answer, stream) =
            sender.send_request(Request::from_parts(head, ()), is_whole).map_err(failed)?;
        drop(sender);
        let lent = (!is_whole).then(|| Lent::new(body));
        if let Some(lent) = &lent {
            let mut body = Some(Outgoing::new(stream, lent.clone(), Reason::INTERNAL_ERROR));
            *upload = poll_fn(|cx| Poll::Ready(body.take().and_then(|body| Upload::start(body, cx)))).await;
        }
        match self.unless_expired(watch, |cx| poll_answer(&mut answer, watch, cx)).await? {
            Ok(response) => {
                if let Some(lent) = &lent {
                    lent.0.borrow_mut().forget();
                }
                let (head, stream) = response.into_parts();
                let body = Incoming::of_stream(stream, &head.headers);
                Ok(Response::from_parts(head, body))
            }
            Err(error) if is_refusal(&error) => {
                // After a good-bye it refuses all others, too.
                self.is_over.set(self.is_over.get() || error.is_go_away());
                let body = lent.map_or_else(|| Some(RequestBody::empty()), Lent::back);
                *unsent = body.and_then(|body| again(&kept, body));
                Err(Lost::Refused(NoResponse::Http2(error)))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Waits for something, but no longer than for a response.
    async fn unless_expired<T>(
        &self,
        watch: &Watch,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Lost> {
        let came = poll_fn(|cx| match poll(cx) {
            Poll::Ready(came) => Poll::Ready(Some(came)),
            Poll::Pending if watch.is_expired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(came) = came.await {
            return Ok(came);
        }
        let client = watch.awaits_client();
        self.is_over.set(self.is_over.get() || !client);
        Err(Lost::Expired { client })
    }
}

/// Whether the upstream has not processed the request (RFC 9113, section 8.7). Of a good-bye those streams hear that are
/// above the last one that it names; the others go on.
fn is_refusal(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}

/// The request as it was before it was sent.
fn again(kept: &[u8], body: RequestBody) -> Unsent {
    Some(replay::request(kept)?.map(|_| body))
}

/// A body that goes out and can be had back.
#[derive(Clone)]
struct Lent(Rc<RefCell<RequestBody>>);

impl Lent {
    fn new(mut body: RequestBody) -> Self {
        body.remember();
        Self(Rc::new(RefCell::new(body)))
    }

    /// Whoever sends it finds it empty from here on.
    fn back(self) -> Option<RequestBody> {
        self.0.replace(RequestBody::empty()).rewound()
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().size_hint()
    }
}

fn poll_answer(
    answer: &mut ResponseFuture,
    watch: &Watch,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<h2::RecvStream>, h2::Error>> {
    while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
        watch.hears_interim(interim);
    }
    Pin::new(answer).poll(cx)
}

/// The rest of a request's body, which a task sends while its response comes. Dropped, it is given up.
pub(super) struct Upload(AbortHandle);

impl Upload {
    /// What is there goes at once; `None` if that is all. Whoever starts it is woken at its end: it is only then that
    /// the time for the response begins.
    fn start(mut body: Outgoing<Lent>, cx: &Context<'_>) -> Option<Self> {
        if body.poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return None;
        }
        let starter = cx.waker().clone();
        let sending = spawn_local(async move {
            // Who waits for the response sees what became of it.
            let _stopped = poll_fn(|cx| body.poll(cx)).await;
            starter.wake();
        });
        Some(Self(sending.abort_handle()))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
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
    let length = request.body().size_hint().exact();
    let has_length =
        |length| length > 0 || [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
    let length = length.filter(|length| has_length(*length));
    let headers = request.headers_mut();
    if let Some(length) = length {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    for of_connections in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(of_connections);
    }
}
