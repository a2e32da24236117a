//! One connection to an upstream, and the lease of it that a request has. Over HTTP/1.1 no task of its own runs it:
//! whoever has a request on it does, so a request takes no way over another task and back.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::model::Protocol;
use crate::tls;

use super::super::body::{BodyError, RequestBody};
use super::super::incoming::Incoming;
use super::super::problem::Kind;
use super::super::stream::Stream;
use super::super::watch::Watch;
use super::attempt::Care;
use super::io::{Tap, UpstreamIo};
use super::load::Permit;
use super::pool::Endpoint;
use super::replay;
use super::retry::Reason;
use super::shared::{Shared, Upload};
use super::slots::Slot;

/// The head of a response, and how much of a body may wait in one buffer.
const MAX_BUFFER: usize = 64 * 1024;

/// A request on its way to a connection. It stands in one place until it is written: handed from call to call, its three
/// hundred bytes would be copied each time.
pub(super) type Unsent = Option<Request<RequestBody>>;

pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    /// `None` when it is over. It is dropped at once then: only that gives back a request that it has not
    /// taken.
    connection: Option<Connection<UpstreamIo, RequestBody>>,
    /// HTTP has ended on it in an agreement to speak something else.
    switched: Option<(Stream, Bytes)>,
    tap: Rc<Tap>,
    /// Where the number of connections is bounded.
    slot: Option<Slot>,
}

/// A connection that was opened.
pub(super) enum Opened {
    Exclusive(Box<Link>),
    Shared(Rc<Shared>),
}

impl Opened {
    /// Takes a place; a connection that has one already gives this one back.
    pub(super) fn occupy(&mut self, slot: Option<Slot>) {
        match self {
            Self::Exclusive(link) => link.slot = slot,
            Self::Shared(link) => link.occupy(slot),
        }
    }
}

/// Connects, under TLS shakes hands, and begins to speak HTTP, within this time.
pub(super) async fn open(
    endpoint: &Endpoint,
    tls: Option<&tls::Client>,
    protocol: Protocol,
    announce: Option<&[u8]>,
    timeout: Duration,
) -> Result<Opened, ConnectError> {
    let opening = async {
        let stream = connect(endpoint, tls, announce).await?;
        if speaks_http2(&stream, endpoint, protocol) {
            let is_secure = endpoint.secure_host().is_some();
            return Ok(Opened::Shared(Shared::handshake(stream, is_secure).await?));
        }
        if protocol == Protocol::Http2 {
            return Err(ConnectError::Tls("it does not agree to speak HTTP/2".to_owned()));
        }
        Ok(Opened::Exclusive(Box::new(Link::handshake(stream).await?)))
    };
    tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::TimedOut(timeout))?
}

/// Whether HTTP/2 was agreed on or, in the clear, is taken for granted.
pub(super) fn speaks_http2(stream: &Stream, endpoint: &Endpoint, protocol: Protocol) -> bool {
    let agreed = match stream {
        Stream::Tls(tls) => tls.get_ref().1.alpn_protocol().map(|name| name == tls::HTTP2),
        Stream::Plain(_) | Stream::Unix(_) => None,
    };
    agreed.unwrap_or(protocol == Protocol::Http2 && endpoint.secure_host().is_none())
}

/// Connects and, under TLS, shakes hands.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&tls::Client>,
    announce: Option<&[u8]>,
) -> Result<Stream, ConnectError> {
    let stream = endpoint.connect(announce).await?;
    let Some(host) = endpoint.secure_host() else { return Ok(stream) };
    let (Some(tls), Stream::Plain(stream)) = (tls, stream) else {
        return Err(ConnectError::Tls("nothing says whom it has to be".to_owned()));
    };
    let name = tls.settings().name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|error| ConnectError::Tls(error.to_string()))?;
    let secured = TlsConnector::from(tls.config()).connect(name, stream).await.map_err(|error| {
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(tls::certificate_reason);
        let reason = reason.map(|reason| format!("its certificate is refused: {reason}"));
        ConnectError::Tls(reason.unwrap_or_else(|| error.to_string()))
    })?;
    Ok(Stream::Tls(Box::new(secured.into())))
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error("no TLS handshake: {0}")]
    Tls(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl ConnectError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::TimedOut(_) => Kind::UpstreamConnectTimeout,
            Self::Tls(_) => Kind::UpstreamTls,
            Self::Io(_) | Self::Http1(_) | Self::Http2(_) => Kind::UpstreamConnect,
        }
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Lost {
    /// The time for it is over.
    Expired {
        /// It was the client that did not go on.
        client: bool,
    },
    /// The connection failed. A request that was not written is where it was taken from.
    Failed(NoResponse),
    /// The upstream has not looked at the request. It is where it was taken from if it can be sent again.
    Refused(NoResponse),
}

/// What the connection failed of.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoResponse {
    #[error(transparent)]
    Http1(hyper::Error),
    #[error(transparent)]
    Http2(h2::Error),
}

impl NoResponse {
    fn kind(&self) -> Kind {
        match self {
            Self::Http1(error) if error.is_user() => Kind::BadRequest,
            Self::Http1(error) if error.is_parse() || error.is_parse_too_large() => Kind::UpstreamProtocol,
            // It was h2 that ended the stream or the connection, over what it had read.
            Self::Http2(error) if error.is_library() => Kind::UpstreamProtocol,
            Self::Http1(_) | Self::Http2(_) => Kind::UpstreamClosed,
        }
    }

    /// Whether the stream has ended, and nothing was wrong with it before that.
    fn is_end(&self) -> bool {
        matches!(self, Self::Http1(error) if error.is_incomplete_message())
    }
}

impl Link {
    async fn handshake(stream: Stream) -> Result<Self, hyper::Error> {
        let tap = Rc::new(Tap::default());
        let io = UpstreamIo::new(stream, Rc::clone(&tap));
        let (sender, connection) = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(io).await?;
        Ok(Self { sender, connection: Some(connection), switched: None, tap, slot: None })
    }

    /// Whether it is better closed than kept for the next request.
    pub(super) fn is_given_up(&self) -> bool {
        self.slot.as_ref().is_some_and(Slot::is_given_up)
    }

    /// Tells those who wait that it takes a request.
    pub(super) fn offer(&self) {
        if let Some(slot) = &self.slot {
            slot.offer();
        }
    }

    /// Whether another request may follow.
    pub(super) fn is_idle(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready() && !self.tap.broken.get()
    }
}

/// Runs a connection as far as it gets.
fn run(
    connection: &mut Option<Connection<UpstreamIo, RequestBody>>,
    switched: &mut Option<(Stream, Bytes)>,
    cx: &mut Context<'_>,
) {
    let Some(running) = connection else { return };
    let Poll::Ready(ended) = Pin::new(running).poll(cx) else { return };
    if let (Ok(()), Some(over)) = (ended, connection.take()) {
        // Of use only to those who were answered 101; of others the socket is closed with it.
        let parts = over.into_parts();
        *switched = Some((parts.io.into_stream(), parts.read_buf));
    }
}

/// A connection with a request on it. Dropped, it goes back into the pool if it can serve another request;
/// if not, it is closed, which is how the upstream learns that nobody waits any more.
pub(in crate::proxy) struct Lease {
    held: Held,
    endpoint: Rc<Endpoint>,
    /// Among the upstream's endpoints.
    index: usize,
    max_idle: usize,
    /// The request is under way as long as this is.
    permit: Option<Permit>,
}

enum Held {
    /// `None` only while it is dropped, or when it has switched protocols.
    Exclusive(Option<Box<Link>>),
    /// With the rest of the request's body.
    Shared(Rc<Shared>, Option<Upload>),
    /// The client's alone.
    Passed { _slot: Option<Slot> },
}

impl Lease {
    pub(super) fn new(link: Opened, endpoint: Rc<Endpoint>, index: usize, max_idle: usize) -> Self {
        endpoint.lease();
        let held = match link {
            Opened::Exclusive(link) => Held::Exclusive(Some(link)),
            Opened::Shared(link) => {
                link.begin();
                Held::Shared(link, None)
            }
        };
        Self { held, endpoint, index, max_idle, permit: None }
    }

    /// Counts a connection that is not the pool's.
    pub(super) fn passed(endpoint: Rc<Endpoint>, index: usize, slot: Option<Slot>) -> Self {
        endpoint.lease();
        Self { held: Held::Passed { _slot: slot }, endpoint, index, max_idle: 0, permit: None }
    }

    pub(in crate::proxy) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// Keeps it until the response is over.
    pub(super) fn hold(&mut self, permit: Option<Permit>) {
        self.permit = permit;
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    fn link(&mut self) -> Option<&mut Link> {
        match &mut self.held {
            Held::Exclusive(link) => link.as_deref_mut(),
            Held::Shared(..) | Held::Passed { .. } => None,
        }
    }

    /// The connection comes from the pool.
    pub(super) fn prepare(&mut self, care: Care) {
        if let Some(link) = self.link() {
            link.tap.record.set(care.record);
            link.tap.probe.set(care.probe);
            link.tap.reads.set(0);
            link.tap.written.borrow_mut().clear();
        }
    }

    /// Whether somebody else runs the connection.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.held, Held::Shared(..))
    }

    /// Runs the connection as far as it gets.
    fn run(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = self.link() {
            run(&mut link.connection, &mut link.switched, cx);
        }
    }

    /// The next frame of a response's body. Over HTTP/1.1 it comes out of a connection that nobody else runs.
    ///
    /// The connection and the body talk through wakers, but both are run here, so waking this very task would only make
    /// it run once more for nothing. The no-op waker goes first; only when there is nothing left to do does the
    /// connection learn whom to wake.
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_shared() {
            return Pin::new(body).poll_frame(cx);
        }
        let mut quiet = Context::from_waker(Waker::noop());
        let mut frame = Pin::new(&mut *body).poll_frame(&mut quiet);
        if frame.is_pending() {
            self.run(&mut quiet);
            frame = Pin::new(&mut *body).poll_frame(&mut quiet);
        }
        if frame.is_pending() {
            self.run(cx);
            frame = Pin::new(body).poll_frame(&mut quiet);
        }
        frame
    }

    /// The socket, of which the upstream has said that it speaks something else from here on, what it said in it, and its
    /// place, if it has one.
    pub(in crate::proxy) fn into_switched(mut self) -> Option<(Stream, Bytes, Option<Slot>)> {
        let link = self.link()?;
        let (stream, read) = link.switched.take()?;
        Some((stream, read, link.slot.take()))
    }

    /// Sends the request and waits for the head of its response.
    pub(super) async fn exchange(
        &mut self,
        unsent: &mut Unsent,
        watch: &Watch,
    ) -> Result<Response<Incoming>, Lost> {
        let link = match &mut self.held {
            Held::Shared(link, upload) => return link.exchange(unsent, watch, upload).await,
            Held::Exclusive(link) => link.as_mut(),
            Held::Passed { .. } => None,
        };
        let (Some(link), Some(request)) = (link, unsent.take()) else {
            return Err(Lost::Expired { client: false });
        };
        link.tap.looks.set(watch.interims().are_wanted());
        link.tap.early.borrow_mut().begin();
        // The answer comes through a channel that is looked at right after the connection was run: its
        // waker has nobody to wake, and the scheduler's budget must not hide an answer that is there.
        let mut answer = pin!(unconstrained(link.sender.try_send_request(request)));
        let mut sent = false;
        let answer = std::future::poll_fn(|cx| {
            let mut quiet = Context::from_waker(Waker::noop());
            let wakers = [&mut quiet, cx];
            // The first run only writes the request. Later ones most often find the whole answer, and then
            // nobody has to be woken any more.
            for waker in wakers.into_iter().skip(usize::from(!std::mem::replace(&mut sent, true))) {
                run(&mut link.connection, &mut link.switched, waker);
                if link.tap.early.borrow().has_found() {
                    link.tap
                        .early
                        .borrow_mut()
                        .take()
                        .into_iter()
                        .for_each(|early| watch.hears_interim(early));
                }
                let mut quiet = Context::from_waker(Waker::noop());
                if let Poll::Ready(answer) = answer.as_mut().poll(&mut quiet) {
                    return Poll::Ready(Some(answer));
                }
            }
            if watch.is_expired() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match answer {
            None => Err(Lost::Expired { client: watch.awaits_client() }),
            Some(Ok(response)) => Ok(response.map(Incoming::Http1)),
            Some(Err(mut failed)) => {
                *unsent = failed.take_message();
                Err(Lost::Failed(NoResponse::Http1(failed.into_error())))
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let idle = match &mut self.held {
            Held::Exclusive(link) => link.take().filter(|link| link.is_idle()),
            Held::Shared(link, _) => {
                link.end();
                None
            }
            Held::Passed { .. } => None,
        };
        self.endpoint.release(idle, self.max_idle);
    }
}

/// An attempt that led to no response.
pub(super) struct Failed {
    kind: Kind,
    /// The endpoint's.
    index: Option<usize>,
    /// The connection on which the request was refused, unprocessed.
    refused_by: Option<Weak<Shared>>,
}

impl Failed {
    /// Afterwards the request is there again if it was not written, or may be written twice.
    pub(super) fn new(lost: Lost, lease: &Lease, care: Care, unsent: &mut Unsent) -> Self {
        let index = Some(lease.index);
        let (error, is_refused) = match lost {
            Lost::Expired { client } => {
                let kind = if client { Kind::BodyTimeout } else { Kind::UpstreamTimeout };
                return Self { kind, index, refused_by: None };
            }
            Lost::Failed(error) => (error, false),
            Lost::Refused(error) => (error, true),
        };
        tracing::debug!(endpoint = %lease.endpoint, %error, "no response");
        let (kind, ended) = (error.kind(), error.is_end());
        if let (None, Held::Exclusive(Some(link))) = (&unsent, &lease.held) {
            let tap = &link.tap;
            // If the one read is the end of the stream, no byte of an answer was.
            let unanswered = tap.reads.get() == 0 || (tap.reads.get() == 1 && ended);
            if care.record && unanswered && kind == Kind::UpstreamClosed {
                *unsent = replay::request(&tap.written.borrow());
            }
        }
        let refused_by = match &lease.held {
            Held::Shared(link, _) if is_refused => Some(Rc::downgrade(link)),
            _ => None,
        };
        Self { kind, index, refused_by }
    }

    /// There was no connection to send it over.
    pub(super) fn to_connect(kind: Kind) -> Self {
        Self { kind, index: None, refused_by: None }
    }

    /// The connection on which the upstream has not looked at the request. It may be closed for another one's sake.
    pub(super) fn refused_by(&self) -> Option<&Weak<Shared>> {
        self.refused_by.as_ref()
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn index(&self) -> Option<usize> {
        self.index
    }

    /// What another attempt would be for; `None` if the endpoint is not to blame, or has answered.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self.kind {
            Kind::UpstreamClosed => Some(Reason::Reset),
            Kind::UpstreamTimeout => Some(Reason::Timeout),
            Kind::UpstreamConnect | Kind::UpstreamConnectTimeout | Kind::UpstreamTls => Some(Reason::Connect),
            _ => None,
        }
    }

    /// Whether it was the endpoint that failed, and not the client.
    pub(super) fn is_endpoints(&self) -> bool {
        !matches!(self.kind, Kind::BadRequest | Kind::BodyTimeout)
    }
}
