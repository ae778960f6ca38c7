//! A client's certificate and its key, which can be replaced while clients use it.
//!
//! Lock order: `users`, then what a configuration holds. Nobody is told of a change under a lock.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustls::sign::CertifiedKey;

use super::pem::{self, unusable};
use super::{Inner, provider};
use crate::error::Result;

/// A client's certificate with its private key (mutual TLS), which can be replaced while clients use it. Cheap to clone; all
/// clones are the same identity.
///
/// Certificates that live for hours or days are replaced without a new client:
///
/// ```no_run
/// use sockeye::{Client, ClientIdentity, TlsConfig};
///
/// # fn read(_: &str) -> std::io::Result<Vec<u8>> { Ok(Vec::new()) }
/// let identity = ClientIdentity::from_pem(&read("client.pem")?, &read("client.key")?)?;
/// let tls = TlsConfig::builder().client_identity(&identity).build()?;
/// let client = Client::builder().tls(tls).build()?;
/// // Later, when the files have changed:
/// identity.reload_pem(&read("client.pem")?, &read("client.key")?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ClientIdentity(Arc<State>);

struct State {
    certified: Mutex<Arc<CertifiedKey>>,
    /// The configurations that show it.
    users: Mutex<Vec<Weak<Inner>>>,
}

impl ClientIdentity {
    /// Reads a certificate and its key.
    ///
    /// `certificates` is a PEM file of the client's certificate and, behind it, those between it and a root; `key` a PEM file
    /// of the private key, as PKCS #8, PKCS #1 or SEC 1, not encrypted. Both may be the same file. Fails if one of them cannot
    /// be used, or if the key is not that of the certificate; the error shows nothing of the key.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self> {
        Ok(Self(Arc::new(State {
            certified: Mutex::new(certified(certificates, key)?),
            users: Mutex::default(),
        })))
    }

    /// Replaces both for every [`TlsConfig`](crate::TlsConfig) that was built with this identity; the files are those of
    /// [`from_pem`](Self::from_pem). On an error nothing changes.
    ///
    /// Connections that were opened before serve no request that is sent after this returns: those that are idle close, the
    /// others when their exchange is done; where the identity is for a proxy that a call has set, they close when they have been
    /// idle for as long as the client lets them. No session is resumed across the change. Calls that wait for a connection meanwhile may still be
    /// sent over one of the old identity.
    pub fn reload_pem(&self, certificates: &[u8], key: &[u8]) -> Result<()> {
        let fresh = certified(certificates, key)?;
        let mut users = lock(&self.0.users);
        users.retain(|user| user.strong_count() > 0);
        *lock(&self.0.certified) = Arc::clone(&fresh);
        let renewed: Vec<Arc<Inner>> = users.iter().filter_map(Weak::upgrade).collect();
        for user in &renewed {
            user.show(Arc::clone(&fresh));
        }
        drop(users);
        for user in renewed {
            user.tell();
        }
        Ok(())
    }

    /// Has `user` show this identity, now and after each reload.
    pub(super) fn introduce(&self, user: &Arc<Inner>) {
        let mut users = lock(&self.0.users);
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(user));
        user.show(Arc::clone(&lock(&self.0.certified)));
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// A chain and its key, which must belong together.
fn certified(certificates: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>> {
    let chain = pem::certificates(certificates)?;
    let key = pem::private_key(key)?;
    let certified = CertifiedKey::from_der(chain, key, &provider::default_provider());
    certified.map(Arc::new).map_err(|error| {
        let message = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the private key is not that of the client's certificate, which must be the first one of its file"
            }
            rustls::Error::InvalidCertificate(_) => "the client's certificate is malformed",
            _ => "the private key is malformed, or of a kind that cannot sign in TLS",
        };
        unusable(message)
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
