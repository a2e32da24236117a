//! The admin server: one function over both doors. TCP shows metrics and health to whoever reaches it;
//! the Unix socket, which only its owner reaches, also takes orders.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway_kernel::Error;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request as HttpRequest, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::events::Watcher;
use super::filter::Filter;
use super::live::Live;
use super::request::{Malformed, Reply, Request, apply};
use super::status::{Phase, Problem};
use crate::observe::Exposition;

/// A request's body on the socket: about a million list entries.
pub const MAX_BODY_BYTES: usize = 64 << 20;
/// Connections at a time, at each door.
const MAX_CONNECTIONS: usize = 64;
/// Request line and headers.
const MAX_HEADER_BYTES: usize = 16 << 10;
const MAX_HEADER_COUNT: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection at the public door takes requests for so long. Without an end, readers that never read
/// would hold every connection there is.
const PUBLIC_CONNECTION_TIME: Duration = Duration::from_secs(10);
/// What the reply under way may take after that.
const LAST_REPLY_TIME: Duration = Duration::from_secs(10);
/// A pause after an accept that failed, which is mostly a want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// hyper refuses a smaller buffer, and headers must be able to fit in it.
const _: () = assert!(MAX_HEADER_BYTES >= 8192);

/// The way a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// TCP: metrics and health.
    Public,
    /// The Unix socket: everything.
    Private,
}

/// Serves the TCP door until the task is dropped.
pub async fn serve_tcp(listener: TcpListener, live: Arc<Live>) {
    let slots = Slots::new();
    loop {
        let permit = slots.connection().await;
        match listener.accept().await {
            Ok((stream, _)) => slots.spawn(stream, permit, Door::Public, &live),
            Err(error) => pause(&error).await,
        }
    }
}

/// Serves the Unix socket until the task is dropped.
pub async fn serve_unix(listener: UnixListener, live: Arc<Live>) {
    let slots = Slots::new();
    loop {
        let permit = slots.connection().await;
        match listener.accept().await {
            Ok((stream, _)) => slots.spawn(stream, permit, Door::Private, &live),
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!("the admin listener cannot accept: {error}");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// What one door may use at a time.
#[derive(Debug, Clone)]
struct Slots {
    connections: Arc<Semaphore>,
    // One body at a time bounds the memory to one list, however many clients send theirs.
    bodies: Arc<Semaphore>,
}

/// The right to hold a connection.
type Permit = Option<tokio::sync::OwnedSemaphorePermit>;

impl Slots {
    fn new() -> Self {
        Self { connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)), bodies: Arc::new(Semaphore::new(1)) }
    }

    async fn connection(&self) -> Permit {
        // The semaphore is never closed.
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    fn spawn<S>(&self, stream: S, permit: Permit, door: Door, live: &Arc<Live>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (live, slots) = (Arc::clone(live), self.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let (live, slots) = (Arc::clone(&live), slots.clone());
                async move { Ok::<_, Infallible>(answer(request, door, live, slots).await) }
            });
            let mut connection = pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(MAX_HEADER_BYTES)
                    .max_headers(MAX_HEADER_COUNT)
                    .serve_connection(TokioIo::new(stream), service)
            );
            let ended = tokio::select! {
                ended = connection.as_mut() => Ok(ended),
                () = time_is_up(door) => {
                    connection.as_mut().graceful_shutdown();
                    timeout(LAST_REPLY_TIME, connection).await
                }
            };
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("an admin connection ended early: {error}"),
                Err(_) => tracing::debug!("an admin connection was cut: its reader is too slow"),
            }
        });
    }
}

/// Waits until a connection has had its time. The private door is its owner's own, and who watches
/// verdicts stays for as long as they like.
async fn time_is_up(door: Door) {
    match door {
        Door::Public => tokio::time::sleep(PUBLIC_CONNECTION_TIME).await,
        Door::Private => std::future::pending().await,
    }
}

async fn answer(
    request: HttpRequest<Incoming>,
    door: Door,
    live: Arc<Live>,
    slots: Slots,
) -> Response<AdminBody> {
    let path = request.uri().path().to_owned();
    let get = request.method() == Method::GET || request.method() == Method::HEAD;
    match (path.as_str(), door) {
        ("/healthz", _) if get => text(StatusCode::OK, "ok\n"),
        ("/readyz", _) if get => readiness(live.phase.get()),
        ("/metrics", _) if get => metrics(live).await,
        (_, Door::Public) => not_found(),
        ("/api/v1/identity", Door::Private) if get => json(StatusCode::OK, &live.identity()),
        ("/api/v1/status", Door::Private) if get => status(live).await,
        ("/api/v1/events", Door::Private) if get => watch(&live, request.uri().query()),
        ("/api/v1/reload", Door::Private) if request.method() == Method::POST => reload(&live).await,
        (_, Door::Private) => rules(request, &path, live, slots).await,
    }
}

fn readiness(phase: Phase) -> Response<AdminBody> {
    match phase {
        Phase::Ready => text(StatusCode::OK, "ready\n"),
        Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn metrics(live: Arc<Live>) -> Response<AdminBody> {
    match blocking(move || live.metrics()).await {
        Ok(page) => respond(StatusCode::OK, Exposition::CONTENT_TYPE, page.into()),
        Err(problem) => problem,
    }
}

async fn status(live: Arc<Live>) -> Response<AdminBody> {
    match blocking(move || live.status()).await {
        Ok(Ok(status)) => json(StatusCode::OK, &status),
        Ok(Err(error)) => refusal(&error),
        Err(problem) => problem,
    }
}

fn watch(live: &Live, query: Option<&str>) -> Response<AdminBody> {
    let filter = match Filter::from_query(query.unwrap_or_default()) {
        Ok(filter) => filter,
        Err(bad) => return problem(StatusCode::BAD_REQUEST, "bad_request", &bad.to_string()),
    };
    if !live.sampled {
        return problem(
            StatusCode::CONFLICT,
            "not_sampled",
            "verdicts are sampled in the kernel only, and this agent enforces its rules in userspace; see `gateway counters`",
        );
    }
    match live.watchers.watch(filter) {
        Some(watcher) => {
            let mut response = Response::new(AdminBody::Events(watcher));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-ndjson"));
            response
        }
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_watchers",
            "too many watch already; stop one of them",
        ),
    }
}

async fn reload(live: &Live) -> Response<AdminBody> {
    if live.phase.get() == Phase::Draining {
        return draining();
    }
    let (order, outcome) = oneshot::channel();
    match live.reload.try_send(order) {
        Ok(()) => {}
        Err(TrySendError::Closed(_)) => return draining(),
        Err(TrySendError::Full(_)) => {
            let detail = "too many reloads wait already; try again";
            return problem(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        }
    }
    match outcome.await {
        Ok(Ok(reloaded)) => json(StatusCode::OK, &reloaded),
        Ok(Err(why)) => problem(StatusCode::UNPROCESSABLE_ENTITY, "config_refused", &why),
        // It began to drain while the order waited.
        Err(_) => draining(),
    }
}

fn draining() -> Response<AdminBody> {
    let detail =
        "the agent is draining and loads nothing any more; the next one reads the configuration at its start";
    problem(StatusCode::SERVICE_UNAVAILABLE, "draining", detail)
}

async fn rules(
    request: HttpRequest<Incoming>,
    path: &str,
    live: Arc<Live>,
    slots: Slots,
) -> Response<AdminBody> {
    let method = request.method().clone();
    let body = match read_body(request, &slots).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let path = path.to_owned();
    let outcome = blocking(move || -> Result<Result<Reply, Error>, Malformed> {
        let request = Request::parse(&method, &path, &body)?;
        drop(body);
        // What is held, only the agent knows.
        if let Request::Confirm(body) = &request {
            return Ok(live.feeds.confirm(&body.name, body.asked_from).map(Reply::Replaced));
        }
        Ok(apply(&live.rules, request, &mut |_| {}).map(|reply| with_recent(reply, &live)))
    });
    match outcome.await {
        Ok(Ok(Ok(reply))) => json(StatusCode::OK, &reply),
        Ok(Ok(Err(error))) => refusal(&error),
        Ok(Err(Malformed::NotFound)) => not_found(),
        Ok(Err(Malformed::Body(why))) => problem(StatusCode::BAD_REQUEST, "bad_request", &why),
        Err(problem) => problem,
    }
}

/// An explanation knows the rules; what was seen of the source only the agent knows.
fn with_recent(reply: Reply, live: &Live) -> Reply {
    match reply {
        Reply::Explanation(mut explained) if live.sampled => {
            explained.recent = Some(live.recent.of(explained.explanation.source));
            Reply::Explanation(explained)
        }
        other => other,
    }
}

async fn read_body(request: HttpRequest<Incoming>, slots: &Slots) -> Result<Bytes, Response<AdminBody>> {
    let body = request.into_body();
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    // Refused before a byte of it is read, where the client says how long it is.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let _slot = slots.bodies.acquire().await;
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(problem(StatusCode::BAD_REQUEST, "bad_request", &format!("the body broke off: {error}")))
        }
        Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took too long")),
    }
}

fn too_large() -> Response<AdminBody> {
    let detail = format!(
        "the body is longer than {} MiB; send fewer entries at a time, or name a file of them in the configuration",
        MAX_BODY_BYTES >> 20
    );
    problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail)
}

/// Runs what reads or writes maps beside the event loop, which must stay free to answer others.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response<AdminBody>> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!("an admin request failed: {error}");
        problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request failed; the agent's log says more",
        )
    })
}

fn refusal(error: &Error) -> Response<AdminBody> {
    match error {
        Error::Full { .. } | Error::RulesFull { .. } => {
            problem(StatusCode::CONFLICT, "full", &error.to_string())
        }
        Error::Refused(why) => problem(StatusCode::CONFLICT, "refused", why),
        _ => problem(StatusCode::INTERNAL_SERVER_ERROR, "system", &error.to_string()),
    }
}

fn not_found() -> Response<AdminBody> {
    problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path, or not with this method")
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response<AdminBody> {
    let problem = Problem { status: status.as_u16(), code: code.to_owned(), detail: detail.to_owned() };
    let mut response = json(status, &problem);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/problem+json"));
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<AdminBody> {
    respond(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn json(status: StatusCode, document: &impl Serialize) -> Response<AdminBody> {
    match serde_json::to_vec(document) {
        Ok(body) => respond(status, "application/json", body.into()),
        Err(error) => {
            tracing::error!("a reply cannot be written as JSON: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal\n")
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<AdminBody> {
    let mut response = Response::new(AdminBody::Whole(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

/// A reply's body: all at once, or verdicts as they happen.
enum AdminBody {
    Whole(Full<Bytes>),
    Events(Watcher),
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Events(watcher) => {
                Pin::new(watcher).poll_line(context).map(|line| line.map(|line| Ok(Frame::data(line))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::tests::live;
    use super::*;

    /// Time passes here as soon as everybody waits.
    #[tokio::test(start_paused = true)]
    async fn slow_readers_cannot_keep_everybody_out() {
        let live = Arc::new(live(std::path::Path::new("/nonexistent"), tokio::sync::mpsc::channel(1).0));
        let slots = Slots::new();
        let mut readers = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            // Room for no whole reply.
            let (mut reader, stream) = tokio::io::duplex(64);
            slots.spawn(stream, slots.connection().await, Door::Public, &live);
            reader.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
            readers.push(reader);
        }
        let next = timeout(Duration::from_secs(30), slots.connection()).await;
        assert!(next.is_ok(), "no connection is let in");
    }
}
