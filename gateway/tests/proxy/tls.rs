//! TLS on listeners and to upstreams, with real handshakes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::model;
use gateway::proxy::{Proxy, ProxyError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use socket2::SockRef;
use tempfile::TempDir;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, ProtocolVersion,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme, StreamOwned, version,
};

use crate::harness::*;
use crate::name_server::NameServer;

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

/// A directory of certificates, and who signs them.
pub(crate) struct Files {
    dir: TempDir,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Files {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let issuer = authority("an authority");
        std::fs::write(dir.path().join("ca.pem"), issuer.1).unwrap();
        Self { dir, issuer: issuer.0 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server that shows a certificate for these names, which is good from then to then.
    pub(crate) fn server(
        &self,
        names: &[&str],
        time: Option<(time::OffsetDateTime, time::OffsetDateTime)>,
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if let Some(time) = time {
            (params.not_before, params.not_after) = time;
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.unwrap())
    }

    /// Writes a certificate for these names and its key.
    pub(crate) fn certificate(&self, file: &str, names: &[&str]) -> model::CertificateFiles {
        let (certificate, key) = signed(&self.issuer, names);
        let files = model::CertificateFiles {
            cert: self.path(&format!("{file}.pem")),
            key: self.path(&format!("{file}.key")),
            ocsp: None,
        };
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

pub(crate) fn signed(issuer: &Issuer<'static, KeyPair>, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    (CertificateParams::new(names).unwrap().signed_by(&key, issuer).unwrap(), key)
}

pub(crate) fn tls(certificates: Vec<model::CertificateFiles>) -> model::Tls {
    model::Tls { certificates, min_version: model::TlsVersion::V1_2, http2: true, clients: None }
}

pub(crate) fn secure(up: &Upstream, tls: model::Tls) -> model::Proxy {
    let mut model = model(&[up.address]);
    model.listeners[0].tls = Some(tls);
    model
}

/// What a client saw of the server; it takes every certificate.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The leaf and the stapled response.
    last: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.last.lock().unwrap() = Some((leaf.to_vec(), ocsp.to_vec()));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

pub(crate) fn client_config(
    shown: &Arc<Shown>,
    identity: Option<(rcgen::Certificate, KeyPair)>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(shown) as Arc<dyn ServerCertVerifier>);
    match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    }
}

pub(crate) fn greet(proxy: &Proxy, config: &Arc<ClientConfig>, name: &'static str) -> Client {
    let name = ServerName::try_from(name).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), connect(proxy))
}

/// Asks for / and reads a response with a length; `None` if the connection breaks.
pub(crate) fn ask(client: &mut Client, fields: &str) -> Option<String> {
    client.write_all(format!("GET / HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n").as_bytes()).ok()?;
    let mut read = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
}

fn der(path: &Path) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

#[test]
fn a_request_over_tls_is_forwarded_as_https() {
    let files = Files::new();
    let up = echo();
    let proxy = start(&secure(&up, tls(vec![files.certificate("a", &["a.test"])])));
    let mut config = client_config(&Arc::default(), None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut client = greet(&proxy, &Arc::new(config), "a.test");
    for _ in 0..2 {
        let answer =
            ask(&mut client, "x-forwarded-proto: http\r\nclient-cert: :AAAA:\r\nClient_Cert: x\r\n").unwrap();
        assert_eq!(status(&answer), "200");
        assert!(answer.contains("\r\nx-forwarded-proto: https\r\n"), "{answer}");
        assert!(answer.contains("forwarded: for=127.0.0.1;host=a.test;proto=https\r\n"), "{answer}");
        assert!(
            !answer.to_lowercase().contains("client-cert") && !answer.contains("client_cert"),
            "{answer}"
        );
    }
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(client.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    // A refusal is written under TLS as well.
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert_eq!(status(&String::from_utf8_lossy(&rest)), "400");
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let files = Files::new();
    let up = echo();
    let names =
        [("first", "first.test"), ("exact", "a.b.test"), ("wildcard", "*.b.test"), ("other", "Other.Test")];
    let mut certificates: Vec<_> =
        names.iter().map(|(file, name)| files.certificate(file, &[name])).collect();
    let ocsp = files.path("exact.ocsp");
    std::fs::write(&ocsp, [0x30, 0x03, 0x0a, 0x01, 0x06]).unwrap();
    certificates[1].ocsp = Some(ocsp);
    let proxy = start(&secure(&up, tls(certificates)));
    for (name, file, staple) in [
        ("first.test", "first", 0),
        ("a.b.test", "exact", 5),
        ("A.B.test", "exact", 5),
        ("c.b.test", "wildcard", 0),
        ("d.c.b.test", "first", 0),
        ("b.test", "first", 0),
        ("other.test", "other", 0),
        ("unknown.test", "first", 0),
        // No name at all: an address is none.
        ("127.0.0.1", "first", 0),
    ] {
        let shown = Arc::<Shown>::default();
        let mut client = greet(&proxy, &Arc::new(client_config(&shown, None)), name);
        assert_eq!(ask(&mut client, "").as_deref().map(status), Some("200"), "{name}");
        let (leaf, ocsp) = shown.last.lock().unwrap().take().unwrap();
        assert!(leaf == der(&files.path(&format!("{file}.pem"))), "{name} should get {file}");
        assert_eq!(ocsp.len(), staple, "{name}");
    }
}

#[test]
fn a_client_that_comes_again_takes_its_session_up() {
    let files = Files::new();
    let up = echo();
    let mut model = secure(&up, tls(vec![files.certificate("a", &["a.test"])]));
    model.workers = 2;
    let proxy = start(&model);
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Shown>::default())
            .with_no_client_auth();
        let config = Arc::new(config);
        let kinds = (0..4).map(|_| {
            let mut client = greet(&proxy, &config, "a.test");
            ask(&mut client, "").unwrap();
            client.conn.handshake_kind().unwrap()
        });
        let kinds: Vec<_> = kinds.collect();
        assert_eq!(kinds[0], HandshakeKind::Full);
        // Whichever worker it meets.
        assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
    }
}

#[test]
fn versions_older_than_the_oldest_are_refused() {
    let files = Files::new();
    let up = echo();
    let mut settings = tls(vec![files.certificate("a", &["a.test"])]);
    let old = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Shown>::default())
        .with_no_client_auth();
    let old = Arc::new(old);
    for (oldest, answered) in [(model::TlsVersion::V1_2, true), (model::TlsVersion::V1_3, false)] {
        settings.min_version = oldest;
        let proxy = start(&secure(&up, settings.clone()));
        assert_eq!(ask(&mut greet(&proxy, &old, "a.test"), "").is_some(), answered, "{oldest:?}");
    }
}

#[test]
fn clients_certificates_are_verified_and_shown_to_the_upstream() {
    let files = Files::new();
    let up = echo();
    let mut settings = tls(vec![files.certificate("a", &["a.test"])]);
    let stranger = authority("a stranger").0;
    for required in [true, false] {
        settings.clients = Some(model::ClientAuthority { ca: files.path("ca.pem"), required });
        let proxy = start(&secure(&up, settings.clone()));
        let shows = |identity| {
            let config = Arc::new(client_config(&Arc::default(), identity));
            ask(
                &mut greet(&proxy, &config, "a.test"),
                "client-cert: :Zm9yZ2Vk:\r\nclient-cert-chain: :eA==:\r\n",
            )
        };
        let good = shows(Some(signed(&files.issuer, &["a client"]))).unwrap();
        let field = good.lines().find_map(|line| line.strip_prefix("client-cert: ")).unwrap();
        // A byte sequence of a certificate, which in DER begins with 0x30 0x82.
        assert!(field.starts_with(":MII") && field.ends_with(':') && field.len() > 300, "{good}");
        assert!(!good.contains("client-cert-chain") && !good.contains("Zm9yZ2Vk"), "{good}");
        assert!(shows(Some(signed(&stranger, &["a stranger"]))).is_none(), "required: {required}");
        let nobody = shows(None);
        assert_eq!(nobody.is_some(), !required);
        assert!(nobody.is_none_or(|answer| !answer.contains("client-cert")));
    }
}

#[test]
fn files_that_are_replaced_are_taken_and_wrong_ones_are_not() {
    let files = Files::new();
    let up = echo();
    let certificate = files.certificate("a", &["a.test"]);
    let model = secure(&up, tls(vec![certificate.clone()]));
    let proxy = start(&model);
    let shown = Arc::<Shown>::default();
    let leaf = || {
        let mut client = greet(&proxy, &Arc::new(client_config(&shown, None)), "a.test");
        assert!(ask(&mut client, "").is_some());
        shown.last.lock().unwrap().take().unwrap().0
    };
    let mut early = greet(&proxy, &Arc::new(client_config(&Arc::default(), None)), "a.test");
    assert!(ask(&mut early, "").is_some());
    let first = der(&certificate.cert);
    assert!(leaf() == first);
    assert_eq!(proxy.renew_certificates(), 0);

    files.certificate("a", &["a.test"]);
    let second = der(&certificate.cert);
    assert_eq!(proxy.renew_certificates(), 0, "they may still be changing");
    assert_eq!(proxy.renew_certificates(), 1);
    assert_eq!(proxy.renew_certificates(), 0);
    assert!(leaf() == second && second != first);
    assert!(ask(&mut early, "").is_some(), "connections go on");

    // The certificate of one pair and the key of another; then rubbish; then nothing.
    let other = files.certificate("b", &["a.test"]);
    std::fs::copy(&other.key, &certificate.key).unwrap();
    let refused = |what: &str| {
        assert_eq!((proxy.renew_certificates(), proxy.renew_certificates()), (0, 0), "{what}");
        assert!(leaf() == second, "{what}");
        let error = proxy.reload(&model).unwrap_err();
        assert!(matches!(error, ProxyError::Tls { .. }), "{what}: {error}");
        assert!(error.to_string().contains(files.dir.path().to_str().unwrap()), "{what}: {error}");
        assert!(leaf() == second, "{what}");
    };
    refused("another key");
    std::fs::write(&certificate.cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    refused("rubbish");
    std::fs::remove_file(&certificate.cert).unwrap();
    refused("nothing");
    std::fs::copy(&other.cert, &certificate.cert).unwrap();
    // A reload waits for no second look.
    proxy.reload(&model).unwrap();
    assert!(leaf() == der(&other.cert));
}

#[test]
fn who_does_not_shake_hands_is_cut_off() {
    let files = Files::new();
    let up = echo();
    let mut model = secure(&up, tls(vec![files.certificate("a", &["a.test"])]));
    model.listeners[0].header_timeout = Duration::from_millis(300);
    let proxy = start(&model);
    let mut silent = connect(&proxy);
    assert_eq!(read_rest(&mut silent, LONG), (String::new(), true));
    // An HTTP request in the clear is no greeting.
    let (answer, closed) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(closed && !answer.contains("HTTP"), "{answer}");
    // The time for a header begins anew behind the handshake, and its end is answered as ever.
    let mut slow = greet(&proxy, &Arc::new(client_config(&Arc::default(), None)), "a.test");
    std::thread::sleep(Duration::from_millis(200));
    slow.write_all(b"GET / HT").unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert_eq!(status(&String::from_utf8_lossy(&rest)), "408");
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    eventually("connections end", || proxy.status().listeners[0].connections == 0);
}

#[test]
fn a_drain_does_not_wait_for_handshakes() {
    let files = Files::new();
    let up = echo();
    let proxy = start(&secure(&up, tls(vec![files.certificate("a", &["a.test"])])));
    let _silent = connect(&proxy);
    let mut served = greet(&proxy, &Arc::new(client_config(&Arc::default(), None)), "a.test");
    assert!(ask(&mut served, "").is_some());
    eventually("both are there", || proxy.status().listeners[0].connections == 2);
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let drained = runtime.block_on(proxy.drain(LONG));
    assert_eq!(drained.cut, 0);
    assert!(began.elapsed() < LONG / 2);
    let mut rest = Vec::new();
    // An orderly end: rustls would say UnexpectedEof otherwise.
    assert_eq!(served.read_to_end(&mut rest).unwrap(), 0);
}

#[test]
fn large_bodies_go_both_ways() {
    // More than a socket holds.
    const LENGTH: usize = 12 << 20;
    let files = Files::new();
    let up = upstream(|mut conn| {
        while let Some(head) = conn.head() {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body = conn.body(length.unwrap().parse().unwrap());
            conn.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            conn.stream.write_all(&body).unwrap();
        }
    });
    let proxy = start(&secure(&up, tls(vec![files.certificate("a", &["a.test"])])));
    let mut client = greet(&proxy, &Arc::new(client_config(&Arc::default(), None)), "a.test");
    // A small window, so that records wait in front of the socket.
    SockRef::from(&client.sock).set_recv_buffer_size(16 * 1024).unwrap();
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    client
        .write_all(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n").as_bytes())
        .unwrap();
    client.write_all(&sent).unwrap();
    client.flush().unwrap();
    let mut read = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let head_end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let count = client.read(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..count]);
    };
    while read.len() < head_end + LENGTH {
        if read.len() % 8 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0);
        read.extend_from_slice(&buffer[..count]);
    }
    assert!(read[head_end..] == sent[..]);
}

/// A server under TLS that tells each request how it was spoken to: by which name, and with a certificate or without.
pub(crate) fn secure_upstream(files: &Files, names: &[&str]) -> Upstream {
    let (certificate, key) = signed(&files.issuer, names);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der(&files.path("ca.pem")))).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
    let config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    upstream(move |conn| {
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(session, conn.stream);
        let mut read = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            while !read.ends_with(b"\r\n\r\n") && !read.ends_with(b"a body") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => read.extend_from_slice(&buffer[..count]),
                }
            }
            read.clear();
            let name = stream.conn.server_name().unwrap_or("none").to_owned();
            let shown = stream.conn.peer_certificates().is_some();
            let text = format!("{name} {shown}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

pub(crate) fn trusting(files: &Files) -> model::UpstreamTls {
    model::UpstreamTls {
        ca: Some(files.path("ca.pem")),
        name: None,
        identity: None,
        verify: true,
        protocol: model::Protocol::Http1,
    }
}

pub(crate) fn to_secure(up: &Upstream, tls: model::UpstreamTls) -> model::Proxy {
    let mut model = model(&[up.address]);
    model.upstreams[0].endpoints[0].is_secure = true;
    model.upstreams[0].tls = Some(tls);
    model
}

#[test]
fn an_upstream_under_tls_has_to_be_who_it_should_be() {
    let (files, strangers) = (Files::new(), Files::new());
    let (by_address, by_name) =
        (secure_upstream(&files, &["127.0.0.1"]), secure_upstream(&files, &["up.test"]));
    let named = model::UpstreamTls { name: Some("up.test".to_owned()), ..trusting(&files) };
    let identity = Some(files.certificate("gateway", &["a gateway"]));
    let blind = model::UpstreamTls { ca: None, verify: false, ..trusting(&files) };
    for (what, up, tls, expected) in [
        ("its address", &by_address, trusting(&files), Ok("none false")),
        ("a name that is configured", &by_name, named.clone(), Ok("up.test false")),
        ("another name", &by_name, trusting(&files), Err("it is for another name")),
        (
            "another authority",
            &by_address,
            trusting(&strangers),
            Err("the authority that it names has not signed it"),
        ),
        ("not verified", &by_name, blind, Ok("none false")),
        (
            "with a certificate of ours",
            &by_name,
            model::UpstreamTls { identity, ..named },
            Ok("up.test true"),
        ),
    ] {
        let proxy = start(&to_secure(up, tls));
        let answer = get(&mut connect(&proxy));
        match expected {
            Ok(text) => assert!(answer.ends_with(&format!("\r\n\r\n{text}")), "{what}: {answer}"),
            Err(why) => {
                assert_eq!(status(&answer), "502", "{what}");
                assert!(answer.contains("upstream_tls"), "{what}: {answer}");
                let error = proxy.status().endpoints[0].last_error.clone().unwrap();
                assert!(error.contains(why), "{what}: {error}");
            }
        }
    }
}

#[test]
fn connections_under_tls_serve_many_requests() {
    let files = Files::new();
    let up = secure_upstream(&files, &["127.0.0.1"]);
    let proxy = start(&to_secure(&up, trusting(&files)));
    let mut client = connect(&proxy);
    for _ in 0..5 {
        assert_eq!(status(&get(&mut client)), "200");
    }
    assert_eq!(up.accepted.load(Ordering::SeqCst), 1);
    // A request that may not be sent twice asks the socket first.
    for _ in 0..5 {
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\na body").unwrap();
        assert_eq!(status(&response(&mut client)), "200");
    }
    assert!(up.accepted.load(Ordering::SeqCst) <= 2);
    // Another trust is another connection, and a reload without a change is none.
    proxy.reload(&to_secure(&up, trusting(&files))).unwrap();
    let before = up.accepted.load(Ordering::SeqCst);
    assert_eq!(status(&get(&mut client)), "200");
    assert_eq!(up.accepted.load(Ordering::SeqCst), before);
    let stricter = model::UpstreamTls { name: Some("other.test".to_owned()), ..trusting(&files) };
    proxy.reload(&to_secure(&up, stricter)).unwrap();
    assert_eq!(status(&get(&mut client)), "502");
}

#[test]
fn an_upstream_that_was_found_by_its_name_has_to_have_it() {
    let files = Files::new();
    let names = NameServer::start(60);
    names.has_addresses("up.test", &["127.0.0.1"]);
    for (certified, expected) in [("up.test", "200"), ("127.0.0.1", "502")] {
        let up = secure_upstream(&files, &[certified]);
        let mut model = to_secure(&up, trusting(&files));
        model.upstreams[0].endpoints.clear();
        model.upstreams[0].discovery = Some(model::Discovery::Dns(model::DnsDiscovery {
            name: "up.test".to_owned(),
            records: model::Records::Addresses { port: up.address.port() },
            is_secure: true,
            family: model::Family::V4,
            resolvers: Some(vec![names.address]),
            min_ttl: Duration::from_secs(60),
            max_ttl: Duration::from_secs(60),
        }));
        let answer = get(&mut connect(&start(&model)));
        assert_eq!(status(&answer), expected, "{certified}: {answer}");
    }
}

#[test]
fn an_upstream_that_does_not_shake_hands_is_given_up() {
    let files = Files::new();
    let silent = upstream(|mut conn| while conn.stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {});
    let mut model = to_secure(&silent, trusting(&files));
    model.upstreams[0].connect_timeout = Duration::from_millis(300);
    let answer = get(&mut connect(&start(&model)));
    assert_eq!(status(&answer), "504");
    // It speaks HTTP in the clear.
    let plain = upstream(|mut conn| {
        let mut greeting = [0; 1024];
        let _ = conn.stream.read(&mut greeting);
        conn.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    });
    let answer = get(&mut connect(&start(&to_secure(&plain, trusting(&files)))));
    assert_eq!(status(&answer), "502");
    assert!(answer.contains("upstream_tls"), "{answer}");
}

#[test]
fn authorities_of_upstreams_that_are_replaced_are_taken() {
    let (files, others) = (Files::new(), Files::new());
    let up = secure_upstream(&files, &["127.0.0.1"]);
    let proxy = start(&to_secure(&up, trusting(&others)));
    assert_eq!(status(&get(&mut connect(&proxy))), "502");
    std::fs::copy(files.path("ca.pem"), others.path("ca.pem")).unwrap();
    assert_eq!((proxy.renew_certificates(), proxy.renew_certificates()), (0, 1));
    eventually("the upstream is trusted", || status(&get(&mut connect(&proxy))) == "200");
}

#[test]
fn the_version_of_http_is_agreed_on_in_the_handshake() {
    let files = Files::new();
    let up = echo();
    let setting = tls(vec![files.certificate("a", &["a.test"])]);
    let old = model::Tls { http2: false, ..setting.clone() };
    for (name, setting, offered, expected) in [
        ("both", setting.clone(), &["http/1.1", "h2"][..], Some("h2")),
        ("HTTP/1.1 alone", setting.clone(), &["http/1.1"], Some("http/1.1")),
        ("nothing", setting, &[], None),
        ("a listener without HTTP/2", old, &["h2", "http/1.1"], Some("http/1.1")),
    ] {
        let proxy = start(&secure(&up, setting));
        let mut config = client_config(&Arc::default(), None);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = greet(&proxy, &Arc::new(config), "a.test");
        let preface: &[u8] = if expected == Some("h2") {
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
        } else {
            b"x\r\n\r\n"
        };
        client.write_all(preface).unwrap();
        let mut begin = [0; 5];
        client.read_exact(&mut begin).unwrap();
        assert_eq!(client.conn.alpn_protocol(), expected.map(str::as_bytes), "{name}");
        // The first frame of a server is SETTINGS.
        assert_eq!(begin[3] == 4, expected == Some("h2"), "{name}: {begin:?}");
    }
}

/// Sends a hello by hand, in two pieces, and reads what comes back until the connection ends.
fn hello_in_pieces(proxy: &Proxy, name: &'static str) -> usize {
    let config = Arc::new(client_config(&Arc::default(), None));
    let mut session = ClientConnection::new(config, ServerName::try_from(name).unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut stream = connect(proxy);
    let (first, second) = hello.split_at(hello.len() / 2);
    stream.write_all(first).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    stream.write_all(second).unwrap();
    stream.read(&mut [0; 4096]).unwrap_or(0)
}

#[test]
fn connections_are_passed_on_by_the_name_they_ask_for() {
    let files = Files::new();
    let (behind, plain) = (secure_upstream(&files, &["p.test"]), echo());
    let mut model = secure(&plain, tls(vec![files.certificate("a", &["a.test"])]));
    let mut through = model.upstreams[0].clone();
    through.name = "behind".to_owned();
    through.endpoints = vec![model::Endpoint::tcp(behind.address)];
    model.upstreams.push(through);
    let names =
        [model::HostPattern::Exact("p.test".to_owned()), model::HostPattern::Wildcard(".p.test".to_owned())];
    model.listeners[0].passthrough = vec![model::Passthrough { server_names: names.to_vec(), upstream: 1 }];
    let proxy = start(&model);
    for (name, by_upstream) in [("p.test", true), ("x.p.test", true), ("a.test", false), ("q.test", false)] {
        let shown = Arc::<Shown>::default();
        let mut client = greet(&proxy, &Arc::new(client_config(&shown, None)), name);
        let answer = ask(&mut client, "").unwrap();
        assert_eq!(answer.ends_with(&format!("{name} false")), by_upstream, "{name}: {answer}");
        let (certificate, _) = shown.last.lock().unwrap().clone().unwrap();
        assert_eq!(certificate != der(&files.path("a.pem")), by_upstream, "{name}: whose certificate it is");
    }
    assert!(hello_in_pieces(&proxy, "p.test") > 0, "a hello may come in pieces");
    eventually("the tunnels stay", || proxy.status().endpoints.iter().all(|endpoint| endpoint.in_use == 0));
    // Without TLS of its own, a listener refuses the rest.
    model.listeners[0].tls = None;
    let proxy = start(&model);
    assert!(hello_in_pieces(&proxy, "p.test") > 0);
    assert_eq!(hello_in_pieces(&proxy, "a.test"), 0);
    let (answer, closed) = talk(&proxy, b"GET / HTTP/1.1\r\nhost: p.test\r\n\r\n");
    assert_eq!((answer.as_str(), closed), ("", true), "it is no hello");
}

#[test]
fn who_is_passed_on_is_announced_or_told_that_nobody_is_there() {
    let files = Files::new();
    let (heard, line) = std::sync::mpsc::channel();
    let up = upstream(move |mut conn| {
        let _ = heard.send(conn.body(28));
    });
    let mut model = secure(&up, tls(vec![files.certificate("a", &["a.test"])]));
    let names = vec![model::HostPattern::Exact("p.test".to_owned())];
    model.listeners[0].passthrough = vec![model::Passthrough { server_names: names, upstream: 0 }];
    model.upstreams[0].proxy_protocol = Some(model::ProxyVersion::V2);
    hello_in_pieces(&start(&model), "p.test");
    let said = line.recv_timeout(LONG).unwrap();
    assert_eq!(
        (&said[..12], &said[12..20]),
        (&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0, 12, 127, 0, 0, 1][..])
    );
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    model.upstreams[0].endpoints = vec![model::Endpoint::tcp(nobody)];
    let proxy = start(&model);
    assert_eq!(hello_in_pieces(&proxy, "p.test"), 0);
    assert!(proxy.status().endpoints[0].last_error.is_some());
}
