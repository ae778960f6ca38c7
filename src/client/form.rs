//! Queries and forms: `name=value` pairs of anything that serde can serialise.
//!
//! The encoding is that of HTML forms (WHATWG URL, `application/x-www-form-urlencoded`); what a query makes of a blank is the
//! one difference, see [`RequestBuilder::query`].

use http::HeaderValue;
use serde::Serialize;

use super::RequestBuilder;
use crate::body::Body;
use crate::error::{Error, Result};

impl RequestBuilder {
    /// Adds pairs to the query of the URL: of a struct, a map or a sequence of pairs. What the URL has already stays, and a
    /// name may come more than once: a sequence as a value gives one pair an item, `None` gives none. Everything but letters,
    /// digits and `*-._` is percent-encoded as UTF-8; a blank becomes `%20`, which every server reads as a blank. A value that
    /// is no such thing, such as a struct in a struct, is reported by `send`.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// #[derive(serde::Serialize)]
    /// struct Search<'a> {
    ///     text: &'a str,
    ///     tag: [&'a str; 2],
    ///     page: Option<u32>,
    /// }
    ///
    /// let client = sockeye::Client::new();
    /// let search = Search { text: "red salmon", tag: ["fish", "river"], page: None };
    /// // GET /find?lang=en&text=red%20salmon&tag=fish&tag=river
    /// client.get("https://api.example.com/find?lang=en").query(&search).await?;
    /// client.get("https://api.example.com/find").query(&[("text", "trout")]).await?;
    /// # Ok(()) }
    /// ```
    pub fn query<T: Serialize + ?Sized>(mut self, pairs: &T) -> Self {
        // A plus sign of a value is %2B by now, so that each one here is a blank.
        let added =
            encode("query", pairs).and_then(|pairs| self.append_query(&pairs.replace('+', "%20")));
        if let Err(mistake) = added {
            self.note(mistake);
        }
        self
    }

    /// Sends pairs as an HTML form does, with `content-type: application/x-www-form-urlencoded` unless one is set on the
    /// request. What `pairs` may be is what it may be for [`query`](Self::query).
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let client = sockeye::Client::new();
    /// client.post("https://api.example.com/login").form(&[("user", "ann"), ("next", "/a b")]).await?;
    /// # Ok(()) }
    /// ```
    pub fn form<T: Serialize + ?Sized>(self, pairs: &T) -> Self {
        let body = encode("form", pairs).map(Body::from);
        self.with_body(
            body,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )
    }
}

fn encode<T: Serialize + ?Sized>(call: &str, pairs: &T) -> Result<String> {
    serde_html_form::to_string(pairs).map_err(|error| Error::invalid(format!("{call}: {error}")))
}
