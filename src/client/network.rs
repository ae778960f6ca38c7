//! How a client finds the addresses of a host and connects to them: names, the guard on addresses, options of sockets,
//! sockets of the Unix domain.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
#[cfg(any(target_os = "android", target_os = "linux"))]
use std::time::Duration;

use super::builder::ClientBuilder;
use super::request::RequestBuilder;
use crate::error::{Error, Result};
use crate::socket::{DialSettings, MAX_ADDRESSES, Resolve, TcpKeepalive};
use crate::url::UrlInput;

/// What the methods below collect.
#[derive(Default)]
pub(super) struct Network {
    dialling: DialSettings,
    unix: Option<Arc<Path>>,
}

impl ClientBuilder {
    /// Who is asked for the addresses of a host. Default: the system (getaddrinfo), off the threads that run calls, at most
    /// 32 lookups at once on a runtime. Whoever answers, the client remembers up to 1,024 answers, those of the system for
    /// 30 seconds, and asks again when all addresses of an answer have failed; failures are not remembered. See [`Resolve`]
    /// for an example.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.network.dialling.resolver = Some(Arc::new(resolver));
        self
    }

    /// Settles the addresses of one host, so that it is never looked up: 1 to 32 of them, tried in turn as those of a lookup
    /// are. Port 0 stands for the port of the URL. The Host field and the name in TLS stay those of the URL. The last call
    /// for a host wins. Default: none. Proxies look up the hosts that they are asked for themselves, but for those of `socks5`;
    /// the setting then counts for the host of the proxy.
    ///
    /// `host` is compared without regard to case and to a trailing dot, and never stands for its subdomains.
    /// [`build`](Self::build) fails if it is not a name.
    ///
    /// ```
    /// use sockeye::Client;
    ///
    /// let client = Client::builder()
    ///     .resolve("api.example.com", &[([127, 0, 0, 1], 8443).into()])
    ///     .build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn resolve(mut self, host: impl AsRef<str>, addresses: &[SocketAddr]) -> Self {
        let host = host.as_ref();
        let count = addresses.len();
        if !(1..=MAX_ADDRESSES).contains(&count) {
            self.note(Error::invalid(format!(
                "resolve: {count} addresses for {host:?}; it must be from 1 to {MAX_ADDRESSES}"
            )));
            return self;
        }
        match name(host) {
            Ok(name) => {
                let mut kept = Vec::with_capacity(count);
                for address in addresses {
                    if !kept.contains(address) {
                        kept.push(*address);
                    }
                }
                self.network.dialling.overrides.insert(name, kept);
            }
            Err(mistake) => self.note(mistake),
        }
        self
    }

    /// Whether the client keeps away from addresses that are not of the public network: those of this machine, of private
    /// and link-local networks, multicast and reserved ones, whatever name leads there. Default false.
    ///
    /// It is for programs that fetch what strangers name (server-side request forgery). Every address of every dial is
    /// looked at between the lookup and the connection, one in a URL and one of [`resolve`](Self::resolve) as well, and the
    /// connection is made to that very address. IPv6 addresses that carry one of IPv4 (mapped, NAT64, 6to4, Teredo) are
    /// judged by that one. Where all addresses are excluded the call fails with [`ErrorKind::Connect`](crate::ErrorKind),
    /// naming them, and is not to be retried; else the others are tried. It is refused together with
    /// [`connector`](Self::connector) and a socket of the Unix domain, which it does not see. Proxies of the environment are
    /// not used with it, and one that is set is refused unless it [guards addresses](crate::Proxy::guards_addresses) itself:
    /// only the proxy's own address would be seen here.
    ///
    /// Denied: 0.0.0.0/8, 10/8, 100.64/10, 127/8, 169.254/16, 172.16/12, 192.0.0/24, 192.168/16, 198.18/15, 224/4, 240/4;
    /// `::`, `::1`, `64:ff9b:1::/48`, `fc00::/7`, `fe80::/10`, `fec0::/10`, `ff00::/8`.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let client = sockeye::Client::builder().deny_private(true).build()?;
    /// let error = client.get("http://[::ffff:169.254.169.254]/").send().await.unwrap_err();
    /// assert!(error.to_string().contains("link-local"), "{error}");
    /// # Ok::<(), sockeye::Error>(()) }).unwrap();
    /// ```
    pub fn deny_private(mut self, enabled: bool) -> Self {
        self.network.dialling.deny_private = enabled;
        self
    }

    /// The address that TCP connections come from. Default: the system's choice for each.
    ///
    /// Addresses of the other family are left out of every dial; if none is left the call fails with
    /// [`ErrorKind::Connect`](crate::ErrorKind), naming them. The system gives each connection a port of its own, some
    /// 28,000 on Linux, for all peers together. It must be an address of this machine; that is found out when it is used.
    ///
    /// ```
    /// let client = sockeye::Client::builder().local_address([192, 0, 2, 17].into()).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.network.dialling.tcp.local = Some(address);
        self
    }

    /// The network interface that TCP connections use (SO_BINDTODEVICE; Linux and Android only), whatever the routes say.
    /// Default: none. An interface that does not exist, or that the process may not use, fails each dial with its name.
    ///
    /// ```
    /// let client = sockeye::Client::builder().interface("eth1").build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    #[cfg(any(target_os = "android", target_os = "linux"))]
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.network.dialling.tcp.interface = Some(name.into());
        self
    }

    /// Whether small segments are sent at once (TCP_NODELAY), without waiting for the peer to acknowledge those before.
    /// Default true.
    ///
    /// ```
    /// let client = sockeye::Client::builder().tcp_nodelay(false).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn tcp_nodelay(mut self, enabled: bool) -> Self {
        self.network.dialling.tcp.nodelay = enabled;
        self
    }

    /// Whether and how the system asks for signs of life on silent TCP connections. Default: it does not; time limits of
    /// calls and the PINGs of HTTP/2 see to those that are in use. It keeps the state of firewalls and address translators
    /// on the way alive. See [`TcpKeepalive`] for an example.
    pub fn tcp_keepalive(mut self, keepalive: TcpKeepalive) -> Self {
        self.network.dialling.tcp.keepalive = Some(keepalive);
        self
    }

    /// How long what was sent may go without an acknowledgement before the system closes the connection (TCP_USER_TIMEOUT,
    /// RFC 5482; Linux and Android only): from 1 ms to 2^31 - 1 ms. Default: the system's, about a quarter of an hour. It
    /// limits connecting, too.
    ///
    /// ```
    /// use std::time::Duration;
    /// let client = sockeye::Client::builder().tcp_user_timeout(Duration::from_secs(20)).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    #[cfg(any(target_os = "android", target_os = "linux"))]
    pub fn tcp_user_timeout(mut self, limit: Duration) -> Self {
        self.network.dialling.tcp.user_timeout = Some(limit);
        self
    }

    /// The socket of the Unix domain that all connections lead to (Unix only). Default: none, DNS and TCP.
    ///
    /// The URL says what is spoken there and what the Host field is: `http://` plain HTTP, `https://` TLS with the URL's
    /// host as the name. Nothing is looked up, and no address is known of such a connection. A path that begins with a zero
    /// byte is an abstract name (Linux). While the server's backlog is full, connecting waits, within the connect limit. Proxies
    /// of the environment are not used; one that is set is refused beside it.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let client = sockeye::Client::builder().unix_socket("/run/docker.sock").build()?;
    /// let version = client.get("http://localhost/version").send().await?.text().await?;
    /// # Ok(()) }
    /// ```
    #[cfg(unix)]
    pub fn unix_socket(mut self, path: impl AsRef<Path>) -> Self {
        self.network.unix = Some(path.as_ref().into());
        self
    }
}

impl RequestBuilder {
    /// The socket of the Unix domain that this call is made over, in place of the client's setting; see
    /// [`ClientBuilder::unix_socket`]. Connections to one path are kept for calls to the same path and origin, and for no
    /// others.
    ///
    /// `send` refuses it if the client has a connector of its own or denies private addresses.
    ///
    /// It beats a proxy of the client's; one of the call's own ([`proxy`](Self::proxy)) is refused beside it. A redirect to
    /// another origin leaves the socket, which was named for this one (security R3).
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let client = sockeye::Client::new();
    /// let request = client.get("http://localhost/containers/json").unix_socket("/run/docker.sock");
    /// let response = request.send().await?;
    /// assert_eq!(response.connection().remote_addr, None);
    /// # Ok(()) }
    /// ```
    #[cfg(unix)]
    pub fn unix_socket(mut self, path: impl AsRef<Path>) -> Self {
        self.call.own_mut().unix = Some(path.as_ref().into());
        self
    }

    /// Whether the client lets this call lead where it asks to.
    pub(super) fn check_unix(&mut self) {
        let Some(path) = self.call.own(|own| own.unix.as_deref()) else {
            return;
        };
        let mistake = match self.client.0.no_unix {
            Some(why) => Some(Error::invalid(why)),
            None => check_path(path).err(),
        };
        if let Some(mistake) = mistake {
            self.note(mistake);
        }
    }
}

impl Network {
    /// Why a socket of the Unix domain cannot be used with the other settings, if it cannot.
    pub(super) fn no_unix(&self, has_connector: bool) -> Option<&'static str> {
        if has_connector {
            Some(
                "unix_socket: the client's connector decides where connections lead; leave one of them out",
            )
        } else if self.dialling.deny_private {
            Some(
                "unix_socket: the client denies private addresses (deny_private), and a path leads into this machine; leave one of them out",
            )
        } else {
            None
        }
    }

    pub(super) fn check(&self, has_connector: bool) -> Result<()> {
        if has_connector && self.dialling.deny_private {
            return Err(Error::invalid(
                "deny_private: the client's connector chooses the addresses, which are not seen here; check them in the connector, or leave one of them out",
            ));
        }
        if let Some(path) = &self.unix {
            if let Some(why) = self.no_unix(has_connector) {
                return Err(Error::invalid(why));
            }
            check_path(path)?;
        }
        self.dialling.tcp.check().map_err(Error::invalid)
    }

    pub(super) fn denies_private(&self) -> bool {
        self.dialling.deny_private
    }

    pub(super) fn has_unix(&self) -> bool {
        self.unix.is_some()
    }

    pub(super) fn into_parts(self) -> (DialSettings, Option<Arc<Path>>) {
        (self.dialling, self.unix)
    }
}

/// The name of a host as the origin of a URL has it, without a trailing dot.
fn name(host: &str) -> Result<String> {
    let refused = |why: &str| Error::invalid(format!("resolve: {host:?} {why}"));
    let url = format!("http://{host}/");
    let parsed = UrlInput::Text(url.into()).parse(None).map_err(|error| {
        Error::invalid_request(error).saying(format!("resolve: {host:?} is no host"))
    })?;
    let origin = parsed.target.origin();
    let name = origin.host();
    if !name.eq_ignore_ascii_case(host) || parsed.authorization.is_some() {
        return Err(refused("is more than a host"));
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err(refused("is an address, which is never looked up"));
    }
    Ok(name.strip_suffix('.').unwrap_or(name).to_owned())
}

/// Whatever else is wrong with a path, the system says when it is used.
fn check_path(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("unix_socket: the path is empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    fn refused(builder: ClientBuilder, expected: &str) {
        let text = builder.build().unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text} instead of {expected}");
    }

    #[test]
    fn names() {
        for (host, expected) in [
            ("a.test", Some("a.test")),
            ("A.Test", Some("a.test")),
            ("a.test.", Some("a.test")),
            ("localhost", Some("localhost")),
            ("xn--bcher-kva.test", Some("xn--bcher-kva.test")),
            ("", None),
            ("a.test:80", None),
            ("a.test/path", None),
            ("a.test?q", None),
            ("user@a.test", None),
            ("a..test", None),
            ("a test", None),
            ("127.0.0.1", None),
            ("127.1", None),
            ("[::1]", None),
            ("::1", None),
            ("*.a.test", None),
        ] {
            assert_eq!(name(host).ok().as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn mistakes_name_the_setting() {
        let builder = Client::builder;
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        refused(
            builder().resolve("a.test", &[]),
            "resolve: 0 addresses for \"a.test\"; it must be from 1 to 32",
        );
        refused(
            builder().resolve("a.test", &[address; 33]),
            "resolve: 33 addresses for \"a.test\"; it must be from 1 to 32",
        );
        refused(
            builder().resolve("192.0.2.1", &[address]),
            "resolve: \"192.0.2.1\" is an address",
        );
        refused(
            builder().tcp_keepalive(TcpKeepalive::new(std::time::Duration::ZERO)),
            "tcp_keepalive: idle is 0ns; it must be whole seconds from 1 to 32767",
        );
        refused(
            builder().local_address([224, 0, 0, 1].into()),
            "local_address: 224.0.0.1 is a multicast address",
        );
        #[cfg(unix)]
        {
            refused(builder().unix_socket(""), "unix_socket: the path is empty");
            refused(
                builder().unix_socket("/a").deny_private(true),
                "unix_socket: the client denies private addresses",
            );
        }
    }
}
