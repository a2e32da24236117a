//! TLS on listeners: certificates by name, clients' certificates, and files that are replaced while the agent runs.
//!
//! rustls does the protocol, with aws-lc-rs as its provider. A listener's settings and files become one
//! [`Server`]; connections take its newest configuration when they begin.

mod certificates;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

use crate::files::{self, Stamp};
use crate::model;

use certificates::Certificates;
pub(crate) use certificates::check as check_certificate;

/// Bytes of one file: a system's whole set of authorities has about a quarter of that.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// How one listener speaks TLS.
#[derive(Debug)]
pub(crate) struct Server {
    settings: model::Tls,
    config: RwLock<Arc<ServerConfig>>,
    files: Mutex<Files>,
}

/// What is known of the files of a server.
#[derive(Debug)]
struct Files {
    /// As they were when the configuration was made of them.
    loaded: Vec<Stamp>,
    /// At the last look.
    seen: Vec<Stamp>,
    /// Why the last look led to nothing.
    failure: Option<String>,
}

/// What a look at the files of a server led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// They are as they were, or still changing, or as wrong as before.
    Nothing,
    /// New ones are in use.
    Renewed,
    /// New ones cannot be used; those before stay in use.
    Failed(String),
}

impl Server {
    /// Reads all files.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub(crate) fn load(settings: &model::Tls) -> Result<Self, String> {
        let stamps = stamps(settings)?;
        let config = Arc::new(server_config(settings)?);
        let files = Files { loaded: stamps.clone(), seen: stamps, failure: None };
        Ok(Self { settings: settings.clone(), config: RwLock::new(config), files: Mutex::new(files) })
    }

    /// What the next connection begins with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn has(&self, settings: &model::Tls) -> bool {
        self.settings == *settings
    }

    /// Reads the files again now, if they changed, whether or not they have come to rest.
    ///
    /// # Errors
    /// As for [`Server::load`]; what was in use stays so.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.settings)?;
        if stamps == files.loaded {
            return Ok(());
        }
        self.renew(&mut files, stamps)
    }

    /// Reads the files again if they changed and have come to rest: two looks saw the same.
    pub(crate) fn look(&self) -> Looked {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = stamps(&self.settings).and_then(|now| {
            let rests = std::mem::replace(&mut files.seen, now.clone()) == now;
            if now == files.loaded {
                files.failure = None;
                return Ok(false);
            }
            if !rests {
                return Ok(false);
            }
            self.renew(&mut files, now).map(|()| true)
        });
        match looked {
            Ok(true) => Looked::Renewed,
            Ok(false) => Looked::Nothing,
            Err(why) if files.failure.as_ref() == Some(&why) => Looked::Nothing,
            Err(why) => {
                files.failure = Some(why.clone());
                Looked::Failed(why)
            }
        }
    }

    fn renew(&self, files: &mut Files, stamps: Vec<Stamp>) -> Result<(), String> {
        // All of it anew, the key of session tickets too: who was let in by another authority does not come in by
        // an old ticket.
        let config = Arc::new(server_config(&self.settings)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        *files = Files { loaded: stamps.clone(), seen: stamps, failure: None };
        Ok(())
    }
}

fn paths(settings: &model::Tls) -> impl Iterator<Item = &PathBuf> {
    let certificates = settings
        .certificates
        .iter()
        .flat_map(|files| [Some(&files.cert), Some(&files.key), files.ocsp.as_ref()].into_iter().flatten());
    certificates.chain(settings.clients.iter().map(|clients| &clients.ca))
}

fn stamps(settings: &model::Tls) -> Result<Vec<Stamp>, String> {
    paths(settings).map(|path| files::look(path, MAX_FILE_BYTES)).collect()
}

fn server_config(settings: &model::Tls) -> Result<ServerConfig, String> {
    // The provider is named here rather than made the process's default: who speaks TLS says how.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certificates = Certificates::load(&settings.certificates, &provider)?;
    let versions: &[_] = match settings.min_version {
        model::TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        model::TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match &settings.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(config)
}

fn verifier(
    clients: &model::ClientAuthority,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(&clients.ca)?), provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| error.to_string())
}

/// Reads authorities' certificates, of which there must be at least one.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
    }
    Ok(roots)
}

/// The certificates of a PEM file, at least one.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| unusable(path, &error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(path, "there is no certificate in PEM in it"));
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    // For the sentence that says what is wrong with it.
    files::look(path, MAX_FILE_BYTES)?;
    files::read_bounded(path, MAX_FILE_BYTES).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> String {
    format!("{} cannot be used: {why}", path.display())
}
