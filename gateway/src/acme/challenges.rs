//! What a certificate authority asks for to see that a name is ours, and what is answered: HTTP-01 (RFC 8555, section
//! 8.3) and TLS-ALPN-01 (RFC 8737).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use tokio_rustls::rustls::sign::CertifiedKey;

/// The protocol of TLS-ALPN-01 in ALPN.
pub(crate) const TLS_ALPN: &[u8] = b"acme-tls/1";

/// Where an authority looks for an answer to HTTP-01.
const PREFIX: &str = "/.well-known/acme-challenge/";

/// The challenges at work. Of the whole process, as names belong to whoever answers for them, on any listener: so
/// neither snapshots nor listeners have to carry them about.
pub(crate) static OPEN: LazyLock<Open> = LazyLock::new(Open::default);

/// Challenges that an authority may ask for at this moment.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// So many; requests look at nothing else while there are none.
    count: AtomicUsize,
    /// By token.
    tokens: RwLock<HashMap<String, String>>,
    /// By name.
    certificates: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Open {
    /// The answer to a request for this path, if it is one.
    pub(crate) fn answer(&self, path: &str) -> Option<String> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let token = path.strip_prefix(PREFIX)?;
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// The certificate for a handshake in which the authority looks.
    pub(crate) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificates
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&name.to_ascii_lowercase())
            .cloned()
    }

    /// Answers for a token until the guard is dropped.
    pub(super) fn token(&'static self, token: &str, answer: &str) -> Answering {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), answer.to_owned());
        Answering { open: self, token: Some(token.to_owned()), name: None }
    }

    /// Shows a certificate for a name until the guard is dropped.
    pub(super) fn show(&'static self, name: &str, certificate: CertifiedKey) -> Answering {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut certificates = self.certificates.write().unwrap_or_else(PoisonError::into_inner);
        certificates.insert(name.to_owned(), Arc::new(certificate));
        Answering { open: self, token: None, name: Some(name.to_owned()) }
    }
}

/// A challenge that is answered as long as this lives.
pub(super) struct Answering {
    open: &'static Open,
    token: Option<String>,
    name: Option<String>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            self.open.tokens.write().unwrap_or_else(PoisonError::into_inner).remove(token);
        }
        if let Some(name) = &self.name {
            self.open.certificates.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_for_as_long_as_its_guard_lives() {
        let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
        assert_eq!(OPEN.answer(&path("a")), None);
        let answering = OPEN.token("a", "a.thumb");
        assert_eq!(OPEN.answer(&path("a")).as_deref(), Some("a.thumb"));
        for other in [path("b"), path(""), "/a".to_owned(), format!("{}/x", path("a"))] {
            assert_eq!(OPEN.answer(&other), None, "{other}");
        }
        drop(answering);
        assert_eq!(OPEN.answer(&path("a")), None);
    }
}
