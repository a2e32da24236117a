//! Upgrades: a connection that becomes another protocol's, and requests that only look as if.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;

const ASKS: &str =
    "GET /chat HTTP/1.1\r\nhost: a.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\r\n";
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Agrees, and sends back whatever comes.
fn agreeing() -> Upstream {
    upstream(|mut conn| {
        if let Some(head) = conn.head() {
            assert!(
                head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: WebSocket\r\n"),
                "{head}"
            );
            // In one piece with the first bytes of the other protocol.
            conn.send(&format!("{AGREES}hello\n"));
            loop {
                let byte = conn.body(1);
                if byte.is_empty() {
                    return;
                }
                let _ = conn.stream.write_all(&byte);
            }
        }
    })
}

fn read(stream: &mut std::net::TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads one head without its date.
fn head(stream: &mut std::net::TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

#[test]
fn messages_of_any_size_travel_both_ways() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let address = websocket_echo(&runtime);
    let proxy = start(&model(&[address]));
    let stream = connect(&proxy);
    stream.set_nonblocking(true).unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (mut socket, answer) = tokio_tungstenite::client_async("ws://a.test/chat", stream).await.unwrap();
        assert_eq!(answer.status(), 101);
        for length in [0, 1, 125, 126, 65_536, 3_000_000] {
            let message = Message::binary(vec![b'x'; length]);
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message, "{length} bytes");
        }
        socket.close(None).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_close());
    });
    drop(runtime);
    eventually("the tunnel stays", || proxy.status().listeners[0].connections == 0);
}

#[test]
fn what_comes_early_belongs_to_the_other_protocol() {
    let up = agreeing();
    let proxy = start(&model(&[up.address]));
    let mut client = connect(&proxy);
    // In one piece with the request: it must not be read as one.
    client.write_all(format!("{ASKS}GET / HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    let answer = head(&mut client).to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(
        answer.contains("\r\nconnection: upgrade\r\n") && answer.contains("\r\nupgrade: websocket\r\n"),
        "{answer}"
    );
    assert_eq!(read(&mut client, 6), "hello\n");
    assert_eq!(read(&mut client, 18), "GET / HTTP/1.1\r\n\r\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the end is passed on, and comes back");
    eventually("the tunnel stays", || proxy.status().endpoints[0].in_use == 0);
    assert_eq!(proxy.status().endpoints[0].idle, 0);
}

#[test]
fn an_upstream_that_does_not_agree_answers_as_ever() {
    let up = echo();
    let proxy = start(&model(&[up.address]));
    let mut client = connect(&proxy);
    // The second request waits until the first is answered by HTTP.
    client.write_all(ASKS.repeat(2).as_bytes()).unwrap();
    for _ in 0..2 {
        let answer = response(&mut client);
        assert_eq!(status(&answer), "200");
    }
    assert_eq!(status(&get(&mut client)), "200");
    assert_eq!(up.accepted.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_route_does_not_name_is_a_plain_request() {
    let up = echo();
    let mut silent = model(&[up.address]);
    silent.routes[0].upgrades = Vec::new();
    let both = model(&[up.address]);
    for (name, model, protocol) in [
        ("HTTP/2", &both, "h2c"),
        ("a list", &both, "h2c, websocket"),
        ("nothing allowed", &silent, "websocket"),
    ] {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade, http2-settings\r\nupgrade: {protocol}\r\n\
             http2-settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        let (answer, _) = talk(&start(model), request.as_bytes());
        assert_eq!(status(&answer), "200", "{name}");
        assert!(
            !answer.to_lowercase().contains("upgrade") && !answer.contains("http2-settings"),
            "{name}: {answer}"
        );
    }
}

#[test]
fn only_what_was_asked_for_is_agreed_to() {
    let other = AGREES.replace("websocket", "other");
    for (name, request, agreement) in [
        ("not asked", "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n".to_owned(), AGREES.to_owned()),
        ("another", ASKS.to_owned(), other),
        ("nothing named", ASKS.to_owned(), "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned()),
    ] {
        let up = upstream(move |mut conn| {
            if conn.head().is_some() {
                conn.send(&agreement);
                assert!(conn.is_closed());
            }
        });
        let proxy = start(&model(&[up.address]));
        let mut client = connect(&proxy);
        client.write_all(request.as_bytes()).unwrap();
        let answer = response(&mut client);
        assert_eq!(status(&answer), "502", "{name}: {answer}");
    }
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_cut() {
    let up = agreeing();
    let mut model = model(&[up.address]);
    model.upstreams[0].idle_timeout = Duration::from_millis(400);
    let proxy = start(&model);
    let mut client = connect(&proxy);
    client.write_all(ASKS.as_bytes()).unwrap();
    head(&mut client);
    assert_eq!(read(&mut client, 6), "hello\n");
    // Longer than the timeout, but something moves.
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        client.write_all(b"x").unwrap();
        assert_eq!(read(&mut client, 1), "x");
    }
    eventually("the tunnel stays", || proxy.status().listeners[0].connections == 0);
}

#[test]
fn a_tunnel_ends_with_its_upstream() {
    let up = upstream(|mut conn| {
        if conn.head().is_some() {
            conn.send(&format!("{AGREES}bye"));
        }
    });
    let proxy = start(&model(&[up.address]));
    let mut client = connect(&proxy);
    client.write_all(ASKS.as_bytes()).unwrap();
    head(&mut client);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");
}
