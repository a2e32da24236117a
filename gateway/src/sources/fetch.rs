//! One fetch: from a URL to a whole body, or to a sentence that says why there is none.
//!
//! It speaks HTTP/1.1 by hyper over a connection of its own. A client with a pool was weighed and left out: a
//! list is fetched every few minutes, and no server keeps a connection that long.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, ETAG, HOST, HeaderMap, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, USER_AGENT,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::{Address, AddressError};
use super::last_good::MAX_BYTES;
use super::{Url, tls};

/// Redirects in a row; more is a server that sends us in circles.
const MAX_REDIRECTS: usize = 3;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// How long one of several addresses may take to accept: a family that leads nowhere must not use up the time
/// of the other one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a response's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What is set aside for a body before its first byte; a length is only what a server says.
const FIRST_RESERVE_BYTES: u64 = 1024 * 1024;

/// What a server said of the body that we have, for it to say "the same" instead of sending it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

/// What came of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The body is the one that the validators were sent with.
    NotModified,
    /// A whole body.
    Body { bytes: Vec<u8>, validators: Validators },
}

/// Why there is no body. `Display` is for operators and shows no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Address(#[from] AddressError),
    #[error("the redirect from {from} is not followed: {why}")]
    Redirect { from: String, why: String },
    #[error("more than {MAX_REDIRECTS} redirects in a row; the next one would lead to {0}")]
    Redirects(String),
    #[error("the name {host} cannot be resolved: {why}")]
    Resolve { host: String, why: String },
    #[error("{authority} cannot be reached: {why}")]
    Connect { authority: String, why: String },
    #[error("{0}")]
    Authorities(String),
    #[error("the certificate of {authority} is not accepted: {why}")]
    Certificate { authority: String, why: String },
    #[error("there is no TLS with {authority}: {why}")]
    Tls { authority: String, why: String },
    #[error("{authority} does not answer in HTTP: {why}")]
    Protocol { authority: String, why: String },
    #[error("{authority} answers {status}, and 200 is what brings a list")]
    Status { authority: String, status: StatusCode },
    #[error("{authority} sends the list encoded as {encoding}, which was not asked for")]
    Encoding { authority: String, encoding: String },
    #[error("the list is larger than max_bytes, which is {limit}")]
    TooLarge { limit: u64 },
    #[error("the list was cut short after {got} bytes{}: {why}", .of.map(|of| format!(" of {of}")).unwrap_or_default())]
    CutShort { got: u64, of: Option<u64>, why: String },
    #[error("the fetch took longer than its timeout, which is {0:?}")]
    TimedOut(Duration),
}

/// Fetches a list, within its limits of time and size.
pub(super) async fn fetch(url: &Url, known: &Validators) -> Result<Fetched, FetchError> {
    // On the heap: what a TLS connection holds would be moved with the future otherwise.
    let following = Box::pin(follow(url, known));
    tokio::time::timeout(url.timeout, following).await.unwrap_or(Err(FetchError::TimedOut(url.timeout)))
}

async fn follow(url: &Url, known: &Validators) -> Result<Fetched, FetchError> {
    let mut address = Address::parse(&url.url)?;
    for _ in 0..=MAX_REDIRECTS {
        let response = ask(&address, url.ca.clone(), known).await?;
        if !is_redirect(response.head.status) {
            return read(response, &address, url.max_bytes.min(MAX_BYTES), known).await;
        }
        address = redirected(&address, response.head.headers.get(LOCATION))?;
    }
    Err(FetchError::Redirects(address.to_string()))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirected(from: &Address, location: Option<&HeaderValue>) -> Result<Address, FetchError> {
    let refused = |why: String| FetchError::Redirect { from: from.to_string(), why };
    let location = location.and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| refused("it does not say where to".to_owned()))?;
    let to = from.redirected(location).map_err(|error| refused(error.to_string()))?;
    if from.secure && !to.secure {
        return Err(refused("it leads from https to http".to_owned()));
    }
    Ok(to)
}

/// A response whose body is still to be read.
struct Answer {
    head: http::response::Parts,
    body: Incoming,
    /// Moves the bytes; it ends with this value.
    _connection: JoinSet<()>,
}

async fn ask(address: &Address, ca: Option<PathBuf>, known: &Validators) -> Result<Answer, FetchError> {
    let request = request(address, known)?;
    send(address, ca, request).await
}

/// Sends any request to a URL over a connection of its own, and reads the response, whatever its status. The request's
/// target and Host are the URL's.
pub(crate) async fn call<B>(
    url: &str,
    ca: Option<PathBuf>,
    mut request: Request<B>,
    limit: u64,
) -> Result<Response<Bytes>, FetchError>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let address = Address::parse(url)?;
    let target = address.target.parse().map_err(|_| AddressError::NotAUrl("its path is none".to_owned()))?;
    *request.uri_mut() = target;
    if let Ok(host) = HeaderValue::from_str(&address.authority) {
        request.headers_mut().insert(HOST, host);
    }
    // On the heap: what a TLS connection holds would be moved with the future otherwise.
    let Answer { head, body, _connection } = Box::pin(send(&address, ca, request)).await?;
    let body = collect(body, limit).await?;
    Ok(Response::from_parts(head, body.into()))
}

async fn send<B>(address: &Address, ca: Option<PathBuf>, request: Request<B>) -> Result<Answer, FetchError>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    if !address.secure {
        return exchange(connect(address).await?, address, request).await;
    }
    let config = tokio::task::spawn_blocking(move || tls::client(ca.as_deref()))
        .await
        .map_err(|error| FetchError::Authorities(format!("reading the authorities broke off: {error}")))?
        .map_err(FetchError::Authorities)?;
    let stream = connect(address).await?;
    exchange(handshake(stream, address, config).await?, address, request).await
}

fn request(address: &Address, known: &Validators) -> Result<Request<Empty<Bytes>>, FetchError> {
    let mut request = Request::get(&address.target)
        .header(HOST, &address.authority)
        .header(USER_AGENT, concat!("gateway/", env!("CARGO_PKG_VERSION")))
        // Compressed lists would need a decoder with limits of its own; none is in the program.
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close");
    let conditions = [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)];
    for (name, value) in conditions {
        // They come from a file; one that somebody has edited must not be what stops every fetch.
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
            request = request.header(name, value);
        }
    }
    if let Some(value) = &address.authorization {
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Empty::new()).map_err(|error| AddressError::NotAUrl(error.to_string()).into())
}

async fn connect(address: &Address) -> Result<TcpStream, FetchError> {
    let addresses = resolve(address).await?;
    let mut why = "it has no address".to_owned();
    for (index, peer) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(peer);
        // The last one has all of the time that is left.
        let connected = if index + 1 == addresses.len() {
            Ok(connecting.await)
        } else {
            tokio::time::timeout(CONNECT_TIMEOUT, connecting).await
        };
        why = match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "it refuses the connection".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it does not accept within {CONNECT_TIMEOUT:?}"),
        };
    }
    Err(FetchError::Connect { authority: address.authority.clone(), why })
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, FetchError> {
    let failed = |why: String| FetchError::Resolve { host: address.host.clone(), why };
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let found = found.map_err(|error| failed(error.to_string()))?;
    // What is not encrypted does not leave the host, whatever its names file makes of `localhost`.
    let allowed = found.filter(|peer| address.secure || peer.ip().is_loopback());
    let addresses: Vec<SocketAddr> = allowed.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        Err(failed("it has no address that may be used".to_owned()))
    } else {
        Ok(addresses)
    }
}

async fn handshake(
    stream: TcpStream,
    address: &Address,
    config: Arc<rustls::ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, FetchError> {
    let authority = || address.authority.clone();
    let name = ServerName::try_from(address.host.clone())
        .map_err(|error| FetchError::Tls { authority: authority(), why: error.to_string() })?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let reason =
            error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(crate::tls::certificate_reason);
        match reason {
            Some(why) => FetchError::Certificate { authority: authority(), why },
            None => FetchError::Tls { authority: authority(), why: error.to_string() },
        }
    })
}

async fn exchange<S, B>(stream: S, address: &Address, request: Request<B>) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| FetchError::Protocol {
        authority: address.authority.clone(),
        why: cause(&error),
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What goes wrong here is told by the response or its body too.
        let _ = connection.await;
    });
    let (head, body) = sender.send_request(request).await.map(Response::into_parts).map_err(failed)?;
    Ok(Answer { head, body, _connection: driver })
}

async fn read(
    answer: Answer,
    address: &Address,
    limit: u64,
    known: &Validators,
) -> Result<Fetched, FetchError> {
    let authority = || address.authority.clone();
    match answer.head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if *known != Validators::default() => return Ok(Fetched::NotModified),
        status => return Err(FetchError::Status { authority: authority(), status }),
    }
    let headers = &answer.head.headers;
    if let Some(encoding) = text(headers, &CONTENT_ENCODING).filter(|it| !it.eq_ignore_ascii_case("identity"))
    {
        return Err(FetchError::Encoding { authority: authority(), encoding });
    }
    let validators = Validators { etag: text(headers, &ETAG), last_modified: text(headers, &LAST_MODIFIED) };
    let bytes = collect(answer.body, limit).await?;
    Ok(Fetched::Body { bytes, validators })
}

async fn collect(mut body: Incoming, limit: u64) -> Result<Vec<u8>, FetchError> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > limit) {
        return Err(FetchError::TooLarge { limit });
    }
    let reserve = announced.unwrap_or(0).min(FIRST_RESERVE_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(reserve).unwrap_or(0));
    let cut_short = |got: usize, why: String| FetchError::CutShort { got: got as u64, of: announced, why };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| cut_short(bytes.len(), cause(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > limit {
            return Err(FetchError::TooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    match announced {
        Some(length) if length != bytes.len() as u64 => {
            Err(cut_short(bytes.len(), "the body ended".to_owned()))
        }
        _ => Ok(bytes),
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The innermost cause of an error of hyper's: the layers above it only say that something failed.
fn cause(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(end) if end.kind() == io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        _ => cause.to_string(),
    }
}
