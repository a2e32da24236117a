//! Trailers of requests and of responses, by every pair of versions.

use std::io::Write as _;
use std::sync::mpsc;

use bytes::Bytes;
use gateway::model::Protocol;
use gateway::proxy::Proxy;
use h2::RecvStream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use crate::harness::*;
use crate::streams;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

fn proxy(address: std::net::SocketAddr, version: Version) -> Proxy {
    let mut model = model(&[address]);
    model.upstreams[0].protocol = if version == Version::Http1 { Protocol::Http1 } else { Protocol::Http2 };
    start(&model)
}

fn map(lines: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        map.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    }
    map
}

fn lines(map: &HeaderMap) -> Vec<String> {
    map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

/// The trailers of a body in chunks, which has one chunk.
fn of_chunks(body: &str) -> Vec<String> {
    let trailers = body.split_once("\r\n0\r\n").unwrap_or_else(|| panic!("no end: {body}")).1;
    trailers.split("\r\n").filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What an upstream gets of these trailers of a request's.
fn of_request(client: Version, upstream: Version, announced: &str, sent: &[&str]) -> Vec<String> {
    let (report, reported) = mpsc::channel();
    let (up, http2);
    let proxy = match upstream {
        Version::Http1 => {
            up = crate::harness::upstream(move |mut conn| {
                conn.head();
                let _ = report.send(of_chunks(&conn.head().unwrap()));
                conn.send("HTTP/1.1 204 No Content\r\n\r\n");
            });
            proxy(up.address, upstream)
        }
        Version::Http2 => {
            http2 = streams::server(move |request: Request<RecvStream>, mut reply| {
                let report = report.clone();
                async move {
                    let (body, trailers) = streams::read(&mut request.into_body()).await.unwrap();
                    assert_eq!(body, b"abc");
                    let _ = report.send(lines(&trailers.unwrap_or_default()));
                    reply.send_response(Response::new(()), true).unwrap();
                }
            });
            proxy(http2.address, upstream)
        }
    };
    match client {
        Version::Http1 => {
            let sent: String = sent.iter().map(|line| format!("{line}\r\n")).collect();
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{announced}transfer-encoding: chunked\r\n\r\n");
            let mut client = connect(&proxy);
            client.write_all(format!("{head}3\r\nabc\r\n0\r\n{sent}\r\n").as_bytes()).unwrap();
            reported.recv_timeout(LONG).unwrap()
        }
        Version::Http2 => {
            let mut client = streams::Client::new(&proxy);
            let mut request = Request::post("http://a/").body(()).unwrap();
            *request.headers_mut() = map(&announced.split_terminator("\r\n").collect::<Vec<_>>());
            let (answer, mut body) = client.sender.send_request(request, false).unwrap();
            body.send_data(Bytes::from("abc"), false).unwrap();
            body.send_trailers(map(sent)).unwrap();
            client.run(answer).unwrap();
            reported.recv_timeout(LONG).unwrap()
        }
    }
}

/// What a client gets of these trailers of a response's.
fn of_response(
    client: Version,
    upstream: Version,
    welcome: &str,
    announced: &str,
    sent: &[&str],
) -> Vec<String> {
    let (up, http2);
    let proxy = match upstream {
        Version::Http1 => {
            let sent: String = sent.iter().map(|line| format!("{line}\r\n")).collect();
            let reply = format!(
                "HTTP/1.1 200 OK\r\n{announced}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{sent}\r\n"
            );
            up = crate::harness::upstream(move |mut conn| {
                conn.head();
                conn.send(&reply);
            });
            proxy(up.address, upstream)
        }
        Version::Http2 => {
            let (head, trailers) = (map(&announced.split_terminator("\r\n").collect::<Vec<_>>()), map(sent));
            http2 = streams::server(move |_, mut reply| {
                let (head, trailers) = (head.clone(), trailers.clone());
                async move {
                    let mut response = Response::new(());
                    *response.headers_mut() = head;
                    let mut body = reply.send_response(response, false).unwrap();
                    body.send_data(Bytes::from("abc"), false).unwrap();
                    body.send_trailers(trailers).unwrap();
                }
            });
            proxy(http2.address, upstream)
        }
    };
    match client {
        Version::Http1 => {
            let mut client = connect(&proxy);
            client.write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n{welcome}\r\n").as_bytes()).unwrap();
            let mut read = Vec::new();
            // The end of the body is the second empty line.
            while read.windows(4).filter(|window| window == b"\r\n\r\n").count() < 2 {
                let mut byte = [0];
                std::io::Read::read_exact(&mut client, &mut byte).unwrap();
                read.push(byte[0]);
            }
            of_chunks(&String::from_utf8(read).unwrap())
        }
        Version::Http2 => {
            let mut client = streams::Client::new(&proxy);
            let mut request = Request::get("http://a/").body(()).unwrap();
            *request.headers_mut() = map(&welcome.split_terminator("\r\n").collect::<Vec<_>>());
            let (answer, _) = client.sender.send_request(request, true).unwrap();
            let (body, trailers) = client.run(async {
                let mut body = answer.await.unwrap().into_body();
                streams::read(&mut body).await.unwrap()
            });
            assert_eq!(body, b"abc");
            lines(&trailers.unwrap_or_default())
        }
    }
}

#[test]
fn trailers_pass_by_every_pair_of_versions() {
    for client in VERSIONS {
        for upstream in VERSIONS {
            for (name, line, of_requests, of_responses) in [
                ("alone", None, true, true),
                ("another", Some("digest: x"), true, true),
                ("of gRPC", Some("grpc-status: 0"), true, true),
                ("twice", Some("sum: 8"), true, true),
                ("a length", Some("content-length: 3"), false, false),
                ("what looks like one", Some("content_length: 3"), false, false),
                ("a type", Some("content-type: text/html"), false, false),
                ("a host", Some("host: b"), false, false),
                ("who asks", Some("authorization: x"), false, false),
                ("a cookie", Some("set-cookie: a=b"), false, false),
                ("a condition", Some("if-match: x"), false, false),
                ("a control", Some("cache-control: public"), false, false),
                ("where to", Some("location: /"), false, false),
                ("an announcement", Some("trailer: x"), false, false),
                ("a claim", Some("x-forwarded-for: 192.0.2.1"), false, true),
            ] {
                let sent: Vec<&str> = ["sum: 7"].into_iter().chain(line).collect();
                let field = line.map_or("", |line| line.split_once(':').unwrap().0);
                let announced = format!("trailer: sum, {field}\r\n");
                let expected = |passes| if passes { sent.clone() } else { vec!["sum: 7"] };
                let context = format!("{name}, from {client:?} to {upstream:?}");
                let got = of_request(client, upstream, &announced, &sent);
                assert_eq!(got, expected(of_requests), "{context}: request");
                let got = of_response(client, upstream, "te: trailers\r\n", &announced, &sent);
                assert_eq!(got, expected(of_responses), "{context}: response");
            }
        }
    }
}

/// HTTP/2 needs no announcement; over HTTP/1.1 a body ends at once without one, and a client has to want them.
#[test]
fn trailers_over_http1_are_announced_and_welcome() {
    for other in VERSIONS {
        let announced = |client, upstream| of_request(client, upstream, "", &["sum: 7"]);
        assert!(announced(other, Version::Http1).is_empty(), "{other:?}");
        assert_eq!(announced(other, Version::Http2), ["sum: 7"], "{other:?}");
        for (welcome, trailer, expected) in [
            ("te: trailers\r\n", "trailer: sum\r\n", &["sum: 7"][..]),
            ("te: trailers\r\n", "", &[]),
            ("", "trailer: sum\r\n", &[]),
        ] {
            let got = of_response(Version::Http1, other, welcome, trailer, &["sum: 7"]);
            assert_eq!(got, expected, "{other:?}, {welcome}{trailer}");
            let got = of_response(Version::Http2, other, welcome, trailer, &["sum: 7"]);
            assert_eq!(got, ["sum: 7"], "{other:?}, {welcome}{trailer}");
        }
    }
}

/// A body whose only trailers may not be any ends all the same.
#[test]
fn a_body_ends_where_no_trailer_is_left() {
    for client in VERSIONS {
        for upstream in VERSIONS {
            let announced = "trailer: host\r\n";
            let got = of_request(client, upstream, announced, &["host: b"]);
            assert!(got.is_empty(), "{client:?} {upstream:?}: {got:?}");
            let got = of_response(client, upstream, "te: trailers\r\n", announced, &["host: b"]);
            assert!(got.is_empty(), "{client:?} {upstream:?}: {got:?}");
        }
    }
}
