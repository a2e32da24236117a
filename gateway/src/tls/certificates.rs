//! A listener's certificates: read from files, chosen by the name that a client asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{describe_gauge, gauge};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::acme::{OPEN, TLS_ALPN};
use crate::model::CertificateFiles;

use super::{read, read_chain, unusable};

const EXPIRY: &str = "gateway_tls_certificate_expiry_timestamp_seconds";

/// Describes the metric of certificates; call it once, after the recorder is installed.
pub(crate) fn describe() {
    describe_gauge!(EXPIRY, "When a certificate's time is over, since the Unix epoch.");
}

/// By name. Of several for one name, the first whose key the client can check.
#[derive(Debug)]
pub(super) struct Certificates {
    /// `a.test`, and `.a.test` for `*.a.test`; lower case.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    pub(super) fn load(files: &[CertificateFiles], provider: &CryptoProvider) -> Result<Self, String> {
        let mut certificates = Self { by_name: HashMap::new(), all: Vec::with_capacity(files.len()) };
        for files in files {
            let certificate = Arc::new(load(files, provider)?);
            for name in names(&certificate) {
                certificates.by_name.entry(name).or_default().push(Arc::clone(&certificate));
            }
            certificates.all.push(certificate);
        }
        Ok(certificates)
    }

    fn of(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |certificate: &&Arc<CertifiedKey>| certificate.key.choose_scheme(schemes).is_some();
        let named = |name: &str| self.by_name.get(name)?.iter().find(fits);
        let exact = || named(name?);
        // One label, and no more (RFC 9525, section 6.3).
        let wildcard = || name.and_then(|name| named(&name[name.find('.')?..]));
        exact().or_else(wildcard).or_else(|| self.all.iter().find(fits)).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // An authority that looks whether a name is ours, and nobody else, offers this and nothing else (RFC 8737).
        if hello.alpn().is_some_and(|mut offered| offered.any(|name| name == TLS_ALPN)) {
            return OPEN.certificate(hello.server_name()?);
        }
        self.of(hello.server_name(), hello.signature_schemes())
    }
}

/// What is written in a certificate.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Its DNS names; of a wildcard what follows the `*`.
    pub(crate) names: Vec<String>,
    /// Since and until when it is good, since the Unix epoch.
    pub(crate) not_before: Duration,
    pub(crate) not_after: Duration,
}

/// What is written in the certificate of these files; `None` if they cannot be used.
pub(crate) fn facts(files: &CertificateFiles) -> Option<Facts> {
    let certificate = read_certificate(files, &aws_lc_rs::default_provider()).ok()?;
    let first = UnixTime::since_unix_epoch(Duration::ZERO);
    let not_before = match dates_at(&certificate, first) {
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => not_before,
        _ => first,
    };
    Some(Facts {
        names: names(&certificate),
        not_before: Duration::from_secs(not_before.as_secs()),
        not_after: Duration::from_secs(ends(&certificate)?.as_secs()),
    })
}

/// Reads one certificate, and says what is wrong with it.
///
/// # Errors
/// What is wrong with which file.
pub(crate) fn check(files: &CertificateFiles) -> Result<(), String> {
    read_certificate(files, &aws_lc_rs::default_provider()).map(|_| ())
}

pub(super) fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let certificate = read_certificate(files, provider)?;
    note(&certificate, files);
    Ok(certificate)
}

fn read_certificate(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = read_chain(&files.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| match error {
        PemError::NoItemsFound => {
            unusable(&files.key, "there is no private key in PEM in it, or it is encrypted")
        }
        // Never the text of a line: it is a secret's.
        _ => unusable(&files.key, "it is no PEM file"),
    })?;
    let mut certificate = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            format!(
                "the key in {} is not that of the certificate in {}",
                files.key.display(),
                files.cert.display()
            )
        }
        other => unusable(&files.cert, &other.to_string()),
    })?;
    if let Some(ocsp) = &files.ocsp {
        let response = read(ocsp)?;
        // A SEQUENCE of some length, as every OCSPResponse; PEM would be taken otherwise.
        if response.first() != Some(&0x30) {
            return Err(unusable(ocsp, "it is no OCSP response in DER"));
        }
        certificate.ocsp = Some(response);
    }
    Ok(certificate)
}

/// Tells operators until when a certificate is good.
fn note(certificate: &CertifiedKey, files: &CertificateFiles) {
    if let Some(why) = unfit_now(certificate) {
        tracing::warn!("the certificate in {} {why}", files.cert.display());
    }
    if let Some(ends) = ends(certificate) {
        gauge!(EXPIRY, "certificate" => files.cert.display().to_string()).set(ends.as_secs() as f64);
    }
}

/// The DNS names that a certificate is for.
fn names(certificate: &CertifiedKey) -> Vec<String> {
    let leaf = certificate.cert.first().and_then(|leaf| EndEntityCert::try_from(leaf).ok());
    let of = |leaf: &EndEntityCert<'_>| {
        leaf.valid_dns_names()
            .map(|name| name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    leaf.as_ref().map(of).unwrap_or_default()
}

/// Why others will refuse a certificate today, as far as its dates say.
fn unfit_now(certificate: &CertifiedKey) -> Option<&'static str> {
    match dates_at(certificate, UnixTime::now())? {
        webpki::Error::CertExpired { .. } => Some("has expired: it will be refused"),
        webpki::Error::CertNotValidYet { .. } => Some("is not valid yet: it will be refused"),
        _ => None,
    }
}

/// The end of a certificate's time.
fn ends(certificate: &CertifiedKey) -> Option<UnixTime> {
    // RFC 5280 has no later one (section 4.1.2.5). A reader of certificates that shows dates would be one more.
    let last = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));
    match dates_at(certificate, last)? {
        webpki::Error::CertExpired { not_after, .. } => Some(not_after),
        _ => Some(last),
    }
}

/// What is wrong with a certificate at a time. Dates come before issuers, and it has none here.
fn dates_at(certificate: &CertifiedKey, time: UnixTime) -> Option<webpki::Error> {
    let leaf = EndEntityCert::try_from(certificate.cert.first()?).ok()?;
    let schemes = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    leaf.verify_for_usage(schemes, &[], &[], time, KeyUsage::server_auth(), None, None).err()
}
