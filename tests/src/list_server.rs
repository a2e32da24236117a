//! A server of lists on the gateway host's loopback: HTTPS, with a certificate made for the test, and ETags.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use socket2::SockRef;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::net::Net;

/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server of one list; it ends when it is dropped.
#[derive(Debug)]
pub struct ListServer {
    listener: TcpListener,
    list: Arc<Mutex<String>>,
    replies: Arc<Mutex<Vec<u16>>>,
}

impl ListServer {
    /// Serves `list` at every path; the authority that signed for it is written to `authority`, in PEM.
    pub fn start(net: &Net, authority: &Path, list: &str) -> Self {
        let listener = net.gateway.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
        let config = Arc::new(config(authority));
        let server = Self {
            listener: listener.try_clone().unwrap(),
            list: Arc::new(Mutex::new(list.to_owned())),
            replies: Arc::default(),
        };
        let (list, replies) = (Arc::clone(&server.list), Arc::clone(&server.replies));
        std::thread::spawn(move || {
            // The listener is shut down when the server is dropped, and `accept` fails.
            while let Ok((stream, _)) = listener.accept() {
                let text = list.lock().unwrap().clone();
                if let Ok(status) = answer(stream, &config, &text) {
                    replies.lock().unwrap().push(status);
                }
            }
        });
        server
    }

    /// Where the list is.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.listener.local_addr().unwrap().port())
    }

    /// Serves another list from now on.
    pub fn serve(&self, list: &str) {
        list.clone_into(&mut self.list.lock().unwrap());
    }

    /// The status of every reply so far.
    pub fn replies(&self) -> Vec<u16> {
        self.replies.lock().unwrap().clone()
    }
}

impl Drop for ListServer {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// Answers one request; 304 to a client that has the list.
fn answer(stream: TcpStream, config: &Arc<ServerConfig>, list: &str) -> std::io::Result<u16> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let session = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(session, stream));
    let etag =
        format!("\"{:x}\"", list.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)));
    let mut known = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("if-none-match"));
        known |= field.is_some_and(|(_, value)| value.trim() == etag);
    }
    let mut stream = reader.into_inner();
    let status = if known { 304 } else { 200 };
    if known {
        write!(stream, "HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n")?;
    } else {
        let length = list.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: {etag}\r\n\r\n{list}")?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(status)
}

/// A certificate for loopback, signed by an authority that is written down.
fn config(authority: &Path) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "the suite's authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap();
    std::fs::write(authority, pem(own.der())).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap()
}

/// In base64 (RFC 4648), a certificate a file.
fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, three) in der.chunks(3).enumerate() {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let padding = digit > three.len();
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if padding { '=' } else { char::from(DIGITS[value]) });
        }
        // Sixty-four characters a line.
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    text + "\n-----END CERTIFICATE-----\n"
}
