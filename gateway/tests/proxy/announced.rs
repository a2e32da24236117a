//! Connections that a load balancer in front announces.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::model;
use gateway::proxy::{Arrival, Proxy};

use crate::harness::*;

const CLIENT: &str = "203.0.113.9:12345";
const TEXT: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 12345 80\r\n";

/// Loopback is a load balancer.
fn behind(up: &Upstream) -> model::Proxy {
    let mut model = model(&[up.address]);
    model.listeners[0].proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
    model
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

#[test]
fn the_client_is_whom_the_balancer_says() {
    let up = echo();
    let proxy = start(&behind(&up));
    let v4 = [203, 0, 113, 9, 192, 0, 2, 1, 0x30, 0x39, 0, 80];
    for (name, header, client) in [
        ("text", TEXT.as_bytes().to_vec(), "203.0.113.9"),
        ("binary", binary(0x21, 0x11, &v4), "203.0.113.9"),
        ("a health check", binary(0x20, 0, &[]), "127.0.0.1"),
        ("not said", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        // A byte at a time, and all at once with the request behind it.
        for at_once in [true, false] {
            let mut stream = connect(&proxy);
            let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
            if at_once {
                stream.write_all(&[&header[..], request].concat()).unwrap();
            } else {
                stream.set_nodelay(true).unwrap();
                for byte in &header {
                    stream.write_all(&[*byte]).unwrap();
                    std::thread::sleep(Duration::from_micros(200));
                }
                stream.write_all(request).unwrap();
            }
            let answer = response(&mut stream);
            assert_eq!(status(&answer), "200", "{name}");
            assert!(answer.contains(&format!("\r\nx-forwarded-for: {client}\r\n")), "{name}: {answer}");
            assert_eq!(status(&get(&mut stream)), "200", "{name}: the next request has none");
        }
    }
}

#[test]
fn what_says_nothing_is_not_served() {
    let up = echo();
    let mut model = behind(&up);
    model.listeners[0].header_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    for bytes in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "PROXY TCP4 nobody\r\n", "PROXY TCP4 203.", ""] {
        let mut stream = connect(&proxy);
        stream.write_all(bytes.as_bytes()).unwrap();
        assert_eq!(read_rest(&mut stream, LONG), (String::new(), true), "{bytes:?}");
    }
    eventually("connections end", || proxy.status().listeners[0].connections == 0);
    // From elsewhere it is no header, but a request that is none.
    let mut model = behind(&up);
    model.listeners[0].proxy_protocol = vec!["192.0.2.0/24".parse().unwrap()];
    let proxy = start(&model);
    let (answer, _) = talk(&proxy, format!("{TEXT}GET / HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
    assert_eq!(status(&answer), "400");
    assert_eq!(status(&get(&mut connect(&proxy))), "200");
}

#[test]
fn the_rules_are_asked_about_the_client() {
    let up = echo();
    let seen: Arc<Mutex<Vec<Arrival>>> = Arc::default();
    let (asked, client) = (Arc::clone(&seen), CLIENT.parse::<SocketAddr>().unwrap());
    let admission = move |arrival: Arrival| {
        asked.lock().unwrap().push(arrival);
        arrival.peer != client
    };
    let proxy = Proxy::start(&behind(&up), Arc::new(admission)).unwrap();
    let (answer, closed) = talk(&proxy, format!("{TEXT}GET / HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes());
    assert_eq!((answer.as_str(), closed), ("", true));
    let other = TEXT.replace("203.0.113.9", "203.0.113.8");
    let mut stream = connect(&proxy);
    stream.write_all(other.as_bytes()).unwrap();
    assert_eq!(status(&get(&mut stream)), "200");
    let seen = seen.lock().unwrap();
    let announced: Vec<_> =
        seen.iter().filter(|arrival| arrival.announced).map(|arrival| arrival.peer).collect();
    assert_eq!(announced, [client, "203.0.113.8:12345".parse().unwrap()]);
    assert_eq!(seen.len(), 4, "the balancer itself is judged, too");
    let mut rest = Vec::new();
    drop(proxy);
    let _ = stream.read_to_end(&mut rest);
}

#[test]
fn upstreams_hear_whom_a_connection_is_for() {
    let [seen, told] = [Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new()))];
    let (first, heads) = (Arc::clone(&seen), Arc::clone(&told));
    let up = upstream(move |mut conn| {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match conn.body(1).as_slice() {
                [byte] => line.push(*byte),
                _ => return,
            }
        }
        first.lock().unwrap().push(String::from_utf8(line).unwrap());
        while let Some(head) = conn.head() {
            heads.lock().unwrap().push(head);
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let mut model = behind(&up);
    model.upstreams[0].proxy_protocol = Some(model::ProxyVersion::V1);
    let proxy = start(&model);
    let mut client = connect(&proxy);
    client.write_all(TEXT.as_bytes()).unwrap();
    for _ in 0..2 {
        assert_eq!(status(&get(&mut client)), "200");
    }
    let port = proxy.status().listeners[0].address.port();
    // The port that was announced is the client's, and our end is the one that the balancer came to.
    let expected = format!("PROXY TCP4 203.0.113.9 127.0.0.1 12345 {port}\r\n");
    assert_eq!(*seen.lock().unwrap(), [expected.clone(), expected], "a connection for each request");
    assert!(told.lock().unwrap().iter().all(|head| head.starts_with("GET / HTTP/1.1\r\n")));
    eventually("connections stay", || proxy.status().endpoints[0].idle == 0);
}
