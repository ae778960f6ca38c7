//! The settings of TLS, and what is made of them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{
    CipherSuite, ClientConfig, KeyLogFile, NamedGroup, RootCertStore, SupportedProtocolVersion,
};

use super::pem::{self, unusable};
use super::platform::Platform;
use super::verify::{Pin, Revocation, Verifier};
use super::{ClientIdentity, Inner, TlsConfig, provider, server_name};
use crate::error::Result;

/// Collects the settings of a [`TlsConfig`].
///
/// Its `Debug` shows which settings were made, and neither keys nor certificates.
///
/// ```no_run
/// use sockeye::{TlsConfig, TlsVersion};
///
/// let tls = TlsConfig::builder()
///     .only_roots(std::fs::read("ca.pem")?)
///     .client_identity_pem(&std::fs::read("client.pem")?, &std::fs::read("client.key")?)?
///     .min_version(TlsVersion::Tls13)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TlsConfigBuilder {
    pub(super) roots: Roots,
    extra_roots: Vec<CertificateDer<'static>>,
    identity: Option<ClientIdentity>,
    min_version: TlsVersion,
    server_name: Option<String>,
    pins: Vec<String>,
    crls: Vec<Vec<u8>>,
    allow_unknown_revocation: bool,
    resumable_hosts: usize,
    key_log: bool,
    post_quantum: bool,
    aes_256_first: bool,
    accept_invalid: bool,
}

/// Whom the chain of a certificate must lead to.
#[derive(Clone)]
pub(super) enum Roots {
    /// Those of the `webpki-roots` crate.
    BuiltIn,
    /// Those of a PEM file.
    Only(Vec<u8>),
    /// Those of the operating system, which does the verifying, too.
    #[cfg_attr(
        not(feature = "platform-verifier"),
        expect(dead_code, reason = "there is nothing to ask")
    )]
    Platform(Platform),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Default for TlsConfigBuilder {
    fn default() -> Self {
        Self {
            roots: Roots::BuiltIn,
            extra_roots: Vec::new(),
            identity: None,
            min_version: TlsVersion::Tls12,
            server_name: None,
            pins: Vec::new(),
            crls: Vec::new(),
            allow_unknown_revocation: false,
            resumable_hosts: RESUMABLE_HOSTS,
            key_log: false,
            post_quantum: true,
            aes_256_first: false,
            accept_invalid: false,
        }
    }
}

impl TlsConfigBuilder {
    /// Trusts the certificates of a PEM file besides the default roots. Fails if there is none, or one that is malformed.
    ///
    /// A server's own certificate can be added as well, if it is no certificate of an authority: `openssl req -x509` makes it
    /// one unless told `-addext basicConstraints=CA:FALSE`.
    pub fn add_root_pem(mut self, pem: &[u8]) -> Result<Self> {
        self.extra_roots.extend(pem::certificates(pem)?);
        Ok(self)
    }

    /// Trusts the certificates of this PEM file, and those of [`add_root_pem`](Self::add_root_pem), and no others. A file
    /// without a certificate is an error of [`build`](Self::build).
    #[must_use]
    pub fn only_roots(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots = Roots::Only(pem.as_ref().to_vec());
        self
    }

    /// Shows this certificate to servers that ask for one (mutual TLS): short for
    /// [`client_identity`](Self::client_identity) with [`ClientIdentity::from_pem`], whose errors it has.
    pub fn client_identity_pem(self, certificates: &[u8], key: &[u8]) -> Result<Self> {
        Ok(self.client_identity(&ClientIdentity::from_pem(certificates, key)?))
    }

    /// Shows this identity to servers that ask for one (mutual TLS). Default none.
    ///
    /// With TLS 1.3 a server refuses a client's certificate, or the lack of one, only after the handshake: the call then fails
    /// with [`ErrorKind::Tls`](crate::ErrorKind::Tls) in the phase `Head`, or `Write`.
    #[must_use]
    pub fn client_identity(mut self, identity: &ClientIdentity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Refuses older versions. Default [`TlsVersion::Tls12`], which is the oldest there is.
    #[must_use]
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// Asks every server for this name (SNI, RFC 6066) and checks certificates against it, instead of the host of the URL. It
    /// may be an IP address, which is not sent. Default none.
    ///
    /// The `Host` field still names the host of the URL. A name that no certificate could have is an error of
    /// [`build`](Self::build).
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Demands that the chain of every server's certificate holds this public key, besides everything else that is checked.
    /// Called several times, one of them is enough. Default none.
    ///
    /// `pin` is the SHA-256 of the SubjectPublicKeyInfo in base64 (RFC 7469 section 2.4), with or without `sha256/` before it;
    /// anything else is an error of [`build`](Self::build). The error of a server that is refused names the pin of its
    /// certificate. What counts is the server's own key and the keys on the verified path from it to a root; with
    /// [`danger_accept_invalid_certs`](Self::danger_accept_invalid_certs) there is no such path, and only the server's own
    /// key counts. Pin a spare key, too, or a new certificate locks the client out.
    ///
    /// ```
    /// let tls = sockeye::TlsConfig::builder()
    ///     .pin_spki("sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=")
    ///     .pin_spki("E9CZ9INDbd+2eRQozYqqbQ2yXLVKB9+xcprMF+44U1g=")
    ///     .build()?;
    /// assert!(sockeye::TlsConfig::builder().pin_spki("d6qzRu9z").build().is_err());
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    #[must_use]
    pub fn pin_spki(mut self, pin: impl Into<String>) -> Self {
        self.pins.push(pin.into());
        self
    }

    /// Refuses certificates that these certificate revocation lists (PEM, `X509 CRL`) name, and lists that are past their date
    /// of the next update. May be called several times. Default none: without lists no revocation is checked.
    ///
    /// Every certificate between the server and the root needs a list of its issuer, or it is refused, too; see
    /// [`allow_unknown_revocation`](Self::allow_unknown_revocation). A session that is resumed was checked when it began. A
    /// file without a list, or with one that cannot be used, is an error of [`build`](Self::build).
    #[must_use]
    pub fn crls(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.crls.push(pem.as_ref().to_vec());
        self
    }

    /// With [`crls`](Self::crls): accepts certificates whose issuer has no list there. Default false.
    #[must_use]
    pub fn allow_unknown_revocation(mut self, allow: bool) -> Self {
        self.allow_unknown_revocation = allow;
        self
    }

    /// How many hosts' sessions are remembered to shorten the next handshake with them; 0 turns that off. Default 256, with up
    /// to 8 tickets of TLS 1.3 each. The host that was added first is forgotten first. More than 65,536 are an error of
    /// [`build`](Self::build), which makes room for all of them.
    ///
    /// Sessions are never shared between two configurations, even equal ones.
    #[must_use]
    pub fn resumable_hosts(mut self, hosts: usize) -> Self {
        self.resumable_hosts = hosts;
        self
    }

    /// Writes the keys of every session to the file that the environment variable `SSLKEYLOGFILE` names when
    /// [`build`](Self::build) runs, so that a recording of the traffic can be decrypted. Default false: the variable alone
    /// does nothing. Without the variable nothing is written either.
    #[must_use]
    pub fn key_log(mut self, write: bool) -> Self {
        self.key_log = write;
        self
    }

    /// Offers the key exchange X25519MLKEM768, which a quantum computer cannot undo later, before all others. Default true.
    ///
    /// It makes the first message of the handshake 1.2 KB longer, which then no longer fits one packet; some middleboxes
    /// cannot cope. The provider `ring` does not have it, whatever this says.
    #[must_use]
    pub fn post_quantum(mut self, offer: bool) -> Self {
        self.post_quantum = offer;
        self
    }

    /// Offers the cipher suites with AES-256 before those with AES-128. Default false: AES-128 is first, as in browsers and in
    /// Go, because nobody can break it either, and its handshakes take SHA-256, which processors have instructions for; the
    /// SHA-384 of AES-256 costs a tenth of a whole handshake. For those who must use AES-256 (CNSA 2.0).
    ///
    /// All suites are offered in either case, and it is the server that chooses; [`TlsInfo::cipher_suite`](super::TlsInfo::cipher_suite)
    /// tells which.
    #[must_use]
    pub fn aes_256_first(mut self, first: bool) -> Self {
        self.aes_256_first = first;
        self
    }

    /// Accepts any certificate for any host. Default false. Whoever is in the path can then read and change everything;
    /// it is meant for tests.
    ///
    /// Roots and revocation lists then count for nothing; the server's own key is still held against the pins, if there are
    /// any, and the server must still have the key of its certificate.
    #[must_use]
    pub fn danger_accept_invalid_certs(mut self, accept: bool) -> Self {
        self.accept_invalid = accept;
        self
    }

    /// Fails if a root certificate, a revocation list, a pin, the server name or a number cannot be used.
    pub fn build(self) -> Result<TlsConfig> {
        let hosts = self.resumable_hosts;
        if hosts > MAX_RESUMABLE_HOSTS {
            return Err(unusable(format!(
                "resumable_hosts is {hosts}; it must be at most {MAX_RESUMABLE_HOSTS}"
            )));
        }
        let server_name = match &self.server_name {
            Some(name) => Some(server_name(name).ok_or_else(|| {
                unusable(format!(
                    "{name:?} is no name that a certificate could have: it must be a DNS name (an xn-- form, if it is not ASCII) or an IP address without brackets, and no port"
                ))
            })?),
            None => None,
        };
        // The provider is always named: with two of them compiled in, rustls would not know which to take.
        let provider = self.provider();
        let verifier = Arc::new(self.verifier(&provider)?);
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions())
            .map_err(|error| unusable("TLS cannot be set up").because(error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        client.resumption = resumption(self.resumable_hosts);
        if self.key_log {
            client.key_log = Arc::new(KeyLogFile::new());
        }
        let inner = Arc::new(Inner::new(client, server_name, self.resumable_hosts));
        if let Some(identity) = &self.identity {
            identity.introduce(&inner);
        }
        Ok(TlsConfig(inner))
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = provider::default_provider();
        let is_hybrid = |name| name == NamedGroup::X25519MLKEM768;
        if self.post_quantum {
            // The first one is offered with a share, so that a server that knows it needs no further round trip.
            provider
                .kx_groups
                .sort_by_key(|group| !is_hybrid(group.name()));
        } else {
            provider.kx_groups.retain(|group| !is_hybrid(group.name()));
        }
        if !self.aes_256_first {
            // The others keep the order of rustls, which has those with AES-256 first.
            provider
                .cipher_suites
                .sort_by_key(|suite| !is_aes_128(suite.suite()));
        }
        Arc::new(provider)
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.min_version {
            TlsVersion::Tls12 => rustls::ALL_VERSIONS,
            TlsVersion::Tls13 => ONLY_TLS13,
        }
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Verifier> {
        let pins: Vec<Pin> = self
            .pins
            .iter()
            .map(|pin| Pin::parse(pin))
            .collect::<Result<_>>()?;
        // Files are read even where they count for nothing: a mistake in one is a mistake.
        let mut lists = Vec::new();
        for file in &self.crls {
            lists.extend(pem::revocation_lists(file)?);
        }
        let verifier = match &self.roots {
            Roots::Platform(_) if !lists.is_empty() => {
                return Err(unusable(
                    "crls cannot be used with the system's verifier, which checks revocation by itself",
                ));
            }
            Roots::Platform(platform) if !self.accept_invalid => {
                Verifier::platform(*platform, &self.extra_roots, provider)?
            }
            _ if self.accept_invalid => {
                self.root_store()?;
                Verifier::unchecked(provider)?
            }
            _ => {
                let revocation = Revocation {
                    lists,
                    allow_unknown: self.allow_unknown_revocation,
                };
                Verifier::web_pki(self.root_store()?, revocation, provider)?
            }
        };
        Ok(verifier.pinned_to(pins))
    }

    fn root_store(&self) -> Result<Arc<RootCertStore>> {
        let (mut store, only) = match &self.roots {
            Roots::Only(pem) => (RootCertStore::empty(), pem::certificates(pem)?),
            Roots::BuiltIn | Roots::Platform(_) if self.extra_roots.is_empty() => {
                return Ok(Arc::clone(built_in_roots()));
            }
            Roots::BuiltIn | Roots::Platform(_) => (built_in_roots().as_ref().clone(), Vec::new()),
        };
        for (at, root) in only.iter().chain(&self.extra_roots).enumerate() {
            store.add(root.clone()).map_err(|error| {
                unusable(format!("root certificate {} cannot be used", at + 1)).because(error)
            })?;
        }
        Ok(Arc::new(store))
    }
}

impl fmt::Debug for TlsConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots = match &self.roots {
            Roots::BuiltIn => "built-in",
            Roots::Only(_) => "only",
            Roots::Platform(_) => "platform",
        };
        f.debug_struct("TlsConfigBuilder")
            .field("roots", &roots)
            .field("extra_roots", &self.extra_roots.len())
            .field("client_identity", &self.identity.is_some())
            .field("min_version", &self.min_version)
            .field("server_name", &self.server_name)
            .field("pins", &self.pins.len())
            .field("crls", &self.crls.len())
            .field("allow_unknown_revocation", &self.allow_unknown_revocation)
            .field("resumable_hosts", &self.resumable_hosts)
            .field("key_log", &self.key_log)
            .field("post_quantum", &self.post_quantum)
            .field("aes_256_first", &self.aes_256_first)
            .field("danger_accept_invalid_certs", &self.accept_invalid)
            .finish()
    }
}

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The roots of the `webpki-roots` crate, collected once a process and shared by all configurations that add none.
fn built_in_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()))
}

/// A store of sessions of its own.
pub(super) fn resumption(hosts: usize) -> Resumption {
    match hosts {
        0 => Resumption::disabled(),
        hosts => Resumption::in_memory_sessions(hosts.saturating_mul(TICKETS)),
    }
}

static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Hosts whose sessions are remembered, unless told otherwise.
const RESUMABLE_HOSTS: usize = 256;

/// rustls takes the memory for all of them at once, and panics where there is none.
const MAX_RESUMABLE_HOSTS: usize = 65_536;

/// Tickets that rustls keeps of one host; its limit counts tickets.
const TICKETS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_roots_are_collected_once() {
        let first = TlsConfigBuilder::default().root_store().unwrap();
        let second = TlsConfigBuilder::default().root_store().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(first.len(), webpki_roots::TLS_SERVER_ROOTS.len());
    }

    #[test]
    fn the_hybrid_group_is_first_or_absent() {
        let groups = |offer| -> Vec<NamedGroup> {
            let provider = TlsConfigBuilder::default().post_quantum(offer).provider();
            provider
                .kx_groups
                .iter()
                .map(|group| group.name())
                .collect()
        };
        let hybrid = NamedGroup::X25519MLKEM768;
        assert!(!groups(false).contains(&hybrid));
        assert!(groups(false).contains(&NamedGroup::X25519));
        if cfg!(feature = "tls") {
            assert_eq!(groups(true)[0], hybrid);
        } else {
            assert!(!groups(true).contains(&hybrid));
        }
    }

    #[test]
    fn aes_128_is_first_unless_told_otherwise_and_nothing_is_missing() {
        let suites = |first| -> Vec<CipherSuite> {
            let provider = TlsConfigBuilder::default().aes_256_first(first).provider();
            let suites = provider.cipher_suites.iter();
            suites.map(|suite| suite.suite()).collect()
        };
        let (ours, theirs) = (suites(false), suites(true));
        assert_eq!(theirs[0], CipherSuite::TLS13_AES_256_GCM_SHA384);
        assert_eq!(ours[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(ours.iter().filter(|suite| is_aes_128(**suite)).count(), 3);
        assert!(ours[..3].iter().all(|suite| is_aes_128(*suite)));
        let mut others = theirs.clone();
        others.retain(|suite| !is_aes_128(*suite));
        assert_eq!(ours[3..], others);
    }

    #[test]
    fn every_configuration_has_an_id_and_a_session_store_of_its_own() {
        let first = TlsConfigBuilder::default().build().unwrap();
        let second = TlsConfigBuilder::default().build().unwrap();
        assert_ne!(first.id(), second.id());
        assert_ne!(first.id(), TlsConfig::default().id());
        assert_eq!(first.id(), first.clone().id());
        assert_eq!(TlsConfig::default().id(), TlsConfig::default().id());
    }
}
