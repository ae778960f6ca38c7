//! Where a client gets its cookies.

use super::ClientBuilder;
use crate::call::CookieJar;

impl ClientBuilder {
    /// Keeps cookies in a jar, and sends them back. Default none: `set-cookie` is a field like others. See [`CookieJar`].
    ///
    /// ```
    /// use sockeye::{Client, CookieJar};
    ///
    /// let client = Client::builder().cookies(CookieJar::new()).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn cookies(mut self, jar: CookieJar) -> Self {
        self.cookies = Some(jar);
        self
    }
}
