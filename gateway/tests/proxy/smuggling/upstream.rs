//! An upstream that writes down what it is sent, and takes nothing that could be read in two ways.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::FOLLOWED;
use crate::harness::LONG;

/// Stands behind a message whose end never came.
pub(super) const CUT: &str = "…";

/// Comes first on the connection that ends the recording. No request begins so.
const END: u8 = 0;

pub(super) struct Recorder {
    address: SocketAddr,
    serving: JoinHandle<Vec<Message>>,
}

impl Recorder {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, serving: thread::spawn(move || serve(&listener)) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it saw. The gateway has to be gone, so that every connection comes to an end.
    pub(super) fn finish(self) -> Vec<Message> {
        // Connections are accepted in their order, so none of the gateway's is missed.
        TcpStream::connect(self.address).unwrap().write_all(&[END]).unwrap();
        self.serving.join().unwrap()
    }
}

fn serve(listener: &TcpListener) -> Vec<Message> {
    let mut connections = Vec::new();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let mut first = [1];
        if stream.peek(&mut first).is_ok_and(|count| count == 1) && first == [END] {
            break;
        }
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        connections.push(thread::spawn(move || serve_connection(stream)));
    }
    connections.into_iter().flat_map(|connection| connection.join().unwrap()).collect()
}

fn serve_connection(mut stream: TcpStream) -> Vec<Message> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut seen = Vec::new();
    while let Some(message) = Message::read(&mut reader) {
        let mark = if message.line == "GET /following" { FOLLOWED } else { "" };
        let is_whole = message.is_whole;
        seen.push(message);
        if !is_whole {
            break;
        }
        // Without a body, so that the answers to HEAD and to GET look alike.
        let _ = write!(stream, "HTTP/1.1 204 No Content\r\n{mark}\r\n");
    }
    seen
}

/// One request.
#[derive(Debug)]
pub(super) struct Message {
    /// Method and target.
    line: String,
    fields: Vec<String>,
    /// How the body was framed, and what it was; then the trailers.
    body: String,
    is_whole: bool,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.body.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}{}", self.line, self.body, if self.is_whole { "" } else { CUT })
    }
}

impl Message {
    /// The next one; `None` at the end of the connection.
    ///
    /// # Panics
    /// If it can be read in two ways.
    fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let line = line(reader)?;
        let line = line.strip_suffix(" HTTP/1.1").unwrap_or_else(|| panic!("not a request line: {line:?}"));
        assert_eq!(line.split(' ').count(), 2, "not a request line: {line:?}");
        let mut message =
            Self { line: line.to_owned(), fields: Vec::new(), body: String::new(), is_whole: false };
        message.fields = fields(reader)?;
        message.is_whole = message.read_body(reader).is_some();
        Some(message)
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let named = |field: &'_ String| field.split_once(": ").is_some_and(|(n, _)| n == name);
        self.fields.iter().filter(|field| named(field)).map(|field| &field[name.len() + 2..]).collect()
    }

    fn read_body(&mut self, reader: &mut BufReader<TcpStream>) -> Option<()> {
        assert_eq!(self.values("host").len(), 1, "not one Host: {self:?}");
        let (lengths, codings) = (self.values("content-length"), self.values("transfer-encoding"));
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Some(()),
            ([length], []) => {
                let length = length.parse().unwrap();
                self.body = format!("{length}:");
                take(reader, length, &mut self.body)
            }
            ([], ["chunked"]) => self.read_chunks(reader),
            _ => panic!("framed in more than one way: {self:?}"),
        }
    }

    fn read_chunks(&mut self, reader: &mut BufReader<TcpStream>) -> Option<()> {
        self.body = "chunked:".to_owned();
        loop {
            let size = line(reader)?;
            let size =
                u64::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("not a chunk size: {size:?}"));
            if size == 0 {
                for trailer in fields(reader)? {
                    self.body.push_str(&format!(" + {trailer}"));
                }
                return Some(());
            }
            take(reader, size, &mut self.body)?;
            assert_eq!(line(reader)?, "", "a chunk is longer than its size says");
        }
    }

    /// The field lines in order of their names, without those that the gateway writes to say on whose behalf the
    /// request comes.
    pub(super) fn fields(&self) -> Vec<&str> {
        let host = self.values("host").concat();
        let quote = if host.contains([':', '[']) { "\"" } else { "" };
        let ours = [
            format!("forwarded: for=127.0.0.1;host={quote}{host}{quote};proto=http"),
            "x-forwarded-for: 127.0.0.1".to_owned(),
            format!("x-forwarded-host: {host}"),
            "x-forwarded-proto: http".to_owned(),
        ];
        let others = |field: &&String| !ours.contains(field);
        let mut fields: Vec<&str> = self.fields.iter().filter(others).map(String::as_str).collect();
        fields.sort_unstable();
        fields
    }
}

/// One line without its end, its bytes as Latin-1.
fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes).ok()?;
    if !bytes.ends_with(b"\n") {
        return None;
    }
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let line = text.strip_suffix("\r\n").unwrap_or_else(|| panic!("a line ends with LF alone: {text:?}"));
    let odd = |c: char| c != '\t' && (c < ' ' || c == '\x7f');
    assert!(!line.contains(odd), "a control character: {line:?}");
    Some(line.to_owned())
}

/// Field lines up to the empty one.
fn fields(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Some(fields);
        }
        let name = line.split(':').next().unwrap_or_default();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        assert!(!name.is_empty() && name.chars().all(is_token), "not a field: {line:?}");
        fields.push(line);
    }
}

/// Appends this many bytes, or what there is of them.
fn take(reader: &mut BufReader<TcpStream>, count: u64, text: &mut String) -> Option<()> {
    let mut bytes = Vec::new();
    let _ = reader.take(count).read_to_end(&mut bytes);
    text.extend(bytes.iter().map(|byte| char::from(*byte)));
    (bytes.len() as u64 == count).then_some(())
}
