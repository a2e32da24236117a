//! Certificates from an authority: pebble, the test server of those who run Let's Encrypt.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway_tests::{Net, Setup, eventually, require_root, skip};

use crate::tls::Authority;

/// Pebble, and a name server that says of every name that it is the gateway's. Both run on the client's host.
struct Pebble {
    processes: Vec<Child>,
}

impl Pebble {
    /// `None` where it is not installed. The directory has `pebble.pem` and `pebble.key`.
    fn start(net: &Net, directory: &Path) -> Option<Self> {
        Command::new("pebble").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        let at = directory.display();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "198.18.1.2:14000", "managementListenAddress": "198.18.1.2:15000",
            "certificate": "{at}/pebble.pem", "privateKey": "{at}/pebble.key", "httpPort": 5002, "tlsPort": 5001,
            "ocspResponderURL": "", "externalAccountBindingRequired": false}}}}"#
        );
        let file = directory.join("pebble.json");
        std::fs::write(&file, config).unwrap();
        let log = || std::fs::File::create(directory.join("pebble.log")).unwrap();
        let names = || {
            Command::new("pebble-challtestsrv")
                .args(["-defaultIPv6", "", "-defaultIPv4", "198.18.1.1", "-dns01", "127.0.0.1:8053"])
                .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:8055"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let pebble = || {
            Command::new("pebble")
                .arg("-config")
                .arg(&file)
                .args(["-dnsserver", "127.0.0.1:8053"])
                // It sleeps between attempts, and refuses some nonces on purpose; the second is worth keeping.
                .env("PEBBLE_VA_NOSLEEP", "1")
                .stdout(log())
                .stderr(log())
                .spawn()
        };
        let processes = net.client.run(|| vec![names().unwrap(), pebble().unwrap()]);
        Some(Self { processes })
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn curl(net: &Net, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "5", "--noproxy", "*"]).args(arguments);
    let output = net.client.run(|| command.output().unwrap());
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

#[test]
fn certificates_are_obtained_by_either_challenge() {
    require_root!();
    for challenge in ["http", "tls_alpn"] {
        let net = Net::new();
        let setup = Setup::new(&net);
        let directory = setup.directory().to_owned();
        Authority::new(&directory).sign("pebble", "198.18.1.2");
        let Some(_pebble) = Pebble::start(&net, &directory) else { return skip("pebble is not installed") };
        eventually("pebble answers", Duration::from_secs(10), || {
            curl(&net, &["--insecure", "https://198.18.1.2:14000/dir"])
        });
        let agent = setup.start(&format!(
            "kernel: {{interfaces: [front0]}}\n\
             listeners:\n  web: {{address: \"198.18.1.1:5002\"}}\n  secure:\n    address: \"198.18.1.1:5001\"\n    \
             tls: {{certificates: [{{acme: [shop.test, www.shop.test]}}]}}\n\
             acme: {{directory: \"https://198.18.1.2:14000/dir\", agree_to_terms: true, ca: ca.pem, storage: acme, \
             challenge: {challenge}, contact: [\"mailto:admin@shop.test\"]}}\n\
             routes: {{all: {{respond: {{body: hello}}}}}}\n"
        ));
        let roots = directory.join("roots.pem");
        let root = curl(&net, &["--insecure", "https://198.18.1.2:15000/roots/0"]).unwrap();
        std::fs::write(&roots, root).unwrap();
        for name in ["shop.test", "www.shop.test"] {
            let (resolve, url) = (format!("{name}:5001:198.18.1.1"), format!("https://{name}:5001/"));
            let trusted = ["--cacert", roots.to_str().unwrap(), "--resolve", &resolve, &url];
            let answer = eventually("the certificate is there", Duration::from_secs(40), || {
                curl(&net, &trusted).map_err(|why| format!("{challenge}: {why}\n{}", agent.log()))
            });
            assert_eq!(answer, "hello", "{challenge}: {name}");
        }
        agent.await_metric("gateway_acme_orders_total", &[("result", "ok")], |sum| sum == 1.0);
        // No challenge is answered any more, and the account is kept for the next time.
        let stale = curl(&net, &["http://198.18.1.1:5002/.well-known/acme-challenge/x"]).unwrap();
        assert_eq!(stale, "hello", "{challenge}");
        assert!(directory.join("acme/account.json").exists());
    }
}

#[test]
fn an_authority_that_is_not_there_keeps_nobody_from_starting() {
    require_root!();
    let net = Net::new();
    let agent = Setup::new(&net).start(
        "kernel: {interfaces: [front0]}\n\
         listeners:\n  secure: {address: \"198.18.1.1:5001\", tls: {certificates: [{acme: [shop.test]}]}}\n\
         acme: {directory: \"https://198.18.1.2:14000/dir\", agree_to_terms: true, storage: acme}\n\
         routes: {all: {respond: {body: hello}}}\n",
    );
    agent.await_log("no certificate was issued; the next attempt is in 60s");
    agent.await_metric("gateway_acme_orders_total", &[("result", "error")], |sum| sum == 1.0);
    // One that nobody trusts is shown meanwhile.
    let url = ["--resolve", "shop.test:5001:198.18.1.1", "https://shop.test:5001/"];
    assert!(curl(&net, &url).is_err());
    assert_eq!(curl(&net, &[&["--insecure"], &url[..]].concat()).unwrap(), "hello");
}
