//! The files that the tables of configurations name.

use std::sync::OnceLock;

/// A directory with them.
pub(super) fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files: &[(&str, &[u8])] = &[
        ("good.txt", b"# two\n192.0.2.0/24\n2001:db8::/32 reason=its-own shadow\n"),
        ("drop.txt", b"192.0.2.0/24 ; SBL1\n"),
        ("bad.txt", b"192.0.2.1\n10.0.0.1/8 ; comment\n\n  nonsense\n\xff\n"),
        ("bad.nft", b"table ip t {\n  set s {\n    elements = { 192.0.2.1/24, nonsense }\n  }\n}\n"),
        ("ttl.txt", b"192.0.2.1 ttl=5m\n"),
        ("table.csv", b"network,other\n192.0.2.0/24,198.51.100.0/24\n"),
        ("rubbish.mmdb", b"\x00\x01\x02"),
        ("secret.txt", b"hunter2\n"),
        ("name.txt", b"users\r\n"),
        ("endpoints.yaml", b"- http://10.1.0.1:9001\n- {url: https://10.1.0.2, priority: 1}\n"),
        ("bad-endpoints.yaml", b"- http://10.1.0.1:9001\n- {url: 10.1.0.2, weigth: 2}\n"),
    ];
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).expect("a file in it");
    }
    for (name, text) in certificates() {
        std::fs::write(dir.path().join(name), text).expect("a file in it");
    }
    dir
}

/// Two certificates with their keys, in PEM, under the names that examples give them; made once.
fn certificates() -> &'static [(&'static str, String); 7] {
    static MADE: OnceLock<[(&str, String); 7]> = OnceLock::new();
    MADE.get_or_init(|| {
        let made =
            || rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).expect("a certificate");
        let (site, other) = (made(), made());
        [
            ("site.pem", site.cert.pem()),
            ("site.key", site.signing_key.serialize_pem()),
            ("clients.pem", other.cert.pem()),
            ("internal-ca.pem", other.cert.pem()),
            ("gateway.pem", other.cert.pem()),
            ("gateway.key", other.signing_key.serialize_pem()),
            ("other.key", other.signing_key.serialize_pem()),
        ]
    })
}
