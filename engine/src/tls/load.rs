//! Certificates, keys and authorities from PEM files. What cannot be used is told with the file and what mends it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::validity::{self, Validity};
use crate::diagnosis::{Code, Diagnostic};
use crate::source::file::blame;

/// The largest file that is read: an authorities' bundle has a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A certificate that ends sooner is warned of.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Others than owner and group may read.
const WORLD_READABLE: u32 = 0o004;

/// The certificates of a file, ours first, then those that signed it.
///
/// # Errors
/// Why the file cannot be used.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| no_pem(path, &error))?;
    if found.is_empty() {
        return Err(without(path, &text, "certificate", "-----BEGIN CERTIFICATE-----"));
    }
    Ok(found)
}

/// The key of a file.
///
/// # Errors
/// Why the file cannot be used.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Diagnostic> {
    let text = read(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if has(&text, b"BEGIN ENCRYPTED PRIVATE KEY") => {
            let message = format!("the key in {} is encrypted with a passphrase", path.display());
            Err(Diagnostic::error(Code::WP404, message)
                .help(format!("store it without one: openssl pkey -in {} -out server.key", path.display())))
        }
        Err(pem::Error::NoItemsFound) => {
            Err(without(path, &text, "private key", "-----BEGIN PRIVATE KEY-----"))
        }
        Err(error) => Err(no_pem(path, &error)),
    }
}

/// The authorities of a file.
///
/// # Errors
/// Why the file cannot be used.
pub fn authorities(path: &Path) -> Result<RootCertStore, Diagnostic> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| {
            let message = format!("a certificate in {} is no authority's: {error}", path.display());
            Diagnostic::error(Code::WP404, message)
                .help(format!("openssl x509 -noout -text -in {}", path.display()))
        })?;
    }
    Ok(store)
}

/// Why certificate and key cannot be used together.
pub fn unfit(cert: &Path, key: &Path, error: &Error) -> Diagnostic {
    let (cert, key) = (cert.display(), key.display());
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let message = format!("the key {key} is not the key of the certificate in {cert}");
            Diagnostic::error(Code::WP404, message)
                .help(format!(
                    "these two print the same when they match:\nopenssl x509 -noout -pubkey -in {cert}\n\
                     openssl pkey -pubout -in {key}"
                ))
                .help("its own certificate stands first in its file")
        }
        _ => Diagnostic::error(Code::WP404, format!("{cert} and {key} cannot be used: {error}"))
            .help("keys are RSA of 2048 bits and more, ECDSA on P-256 or P-384, or Ed25519"),
    }
}

/// What a person should know of a certificate that can be used: that it is not good yet, no longer, or not for long.
pub fn warn_of_dates(path: &Path, certificate: &CertificateDer<'_>, now: Timestamp) -> Option<Diagnostic> {
    let Some(Validity { from, until }) = validity::of(certificate) else {
        return Some(Diagnostic::warning(None, format!("the dates of {} cannot be read", path.display())));
    };
    let date = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let what = if until <= now {
        format!("has expired on {}: clients refuse it", date(until))
    } else if from > now {
        format!("is not valid before {}: clients refuse it", date(from))
    } else if until.duration_since(now) < SOON {
        format!("expires within 30 days, on {}", date(until))
    } else {
        return None;
    };
    let message = format!("the certificate in {} {what}", path.display());
    Some(
        Diagnostic::warning(None, message)
            .help("renew it; a running engine takes the new files by itself".to_owned()),
    )
}

/// Whether everybody on this machine may read a key.
pub fn warn_of_mode(path: &Path) -> Option<Diagnostic> {
    let mode = fs::metadata(path).ok()?.mode();
    (mode & WORLD_READABLE != 0).then(|| {
        let message =
            format!("the key {} can be read by every user (mode {:03o})", path.display(), mode & 0o777);
        Diagnostic::warning(None, message).help(format!("chmod o= {}", path.display()))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let unreadable = |error| blame::explain(path, &error).into_diagnostic();
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        let message = format!("{} is no PEM file: it is a folder, a device, or too large", path.display());
        return Err(Diagnostic::error(Code::WP404, message));
    }
    fs::read(path).map_err(unreadable)
}

fn no_pem(path: &Path, error: &pem::Error) -> Diagnostic {
    Diagnostic::error(Code::WP404, format!("{} is no PEM file: {error}", path.display()))
        .help(format!("openssl x509 -noout -in {} shows what is in it", path.display()))
}

fn without(path: &Path, text: &[u8], what: &str, begins: &str) -> Diagnostic {
    let finding = Diagnostic::error(Code::WP404, format!("there is no {what} in {}", path.display()));
    // A DER value of two length bytes, as certificates and keys are.
    if text.starts_with(&[0x30, 0x82]) {
        let command = if what == "certificate" { "x509" } else { "pkey" };
        return finding
            .note("it is DER, the binary form")
            .help(format!("openssl {command} -inform DER -in {} -out server.pem", path.display()));
    }
    let other = [("certificate", &b"PRIVATE KEY-----"[..]), ("private key", b"BEGIN CERTIFICATE-----")];
    let swapped = other.iter().any(|(wanted, found)| *wanted == what && has(text, found));
    finding
        .help_if(swapped.then(|| "'cert' and 'key' look swapped".to_owned()))
        .help(format!("a PEM file with a {what} has the line {begins}"))
}

fn has(text: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(text, words).is_some()
}
