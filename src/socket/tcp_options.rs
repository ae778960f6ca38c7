//! How a TCP socket is set up before and after it connects: settings of the client, each by a socket option of the system.
//!
//! `dial` asks which addresses can be reached from the local address at all; `tcp` connects.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// What a client sets on its TCP sockets.
#[derive(Clone, Debug)]
pub(crate) struct TcpOptions {
    pub(crate) local: Option<IpAddr>,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<TcpKeepalive>,
    #[cfg(any(target_os = "android", target_os = "linux"))]
    pub(crate) interface: Option<String>,
    #[cfg(any(target_os = "android", target_os = "linux"))]
    pub(crate) user_timeout: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            local: None,
            // A request is written whole; waiting to fill a segment would only delay it.
            nodelay: true,
            keepalive: None,
            #[cfg(any(target_os = "android", target_os = "linux"))]
            interface: None,
            #[cfg(any(target_os = "android", target_os = "linux"))]
            user_timeout: None,
        }
    }
}

/// How the system finds out that the peer of a silent connection is gone (TCP keepalive, RFC 9293 section 3.8.4).
///
/// ```
/// use std::time::Duration;
/// use sockeye::{Client, TcpKeepalive};
///
/// let keepalive = TcpKeepalive::new(Duration::from_secs(60))
///     .with_interval(Duration::from_secs(10))
///     .with_probes(3);
/// let client = Client::builder().tcp_keepalive(keepalive).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    idle: Duration,
    interval: Option<Duration>,
    probes: Option<u32>,
}

impl TcpKeepalive {
    /// A probe is sent when nothing has come for `idle`: whole seconds, from 1 to 32,767.
    pub fn new(idle: Duration) -> Self {
        Self {
            idle,
            interval: None,
            probes: None,
        }
    }

    /// Time between two probes: whole seconds, from 1 to 32,767. Default: the system's, 75 s on Linux. Ignored where the
    /// system cannot set it.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Probes without an answer after which the connection is dead: from 1 to 127. Default: the system's, 9 on Linux.
    /// Ignored where the system cannot set it.
    #[must_use]
    pub fn with_probes(mut self, probes: u32) -> Self {
        self.probes = Some(probes);
        self
    }

    /// The ranges are those of Linux, the narrowest of the common systems.
    fn check(&self) -> Result<(), String> {
        let times = [("idle", Some(self.idle)), ("interval", self.interval)];
        for (name, time) in times {
            if let Some(time) = time.filter(|time| {
                time.subsec_nanos() > 0 || !(1..=MAX_SECONDS).contains(&time.as_secs())
            }) {
                return Err(format!(
                    "tcp_keepalive: {name} is {time:?}; it must be whole seconds from 1 to {MAX_SECONDS}"
                ));
            }
        }
        match self
            .probes
            .filter(|probes| !(1..=MAX_PROBES).contains(probes))
        {
            Some(probes) => Err(format!(
                "tcp_keepalive: probes is {probes}; it must be from 1 to {MAX_PROBES}"
            )),
            None => Ok(()),
        }
    }

    fn parameters(&self) -> socket2::TcpKeepalive {
        let parameters = socket2::TcpKeepalive::new().with_time(self.idle);
        #[cfg(any(
            target_os = "android",
            target_os = "freebsd",
            target_os = "ios",
            target_os = "linux",
            target_os = "macos",
            target_os = "netbsd",
            target_os = "windows"
        ))]
        let parameters = {
            let parameters = match self.interval {
                Some(interval) => parameters.with_interval(interval),
                None => parameters,
            };
            match self.probes {
                Some(probes) => parameters.with_retries(probes),
                None => parameters,
            }
        };
        parameters
    }
}

impl TcpOptions {
    /// What is wrong with them, naming the setting, the value and the limit.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(local) = self.local.filter(|local| local.is_multicast()) {
            return Err(format!(
                "local_address: {local} is a multicast address, which no connection can come from"
            ));
        }
        #[cfg(any(target_os = "android", target_os = "linux"))]
        {
            if let Some(name) = &self.interface {
                let length = name.len();
                if !(1..=MAX_INTERFACE).contains(&length) || name.contains('\0') {
                    return Err(format!(
                        "interface: {name:?} is no name of an interface, which has 1 to {MAX_INTERFACE} bytes"
                    ));
                }
            }
            if let Some(limit) = self.user_timeout {
                let milliseconds = limit.as_millis();
                if !(1..=MAX_USER_TIMEOUT).contains(&milliseconds) {
                    return Err(format!(
                        "tcp_user_timeout is {limit:?}; it must be from 1 to {MAX_USER_TIMEOUT} milliseconds"
                    ));
                }
            }
        }
        self.keepalive.map_or(Ok(()), |keepalive| keepalive.check())
    }

    /// Why `address` cannot be reached from the local address, if it cannot.
    pub(super) fn mismatch(&self, address: SocketAddr) -> Option<io::Error> {
        let local = self.local?;
        (local.is_ipv4() != address.is_ipv4()).then(|| {
            let family = if local.is_ipv4() { "IPv4" } else { "IPv6" };
            io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("not dialled: the local address {local} is of {family} (local_address)"),
            )
        })
    }

    /// Connects to one address.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let tcp = if self.is_ready_made() {
            TcpStream::connect(address).await?
        } else {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            self.prepare(&socket)?;
            socket.connect(address).await?
        };
        if self.nodelay {
            // Without it requests are slower and nothing else.
            let _ = tcp.set_nodelay(true);
        }
        Ok(tcp)
    }

    /// Whether there is nothing to be set before it connects.
    fn is_ready_made(&self) -> bool {
        #[cfg(any(target_os = "android", target_os = "linux"))]
        if self.interface.is_some() || self.user_timeout.is_some() {
            return false;
        }
        self.local.is_none() && self.keepalive.is_none()
    }

    fn prepare(&self, socket: &TcpSocket) -> io::Result<()> {
        let options = SockRef::from(socket);
        #[cfg(any(target_os = "android", target_os = "linux"))]
        {
            if let Some(name) = &self.interface {
                options
                    .bind_device(Some(name.as_bytes()))
                    .map_err(|error| told(&error, format_args!("interface {name}")))?;
            }
            if let Some(limit) = self.user_timeout {
                options
                    .set_tcp_user_timeout(Some(limit))
                    .map_err(|error| told(&error, format_args!("tcp_user_timeout {limit:?}")))?;
            }
        }
        if let Some(keepalive) = &self.keepalive {
            options
                .set_tcp_keepalive(&keepalive.parameters())
                .map_err(|error| told(&error, format_args!("tcp_keepalive")))?;
        }
        if let Some(local) = self.local {
            socket
                .bind(SocketAddr::new(local, 0))
                .map_err(|error| told(&error, format_args!("local_address {local}")))?;
        }
        Ok(())
    }
}

/// The same error, with the setting that it is about.
fn told(error: &io::Error, setting: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(error.kind(), format!("{setting}: {error}"))
}

/// MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of Linux.
const MAX_SECONDS: u64 = 32_767;

/// MAX_TCP_KEEPCNT of Linux.
const MAX_PROBES: u32 = 127;

/// IFNAMSIZ without the zero at the end.
#[cfg(any(target_os = "android", target_os = "linux"))]
const MAX_INTERFACE: usize = 15;

/// The option is a C int; zero would mean the system's default.
#[cfg(any(target_os = "android", target_os = "linux"))]
const MAX_USER_TIMEOUT: u128 = 0x7fff_ffff;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ranges() {
        let keepalive = |keepalive| TcpOptions {
            keepalive: Some(keepalive),
            ..TcpOptions::default()
        };
        let good = TcpKeepalive::new(seconds(1));
        for good in [
            good,
            TcpKeepalive::new(seconds(32_767)),
            good.with_interval(seconds(32_767)).with_probes(127),
        ] {
            assert_eq!(keepalive(good).check(), Ok(()));
        }
        for (bad, expected) in [
            (TcpKeepalive::new(Duration::ZERO), "idle is 0ns"),
            (TcpKeepalive::new(seconds(32_768)), "idle is 32768s"),
            (
                TcpKeepalive::new(Duration::from_millis(1_500)),
                "idle is 1.5s",
            ),
            (good.with_interval(Duration::MAX), "interval is"),
            (good.with_probes(0), "probes is 0; it must be from 1 to 127"),
            (good.with_probes(128), "probes is 128"),
        ] {
            let error = keepalive(bad).check().unwrap_err();
            assert!(error.starts_with("tcp_keepalive: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[cfg(any(target_os = "android", target_os = "linux"))]
    #[test]
    fn ranges_of_linux() {
        for (name, good) in [("lo", true), ("", false), ("a234567890123456", false)] {
            let options = TcpOptions {
                interface: Some(name.to_owned()),
                ..TcpOptions::default()
            };
            assert_eq!(options.check().is_ok(), good, "{name}");
        }
        for (limit, good) in [
            (Duration::from_millis(1), true),
            (seconds(30), true),
            (Duration::ZERO, false),
            (Duration::MAX, false),
        ] {
            let options = TcpOptions {
                user_timeout: Some(limit),
                ..TcpOptions::default()
            };
            assert_eq!(options.check().is_ok(), good, "{limit:?}");
        }
    }

    #[test]
    fn families_must_match() {
        for (local, address, fits) in [
            ("127.0.0.2", "127.0.0.1:80", true),
            ("127.0.0.2", "[::1]:80", false),
            ("::1", "[::1]:80", true),
            ("::1", "127.0.0.1:80", false),
        ] {
            let options = TcpOptions {
                local: Some(local.parse().unwrap()),
                ..TcpOptions::default()
            };
            let mismatch = options.mismatch(address.parse().unwrap());
            assert_eq!(mismatch.is_none(), fits, "{local} {address}");
        }
        let any = TcpOptions::default();
        assert!(any.mismatch("[::1]:80".parse().unwrap()).is_none());
    }

    #[tokio::test]
    async fn options_reach_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let options = TcpOptions {
            local: Some([127, 0, 0, 1].into()),
            nodelay: false,
            keepalive: Some(
                TcpKeepalive::new(seconds(61))
                    .with_interval(seconds(7))
                    .with_probes(3),
            ),
            #[cfg(any(target_os = "android", target_os = "linux"))]
            interface: None,
            #[cfg(any(target_os = "android", target_os = "linux"))]
            user_timeout: Some(seconds(9)),
        };
        let tcp = options.connect(address).await.unwrap();
        let socket = SockRef::from(&tcp);
        assert!(!tcp.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        #[cfg(any(target_os = "android", target_os = "linux"))]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(61));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(7));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(9)));
        }
        let plain = TcpOptions::default().connect(address).await.unwrap();
        assert!(plain.nodelay().unwrap());
        assert!(!SockRef::from(&plain).keepalive().unwrap());
    }

    #[tokio::test]
    async fn a_local_address_of_another_machine_is_named() {
        let options = TcpOptions {
            local: Some([192, 0, 2, 1].into()),
            ..TcpOptions::default()
        };
        let error = options
            .connect(([127, 0, 0, 1], 9).into())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(
            error.to_string().starts_with("local_address 192.0.2.1: "),
            "{error}"
        );
    }
}
