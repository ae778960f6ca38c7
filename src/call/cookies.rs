//! The cookies of a client: a jar that clients may share, and the way to a store of one's own. The rules are in
//! `policy/cookies.rs`; here are the lock and the clock.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Uri};

use crate::error::{Error, Result};
use crate::policy::Cookies;
use crate::url::{IntoUrl, Target};

/// Keeps cookies and sends them back (RFC 6265bis), for [`ClientBuilder::cookies`](crate::ClientBuilder::cookies). Cheap to clone; clones
/// share everything, and clients may.
///
/// It has what `set-cookie` of every response said, of redirects and error statuses as well, and lives as long as the program: for one that
/// lasts longer see [`with_store`](Self::with_store). A cookie goes to whom it was set for: by host or by domain (never by a public
/// suffix or for an address), by path, and only over `https` if it says so. A request with a `cookie` field of its own carries that
/// and nothing from the jar. At most 50 cookies of 4 KiB are taken of a response, 50 kept of a domain and 3,000 in all; those
/// used longest ago go first. A request carries at most 8 KiB of them.
///
/// ```
/// use sockeye::{Client, CookieJar};
///
/// let jar = CookieJar::new();
/// jar.set("https://example.com/", "theme=dark; Path=/")?;
/// let client = Client::builder().cookies(jar.clone()).build()?;
/// assert_eq!(jar.get("https://example.com/page")?.unwrap(), "theme=dark");
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone)]
pub struct CookieJar(Arc<dyn CookieStore>);

/// Where the cookies of a [`CookieJar`] are kept, for those who keep them elsewhere. Neither method may block for long.
///
/// ```
/// use std::sync::Mutex;
/// use sockeye::http::{HeaderValue, Uri};
/// use sockeye::{CookieJar, CookieStore};
///
/// /// The last cookie of a single server.
/// #[derive(Default)]
/// struct Last(Mutex<Option<HeaderValue>>);
///
/// impl CookieStore for Last {
///     fn set(&self, url: &Uri, cookie: &HeaderValue) {
///         if url.host() == Some("one.test") {
///             *self.0.lock().unwrap() = Some(cookie.clone());
///         }
///     }
///     fn get(&self, url: &Uri) -> Option<HeaderValue> {
///         self.0.lock().unwrap().clone().filter(|_| url.host() == Some("one.test"))
///     }
/// }
///
/// let jar = CookieJar::with_store(Last::default());
/// # let _ = jar;
/// ```
pub trait CookieStore: Send + Sync + 'static {
    /// A response from `url` has this `set-cookie` field, which is at most 4 KiB long and holds no control characters.
    fn set(&self, url: &Uri, cookie: &HeaderValue);

    /// The `cookie` field of a request to `url`, if it is to have one.
    fn get(&self, url: &Uri) -> Option<HeaderValue>;
}

impl CookieJar {
    /// An empty jar in memory.
    pub fn new() -> Self {
        Self::with_store(InMemory::default())
    }

    /// A jar with a store of your own.
    pub fn with_store(store: impl CookieStore) -> Self {
        Self(Arc::new(store))
    }

    /// Puts a cookie in as if a response from `url` had set it: one that it may not set is left out. Fails if the URL is not
    /// valid or the text no field value.
    pub fn set(&self, url: impl IntoUrl, cookie: &str) -> Result<()> {
        let target = parse(url)?;
        // The value is a secret.
        let cookie = HeaderValue::from_str(cookie)
            .map_err(|_| Error::invalid("the cookie holds a control character"))?;
        self.learn(&target, std::iter::once(cookie.as_bytes()));
        Ok(())
    }

    /// What a request to `url` would carry.
    pub fn get(&self, url: impl IntoUrl) -> Result<Option<HeaderValue>> {
        Ok(self.for_request(&parse(url)?))
    }

    /// Keeps the Set-Cookie fields of a response.
    pub(super) fn learn<'a>(&self, target: &Target, fields: impl Iterator<Item = &'a [u8]>) {
        for field in fields.take(MAX_FIELDS) {
            let Ok(mut value) = HeaderValue::from_bytes(field) else {
                continue;
            };
            if field.len() <= MAX_FIELD {
                value.set_sensitive(true);
                self.0.set(target.uri(), &value);
            }
        }
    }

    /// The Cookie field of a request.
    pub(super) fn for_request(&self, target: &Target) -> Option<HeaderValue> {
        let mut value = self.0.get(target.uri())?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Default for CookieJar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieJar").finish_non_exhaustive()
    }
}

fn parse(url: impl IntoUrl) -> Result<Target> {
    let parsed = url.into_url_input().parse(None);
    Ok(parsed.map_err(Error::invalid_request)?.target)
}

#[derive(Default)]
struct InMemory(Mutex<Cookies>);

impl CookieStore for InMemory {
    fn set(&self, url: &Uri, cookie: &HeaderValue) {
        let mut cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cookies.set(url, cookie.as_bytes(), now());
    }

    fn get(&self, url: &Uri) -> Option<HeaderValue> {
        let mut cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        HeaderValue::try_from(cookies.for_request(url, now())?).ok()
    }
}

/// Seconds since 1970; a clock that is set to before that keeps everything.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Set-Cookie fields that are taken of a response.
const MAX_FIELDS: usize = 50;

/// The longest of them, in bytes.
const MAX_FIELD: usize = 4 * 1024;
