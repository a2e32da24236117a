//! WebSocket over a stream of HTTP/2 (RFC 8441), to servers that speak it over HTTP/1.1.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway::model::Protocol;
use gateway::proxy::Proxy;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::harness::*;
use crate::streams;

/// A client that has heard that streams may become tunnels.
fn client(proxy: &Proxy) -> streams::Client {
    let client = streams::Client::new(proxy);
    eventually("SETTINGS_ENABLE_CONNECT_PROTOCOL does not come", || {
        client.sender.is_extended_connect_protocol_enabled()
    });
    client
}

fn ask(client: &mut streams::Client, protocol: &'static str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::builder().method(Method::CONNECT).uri("http://a.test/chat");
    let request = request.header("sec-websocket-version", "13").header("sec-websocket-protocol", "chat");
    let mut request = request.body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
    client.sender.send_request(request, false).unwrap()
}

/// A tunnel to [`agreeing`].
fn tunnel(client: &mut streams::Client) -> (SendStream<Bytes>, RecvStream) {
    let (answer, sent) = ask(client, "websocket");
    let response = client.run(answer).unwrap();
    assert_eq!(response.status(), 200);
    (sent, response.into_body())
}

/// Agrees, says a word at once, and sends back whatever comes.
fn agreeing() -> Upstream {
    upstream(|mut conn| {
        let Some(head) = conn.head() else { return };
        for line in [
            "GET /chat HTTP/1.1",
            "host: a.test",
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-protocol: chat",
        ] {
            assert!(head.lines().any(|l| l == line), "{line} is not in {head}");
        }
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: x\r\nsec-websocket-protocol: chat\r\n\r\nhello\n",
        );
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = conn.stream.read(&mut buffer) {
            if conn.stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

/// The stream as a socket.
fn socket(client: &streams::Client, mut sent: SendStream<Bytes>, mut received: RecvStream) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (mut reader, mut writer) = tokio::io::split(theirs);
    client.runtime.spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            sent.reserve_capacity(count);
            while sent.capacity() < count {
                let room = std::future::poll_fn(|cx| sent.poll_capacity(cx)).await;
                let Some(Ok(_)) = room else { return };
            }
            sent.send_data(Bytes::copy_from_slice(&buffer[..count]), false).unwrap();
        }
        let _ = sent.send_data(Bytes::new(), true);
    });
    client.runtime.spawn(async move {
        while let Some(Ok(data)) = received.data().await {
            writer.write_all(&data).await.unwrap();
            let _ = received.flow_control().release_capacity(data.len());
        }
        let _ = writer.shutdown().await;
    });
    ours
}

#[test]
fn messages_of_any_size_travel_both_ways() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let address = websocket_echo(&runtime);
    let proxy = start(&model(&[address]));
    let mut client = client(&proxy);
    let (sent, received) = tunnel(&mut client);
    let socket = socket(&client, sent, received);
    client.run(async {
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Client, None).await;
        for length in [0, 1, 125, 126, 65_536, 3_000_000] {
            let message = Message::binary(vec![b'x'; length]);
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message, "{length} bytes");
        }
        socket.close(None).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_close());
    });
    eventually("the tunnel stays", || proxy.status().endpoints[0].in_use == 0);
    // The connection goes on.
    assert_eq!(proxy.status().listeners[0].connections, 1);
    let (sent, received) = tunnel(&mut client);
    drop((sent, received));
}

#[test]
fn an_agreement_is_written_as_http2_has_it() {
    let up = agreeing();
    let proxy = start(&model(&[up.address]));
    let mut client = client(&proxy);
    let (answer, mut sent) = ask(&mut client, "websocket");
    let (head, mut received) = client.run(answer).unwrap().into_parts();
    let names: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!((head.status.as_u16(), names), (200, vec!["sec-websocket-protocol", "date"]));
    client.run(async {
        assert_eq!(received.data().await.unwrap().unwrap(), "hello\n");
        sent.send_data(Bytes::from("to and fro"), true).unwrap();
        assert_eq!(received.data().await.unwrap().unwrap(), "to and fro");
        assert!(received.data().await.is_none_or(|data| data.unwrap().is_empty()), "the end comes back");
    });
    eventually("the tunnel stays", || proxy.status().endpoints[0].in_use == 0);
}

#[test]
fn what_is_no_agreement_is_no_tunnel() {
    let up = echo();
    let refusing = upstream(|mut conn| {
        while conn.head().is_some() {
            conn.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        }
    });
    let http2 = streams::server(|_, mut reply| async move {
        reply.send_response(Response::new(()), true).unwrap();
    });
    let allowed = model(&[up.address]);
    let mut silent = allowed.clone();
    silent.routes[0].upgrades = Vec::new();
    let forbidden = model(&[refusing.address]);
    let mut other_version = model(&[http2.address]);
    other_version.upstreams[0].protocol = Protocol::Http2;
    for (name, model, protocol, expected) in [
        ("the upstream answers as ever", &allowed, "websocket", 502),
        ("the upstream refuses", &forbidden, "websocket", 403),
        ("the route does not allow it", &silent, "websocket", 501),
        ("another protocol", &allowed, "connect-udp", 501),
        ("an upstream over HTTP/2", &other_version, "websocket", 502),
    ] {
        let proxy = start(model);
        let mut client = client(&proxy);
        let (answer, _sent) = ask(&mut client, protocol);
        assert_eq!(client.run(answer).unwrap().status(), expected, "{name}");
    }
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_cut() {
    let up = agreeing();
    let mut model = model(&[up.address]);
    model.upstreams[0].idle_timeout = Duration::from_millis(400);
    let proxy = start(&model);
    let mut client = client(&proxy);
    let (mut sent, mut received) = tunnel(&mut client);
    let end = client.run(async {
        assert_eq!(received.data().await.unwrap().unwrap(), "hello\n");
        // Longer than the timeout, but something moves.
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sent.send_data(Bytes::from("x"), false).unwrap();
            assert_eq!(received.data().await.unwrap().unwrap(), "x");
        }
        received.data().await
    });
    assert_eq!(end.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    eventually("the tunnel stays", || proxy.status().endpoints[0].in_use == 0);
}

#[test]
fn who_resets_a_tunnel_ends_it_at_the_upstream() {
    let up = agreeing();
    let proxy = start(&model(&[up.address]));
    let mut client = client(&proxy);
    let (mut sent, received) = tunnel(&mut client);
    sent.send_reset(Reason::CANCEL);
    drop(received);
    eventually("the tunnel stays", || proxy.status().endpoints[0].in_use == 0);
}

#[test]
fn a_cut_at_the_upstream_cancels_the_stream() {
    let up = upstream(|mut conn| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
            let _ = conn.body(1);
            let socket = socket2::SockRef::from(&conn.stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut client = client(&proxy);
    let (mut sent, mut received) = tunnel(&mut client);
    sent.send_data(Bytes::from("x"), false).unwrap();
    let end = client.run(received.data());
    assert_eq!(end.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
}

/// Neither side's bytes pile up in the gateway when the other side does not read.
#[test]
fn who_does_not_read_holds_the_other_up() {
    const MUCH: usize = 64 * 1024 * 1024;
    let (written, count) = std::sync::mpsc::channel();
    let up = upstream(move |mut conn| {
        if conn.head().is_some() {
            conn.send("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
            conn.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut sent = 0;
            while sent < MUCH && conn.stream.write_all(&[0; 4096]).is_ok() {
                sent += 4096;
            }
            let _ = written.send(sent);
            let _ = conn.stream.shutdown(Shutdown::Both);
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut client = client(&proxy);
    let (_sent, _received) = tunnel(&mut client);
    let sent = count.recv_timeout(LONG).unwrap();
    assert!(sent < MUCH / 2, "{sent} bytes were taken");
}

#[test]
fn a_drain_lets_tunnels_be_until_its_end() {
    let up = agreeing();
    let proxy = start(&model(&[up.address]));
    let mut client = client(&proxy);
    let (mut sent, mut received) = tunnel(&mut client);
    let drained = proxy.drain(Duration::from_secs(1));
    let drain = std::thread::spawn(move || tokio::runtime::Runtime::new().unwrap().block_on(drained));
    client.run(async {
        assert_eq!(received.data().await.unwrap().unwrap(), "hello\n");
        tokio::time::sleep(Duration::from_millis(300)).await;
        sent.send_data(Bytes::from("still"), false).unwrap();
        assert_eq!(received.data().await.unwrap().unwrap(), "still");
    });
    assert_eq!(drain.join().unwrap().cut, 1);
}
