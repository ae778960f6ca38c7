//! Credentials that are bound to an origin: the settings of a client.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use http::HeaderValue;

use super::ClientBuilder;
use crate::call::Authenticator;
use crate::error::{Error, Result};
use crate::url::{Origin, Target};

impl ClientBuilder {
    /// Sends user and password (RFC 7617) with each request to an origin, and to no other, wherever redirects lead. A request that sets
    /// `authorization` itself, or whose URL holds userinfo, keeps that. Of two for the same origin the first wins. The
    /// origin is a URL without a path.
    ///
    /// ```
    /// let client = sockeye::Client::builder()
    ///     .basic_auth_for("https://api.example.com", "inventory", Some("open sesame"))
    ///     .build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn basic_auth_for(
        self,
        origin: impl AsRef<str>,
        user: impl fmt::Display,
        password: Option<impl fmt::Display>,
    ) -> Self {
        let value = basic(
            &user,
            password
                .as_ref()
                .map(|password| password as &dyn fmt::Display),
        );
        self.credentials_for("basic_auth_for", origin.as_ref(), value)
    }

    /// As [`basic_auth_for`](Self::basic_auth_for) with a bearer token (RFC 6750). For one that runs out see
    /// [`authenticator_for`](Self::authenticator_for).
    ///
    /// ```
    /// let client = sockeye::Client::builder().bearer_auth_for("https://api.example.com", "t0ken").build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn bearer_auth_for(self, origin: impl AsRef<str>, token: impl fmt::Display) -> Self {
        let value = secret(format!("Bearer {token}"));
        self.credentials_for("bearer_auth_for", origin.as_ref(), value)
    }

    /// Has 401 responses of `base_url`'s origin answered by an [`Authenticator`]; without a base URL those of each origin that a caller
    /// names, each with credentials of its own. An origin that only a redirect leads to is not answered. Default none.
    ///
    /// ```
    /// # use sockeye::http::HeaderValue;
    /// # use sockeye::{Authenticator, BoxFuture, Challenge, Client, Result};
    /// # struct Tokens;
    /// # impl Authenticator for Tokens {
    /// #     fn refresh<'a>(&'a self, _: &'a Challenge) -> BoxFuture<'a, Result<Option<HeaderValue>>> {
    /// #         Box::pin(async { Ok(None) })
    /// #     }
    /// # }
    /// let client = Client::builder().base_url("https://api.example.com").authenticator(Tokens).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticators.push((None, Arc::new(authenticator)));
        self
    }

    /// Has 401 responses of an origin, and of no other, answered by an [`Authenticator`]. Of two for the same origin the first
    /// answers. The origin is a URL without a path.
    ///
    /// ```
    /// # use sockeye::http::HeaderValue;
    /// # use sockeye::{Authenticator, BoxFuture, Challenge, Client, Result};
    /// # struct Tokens;
    /// # impl Authenticator for Tokens {
    /// #     fn refresh<'a>(&'a self, _: &'a Challenge) -> BoxFuture<'a, Result<Option<HeaderValue>>> {
    /// #         Box::pin(async { Ok(None) })
    /// #     }
    /// # }
    /// let client = Client::builder().authenticator_for("https://api.example.com", Tokens).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn authenticator_for(
        mut self,
        origin: impl AsRef<str>,
        authenticator: impl Authenticator,
    ) -> Self {
        match parse_origin("authenticator_for", origin.as_ref()) {
            Ok(origin) => self
                .authenticators
                .push((Some(origin), Arc::new(authenticator))),
            Err(mistake) => self.note(mistake),
        }
        self
    }

    fn credentials_for(
        mut self,
        setting: &str,
        origin: &str,
        value: Result<HeaderValue, &'static str>,
    ) -> Self {
        let value = value.map_err(|mistake| Error::invalid(format!("{setting}: {mistake}")));
        match value.and_then(|value| Ok((parse_origin(setting, origin)?, value))) {
            Ok(bound) => self.credentials.push(bound),
            Err(mistake) => self.note(mistake),
        }
        self
    }
}

/// Credentials of a user (RFC 7617), or what is wrong with them.
pub(super) fn basic(
    user: &dyn fmt::Display,
    password: Option<&dyn fmt::Display>,
) -> Result<HeaderValue, &'static str> {
    let mut credentials = user.to_string();
    if credentials.contains(':') || credentials.chars().any(char::is_control) {
        return Err("the user holds a colon or a control character");
    }
    credentials.push(':');
    if let Some(password) = password {
        credentials.push_str(&password.to_string());
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    secret(format!("Basic {encoded}"))
}

/// A value that shows nowhere.
pub(super) fn secret(value: String) -> Result<HeaderValue, &'static str> {
    let mut value =
        HeaderValue::try_from(value).map_err(|_| "the credentials hold a control character")?;
    value.set_sensitive(true);
    Ok(value)
}

/// The origin of a setting: a URL that has nothing else, because nothing else would count.
fn parse_origin(setting: &str, url: &str) -> Result<Origin> {
    let parsed = Target::parse_base(url).map_err(|error| {
        Error::invalid_request(error).saying(format!("{setting}: the origin is not valid"))
    })?;
    if parsed.authorization.is_some() || parsed.target.path_and_query() != "/" {
        return Err(Error::invalid(format!(
            "{setting}: {} is followed or preceded by what is no part of an origin; write scheme, host and port alone",
            parsed.target.origin()
        )));
    }
    Ok(parsed.target.origin())
}
