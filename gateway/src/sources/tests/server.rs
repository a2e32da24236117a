//! A server of lists on loopback that answers by a script, over TLS with a certificate made for the test.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How a server answers one request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// These bytes, then an orderly end.
    Raw(String),
    /// These bytes, then the connection is torn, without the end that TLS asks for.
    Torn(String),
    /// These bytes, then nothing more, for ever.
    Stall(String),
}

impl Reply {
    pub(super) fn list(body: &str, etag: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: {etag}\r\n");
        Self::Raw(format!("{head}Last-Modified: Tue, 24 Nov 2026 00:00:00 GMT\r\n\r\n{body}"))
    }

    pub(super) fn status(status: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
    }

    pub(super) fn redirect(location: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    }

    pub(super) fn not_modified() -> Self {
        Self::Raw("HTTP/1.1 304 Not Modified\r\nETag: \"same\"\r\n\r\n".to_owned())
    }
}

/// Which certificate a server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certificate {
    Good,
    Expired,
    NotYet,
    OtherName,
    OtherAuthority,
    /// It speaks no TLS.
    None,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) at: Instant,
}

/// A running server; it ends when it is dropped.
pub(super) struct Server {
    pub(super) port: u16,
    script: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Answers with `script` in order; its last reply is repeated.
    pub(super) async fn start(authority: &Authority, certificate: Certificate, script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut server = Self {
            port: listener.local_addr().unwrap().port(),
            script: Arc::new(Mutex::new(script.iter().cloned().collect())),
            seen: Arc::default(),
            tasks: JoinSet::new(),
        };
        let acceptor = authority.acceptor(certificate);
        let (script, seen) = (Arc::clone(&server.script), Arc::clone(&server.seen));
        server.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen, acceptor) = (Arc::clone(&script), Arc::clone(&seen), acceptor.clone());
                connections.spawn(serve(stream, acceptor, script, seen));
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn answer(&self, script: &[Reply]) {
        *self.script.lock().unwrap() = script.iter().cloned().collect();
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Ends the server and waits until nothing listens any more.
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    script: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    match acceptor {
        None => exchange(stream, &script, &seen).await,
        // A client that refuses the certificate ends the handshake.
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                exchange(stream, &script, &seen).await;
            }
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: &Mutex<VecDeque<Reply>>,
    seen: &Mutex<Vec<Seen>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            // A greeting in TLS, to a server that speaks none.
            Ok(0x16) if head.is_empty() => {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                return;
            }
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(Seen { head, at: Instant::now() });
    let reply = {
        let mut script = script.lock().unwrap();
        if script.len() > 1 { script.pop_front().unwrap() } else { script[0].clone() }
    };
    // Where the client has gone away there is nobody to tell.
    let (Reply::Raw(bytes) | Reply::Torn(bytes) | Reply::Stall(bytes)) = &reply;
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.flush().await;
    match reply {
        Reply::Raw(_) => drop(stream.shutdown().await),
        Reply::Torn(_) => {}
        Reply::Stall(_) => tokio::time::sleep(Duration::from_secs(60)).await,
    }
}

/// An authority that tests trust, and another one that they do not.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    stranger: Issuer<'static, KeyPair>,
    pub(super) file: PathBuf,
}

impl Authority {
    /// Writes its certificate into `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        let file = dir.join("authority.pem");
        let (issuer, der) = issuer("trusted");
        let pem =
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&der));
        std::fs::write(&file, pem).unwrap();
        Self { issuer, stranger: self::issuer("stranger").0, file }
    }

    fn acceptor(&self, certificate: Certificate) -> Option<TlsAcceptor> {
        let name = if certificate == Certificate::OtherName { "other.example" } else { "127.0.0.1" };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        match certificate {
            Certificate::None => return None,
            Certificate::Expired => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
            Certificate::NotYet => params.not_before = rcgen::date_time_ymd(4000, 1, 1),
            _ => {}
        }
        let issuer = if certificate == Certificate::OtherAuthority { &self.stranger } else { &self.issuer };
        let key = KeyPair::generate().unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![params.signed_by(&key, issuer).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Some(TlsAcceptor::from(Arc::new(config)))
    }
}

fn issuer(name: &str) -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (Issuer::new(params, key), der)
}
