//! gRPC, as tonic's client speaks it, through the gateway.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
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

use crate::harness::{black_hole, model, start};
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
