//! Certificates by ACME (RFC 8555): asked for, renewed, and written into files, from where listeners take them like
//! any others.
//!
//! A name that has no certificate yet gets one that nobody trusts, so that its listener can begin; the authority is
//! asked right after that. What fails is tried again, ever more seldom, and the certificate before it stays.

mod challenges;
mod client;
mod files;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder,
    OrderStatus, RetryPolicy,
};
use metrics::{counter, describe_counter};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::model::{self, AcmeChallenge};

pub(crate) use challenges::{OPEN, TLS_ALPN};
pub(crate) use files::prepare;

/// How often certificates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// How long after a failure the next attempt is made: the first and the longest wait. Authorities allow about five
/// failures of a name in an hour.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_LONGEST: Duration = Duration::from_secs(12 * 3600);

/// How long an authority may take to look, and to sign.
const PATIENCE: Duration = Duration::from_secs(120);

const ORDERS: &str = "gateway_acme_orders_total";

/// Describes the metrics; call it once, after the recorder is installed.
pub(crate) fn describe() {
    describe_counter!(ORDERS, "Certificates that an authority was asked for, by how that ended.");
}

/// Asks for certificates as long as the agent runs; the settings are those of the newest configuration.
pub(crate) async fn run(mut settings: watch::Receiver<Option<model::Acme>>) {
    let mut failures: HashMap<Vec<String>, Failures> = HashMap::new();
    loop {
        let acme = settings.borrow_and_update().clone();
        let mut next = Instant::now() + LOOK_EVERY;
        if let Some(acme) = &acme {
            for names in &acme.certificates {
                let known = failures.get(names).map_or_else(Instant::now, |known| known.next);
                if known > Instant::now() || !files::is_due(&acme.files(names), names) {
                    next = next.min(known.max(Instant::now() + Duration::from_secs(1)));
                    continue;
                }
                match obtain(acme, names).await {
                    Ok(()) => {
                        counter!(ORDERS, "result" => "ok").increment(1);
                        tracing::info!(names = names.join(", "), "a certificate was issued");
                        failures.remove(names);
                    }
                    Err(error) => {
                        counter!(ORDERS, "result" => "error").increment(1);
                        let failed = failures.entry(names.clone()).or_default().again();
                        tracing::error!(
                            names = names.join(", "),
                            "no certificate was issued; the next attempt is in {:?}: {error}",
                            failed.wait
                        );
                        next = next.min(failed.next);
                    }
                }
            }
            failures.retain(|names, _| acme.certificates.contains(names));
        }
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            changed = settings.changed() => if changed.is_err() { return },
        }
    }
}

/// How often it has failed, and what follows from that.
struct Failures {
    wait: Duration,
    next: Instant,
}

impl Default for Failures {
    fn default() -> Self {
        Self { wait: RETRY_FIRST / 2, next: Instant::now() }
    }
}

impl Failures {
    fn again(&mut self) -> &Self {
        self.wait = (self.wait * 2).min(RETRY_LONGEST);
        self.next = Instant::now() + self.wait;
        self
    }
}

/// Asks for one certificate, and writes it.
async fn obtain(acme: &model::Acme, names: &[String]) -> Result<(), Error> {
    let account = account(acme).await?;
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    // They are answered until the order is through.
    let mut answering = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(Error::Str("an authorization is not open any more")),
        }
        let kind = match acme.challenge {
            AcmeChallenge::Http => ChallengeType::Http01,
            AcmeChallenge::TlsAlpn => ChallengeType::TlsAlpn01,
        };
        let mut challenge = authorization
            .challenge(kind)
            .ok_or(Error::Unsupported("the challenge that the configuration names, for this name"))?;
        let answer = challenge.key_authorization();
        answering.push(match acme.challenge {
            AcmeChallenge::Http => OPEN.token(&challenge.token, answer.as_str()),
            AcmeChallenge::TlsAlpn => {
                let name = challenge.identifier().to_string();
                OPEN.show(&name, proof(&name, answer.digest().as_ref()).map_err(other)?)
            }
        });
        challenge.set_ready().await?;
    }
    let patience = RetryPolicy::new().timeout(PATIENCE);
    if order.poll_ready(&patience).await? != OrderStatus::Ready {
        let why = refusal(&mut order).await;
        return Err(Error::Other(why.into()));
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&patience).await?;
    files::write(&acme.files(names), &chain, &key).map_err(other)
}

/// Why an authority did not find what it looked for, as it says itself.
async fn refusal(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(error) = errors.into_iter().next() {
            return format!("the authority refuses {}: {error}", authorization.identifier());
        }
    }
    "the authority refuses the order".to_owned()
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Other(error.into())
}

/// The account with the authority: the one that is known, or a new one.
async fn account(acme: &model::Acme) -> Result<Account, Error> {
    let path = acme.storage.join("account.json");
    let client = || Account::builder_with_http(Box::new(client::Client::new(acme)));
    if let Some(known) = read_account(&path, &acme.directory) {
        return client().from_credentials(known).await;
    }
    let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = client().create(&new, acme.directory.clone(), None).await?;
    let stored = Stored { directory: acme.directory.clone(), credentials };
    files::write_secret(&path, &serde_json::to_vec(&stored)?).map_err(other)?;
    Ok(account)
}

/// An account as it is kept.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    directory: String,
    credentials: AccountCredentials,
}

/// An account with this authority. Another's is left alone until there is a new one.
fn read_account(path: &Path, directory: &str) -> Option<AccountCredentials> {
    let stored: Stored = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(stored.credentials).filter(|_| stored.directory == directory)
}

/// The certificate that proves a name by TLS-ALPN-01.
fn proof(name: &str, digest: &[u8]) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key)?;
    // Not read back, as others are: nobody but the authority knows its extension, which is a critical one.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let mut failures = Failures::default();
        let waits: Vec<u64> = (0..12).map(|_| failures.again().wait.as_secs()).collect();
        assert_eq!(waits[..4], [60, 120, 240, 480]);
        assert_eq!(waits[11], RETRY_LONGEST.as_secs());
    }
}
