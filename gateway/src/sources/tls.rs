//! Whom a fetch trusts: the roots of the system, and the authority that the configuration names.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::files::read_bounded;

/// Bytes of a file of authorities: a system's whole set has about a quarter of that.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// How to speak TLS, built anew for each fetch: authorities are replaced while the agent runs, and reading them
/// takes milliseconds. It reads files, so it belongs on a blocking thread.
pub(super) fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca {
        add_authorities(&mut roots, path)?;
    }
    if roots.is_empty() {
        let why = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "this system has no root certificates{why}; install them (Debian: ca-certificates), or name a `ca`"
        ));
    }
    // The provider is named here rather than made the process's default: nothing else in it speaks TLS.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let cannot = |why: String| format!("the authorities in {} cannot be used: {why}", path.display());
    let pem = read_bounded(path, MAX_CA_BYTES).map_err(|error| cannot(error.to_string()))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| cannot(error.to_string()))?;
        roots.add(certificate).map_err(|error| cannot(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(cannot("there is no certificate in PEM in it".to_owned())) } else { Ok(()) }
}

/// What was wrong with a server's certificate, if that is what ended a handshake.
pub(super) fn certificate_reason(error: &Error) -> Option<String> {
    let Error::InvalidCertificate(reason) = error else { return None };
    Some(match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is this host's clock right?".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "no authority that this host trusts has issued it; a private one can be named as `ca`".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::BadSignature => "the authority that it names has not signed it".to_owned(),
        CertificateError::Revoked => "it was revoked".to_owned(),
        other => other.to_string(),
    })
}
