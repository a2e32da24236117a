//! How the gateway speaks TLS to servers.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::model;

use super::certificates::load;
use super::{HTTP1, HTTP2, Settings, authorities, of_certificate};

impl Settings for model::UpstreamTls {
    type Config = ClientConfig;

    fn paths(&self) -> Vec<&Path> {
        self.ca.as_deref().into_iter().chain(self.identity.iter().flat_map(of_certificate)).collect()
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = match &self.ca {
            Some(ca) => authorities(ca)?,
            None if self.verify => system_roots()?,
            None => RootCertStore::empty(),
        };
        let verifier: Arc<dyn ServerCertVerifier> = if self.verify {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            builder.build().map_err(|error| error.to_string())?
        } else {
            Arc::new(Anybody)
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let identity = Arc::new(load(files, &provider)?);
                builder.with_client_cert_resolver(Arc::new(
                    tokio_rustls::rustls::sign::SingleCertAndKey::from(identity),
                ))
            }
        };
        let protocols: &[&[u8]] = match self.protocol {
            model::Protocol::Http1 => &[HTTP1],
            model::Protocol::Http2 => &[HTTP2],
            model::Protocol::Auto => &[HTTP2, HTTP1],
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// The authorities that the system trusts.
///
/// # Errors
/// There are none.
pub(crate) fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let why = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "this system has no root certificates{why}; install them (Debian: ca-certificates), or name a `ca`"
        ));
    }
    Ok(roots)
}

/// Takes whatever certificate is shown: for upstreams of which the configuration says so. Whoever shows it has its key.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What was wrong with a server's certificate, if that is what ended a handshake.
pub(crate) fn certificate_reason(error: &Error) -> Option<String> {
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
