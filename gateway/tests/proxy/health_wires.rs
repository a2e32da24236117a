//! Health checks over what requests go over: TLS and sockets of this host. Whoever is well there has proved it, for no
//! server is taken for well before.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use gateway::model::{self, Endpoint, Location, Probe, Protocol};
use http::{HeaderMap, Response};
use tokio_rustls::TlsAcceptor;

use crate::harness::*;
use crate::health::{check, until_well};
use crate::tls::{Files, secure_upstream, to_secure, trusting};

fn http_check() -> Probe {
    Probe::Http { path: "/up".parse().unwrap(), host: None, expect: vec![200..=299] }
}

fn with_check(mut model: model::Proxy, probe: Probe) -> model::Proxy {
    let mut health = check(probe);
    health.starts_up = false;
    model.upstreams[0].health = Some(health);
    model
}

/// Waits for the first verdict: `Ok` of a server that is well, else why it is not.
fn verdict(model: &model::Proxy) -> Result<(), String> {
    let proxy = start(model);
    let mut complaint = None;
    eventually("no verdict", || {
        complaint = proxy.status().endpoints[0].complaint.clone();
        complaint.is_some() || proxy.health().iter().all(|one| one.is_healthy)
    });
    complaint.map_or(Ok(()), Err)
}

#[test]
fn a_check_under_tls_finds_out_who_is_there() {
    let (files, strangers) = (Files::new(), Files::new());
    let (right, other) = (secure_upstream(&files, &["127.0.0.1"]), secure_upstream(&files, &["up.test"]));
    let plain = upstream(|mut conn| {
        let _ = conn.stream.read(&mut [0; 1024]);
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let named = model::UpstreamTls { name: Some("up.test".to_owned()), ..trusting(&files) };
    for (name, up, tls, expected) in [
        ("by its address", &right, trusting(&files), Ok(())),
        ("by a name", &other, named.clone(), Ok(())),
        ("another name", &right, named, Err("its certificate is refused: it is for another name")),
        (
            "another authority",
            &right,
            trusting(&strangers),
            Err("its certificate is refused: the authority that it names has not signed it"),
        ),
        ("in the clear", &plain, trusting(&files), Err("no TLS handshake: ")),
    ] {
        for probe in [http_check(), Probe::Tcp] {
            let found = verdict(&with_check(to_secure(up, tls.clone()), probe.clone()));
            match (&found, expected) {
                (Ok(()), Ok(())) => {}
                (Err(found), Err(expected)) if found.contains(expected) => {}
                _ => panic!("{name}, {probe:?}: {found:?} and not {expected:?}"),
            }
        }
    }
}

#[test]
fn a_check_by_grpc_agrees_on_http2_in_the_handshake() {
    let files = Files::new();
    let mut config = files.server(&["127.0.0.1"], None).as_ref().clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (asked, heard) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let asked = asked.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut reply))) = connection.accept().await {
                    let _ = asked.send(request.uri().to_string());
                    let response = Response::builder().header("content-type", "application/grpc");
                    let mut body = reply.send_response(response.body(()).unwrap(), false).unwrap();
                    body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false).unwrap();
                    let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                    body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
                }
            });
        }
    });
    let mut model = model(&[address]);
    model.upstreams[0].endpoints[0].is_secure = true;
    model.upstreams[0].protocol = Protocol::Http2;
    model.upstreams[0].tls = Some(model::UpstreamTls { protocol: Protocol::Http2, ..trusting(&files) });
    let model = with_check(model, Probe::Grpc { service: String::new() });
    assert_eq!(verdict(&model), Ok(()));
    assert_eq!(heard.recv_timeout(LONG).unwrap(), format!("https://{address}/grpc.health.v1.Health/Check"));
}

#[test]
fn a_check_goes_over_a_socket_of_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let (asked, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
            while !read.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => read.extend_from_slice(&buffer[..count]),
                }
            }
            let status = if well.load(Ordering::SeqCst) { "204 No Content" } else { "503 Oh" };
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
            let _ = asked.send(String::from_utf8(read).unwrap());
        }
    });
    for probe in [http_check(), Probe::Tcp] {
        let is_request = matches!(probe, Probe::Http { .. });
        let mut model = model(&[]);
        model.upstreams[0].endpoints = vec![Endpoint::new(Location::Unix(path.clone()), false)];
        let proxy = start(&with_check(model.clone(), probe.clone()));
        until_well(&proxy, 1);
        let request = heard.recv_timeout(LONG).unwrap();
        if is_request {
            let fields = request.strip_prefix("GET /up HTTP/1.1\r\n").unwrap();
            assert!(fields.contains("host: localhost\r\n"), "a path is no host: {request}");
            is_well.store(false, Ordering::SeqCst);
            until_well(&proxy, 0);
            assert_eq!(proxy.status().endpoints[0].complaint.as_deref(), Some("it answers 503"));
        }
        drop(proxy);
        model.upstreams[0].endpoints[0].at = Location::Unix(dir.path().join("nobody.sock"));
        let complaint = verdict(&with_check(model, probe)).unwrap_err();
        assert!(complaint.contains("No such file"), "{complaint}");
        while heard.try_recv().is_ok() {}
    }
}
