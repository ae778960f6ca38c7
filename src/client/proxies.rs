//! Which proxies calls go through: the settings of a client and of a call.

use std::sync::Arc;

use super::builder::ClientBuilder;
use super::network::Network;
use super::request::RequestBuilder;
use crate::error::{Error, Result};
use crate::socket::{Environment, Proxies, Proxy};

/// What the methods below collect.
pub(super) enum ProxySettings {
    Environment(Mistakes),
    Set(Vec<Proxy>),
}

/// When a variable of the environment that names no proxy is told.
pub(super) enum Mistakes {
    AtOnce,
    WithCalls,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self::Environment(Mistakes::AtOnce)
    }
}

impl ClientBuilder {
    /// A proxy for all calls that set none of their own. Of several, the first that is for a URL counts; a URL that none is for is
    /// reached without. Each URL of a call is looked at anew, so a redirect may lead to another proxy.
    ///
    /// Default: the proxies that the environment names, as `build` finds it. `http_proxy` is for `http` URLs, `https_proxy` for
    /// `https` URLs, `all_proxy` for those without a variable of their own; `no_proxy` lists hosts that are reached without
    /// ([`Proxy::except`]; items that are none of these do not count). A name may be in upper case as well, and the lower
    /// case wins; one that is empty counts as not there. HTTP_PROXY in upper case is not read where REQUEST_METHOD is set:
    /// in a CGI program it is a field of a request. URLs of this machine (`localhost` and names below it, 127.0.0.0/8, `::1`)
    /// never go through a proxy of the environment; through one that is set here they do. A value that is no proxy is an
    /// error of `build`, which names the variable. None of it is read when a proxy is set here, with
    /// [`no_proxy`](Self::no_proxy), a [`connector`](Self::connector), a socket of the Unix domain, or
    /// [`deny_private`](Self::deny_private).
    ///
    /// ```
    /// use sockeye::{Client, Proxy};
    ///
    /// let client = Client::builder()
    ///     .proxy(Proxy::https("http://tunnels.example.com:3128")?)
    ///     .proxy(Proxy::http("http://cache.example.com:8080")?.except(".example.com")?)
    ///     .build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        match &mut self.proxies {
            ProxySettings::Set(proxies) => proxies.push(proxy),
            ProxySettings::Environment(_) => self.proxies = ProxySettings::Set(vec![proxy]),
        }
        self
    }

    /// Takes all proxies back, those of the environment included. Calls may still set one of their own.
    ///
    /// ```
    /// let client = sockeye::Client::builder().no_proxy().build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn no_proxy(mut self) -> Self {
        self.proxies = ProxySettings::Set(Vec::new());
        self
    }

    /// For a client that is made without an error.
    pub(super) fn tell_mistakes_of_the_environment_later(mut self) -> Self {
        self.proxies = ProxySettings::Environment(Mistakes::WithCalls);
        self
    }
}

impl RequestBuilder {
    /// A proxy for this call, in place of all of the client's, and before those that were set for it earlier. A URL of the
    /// call that none of its proxies is for is reached without. It beats a socket of the Unix domain that the client has.
    ///
    /// `send` refuses it beside [`unix_socket`](Self::unix_socket), and if the client denies private addresses unless it
    /// [guards addresses](Proxy::guards_addresses) itself. Keep a `Proxy` for several calls rather than making it anew: that is cheaper, although
    /// equal ones share connections.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// use sockeye::{Client, Proxy};
    ///
    /// let client = Client::new();
    /// let proxy = Proxy::all("http://proxy.example.com:3128")?;
    /// let response = client.get("https://example.com/").proxy(proxy).send().await?;
    /// println!("by {:?}", response.connection().proxy());
    /// # Ok(()) }
    /// ```
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        let none = || Arc::new(Proxies::Set(Vec::new()));
        let proxies = self.call.own_mut().proxies.get_or_insert_with(none);
        Arc::make_mut(proxies).add(proxy);
        self
    }

    /// Makes this call without a proxy, whatever the client or the environment says.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let response = sockeye::Client::new().get("https://example.com/").no_proxy().send().await?;
    /// # Ok(()) }
    /// ```
    pub fn no_proxy(mut self) -> Self {
        self.call.own_mut().proxies = Some(Arc::new(Proxies::Set(Vec::new())));
        self
    }

    /// Whether the client lets this call go through what it asks for.
    pub(super) fn check_proxies(&mut self) {
        let Some(Proxies::Set(proxies)) = self.call.own(|own| own.proxies.as_deref()) else {
            return;
        };
        let checked = check(
            proxies,
            self.call.own(|own| own.unix.as_ref()).is_some(),
            self.client.0.deny_private,
        );
        if let Err(mistake) = checked {
            self.note(mistake);
        }
    }
}

impl ProxySettings {
    /// What a client with these settings goes through; `None` is nothing.
    pub(super) fn settle(self, network: &Network, has_connector: bool) -> Result<Option<Proxies>> {
        let (has_unix, denies_private) = (network.has_unix(), network.denies_private());
        let mistakes = match self {
            Self::Set(proxies) => {
                check(&proxies, has_unix, denies_private)?;
                return Ok((!proxies.is_empty()).then_some(Proxies::Set(proxies)));
            }
            // Who says where connections lead has said so.
            Self::Environment(_) if has_connector || has_unix || denies_private => return Ok(None),
            Self::Environment(mistakes) => mistakes,
        };
        let Some(environment) = Environment::read(|name| std::env::var_os(name)) else {
            return Ok(None);
        };
        if let Mistakes::AtOnce = mistakes {
            environment.check()?;
        }
        Ok(Some(Proxies::Environment(environment)))
    }
}

fn check(proxies: &[Proxy], has_unix: bool, denies_private: bool) -> Result<()> {
    if has_unix && !proxies.is_empty() {
        return Err(Error::invalid(
            "proxy: a socket of the Unix domain is set as well (unix_socket), and a connection begins with one of them; leave the other out",
        ));
    }
    if denies_private && proxies.iter().any(|proxy| !proxy.does_guard_addresses()) {
        return Err(Error::invalid(
            "proxy: the client denies private addresses (deny_private), and would see none but the proxy's; leave one of them out, \
             or say that the proxy keeps away from them itself (Proxy::guards_addresses)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    fn refused(builder: ClientBuilder, expected: &str) {
        let text = builder.build().unwrap_err().to_string();
        assert!(text.contains(expected), "{text} instead of {expected}");
    }

    #[test]
    fn what_does_not_go_together() {
        let proxy = || Proxy::all("http://p.test").unwrap();
        let builder = Client::builder;
        refused(
            builder().proxy(proxy()).deny_private(true),
            "guards_addresses",
        );
        let guarding = proxy().guards_addresses(true);
        builder()
            .deny_private(true)
            .proxy(guarding.clone())
            .build()
            .unwrap();
        refused(
            builder().deny_private(true).proxy(guarding).proxy(proxy()),
            "guards_addresses",
        );
        builder()
            .proxy(proxy())
            .no_proxy()
            .deny_private(true)
            .build()
            .unwrap();
        #[cfg(unix)]
        {
            refused(builder().proxy(proxy()).unix_socket("/a"), "unix_socket");
            builder().no_proxy().unix_socket("/a").build().unwrap();
        }
    }
}
