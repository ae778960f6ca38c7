//! Whether redirects are followed: the settings of a client and of one call.

use super::{ClientBuilder, RequestBuilder};
use crate::policy::Redirects;

impl ClientBuilder {
    /// Whether and how redirects are followed. Default: up to 10, see [`Redirects`].
    ///
    /// ```
    /// use sockeye::{Client, Redirects};
    ///
    /// let client = Client::builder().redirects(Redirects::none()).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.redirects = redirects;
        self
    }
}

impl RequestBuilder {
    /// Whether and how redirects of this call are followed, in place of the client's setting.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// use sockeye::{Client, Redirects};
    ///
    /// let response = Client::new().get("http://example.com/").redirects(Redirects::none()).send().await?;
    /// println!("{:?}", response.header("location"));
    /// # Ok(()) }
    /// ```
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.call.own_mut().redirects = Some(redirects);
        self
    }
}
