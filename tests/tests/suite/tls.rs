//! A listener under TLS, as a client that knows its authority meets it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use gateway_tests::{
    Agent, CLIENT_V4, Net, Nginx, Setup, UPSTREAM_V4, Upstream, eventually, require_root, skip,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::config;

/// Makes `ca.pem` in a directory, and signs certificates by it.
pub(crate) struct Authority<'a> {
    issuer: Issuer<'static, KeyPair>,
    directory: &'a Path,
}

impl<'a> Authority<'a> {
    pub(crate) fn new(directory: &'a Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(directory.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), directory }
    }

    /// Writes `file`.pem and `file`.key.
    pub(crate) fn sign(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.directory.join(format!("{file}.{ending}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
    }
}

/// What curl says of https://`name`/`path` from the client's host.
fn curl(net: &Net, authority: &Path, name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--cacert"])
        .arg(authority);
    command.args(["--resolve", &format!("{name}:8080:198.18.1.1"), &format!("https://{name}:8080/path")]);
    command.args(arguments);
    net.client.run(|| command.output().unwrap())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_client_meets_the_certificate_of_the_name_and_the_newest_one() {
    require_root!();
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skip("curl is not installed");
    }
    let net = Net::new();
    let upstream = Upstream::answering(&net, UPSTREAM_V4, |request| {
        let text = format!(
            "{} {}",
            request.header("x-forwarded-proto").unwrap_or_default(),
            request.header("client-cert").map_or(0, |field| field.len().min(1))
        );
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
    });
    let setup = Setup::new(&net);
    let directory = setup.directory().to_owned();
    let authority = Authority::new(&directory);
    authority.sign("shop", "shop.test");
    authority.sign("any", "*.blog.test");
    authority.sign("client", "a client");
    let tls = ", tls: {certificates: [{cert: shop.pem, key: shop.key}, {cert: any.pem, key: any.key}], \
               clients: {ca: ca.pem, required: false}}";
    let agent = setup.start(&config::with("interfaces: [front0]", tls, upstream.address()));
    let ca = directory.join("ca.pem");
    let shop = directory.join("shop.pem").display().to_string();
    // 4096-01-01, which the certificates of this test are good until.
    let ends = |seconds: f64| seconds == 67_090_118_400.0;
    agent.await_metric("gateway_tls_certificate_expiry_timestamp_seconds", &[("certificate", &shop)], ends);
    for name in ["shop.test", "my.blog.test"] {
        let output = curl(&net, &ca, name, &[]);
        assert_eq!(said(&output), "https 0", "{name}");
    }
    for (argument, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = curl(&net, &ca, "shop.test", &[argument, "--write-out", "\n%{http_version}"]);
        assert!(said(&output).ends_with(&format!("\n{version}")), "{argument}: {}", said(&output));
    }
    assert!(!curl(&net, &ca, "other.test", &[]).status.success(), "no certificate is for it");
    assert!(
        !curl(&net, &directory.join("any.pem"), "shop.test", &[]).status.success(),
        "nobody trusts its issuer"
    );
    agent.await_metric("gateway_accept_refused_total", &[("reason", "tls_handshake")], |sum| sum >= 1.0);
    let (cert, key) = (directory.join("client.pem"), directory.join("client.key"));
    let identity = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    assert_eq!(said(&curl(&net, &ca, "shop.test", &identity)), "https 1");

    // A certificate for another name comes into the file, and is taken without anybody's doing.
    authority.sign("shop", "renamed.test");
    eventually("the new certificate is shown", Duration::from_secs(20), || {
        let output = curl(&net, &ca, "renamed.test", &[]);
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    });
    // The key of another one is not; a reload says so, and what is in force stays.
    std::fs::copy(directory.join("any.key"), directory.join("shop.key")).unwrap();
    agent.cli(&["reload"]).fails_with(1).says(&["shop.key", "not that of the certificate"]);
    assert_eq!(said(&curl(&net, &ca, "renamed.test", &[])), "https 0");
    eventually("the log says so, too", Duration::from_secs(20), || {
        if agent.log().contains("the former one stays") { Ok(()) } else { Err("not yet") }
    });
}

#[test]
fn a_server_that_asks_for_a_certificate_is_reached_and_known() {
    require_root!();
    let net = Net::new();
    let setup = Setup::new(&net);
    let directory = setup.directory().to_owned();
    let authority = Authority::new(&directory);
    authority.sign("site", "files.test");
    authority.sign("gateway", "a gateway");
    let Some(_nginx) = Nginx::secure(&net, &directory) else { return skip("nginx is not installed") };
    let configuration = |tls: &str| {
        format!(
            "kernel: {{interfaces: [front0]}}\nlisteners: {{v4: {{address: \"198.18.1.1:8080\"}}}}\n\
             upstreams:\n  files: {{endpoints: [\"https://198.18.2.2:{}\"], tls: {{ca: ca.pem{tls}}}}}\n\
             routes: {{all: {{upstream: files}}}}\n",
            Nginx::PORT
        )
    };
    let identity = ", certificate: {cert: gateway.pem, key: gateway.key}";
    let agent = setup.start(&configuration(&format!(", name: files.test{identity}")));
    let mut connection = Agent::connect(&net, CLIENT_V4).unwrap();
    for (path, length) in [("/1k", 1 << 10), ("/1m", 1 << 20), ("/1k", 1 << 10)] {
        let reply = connection.get(path).unwrap();
        assert_eq!((reply.status(), reply.text().len()), (200, length), "{path}");
    }
    agent.await_metric("gateway_upstream_connects_total", &[("upstream", "files")], |sum| sum == 1.0);
    // Without one of ours nginx answers 400; under another name it is not whom we want.
    for (tls, status) in [(", name: files.test".to_owned(), 400), (identity.to_owned(), 502)] {
        agent.configure(&configuration(&tls));
        agent.cli(&["reload"]).ok();
        assert_eq!(connection.get("/1k").unwrap().status(), status, "{tls}");
    }
    assert!(agent.status().to_string().contains("it is for another name"));
}
