//! HTTP/1.1 as bytes on a socket: a client and a reader that say what came, and mend nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;

/// How long a connect may take before a test calls it dropped. SYNs are sent again after a second, so
/// less than that is one packet's fate.
pub const CONNECT_LIMIT: Duration = Duration::from_millis(700);
/// How long a reply may take.
pub const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// A request or a reply as read from a socket.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The request line or status line.
    pub start: String,
    /// Header fields in their order, names as they came.
    pub headers: Vec<(String, String)>,
    /// The body, with the chunks put together.
    pub body: Vec<u8>,
}

impl Message {
    /// The status of a reply.
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("not a status line: {:?}", self.start))
    }

    /// The values of a field, joined as RFC 9110 says; `None` without any.
    pub fn header(&self, name: &str) -> Option<String> {
        let fields = self.headers.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        let values: Vec<_> = fields.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Connection {
    /// Connects from an address of `namespace`.
    pub fn open(namespace: &Namespace, from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        namespace.run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), CONNECT_LIMIT)?;
            Ok(Self::over(socket.into()))
        })
    }

    /// Speaks over a connected stream.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(REPLY_LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, pending: Vec::new() }
    }

    /// Shortens the time that a reply may take.
    pub fn patience(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// This end's address.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that no more will be sent.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends both directions.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends a GET and reads the reply.
    pub fn get(&mut self, path: &str) -> io::Result<Message> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n"))?;
        self.reply()
    }

    /// Reads a reply; interim ones (1xx) are left out.
    pub fn reply(&mut self) -> io::Result<Message> {
        loop {
            let reply = self.read(true)?.ok_or(ErrorKind::UnexpectedEof)?;
            if reply.status() >= 200 {
                return Ok(reply);
            }
        }
    }

    /// Reads a request; `None` when the peer is done.
    pub fn request(&mut self) -> io::Result<Option<Message>> {
        self.read(false)
    }

    /// Whether the peer closes the connection within the time that a reply may take, sending nothing more.
    pub fn is_closed(&mut self) -> bool {
        let mut more = [0; 256];
        match self.stream.read(&mut more) {
            Ok(length) => length == 0 && self.pending.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// The next bytes, as many as came.
    pub fn bytes(&mut self) -> io::Result<Vec<u8>> {
        if self.pending.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.pending))
    }

    fn read(&mut self, is_reply: bool) -> io::Result<Option<Message>> {
        let end = loop {
            if let Some(end) = find(&self.pending, b"\r\n\r\n") {
                break end;
            }
            if self.fill()? == 0 {
                return if self.pending.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        };
        let head: Vec<u8> = self.pending.drain(..end + 4).collect();
        let mut message = parse_head(&String::from_utf8_lossy(&head[..end]));
        message.body = self.read_body(&message, is_reply)?;
        Ok(Some(message))
    }

    fn read_body(&mut self, message: &Message, is_reply: bool) -> io::Result<Vec<u8>> {
        if is_reply && matches!(message.status(), 100..200 | 204 | 304) {
            return Ok(Vec::new());
        }
        if message.header("transfer-encoding").is_some() {
            return self.read_chunks();
        }
        if let Some(length) = message.header("content-length") {
            return self.take(length.parse().map_err(|_| ErrorKind::InvalidData)?);
        }
        if is_reply {
            while self.fill()? > 0 {}
            return Ok(std::mem::take(&mut self.pending));
        }
        Ok(Vec::new())
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(|_| ErrorKind::InvalidData)?;
            if length == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(length)?);
            self.take(2)?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.pending, b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill_some()?;
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            self.fill_some()?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn fill_some(&mut self) -> io::Result<()> {
        if self.fill()? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut more = [0; 16 * 1024];
        let length = self.stream.read(&mut more)?;
        self.pending.extend(&more[..length]);
        Ok(length)
    }
}

fn parse_head(head: &str) -> Message {
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let headers = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Message { start, headers, body: Vec::new() }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
