//! Routes to models: providers are small scripts on loopback, clients speak raw HTTP.

mod embeddings;
mod fallback;
mod pairs;
mod passing;
mod providers;
mod streams;
mod translating;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use gateway::config;
use gateway::proxy::Proxy;

use crate::harness::{Conn, LONG, Upstream, connect, read_rest, start, upstream};

/// A request as a provider got it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Heard {
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reads the next request.
pub(crate) fn hear(conn: &mut Conn) -> Option<Heard> {
    let head = conn.head()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body = conn.body(length.map_or(0, |length| length.parse().unwrap()));
    Some(Heard { head, body: String::from_utf8(body).unwrap() })
}

/// A provider that tells the test what it hears, and answers by a script.
pub(crate) fn provider(
    answer: impl Fn(&Heard, &mut Conn) + Send + Sync + 'static,
) -> (Upstream, mpsc::Receiver<Heard>) {
    let (sender, heard) = mpsc::channel();
    let upstream = upstream(move |mut conn| {
        while let Some(request) = hear(&mut conn) {
            let _ = sender.send(request.clone());
            answer(&request, &mut conn);
        }
    });
    (upstream, heard)
}

/// An answer with a length.
pub(crate) fn whole(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// An answer in JSON.
pub(crate) fn json(status: &str, body: &str) -> String {
    whole(status, "content-type: application/json\r\n", body)
}

pub(crate) const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A piece of a body in chunks; an empty one ends it.
pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A gateway with these keys in `llm` and one route for everything, with these in its own `llm`.
pub(crate) fn gateway_of(llm: &str, route: &str) -> Proxy {
    start(&model_of(llm, route))
}

pub(crate) fn model_of(llm: &str, route: &str) -> gateway::model::Proxy {
    let text = format!(
        "listeners: {{web: {{address: \"127.0.0.1:1\"}}}}\nllm:\n{llm}\nroutes: {{models: {{llm: {route}}}}}\nworkers: 1\n"
    );
    let parsed = config::parse(&text, Path::new("gateway.yaml"), &|_| None, Path::new("."));
    let mut model = parsed.unwrap_or_else(|report| panic!("{report:?}")).proxy;
    model.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    model
}

/// `llm` with one provider of this dialect that serves every model.
pub(crate) fn one(dialect: &str, upstream: &Upstream) -> String {
    let base = if dialect.starts_with("openai") { "/v1" } else { "" };
    format!(
        "  providers: {{one: {{dialect: {dialect}, base_url: \"http://{}{base}\", api_key: sk-own, models: [\"*\"]}}}}",
        upstream.address
    )
}

/// A request.
pub(crate) fn post(target: &str, fields: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nhost: a.test\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request over a connection of its own, and reads all of its answer: the head, and the body without its chunks.
pub(crate) fn ask(proxy: &Proxy, request: &str) -> (String, String) {
    let mut client = connect(proxy);
    client.write_all(request.as_bytes()).unwrap();
    answer(&mut client)
}

/// Reads one answer.
pub(crate) fn answer(client: &mut TcpStream) -> (String, String) {
    client.set_read_timeout(Some(LONG)).unwrap();
    let (mut read, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        if let Some((head, body)) = String::from_utf8_lossy(&read).split_once("\r\n\r\n")
            && let Some(body) = complete(head, body)
        {
            return (head.to_owned(), body);
        }
        match client.read(&mut buffer) {
            Ok(0) => panic!("the answer broke off: {}", String::from_utf8_lossy(&read)),
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&read)),
        }
    }
}

/// The body, if all of it is there.
fn complete(head: &str, body: &str) -> Option<String> {
    if head.contains("transfer-encoding: chunked") {
        return dechunked(body);
    }
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().unwrap();
    (body.len() >= length).then(|| body.to_owned())
}

/// What stands in chunks, if the last one is there.
pub(crate) fn dechunked(mut body: &str) -> Option<String> {
    let mut text = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return Some(text);
        }
        text.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

pub(crate) fn next(heard: &mpsc::Receiver<Heard>) -> Heard {
    heard.recv_timeout(LONG).expect("the provider was asked")
}

/// Nobody was asked.
pub(crate) fn is_silent(heard: &mpsc::Receiver<Heard>) -> bool {
    heard.recv_timeout(Duration::from_millis(100)).is_err()
}

/// What comes of an answer that does not end, for a while, and whether the connection was closed.
pub(crate) fn rest(client: &mut TcpStream, millis: u64) -> (String, bool) {
    read_rest(client, Duration::from_millis(millis))
}

pub(crate) const CHAT: &str =
    r#"{ "model":"m", "messages":[{"role":"user","content":"hi"}], "x_unknown": 1.0 }"#;
pub(crate) const REPLY: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ho"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;
