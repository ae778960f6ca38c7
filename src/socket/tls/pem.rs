//! Certificates, keys and revocation lists out of PEM files (RFC 7468).
//!
//! An error says what is wrong with the file and never shows any of it: it may be a key by mistake.

use std::borrow::Cow;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::error::{Error, ErrorKind, Phase, Result, Sent};

/// All certificates of a file, of which there must be one at least.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    all(found, pem, b"-----BEGIN CERTIFICATE-----", "certificate")
}

/// All certificate revocation lists of a file, of which there must be one at least.
pub(super) fn revocation_lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let found = CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let begin = b"-----BEGIN X509 CRL-----";
    all(found, pem, begin, "certificate revocation list (X509 CRL)")
}

/// The first private key of a file: PKCS #8, PKCS #1 or SEC 1.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(PemError::NoItemsFound) if is_encrypted(pem) => Err(unusable(
            "the PEM file holds an encrypted private key, which cannot be read: decrypt it first (openssl pkey -in key.pem)",
        )),
        Err(PemError::NoItemsFound) => Err(unusable(
            "the PEM file holds no private key (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)",
        )),
        Err(error) => Err(malformed(&error)),
    }
}

/// What was found, of which there must be as much as the file has beginnings: a section whose first line has something before
/// it, such as a byte order mark, would be left out without a word, and a list of revoked certificates with it.
fn all<T>(found: Result<Vec<T>, PemError>, pem: &[u8], begin: &[u8], what: &str) -> Result<Vec<T>> {
    match found {
        Ok(found) if found.len() < memchr::memmem::find_iter(pem, begin).count() => {
            Err(unusable(format!(
                "the PEM file is malformed: something stands before the first line of a {what}"
            )))
        }
        Ok(found) if found.is_empty() => Err(unusable(format!("the PEM file holds no {what}"))),
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(&error)),
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    let marker = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    memchr::memmem::find(pem, marker).is_some()
}

fn malformed(error: &PemError) -> Error {
    let what = match error {
        PemError::MissingSectionEnd { .. } => "a section has no end line",
        PemError::IllegalSectionStart { .. } => "a line that begins a section is wrong",
        PemError::Base64Decode(_) => "a section is no base64",
        PemError::SectionTooLarge => "a section is too large",
        _ => "it cannot be read",
    };
    unusable(format!("the PEM file is malformed: {what}"))
}

/// Settings that cannot be used.
pub(super) fn unusable(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Tls, Some(Phase::Prepare), Sent::Nothing).saying(message)
}
