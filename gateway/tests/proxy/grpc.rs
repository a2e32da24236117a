//! gRPC, as tonic's client speaks it, through the gateway.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{StreamExt as _, stream};
use gateway::model::Protocol;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tonic::Code;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};

use crate::harness::{LONG, black_hole, model, start};
use crate::http2_upstreams::{Body, server};

/// Messages as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends every message back as it comes; the call to `/test/Fail` ends in a status of its own.
async fn serve(request: Request<Incoming>) -> Response<Body> {
    let fails = request.uri().path() == "/test/Fail";
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if fails { "9" } else { "0" }.parse().unwrap());
    if fails {
        trailers.insert("grpc-message", "not%20now".parse().unwrap());
    }
    let messages = request.into_body().into_data_stream().map(|data| Frame::data(data.unwrap()));
    let end = stream::iter([Frame::trailers(trailers)]);
    let frames = messages.chain(end).map(Ok::<_, Infallible>);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

async fn client(address: SocketAddr) -> tonic::client::Grpc<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn message(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn calls_of_every_kind_come_through() {
    let server = server(serve);
    let mut model = model(&[server.address]);
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let address = proxy.status().listeners[0].address;
    runtime().block_on(async {
        let mut client = client(address).await;
        let path = || http::uri::PathAndQuery::from_static("/test/Echo");
        let answer = client.unary(tonic::Request::new(message("one")), path(), Raw).await.unwrap();
        assert_eq!(answer.into_inner(), "one");
        // Each message comes back before the next one is sent.
        let (say, said) = tokio::sync::mpsc::unbounded_channel();
        let outgoing = stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
        client.ready().await.unwrap();
        let answer = client.streaming(tonic::Request::new(outgoing), path(), Raw).await.unwrap();
        let mut incoming = answer.into_inner();
        for text in ["a", "b", ""] {
            say.send(message(text)).unwrap();
            let heard = tokio::time::timeout(Duration::from_secs(5), incoming.message()).await.unwrap();
            assert_eq!(heard.unwrap().unwrap(), text);
        }
        drop(say);
        assert!(incoming.message().await.unwrap().is_none());
        client.ready().await.unwrap();
        let fail = http::uri::PathAndQuery::from_static("/test/Fail");
        let status = client.unary(tonic::Request::new(message("x")), fail, Raw).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "not now"));
    });
}

#[test]
fn the_gateway_answers_calls_in_their_own_way() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let silent = server(|_| async {
        CALLS.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    });
    let (nowhere, _backlog) = black_hole();
    for (name, upstream, path, expected) in [
        ("nobody answers in time", silent.address, "/test/Echo", Code::DeadlineExceeded),
        ("nobody is there", nowhere, "/test/Echo", Code::Unavailable),
        ("no route", silent.address, "/other/Echo", Code::Unimplemented),
    ] {
        let mut model = model(&[upstream]);
        model.upstreams[0].protocol = Protocol::Http2;
        model.upstreams[0].response_timeout = Duration::from_millis(300);
        model.upstreams[0].connect_timeout = Duration::from_millis(300);
        model.routes[0].matches.path = gateway::model::PathPattern::Prefix("/test".to_owned());
        let proxy = start(&model);
        let address = proxy.status().listeners[0].address;
        let status = runtime().block_on(async {
            let path = http::uri::PathAndQuery::from_static(path);
            client(address).await.unary(tonic::Request::new(message("x")), path, Raw).await.unwrap_err()
        });
        assert_eq!(status.code(), expected, "{name}: {status}");
        assert!(status.message().ends_with('.'), "{name}: {status}");
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

#[test]
fn browsers_call_by_grpc_web() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let server = server(serve);
    let mut model = model(&[server.address]);
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let client = crate::http2::Client::new(&proxy);
    let message = [&[0, 0, 0, 0, 5][..], b"hello"].concat();
    let trailers = [&[0x80, 0, 0, 0, 16][..], b"grpc-status: 0\r\n"].concat();
    let mut base64 = STANDARD.encode(&message[..4]) + &STANDARD.encode(&message[4..]);
    let call = |media_type: &str, body: Vec<u8>| {
        let body = http_body_util::Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
        let request = Request::post("http://a.test/test/Echo").header("content-type", media_type).body(body);
        let response = client.send(request.unwrap()).recv_timeout(crate::harness::LONG).unwrap().unwrap();
        let (head, body) = response.into_parts();
        let body = client.runtime.block_on(body.collect()).unwrap();
        assert!(body.trailers().is_none());
        (
            head.status.as_u16(),
            head.headers["content-type"].to_str().unwrap().to_owned(),
            body.to_bytes().to_vec(),
        )
    };
    let whole = [message.clone(), trailers].concat();
    let (status, media_type, body) = call("application/grpc-web", message.clone());
    assert_eq!((status, media_type.as_str(), body), (200, "application/grpc-web", whole.clone()));
    let (status, media_type, body) = call("application/grpc-web-text", base64.clone().into_bytes());
    assert_eq!((status, media_type.as_str()), (200, "application/grpc-web-text"));
    // Padded pieces, one behind the other.
    let mut read = Vec::new();
    for piece in String::from_utf8(body).unwrap().split_inclusive("==") {
        STANDARD.decode_vec(piece, &mut read).unwrap();
    }
    assert_eq!(read, whole);
    // One that answers when it has read the whole call.
    let patient = crate::http2_upstreams::server(crate::http2_upstreams::echo);
    model.upstreams[0].endpoints = vec![gateway::model::Endpoint::tcp(patient.address)];
    proxy.reload(&model).unwrap();
    base64.push('!');
    let (status, _, body) = call("application/grpc-web-text", base64.into_bytes());
    assert_eq!(status, 400, "{}", String::from_utf8_lossy(&body));
    // To an upstream of HTTP/1.1 it goes as it is.
    model.upstreams[0].protocol = Protocol::Http1;
    model.upstreams[0].endpoints = vec![gateway::model::Endpoint::tcp(crate::harness::echo().address)];
    let (answer, _) = crate::harness::talk(
        &start(&model),
        b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-type: application/grpc-web\r\ncontent-length: 0\r\n\r\n",
    );
    assert!(answer.contains("\r\ncontent-type: application/grpc-web\r\n"), "{answer}");
}

/// A server that says what time it was given, and does what its path says.
fn timed() -> (crate::streams::Server, mpsc::Receiver<String>) {
    let (said, heard) = mpsc::channel();
    let server = crate::streams::server(move |request: Request<h2::RecvStream>, mut reply| {
        let said = said.clone();
        async move {
            let timeout =
                request.headers().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
            let _ = said.send(timeout.unwrap_or_default());
            let mut body = None;
            if request.uri().path() == "/test/Begin" {
                let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let body = body.insert(reply.send_response(head, false).unwrap());
                body.send_data(Bytes::from("\0\0\0\0\u{2}ok"), false).unwrap();
            }
            // Until it is cancelled.
            let reason = std::future::poll_fn(|cx| match &mut body {
                Some(body) => body.poll_reset(cx),
                None => reply.poll_reset(cx),
            });
            let _ = said.send(format!("{:?}", reason.await.unwrap()));
        }
    });
    (server, heard)
}

fn call(path: &str, timeout: &str) -> Request<()> {
    let request = Request::post(format!("http://a.test{path}")).header("content-type", "application/grpc");
    request.header("te", "trailers").header("grpc-timeout", timeout).body(()).unwrap()
}

#[test]
fn a_deadline_ends_a_call_at_any_stage() {
    for (name, path) in [("before the answer begins", "/test/Silent"), ("in the answer", "/test/Begin")] {
        let (server, heard) = timed();
        let mut model = model(&[server.address]);
        model.upstreams[0].protocol = Protocol::Http2;
        let proxy = start(&model);
        let mut client = crate::streams::Client::new(&proxy);
        let (answer, mut stream) = client.sender.send_request(call(path, "400m"), false).unwrap();
        stream.send_data(Bytes::from("\0\0\0\0\0"), false).unwrap();
        let (head, mut body) = client.run(answer).unwrap().into_parts();
        let (data, trailers) = client.run(crate::streams::read(&mut body)).unwrap();
        let end = trailers.unwrap_or(head.headers);
        assert_eq!((head.status.as_u16(), &end["grpc-status"]), (200, &"4".parse().unwrap()), "{name}");
        assert_eq!(end["grpc-message"], "The call did not end in time.", "{name}");
        assert_eq!(data.is_empty(), path == "/test/Silent", "{name}");
        // In millionths of a second, and less than the client gave.
        let timeout = heard.recv_timeout(LONG).unwrap();
        let left: u32 = timeout.strip_suffix('u').unwrap().parse().unwrap();
        assert!((100_000..400_000).contains(&left), "{name}: {timeout}");
        assert_eq!(heard.recv_timeout(LONG).unwrap(), "CANCEL", "{name}");
    }
}

#[test]
fn every_attempt_has_what_is_left() {
    let (server, heard) = timed();
    let mut model = model(&[server.address]);
    model.upstreams[0].protocol = Protocol::Http2;
    model.upstreams[0].retry = Some(gateway::model::Retry {
        attempts: 1,
        on: gateway::model::RetryOn { timeout: true, ..gateway::model::RetryOn::default() },
        budget: 100,
        min_concurrent: 10,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        per_try_timeout: Some(Duration::from_millis(200)),
        hedge_after: None,
    });
    let proxy = start(&model);
    let mut client = crate::streams::Client::new(&proxy);
    let mut call = call("/test/Silent", "5S");
    *call.method_mut() = http::Method::GET;
    let (answer, _) = client.sender.send_request(call, true).unwrap();
    let head = client.run(answer).unwrap();
    assert_eq!(head.headers()["grpc-status"], "4");
    let mut lefts = Vec::new();
    while let Ok(said) = heard.recv_timeout(Duration::from_millis(500)) {
        lefts.extend(said.strip_suffix('u').map(|left| left.parse::<u32>().unwrap()));
    }
    assert_eq!(lefts.len(), 2, "{lefts:?}");
    assert!(lefts[0] < 5_000_000 && lefts[1] + 100_000 <= lefts[0], "{lefts:?}");
}

#[test]
fn a_deadline_is_over_or_malformed_before_anybody_is_asked() {
    let (server, heard) = timed();
    let mut model = model(&[server.address]);
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let mut client = crate::streams::Client::new(&proxy);
    for (timeout, expected) in [("0n", "4"), ("soon", "13"), ("100000000S", "13")] {
        let (answer, _) = client.sender.send_request(call("/test/Silent", timeout), true).unwrap();
        assert_eq!(client.run(answer).unwrap().headers()["grpc-status"], expected, "{timeout}");
    }
    assert!(heard.try_recv().is_err());
    // Of other requests it is a field like any other.
    let mut other = call("/test/Silent", "soon");
    other.headers_mut().remove("content-type");
    let (answer, _) = client.sender.send_request(other, true).unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), "soon");
    drop(answer);
}

/// A client that does not read is told by a reset.
#[test]
fn a_deadline_does_not_wait_for_a_slow_reader() {
    let server = crate::streams::server(|_, mut reply| async move {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = reply.send_response(head, false).unwrap();
        body.send_data(Bytes::from(vec![0; 10_000_000]), false).unwrap();
        let _ = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
    });
    let mut model = model(&[server.address]);
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let mut client = crate::streams::Client::new(&proxy);
    let (answer, _) = client.sender.send_request(call("/test/Much", "500m"), true).unwrap();
    let _unread = client.run(answer).unwrap();
    crate::harness::eventually("the call stays", || proxy.status().endpoints[0].in_use == 0);
}

#[test]
fn a_browsers_call_has_a_deadline_too() {
    let (server, _heard) = timed();
    let mut model = model(&[server.address]);
    model.upstreams[0].protocol = Protocol::Http2;
    let proxy = start(&model);
    let mut client = crate::harness::connect(&proxy);
    let request = "POST /test/Begin HTTP/1.1\r\nhost: a.test\r\ncontent-type: application/grpc-web\r\n\
                   grpc-timeout: 300m\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0";
    client.write_all(request.as_bytes()).unwrap();
    let (answer, _) = crate::harness::read_rest(&mut client, Duration::from_secs(3));
    assert!(answer.contains("grpc-status: 4\r\n") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    // The connection goes on.
    client.write_all(b"GET / HTTP/1.0\r\nhost: a.test\r\ncontent-type: text/plain\r\n\r\n").unwrap();
    crate::harness::eventually("it is not served", || proxy.status().endpoints[0].in_use == 1);
}
