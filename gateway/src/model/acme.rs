//! Certificates that an authority issues by itself.

use std::path::PathBuf;

use super::CertificateFiles;

/// How certificates are obtained by ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The authority's directory, a URL.
    pub directory: String,
    /// How the authority reaches those who answer for the names: `mailto:` URLs.
    pub contact: Vec<String>,
    /// The directory of certificates, keys and the account.
    pub storage: PathBuf,
    /// The authorities that the directory's own certificate may be from beside the system's, as a file in PEM.
    pub ca: Option<PathBuf>,
    /// How names are proved to be ours.
    pub challenge: AcmeChallenge,
    /// The names of each certificate.
    pub certificates: Vec<Vec<String>>,
}

impl Acme {
    /// The files of the certificate for these names.
    pub fn files(&self, names: &[String]) -> CertificateFiles {
        let stem = names.first().map_or("none", String::as_str).replace('*', "_");
        let file = |ending| self.storage.join(format!("{stem}.{ending}"));
        CertificateFiles { cert: file("pem"), key: file("key"), ocsp: None }
    }
}

/// How a name is proved to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// HTTP-01: by an answer on port 80.
    Http,
    /// TLS-ALPN-01: by a handshake on port 443.
    TlsAlpn,
}
