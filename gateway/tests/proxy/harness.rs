//! A proxy, upstreams and raw clients, all on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use gateway::model;
use gateway::observe::Exposition;
use gateway::observe::metrics::Recorder;
use gateway::proxy::Proxy;
use socket2::{Domain, Socket, Type};

pub(crate) const LONG: Duration = Duration::from_secs(10);

/// A configuration with one listener and one route for everything to these endpoints.
pub(crate) fn model(endpoints: &[SocketAddr]) -> model::Proxy {
    model::Proxy {
        workers: 1,
        drain_timeout: Duration::from_secs(5),
        access_log: None,
        llm: Arc::default(),
        listeners: vec![model::Listener {
            name: "web".to_owned(),
            address: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            http2: true,
            http3: false,
            passthrough: Vec::new(),
            max_concurrent_streams: 100,
            proxy_protocol: Vec::new(),
            trusted_proxies: Vec::new(),
            header_timeout: LONG,
            idle_timeout: LONG,
            max_header_bytes: 16 * 1024,
            max_header_count: 100,
            request_ids: false,
            begin_traces: None,
            max_connections: 1000,
        }],
        upstreams: vec![model::Upstream {
            connect_timeout: Duration::from_secs(2),
            response_timeout: LONG,
            idle_timeout: LONG,
            max_idle_connections: 64,
            keepalive_timeout: Duration::from_secs(60),
            ..model::Upstream::new("up", endpoints.iter().copied().map(model::Endpoint::tcp).collect())
        }],
        routes: vec![model::Route {
            name: "all".to_owned(),
            matches: model::RouteMatch {
                hosts: Vec::new(),
                path: model::PathPattern::Prefix(String::new()),
                methods: Vec::new(),
                conditions: model::Conditions::default(),
            },
            action: model::Action::Forward(model::Forward {
                shares: vec![model::Share { upstream: 0, weight: 1 }],
                sticky: None,
                host: None,
                path: None,
                mirrors: Vec::new(),
            }),
            upgrades: vec!["websocket".to_owned()],
            request_headers: None,
            response_headers: None,
            cors: None,
            deprecated: None,
        }],
    }
}

pub(crate) fn start(model: &model::Proxy) -> Proxy {
    Proxy::start(model, Arc::new(|_| true)).unwrap()
}

pub(crate) fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.status().listeners[0].address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// One upstream connection in the hands of a test.
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Conn {
    /// Reads one head; `None` at the end of the stream.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Reads this many bytes of a body.
    pub(crate) fn body(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
            }
        }
        self.read.drain(..length.min(self.read.len())).collect()
    }

    /// Whether the gateway closes the connection before it sends anything more.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 64]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        let _ = self.stream.write_all(bytes.as_bytes());
    }
}

/// An upstream whose every connection is served by `serve` in a thread of its own.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<AtomicUsize>,
}

pub(crate) fn upstream(serve: impl Fn(Conn) + Send + Sync + 'static) -> Upstream {
    upstream_on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
}

/// The same, with a socket of the test's choice.
pub(crate) fn upstream_on(listener: TcpListener, serve: impl Fn(Conn) + Send + Sync + 'static) -> Upstream {
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            stream.set_read_timeout(Some(LONG)).unwrap();
            stream.set_nodelay(true).unwrap();
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(Conn { stream, read: Vec::new() }));
        }
    });
    Upstream { address, accepted }
}

/// An address that answers no SYN: the backlog of its listener is full, and nobody accepts. Lasts as long as
/// the sockets do.
pub(crate) fn black_hole() -> (SocketAddr, Vec<Socket>) {
    let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = tcp();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut sockets = vec![listener];
    loop {
        let filler = tcp();
        if filler.connect_timeout(&address, Duration::from_millis(100)).is_err() {
            return (address.as_socket().unwrap(), sockets);
        }
        sockets.push(filler);
        assert!(sockets.len() < 64, "the backlog does not get full");
    }
}

/// An upstream that answers every request without a body with its head.
pub(crate) fn echo() -> Upstream {
    upstream(|mut conn| {
        while let Some(head) = conn.head() {
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len()));
        }
    })
}

/// An upstream that reports each head it reads and answers `ok`.
pub(crate) fn reporting() -> (Upstream, mpsc::Receiver<String>) {
    let (sender, heads) = mpsc::channel();
    let upstream = upstream(move |mut conn| {
        while let Some(head) = conn.head() {
            let _ = sender.send(head);
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    (upstream, heads)
}

/// Sends bytes and reads until the gateway closes or, behind an answer, nothing comes for a while. Returns what came and
/// whether it closed.
pub(crate) fn talk(proxy: &Proxy, bytes: &[u8]) -> (String, bool) {
    let mut stream = connect(proxy);
    let _ = stream.write_all(bytes);
    // How long an answer takes is the machine's to say; only behind one, silence means something.
    let mut begin = [0; 8192];
    let count = match stream.read(&mut begin) {
        Ok(count) => count,
        Err(error) => return (String::new(), error.kind() == std::io::ErrorKind::ConnectionReset),
    };
    let begin = String::from_utf8_lossy(&begin[..count]).into_owned();
    if count == 0 {
        return (begin, true);
    }
    let is_last = begin.contains("connection: close");
    let (rest, closed) = read_rest(&mut stream, if is_last { LONG } else { Duration::from_millis(300) });
    (begin + &rest, closed)
}

pub(crate) fn read_rest(stream: &mut TcpStream, patience: Duration) -> (String, bool) {
    stream.set_read_timeout(Some(patience)).unwrap();
    let (mut read, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (String::from_utf8_lossy(&read).into_owned(), true),
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) => {
                let closed = error.kind() == std::io::ErrorKind::ConnectionReset;
                return (String::from_utf8_lossy(&read).into_owned(), closed);
            }
        }
    }
}

/// Reads one response with a length, and nothing of the next one, which may have come with it.
pub(crate) fn response(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let available = match stream.peek(&mut buffer) {
            Ok(available) => available,
            Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&read)),
        };
        let seen = [&read[..], &buffer[..available]].concat();
        let length = length_of(&seen);
        let taken = length.map_or(available, |length| available.min(length - read.len()));
        stream.read_exact(&mut buffer[..taken]).unwrap();
        read.extend_from_slice(&buffer[..taken]);
        if available == 0 || length.is_some_and(|length| read.len() >= length) {
            return String::from_utf8_lossy(&read).into_owned();
        }
    }
}

/// The bytes of a response whose head is there; all that there are, if it does not say how many its body has.
fn length_of(seen: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(seen);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    Some(length.map_or(seen.len(), |length| head.len() + 4 + length.parse::<usize>().unwrap()))
}

pub(crate) fn get(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    response(stream)
}

pub(crate) fn status(response: &str) -> &str {
    response.get(9..12).unwrap_or("")
}

/// What a series counts, as it stands in `/metrics`. The first call has it counted: it comes before the proxy starts.
pub(crate) fn count(series: &str) -> u64 {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    let recorder = RECORDER.get_or_init(|| {
        let recorder = Recorder::default();
        recorder.install();
        recorder
    });
    let mut page = Exposition::default();
    recorder.render(&mut page);
    let of_series = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    page.finish().lines().find_map(of_series).unwrap_or(0)
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..200 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}");
}

/// A WebSocket server that says what it is told.
pub(crate) fn websocket_echo(runtime: &tokio::runtime::Runtime) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if !message.is_close() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}
