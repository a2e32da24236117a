//! What goes over the demo's wire: plain HTTP/1.1 requests, a bounded flood, and an upstream that answers
//! with what it saw.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long a client waits for a gateway that does not answer.
const CLIENT_PATIENCE: Duration = Duration::from_millis(400);

/// The server behind the gateway.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
}

impl Upstream {
    /// Listens on loopback until the process ends; a request a connection.
    pub(super) fn start() -> Result<Self, String> {
        let listener =
            TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no port for the upstream: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let served = std::thread::Builder::new().name("demo-upstream".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream);
            }
        });
        served.map(|_| Self { address }).map_err(|error| format!("no thread for the upstream: {error}"))
    }
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    let mut forwarded = String::from("nobody");
    let reader = BufReader::new(&stream).take(16 * 1024);
    for line in reader.lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("x-forwarded-for")
        {
            forwarded = value.trim().to_owned();
        }
    }
    let body = format!("hello {forwarded}\n");
    write!(&stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// One request from an address; its status line, body and how long it took.
pub(super) fn get(from: IpAddr, to: SocketAddr) -> Result<(String, Duration), String> {
    let started = Instant::now();
    let reply = request(from, to, "GET / HTTP/1.1", "").map_err(told)?;
    let head = reply.lines().next().unwrap_or_default().to_owned();
    if head.is_empty() {
        return Err("the connection was closed without an answer".to_owned());
    }
    let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    Ok((format!("{head}: {body}"), started.elapsed()))
}

/// What stands at an address, fetched from its own host.
pub(super) fn fetch(at: SocketAddr, path: &str) -> Result<String, String> {
    request(at.ip(), at, &format!("GET {path} HTTP/1.1"), "").map_err(told)
}

/// What a client of OpenAI's API gets for a request whose answer is streamed.
pub(super) struct Streamed {
    /// The status, and what the gateway says that no provider does.
    pub(super) head: Vec<String>,
    /// The data of each event.
    pub(super) events: Vec<String>,
    pub(super) took: Duration,
}

/// Asks a model.
pub(super) fn ask(from: IpAddr, to: SocketAddr, body: &str) -> Result<Streamed, String> {
    let started = Instant::now();
    let reply = request(from, to, "POST /v1/chat/completions HTTP/1.1", body).map_err(told)?;
    let (head, rest) = reply.split_once("\r\n\r\n").ok_or("an answer without an end of its head")?;
    let shown = |line: &&str| line.starts_with("HTTP/") || line.starts_with("gateway-");
    Ok(Streamed {
        head: head.lines().filter(shown).map(str::to_owned).collect(),
        // Events come whole, so that the sizes of chunks stand on lines of their own.
        events: rest.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect(),
        took: started.elapsed(),
    })
}

fn told(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => {
            format!("no answer within {} ms", CLIENT_PATIENCE.as_millis())
        }
        _ => error.to_string(),
    }
}

fn request(from: IpAddr, to: SocketAddr, line: &str, body: &str) -> std::io::Result<String> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    socket.connect_timeout(&SockAddr::from(to), CLIENT_PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    let length = body.len();
    let content = match length {
        0 => String::new(),
        _ => format!("content-type: application/json\r\ncontent-length: {length}\r\n"),
    };
    write!(stream, "{line}\r\nhost: demo\r\nconnection: close\r\n{content}\r\n{body}")?;
    let mut reply = String::new();
    stream.take(1024 * 1024).read_to_string(&mut reply)?;
    Ok(reply)
}

/// Sends small datagrams as fast as one socket can; returns how many, and in which time.
pub(super) fn flood(from: IpAddr, to: SocketAddr, datagrams: u32) -> Result<(u32, Duration), String> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0)).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut sent = 0;
    for _ in 0..datagrams {
        sent += u32::from(socket.send_to(b"flood", to).is_ok());
    }
    Ok((sent, started.elapsed()))
}
