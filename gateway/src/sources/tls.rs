//! Whom a fetch trusts: the roots of the system, and the authority that the configuration names.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::tls;

/// How to speak TLS, built anew for each fetch: authorities are replaced while the agent runs, and reading them
/// takes milliseconds. It reads files, so it belongs on a blocking thread.
pub(super) fn client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        None => tls::system_roots()?,
        Some(path) => {
            // A private authority is enough where the system knows none.
            let mut roots = tls::system_roots().unwrap_or_else(|_| RootCertStore::empty());
            let cannot = |why| format!("the authorities in {} cannot be used: {why}", path.display());
            roots.roots.extend(tls::authorities(path).map_err(cannot)?.roots);
            roots
        }
    };
    // The provider is named here rather than made the process's default: who speaks TLS says how.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
