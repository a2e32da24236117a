//! HTTP/2 to upstreams: requests share connections, whatever their clients speak.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use gateway::model::{self, Protocol};
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::harness::{LONG, eventually, response, start, status, talk};
use crate::http2::{Client, Frames, Spawn, empty};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server that speaks HTTP/2 alone.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    runtime: Runtime,
}

pub(crate) fn server<F>(serve: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Server
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let serve = serve.clone();
            let service = service_fn(move |request| {
                let answer = serve(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(http2::Builder::new(Spawn).serve_connection(TokioIo::new(stream), service));
        }
    });
    Server { address, accepted, runtime }
}

fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// Says what it was asked.
pub(crate) async fn echo(request: Request<Incoming>) -> Response<Body> {
    let mut head = format!("{:?} {} {}\n", request.version(), request.method(), request.uri());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    head.push_str(&String::from_utf8_lossy(&body));
    Response::new(text(head))
}

fn model(addresses: &[SocketAddr]) -> model::Proxy {
    let mut model = crate::harness::model(addresses);
    model.upstreams[0].protocol = Protocol::Http2;
    model
}

#[test]
fn a_request_over_http1_becomes_a_stream() {
    let server = server(echo);
    let proxy = start(&model(&[server.address]));
    let (answer, _) = talk(
        &proxy,
        b"POST /a?b HTTP/1.1\r\nhost: a.test\r\nconnection: keep-alive, upgrade\r\nupgrade: websocket\r\n\
          te: trailers\r\nkeep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert_eq!(status(&answer), "200", "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(body.starts_with("HTTP/2.0 POST http://a.test/a?b\n"), "{body}");
    assert!(body.contains("\nte: trailers\n") && body.contains("\nx-forwarded-host: a.test\n"), "{body}");
    for gone in ["host: a.test\nhost", "\nconnection:", "\nupgrade:", "\nkeep-alive:", "\ntransfer-encoding:"]
    {
        assert!(!body.contains(gone), "{gone} in {body}");
    }
    assert!(body.ends_with("\nabc"), "{body}");
}

#[test]
fn requests_that_come_at_once_share_a_connection() {
    let all = Arc::new(Semaphore::new(0));
    let waiting = Arc::new(AtomicUsize::new(0));
    let (gate, count) = (Arc::clone(&all), Arc::clone(&waiting));
    let server = server(move |_| {
        let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            Response::new(text("ok"))
        }
    });
    let proxy = start(&model(&[server.address]));
    let client = Client::new(&proxy);
    let answers: Vec<_> =
        (0..150).map(|_| client.send(Request::get("http://a.test/").body(empty()).unwrap())).collect();
    // The client's connection carries a hundred at a time.
    eventually("not all are there", || waiting.load(Ordering::SeqCst) == 100);
    assert_eq!(proxy.status().endpoints[0].in_use, 100);
    all.add_permits(150);
    for answer in answers {
        assert_eq!(client.read(answer.recv_timeout(LONG).unwrap().unwrap()).2, "ok");
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
    eventually("requests stay", || proxy.status().endpoints[0].in_use == 0);
    assert_eq!(proxy.status().endpoints[0].idle, 1);
}

#[test]
fn trailers_come_through() {
    let server = server(|request: Request<Incoming>| async move {
        let sent = request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("x-sum", sent.trailers().unwrap()["x-sum"].clone());
        let frames = vec![Frame::data(sent.to_bytes()), Frame::trailers(trailers)];
        let frames = Frames(frames.into_iter()).map_err(|_| unreachable!("it is in memory"));
        Response::new(frames.boxed_unsync())
    });
    let proxy = start(&model(&[server.address]));
    let client = Client::new(&proxy);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "6".parse().unwrap());
    let frames = vec![Frame::data(Bytes::from("abc")), Frame::trailers(trailers)];
    let request = Request::post("http://a.test/").header("te", "trailers");
    let answer = client.send(request.body(Frames(frames.into_iter()).boxed()).unwrap());
    let response = answer.recv_timeout(LONG).unwrap().unwrap();
    let body = client.runtime.block_on(response.into_body().collect()).unwrap();
    let trailers = body.trailers().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-sum"]),
        (&"0".parse().unwrap(), &"6".parse().unwrap())
    );
    assert_eq!(body.to_bytes(), "abc");
}

#[test]
fn who_does_not_answer_in_time_is_not_asked_on_that_connection_again() {
    let server = server(|request: Request<Incoming>| async move {
        if request.uri().path() == "/silent" {
            std::future::pending::<()>().await;
        }
        Response::new(text("ok"))
    });
    let mut model = model(&[server.address]);
    model.upstreams[0].response_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    for (path, expected, connections) in
        [("/", "200", 1), ("/silent", "504", 1), ("/", "200", 2), ("/", "200", 2)]
    {
        let (answer, _) = talk(&proxy, format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n").as_bytes());
        assert_eq!(status(&answer), expected, "{path}");
        assert_eq!(server.accepted.load(Ordering::SeqCst), connections, "{path}");
    }
}

#[test]
fn a_client_that_leaves_resets_its_stream_alone() {
    let (dropped, is_dropped) = mpsc::channel();
    let dropped = Arc::new(std::sync::Mutex::new(dropped));
    let server = server(move |request: Request<Incoming>| {
        let dropped = Arc::clone(&dropped);
        async move {
            if request.uri().path() == "/slow" {
                struct Told(Arc<std::sync::Mutex<mpsc::Sender<()>>>);
                impl Drop for Told {
                    fn drop(&mut self) {
                        let _ = self.0.lock().unwrap().send(());
                    }
                }
                let _told = Told(dropped);
                std::future::pending::<()>().await;
            }
            Response::new(text("ok"))
        }
    });
    let proxy = start(&model(&[server.address]));
    let mut leaving = crate::harness::connect(&proxy);
    leaving.write_all(b"GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    eventually("the request does not arrive", || proxy.status().endpoints[0].in_use == 1);
    let mut staying = crate::harness::connect(&proxy);
    assert_eq!(status(&crate::harness::get(&mut staying)), "200");
    drop(leaving);
    is_dropped.recv_timeout(LONG).unwrap();
    assert_eq!(status(&crate::harness::get(&mut staying)), "200");
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn a_connection_that_the_upstream_closed_is_replaced() {
    let first = server(echo);
    let address = first.address;
    let proxy = start(&model(&[address]));
    let mut client = crate::harness::connect(&proxy);
    assert_eq!(status(&crate::harness::get(&mut client)), "200");
    drop(first.runtime);
    let (answer, _) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(status(&answer), "502", "{answer}");
}

#[test]
fn an_upstream_that_speaks_http1_alone_is_said_to() {
    let up = crate::harness::upstream(|mut conn| {
        let _ = conn.head();
        conn.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let proxy = start(&model(&[up.address]));
    let mut client = crate::harness::connect(&proxy);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    assert_eq!(status(&response(&mut client)), "502");
}

/// Whatever the reason of a reset is: what it cuts off must not pass for whole.
#[test]
fn a_response_that_is_reset_is_no_whole_one() {
    for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        let server = crate::streams::server(move |_, mut reply| async move {
            let mut body = reply.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from("half"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            body.send_reset(reason);
        });
        let (answer, is_closed) =
            talk(&start(&model(&[server.address])), b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
        assert!(is_closed && answer.ends_with("4\r\nhalf\r\n"), "{reason:?}: {answer}");
    }
}

/// A request's body goes on while its response comes, and is given up when that is over.
#[test]
fn a_response_may_end_before_its_request() {
    let (reset, is_reset) = mpsc::channel();
    let server = crate::streams::server(move |request: Request<h2::RecvStream>, mut reply| {
        let reset = reset.clone();
        async move {
            let mut sent = request.into_body();
            let mut body = reply.send_response(Response::new(()), false).unwrap();
            for _ in 0..2 {
                let data = sent.data().await.unwrap().unwrap();
                body.send_data(data, false).unwrap();
            }
            body.send_data(Bytes::new(), true).unwrap();
            let _ = reset.send(sent.data().await.map(|data| data.is_err()));
        }
    });
    let proxy = start(&model(&[server.address]));
    let mut client = crate::streams::Client::new(&proxy);
    let request = Request::post("http://a.test/").body(()).unwrap();
    let (answer, mut body) = client.sender.send_request(request, false).unwrap();
    client.run(async {
        body.send_data(Bytes::from("a"), false).unwrap();
        let mut read = answer.await.unwrap().into_body();
        assert_eq!(read.data().await.unwrap().unwrap(), "a");
        body.send_data(Bytes::from("b"), false).unwrap();
        assert_eq!(read.data().await.unwrap().unwrap(), "b");
        assert!(read.data().await.is_none_or(|data| data.unwrap().is_empty()));
    });
    assert_eq!(is_reset.recv_timeout(LONG).unwrap(), Some(true));
    eventually("the request stays", || proxy.status().endpoints[0].in_use == 0);
}

#[test]
fn bodies_are_longer_than_windows() {
    let server = server(echo);
    let proxy = start(&model(&[server.address]));
    let client = Client::new(&proxy);
    let sent: String = (0..600_000).map(|index| format!("{index:07}")).collect();
    let body = Full::new(Bytes::from(sent.clone())).map_err(|never| match never {}).boxed();
    let (status, _, body) = client.answer(Request::post("http://a.test/").body(body).unwrap());
    assert_eq!(status, 200);
    assert!(body.ends_with(&sent), "{} bytes came back of {}", body.len(), sent.len());
}
