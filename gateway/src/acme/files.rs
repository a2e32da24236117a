//! The files of certificates: what is written before there is one, when one is due, and how it takes the other's place.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

use crate::model::{self, CertificateFiles};
use crate::tls;

/// Writes a certificate that nobody trusts for every name that has none.
///
/// # Errors
/// What the system says of which file.
pub(crate) fn prepare(acme: &model::Acme) -> Result<(), String> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&acme.storage)
        .map_err(|error| format!("{} cannot be made: {error}", acme.storage.display()))?;
    for names in &acme.certificates {
        let files = acme.files(names);
        if tls::check_certificate(&files).is_ok() {
            continue;
        }
        let (chain, key) = placeholder(names).map_err(|error| error.to_string())?;
        write(&files, &chain, &key)
            .map_err(|error| format!("{} cannot be written: {error}", files.cert.display()))?;
    }
    Ok(())
}

/// Its time is nearly over from the first moment on: so it is due.
fn placeholder(names: &[String]) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(30 * 24 * 3600)).into();
    params.not_after = (now + Duration::from_secs(3600)).into();
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Whether a certificate has to be asked for: there is none, it is for other names, or less than a third of its time is
/// left.
pub(super) fn is_due(files: &CertificateFiles, names: &[String]) -> bool {
    let Some(known) = tls::facts(files) else { return true };
    let is_for =
        |name: &String| known.names.iter().any(|known| known == name.strip_prefix('*').unwrap_or(name));
    if known.names.len() != names.len() || !names.iter().all(is_for) {
        return true;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let lifetime = known.not_after.saturating_sub(known.not_before);
    known.not_after.saturating_sub(now) < lifetime / 3
}

/// Puts a certificate and its key in the place of those before. The key goes first: whoever looks in between finds two
/// that do not belong together, says so, and looks again.
pub(super) fn write(files: &CertificateFiles, chain: &str, key: &str) -> io::Result<()> {
    write_secret(&files.key, key.as_bytes())?;
    write_secret(&files.cert, chain.as_bytes())
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AcmeChallenge;

    #[test]
    fn a_placeholder_is_due_and_what_was_issued_is_not() {
        let dir = tempfile::TempDir::new().unwrap();
        let names = vec!["a.test".to_owned(), "*.a.test".to_owned()];
        let acme = model::Acme {
            directory: String::new(),
            contact: Vec::new(),
            storage: dir.path().join("acme"),
            ca: None,
            challenge: AcmeChallenge::Http,
            certificates: vec![names.clone()],
        };
        let files = acme.files(&names);
        assert!(is_due(&files, &names), "there is none");
        prepare(&acme).unwrap();
        assert!(tls::check_certificate(&files).is_ok());
        assert!(is_due(&files, &names), "it is a placeholder");
        let before = fs::read(&files.cert).unwrap();
        prepare(&acme).unwrap();
        assert_eq!(fs::read(&files.cert).unwrap(), before, "one that can be used stays");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        for (past, left, due) in [(1, 89, false), (59, 31, false), (61, 29, true), (100, 0, true)] {
            params.not_before = (SystemTime::now() - days(past)).into();
            params.not_after = (SystemTime::now() + days(left)).into();
            let chain = params.self_signed(&key).unwrap().pem();
            write(&files, &chain, &key.serialize_pem()).unwrap();
            assert_eq!(is_due(&files, &names), due, "{past} days old, {left} left");
        }
        params.not_after = (SystemTime::now() + days(1000)).into();
        write(&files, &params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap();
        assert!(!is_due(&files, &names));
        assert!(is_due(&files, &names[..1]), "it is for other names");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
