//! The verifier of the operating system, by rustls-platform-verifier: its roots and its policy.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;

use super::builder::{Roots, TlsConfigBuilder};
use super::pem::unusable;
use crate::error::Result;

/// That the system's verifier was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Platform;

impl Platform {
    /// The system's verifier, which trusts `extra` besides.
    pub(super) fn verifier(
        self,
        extra: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>> {
        let verifier = if extra.is_empty() {
            Verifier::new(provider)
        } else {
            Verifier::new_with_extra_roots(extra.iter().cloned(), provider)
        };
        match verifier {
            Ok(verifier) => Ok(Arc::new(verifier)),
            Err(error) => {
                Err(unusable("the system's certificate verifier cannot be used").because(error))
            }
        }
    }
}

impl TlsConfigBuilder {
    /// Has the operating system verify certificates, with the roots that its administrator trusts, instead of the roots of
    /// the `webpki-roots` crate. This is what machines behind a proxy that inspects TLS need.
    ///
    /// It takes the place of [`only_roots`](Self::only_roots); the last call wins. Roots of
    /// [`add_root_pem`](Self::add_root_pem) count besides. Revocation is the system's affair, so [`build`](Self::build) fails
    /// together with [`crls`](Self::crls), and pins are compared with the server's own certificate only. On Linux and the
    /// BSDs, `build` reads the files of the system, which may take some 100 ms and blocks: build once, and outside of the
    /// runtime's threads where that matters.
    ///
    /// ```no_run
    /// let tls = sockeye::TlsConfig::builder().platform_verifier().build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    #[must_use]
    pub fn platform_verifier(mut self) -> Self {
        self.roots = Roots::Platform(Platform);
        self
    }
}
