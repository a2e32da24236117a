//! How a listener speaks TLS.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{ServerConfig, version};

use crate::acme::TLS_ALPN;
use crate::model;

#[cfg(feature = "http3")]
use super::HTTP3;
use super::certificates::Certificates;
use super::{HTTP1, HTTP2, Settings, authorities, of_certificate};

impl Settings for model::Tls {
    type Config = ServerConfig;

    fn paths(&self) -> Vec<&Path> {
        let certificates = self.certificates.iter().flat_map(of_certificate);
        certificates.chain(self.clients.iter().map(|clients| clients.ca.as_path())).collect()
    }

    fn config(&self) -> Result<ServerConfig, String> {
        // The provider is named here rather than made the process's default: who speaks TLS says how.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = Certificates::load(&self.certificates, &provider)?;
        let versions: &[_] = match self.min_version {
            model::TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
            model::TlsVersion::V1_3 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        let protocols: &[&[u8]] = if self.http2 { &[HTTP2, HTTP1, TLS_ALPN] } else { &[HTTP1, TLS_ALPN] };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// The same for HTTP/3, which is the only thing that is spoken over QUIC. No early data are taken: whoever records them
/// could send them once more.
#[cfg(feature = "http3")]
pub(crate) fn for_http3(config: &ServerConfig) -> ServerConfig {
    let mut config = config.clone();
    config.alpn_protocols = vec![HTTP3.to_vec()];
    config.max_early_data_size = 0;
    config
}

fn verifier(
    clients: &model::ClientAuthority,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(&clients.ca)?), provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| error.to_string())
}
