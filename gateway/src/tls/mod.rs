//! TLS of listeners and to upstreams, made of files that are replaced while the agent runs.
//!
//! rustls does the protocol, with aws-lc-rs as its provider. Settings and their files become a [`Server`] or a
//! [`Client`]; connections take its newest configuration when they begin.

mod certificates;
mod client;
mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ProtocolVersion, RootCertStore};

use crate::files::{self, Stamp};
use crate::model;

pub(crate) use certificates::{check as check_certificate, describe, facts};
pub(crate) use client::{certificate_reason, system_roots};
#[cfg(feature = "http3")]
pub(crate) use server::for_http3;

/// How versions of HTTP are named in ALPN (RFC 7301, RFC 9113, RFC 9114).
pub(crate) const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";
#[cfg(feature = "http3")]
pub(crate) const HTTP3: &[u8] = b"h3";

/// A version of TLS, as OpenSSL and everybody's logs name it.
pub(crate) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

/// Bytes of one file: a system's whole set of authorities has about a quarter of that.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// How one listener speaks TLS.
pub(crate) type Server = Renewed<model::Tls>;
/// How the gateway speaks TLS to one upstream.
pub(crate) type Client = Renewed<model::UpstreamTls>;

/// In the order of those who use them; `None` for who speaks in the clear.
pub(crate) type InOrder<S> = Vec<Option<Arc<Renewed<S>>>>;

/// Settings that files belong to.
pub(crate) trait Settings: Clone + PartialEq {
    /// What is made of them.
    type Config;
    /// The files.
    fn paths(&self) -> Vec<&Path>;
    /// Reads them all.
    ///
    /// # Errors
    /// What is wrong with which file.
    fn config(&self) -> Result<Self::Config, String>;
}

/// What is made of settings and their files, and made anew when the files are replaced.
#[derive(Debug)]
pub(crate) struct Renewed<S: Settings> {
    settings: S,
    config: RwLock<Arc<S::Config>>,
    files: Mutex<Files>,
}

/// What is known of the files.
#[derive(Debug)]
struct Files {
    /// As they were when the configuration was made of them.
    loaded: Vec<Stamp>,
    /// At the last look.
    seen: Vec<Stamp>,
    /// Why the last look led to nothing.
    failure: Option<String>,
}

/// What a look at the files led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// They are as they were, or still changing, or as wrong as before.
    Nothing,
    /// New ones are in use.
    Renewed,
    /// New ones cannot be used; those before stay in use.
    Failed(String),
}

impl<S: Settings> Renewed<S> {
    /// Reads all files.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub(crate) fn load(settings: &S) -> Result<Self, String> {
        let stamps = stamps(settings)?;
        let config = Arc::new(settings.config()?);
        let files = Files { loaded: stamps.clone(), seen: stamps, failure: None };
        Ok(Self { settings: settings.clone(), config: RwLock::new(config), files: Mutex::new(files) })
    }

    /// What the next connection begins with.
    pub(crate) fn config(&self) -> Arc<S::Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it is made of.
    pub(crate) fn settings(&self) -> &S {
        &self.settings
    }

    /// Reads the files again now, if they changed, whether or not they have come to rest.
    ///
    /// # Errors
    /// As for [`Renewed::load`]; what was in use stays so.
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
        let config = Arc::new(self.settings.config()?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        *files = Files { loaded: stamps.clone(), seen: stamps, failure: None };
        Ok(())
    }
}

/// Makes what every one of `wanted` needs: takes over what is in use already, its files read again, and makes one of
/// several alike.
///
/// # Errors
/// The index of the first that cannot be made, and why.
pub(crate) fn make_all<'a, S: Settings + 'a>(
    wanted: impl Iterator<Item = Option<&'a S>>,
    known: &[Arc<Renewed<S>>],
) -> Result<InOrder<S>, (usize, String)> {
    let mut made: InOrder<S> = Vec::new();
    for (index, settings) in wanted.enumerate() {
        let Some(settings) = settings else {
            made.push(None);
            continue;
        };
        let has = |renewed: &&Arc<Renewed<S>>| renewed.settings == *settings;
        let renewed = match (made.iter().flatten().find(has), known.iter().find(has)) {
            (Some(renewed), _) => Ok(Arc::clone(renewed)),
            (None, Some(renewed)) => renewed.reload().map(|()| Arc::clone(renewed)),
            (None, None) => Renewed::load(settings).map(Arc::new),
        };
        made.push(Some(renewed.map_err(|why| (index, why))?));
    }
    Ok(made)
}

/// Each of them once.
pub(crate) fn distinct<S: Settings>(made: &InOrder<S>) -> Vec<Arc<Renewed<S>>> {
    let mut distinct: Vec<Arc<Renewed<S>>> = made.iter().flatten().map(Arc::clone).collect();
    distinct.sort_by_key(Arc::as_ptr);
    distinct.dedup_by_key(|renewed| Arc::as_ptr(renewed));
    distinct
}

fn stamps(settings: &impl Settings) -> Result<Vec<Stamp>, String> {
    settings.paths().into_iter().map(|path| files::look(path, MAX_FILE_BYTES)).collect()
}

fn of_certificate(files: &model::CertificateFiles) -> impl Iterator<Item = &Path> {
    [Some(&files.cert), Some(&files.key), files.ocsp.as_ref()].into_iter().flatten().map(PathBuf::as_path)
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
