//! Checks the certificates that a server shows: the chain by rustls or the system, then the pins.
//!
//! The signatures of the handshake are always checked, so the peer holds the key that it shows. Pins count besides the chain,
//! never instead of it, unless verification is off: then the pins are all that is left (spec security section 2).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::hash::{Hash, HashAlgorithm};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use super::pem::unusable;
use super::platform::Platform;
use crate::error::Result;

/// What a server must show.
pub(super) struct Verifier {
    chain: Chain,
    pins: Vec<Pin>,
    sha256: &'static dyn Hash,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Who checks the chain.
enum Chain {
    WebPki(Arc<WebPkiServerVerifier>, Anchors),
    Platform(Arc<dyn ServerCertVerifier>),
    /// Nobody does.
    Unchecked,
}

/// What a chain is built from once more, to see which certificates are part of it.
struct Anchors {
    roots: Arc<RootCertStore>,
    crls: Vec<CertRevocationList<'static>>,
    unknown: UnknownStatusPolicy,
}

/// The certificate revocation lists to go by.
pub(super) struct Revocation {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// Whether a certificate that no list speaks for passes.
    pub(super) allow_unknown: bool,
}

/// SHA-256 of a SubjectPublicKeyInfo (RFC 7469 section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin([u8; 32]);

/// What rustls has no word for.
#[derive(Debug)]
pub(super) enum Refused {
    /// The server's certificate names itself as its issuer and is no root.
    SelfSigned,
    /// No key of the chain is pinned.
    Unpinned { pins: usize, key: Pin },
}

impl Verifier {
    pub(super) fn web_pki(
        roots: Arc<RootCertStore>,
        revocation: Revocation,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self> {
        let unknown = if revocation.allow_unknown {
            UnknownStatusPolicy::Allow
        } else {
            UnknownStatusPolicy::Deny
        };
        let crls = revocation
            .lists
            .iter()
            .map(|list| OwnedCertRevocationList::from_der(list.as_ref()).map(Into::into))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| {
                unusable("a certificate revocation list cannot be used").because(error)
            })?;
        let mut verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .with_crls(revocation.lists)
                .enforce_revocation_expiration();
        if revocation.allow_unknown {
            verifier = verifier.allow_unknown_revocation_status();
        }
        let verifier = verifier
            .build()
            .map_err(|error| unusable("certificates cannot be verified").because(error))?;
        let anchors = Anchors {
            roots,
            crls,
            unknown,
        };
        Self::new(Chain::WebPki(verifier, anchors), provider)
    }

    pub(super) fn platform(
        platform: Platform,
        extra: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self> {
        let verifier = platform.verifier(extra, Arc::clone(provider))?;
        Self::new(Chain::Platform(verifier), provider)
    }

    pub(super) fn unchecked(provider: &Arc<CryptoProvider>) -> Result<Self> {
        Self::new(Chain::Unchecked, provider)
    }

    /// Demands one of these keys in the chain, if there is any.
    pub(super) fn pinned_to(mut self, pins: Vec<Pin>) -> Self {
        self.pins = pins;
        self
    }

    fn new(chain: Chain, provider: &CryptoProvider) -> Result<Self> {
        let sha256 = provider
            .cipher_suites
            .iter()
            .filter_map(|suite| suite.tls13())
            .map(|suite| suite.common.hash_provider)
            .find(|hash| hash.algorithm() == HashAlgorithm::SHA256)
            .ok_or_else(|| unusable("the cryptography has no SHA-256"))?;
        Ok(Self {
            chain,
            pins: Vec::new(),
            sha256,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn check_pins(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let certificate =
            EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let key = self.pin_of(&certificate.subject_public_key_info());
        let holds = self.pins.contains(&key)
            || match &self.chain {
                Chain::WebPki(_, anchors) => {
                    self.holds_a_pinned_path(anchors, &certificate, intermediates, now)
                }
                // What the chain is nobody says, so the server's own key is what counts.
                Chain::Platform(_) | Chain::Unchecked => false,
            };
        if holds {
            return Ok(());
        }
        Err(refused(Refused::Unpinned {
            pins: self.pins.len(),
            key,
        }))
    }

    /// Whether there is a path to a root that passes all checks and holds a pinned key. What else the server sent proves
    /// nothing: anyone can send any certificate.
    fn holds_a_pinned_path(
        &self,
        anchors: &Anchors,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let crls: Vec<&CertRevocationList<'_>> = anchors.crls.iter().collect();
        let is_pinned = |path: &VerifiedPath<'_>| {
            let above = path
                .intermediate_certificates()
                .map(|certificate| certificate.subject_public_key_info())
                .chain([webpki::spki_for_anchor(path.anchor())]);
            if above
                .into_iter()
                .any(|key| self.pins.contains(&self.pin_of(&key)))
            {
                Ok(())
            } else {
                // Has the search go on.
                Err(webpki::Error::UnknownIssuer)
            }
        };
        certificate
            .verify_for_usage(
                self.algorithms.all,
                &anchors.roots.roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                anchors.revocation(&crls),
                Some(&is_pinned),
            )
            .is_ok()
    }

    fn pin_of(&self, key: &[u8]) -> Pin {
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(self.sha256.hash(key).as_ref()) {
            *to = *from;
        }
        Pin(digest)
    }
}

impl Anchors {
    fn revocation<'a>(
        &self,
        crls: &'a [&'a CertRevocationList<'a>],
    ) -> Option<RevocationOptions<'a>> {
        // It fails without lists, and then there is nothing to check.
        let options = RevocationOptionsBuilder::new(crls).ok()?;
        Some(
            options
                .with_status_policy(self.unknown)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build(),
        )
    }
}

impl Pin {
    /// Reads a pin in base64, with or without `sha256/` before it.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let digest = STANDARD
            .decode(text.strip_prefix("sha256/").unwrap_or(text))
            .ok()
            .and_then(|digest| digest.try_into().ok());
        digest.map(Self).ok_or_else(|| {
            unusable(format!(
                "{text:?} is no pin: it must be the base64 of the 32 bytes of a SHA-256 (RFC 7469 section 2.4)"
            ))
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("pins", &self.pins.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfSigned => f.write_str("the certificate is self-signed"),
            Self::Unpinned { pins, key } => write!(
                f,
                "none of the {pins} pinned keys is in the certificate's chain; the certificate's own key is {key}"
            ),
        }
    }
}

impl std::error::Error for Refused {}

fn refused(why: Refused) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

/// Tells what rustls calls an unknown issuer from a certificate that never had another one.
fn explain(error: rustls::Error, end_entity: &CertificateDer<'_>) -> rustls::Error {
    let unknown = matches!(
        error,
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
    );
    let issued_itself = || {
        EndEntityCert::try_from(end_entity)
            .is_ok_and(|certificate| certificate.issuer() == certificate.subject())
    };
    if unknown && issued_itself() {
        return refused(Refused::SelfSigned);
    }
    error
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: &dyn ServerCertVerifier = match &self.chain {
            Chain::WebPki(verifier, _) => &**verifier,
            Chain::Platform(verifier) => &**verifier,
            Chain::Unchecked => {
                self.check_pins(end_entity, intermediates, now)?;
                return Ok(ServerCertVerified::assertion());
            }
        };
        let verified = chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| explain(error, end_entity))?;
        self.check_pins(end_entity, intermediates, now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
