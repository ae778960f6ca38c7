//! Where interceptors are registered.

use std::sync::Arc;

use super::ClientBuilder;
use crate::call::Interceptor;

impl ClientBuilder {
    /// Puts an interceptor around every call, inside those registered before it: see [`Interceptor`]. Default none.
    ///
    /// ```
    /// use sockeye::http::{self, Request};
    /// use sockeye::{Body, Client, Next, Response};
    ///
    /// let client = Client::builder()
    ///     .interceptor(async |request: Request<Body>, next: Next<'_>| {
    ///         if request.uri().path() == "/health" {
    ///             return Ok(Response::from(http::Response::new("as ever")));
    ///         }
    ///         next.run(request).await
    ///     })
    ///     .build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Puts an interceptor around every try of every call, inside those registered before it: see [`Interceptor`]. Default
    /// none. It is the place for what must be made anew for each try, such as a signature or a trace context.
    ///
    /// ```
    /// use sockeye::http::HeaderValue;
    /// use sockeye::{Client, on_request};
    ///
    /// let client = Client::builder()
    ///     .attempt_interceptor(on_request(|parts| {
    ///         parts.headers.insert("x-trace", HeaderValue::from_static("1"));
    ///         Ok(())
    ///     }))
    ///     .build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn attempt_interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.attempt_interceptors.push(Arc::new(interceptor));
        self
    }
}
