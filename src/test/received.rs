//! A request as it came to a test double, put together from the bytes on the wire.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version};

/// A request as it came over the wire: what a test looks at, and what an answer is made from.
///
/// `Debug` shows neither field values nor the query nor the body.
#[derive(Clone)]
#[non_exhaustive]
pub struct Received {
    /// The method.
    pub method: Method,
    /// Scheme and host of the connection and its Host field, with path and query as they were sent.
    pub url: Uri,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The fields, names in lower case.
    pub headers: HeaderMap,
    /// The content, framing taken off.
    pub body: Bytes,
    /// How many connections were made before the one that it came on.
    pub connection: usize,
    /// Whether that connection had carried a request before.
    pub reused: bool,
}

impl Received {
    /// The first value of a field, if it is text.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use sockeye::test::MockTransport;
    /// use sockeye::{Client, Method};
    ///
    /// let mock = MockTransport::new();
    /// mock.on(Method::POST, "http://a.test/notes").reply(201, "");
    /// let client = Client::builder().connector(mock.clone()).build()?;
    /// client.post("http://a.test/notes").header("x-tag", "7").body("hello").await?;
    /// let history = mock.history();
    /// assert_eq!(history[0].header("x-tag"), Some("7"));
    /// assert_eq!(history[0].text(), "hello");
    /// # Ok::<(), sockeye::Error>(()) }).unwrap();
    /// ```
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The content as text; what is no UTF-8 becomes U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("method", &self.method)
            .field("url", &format_args!("{}", without_values(&self.url)))
            .field("version", &self.version)
            .field("fields", &self.headers.keys().collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .field("connection", &self.connection)
            .field("reused", &self.reused)
            .finish()
    }
}

/// A URL whose query shows names only.
pub(super) fn without_values(url: &Uri) -> String {
    let mut text = String::new();
    if let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        text = format!("{scheme}://{host}");
    }
    text.push_str(url.path());
    let mut separator = '?';
    for pair in url.query().unwrap_or_default().split('&') {
        if let Some(name) = pair.split('=').next().filter(|_| url.query().is_some()) {
            text.push(separator);
            text.push_str(name);
            if pair.contains('=') {
                text.push_str("=..");
            }
            separator = '&';
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_shows_its_names() {
        for (url, expected) in [
            ("https://a.test/x", "https://a.test/x"),
            ("https://a.test:8443/x?", "https://a.test:8443/x?"),
            (
                "http://a.test/?q=secret&flag&r=",
                "http://a.test/?q=..&flag&r=..",
            ),
            ("http://user:secret@a.test/", "http://a.test/"),
        ] {
            assert_eq!(without_values(&url.parse().unwrap()), expected);
        }
    }
}
