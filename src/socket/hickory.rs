//! Asks name servers itself, by the crate hickory-resolver, and so knows how long an answer holds.
//!
//! It is a [`Resolve`] like one of the user's: what is remembered, and who shares a lookup, is the affair of `names`. That is
//! why the crate's own cache is off, and why its own joining of both families is not used: it would hold back the addresses
//! of one for as long as the server is silent about the other.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::runtime::{self, Handle};

use super::dns::{Resolve, Resolved, lack_of_files};
use super::names::MAX_ADDRESSES;
use crate::error::{BoxFuture, Error, Result};

/// What the crate tells of one name and one family.
type Told = std::result::Result<Lookup, NetError>;

/// A [`Resolve`] that asks name servers itself, over UDP and, where an answer does not fit, TCP (feature `hickory`).
///
/// Beside the system's resolver, which a client has by default, it knows how long an answer holds, takes no thread, and can
/// be given up at any time. Both families are asked for at once; when one has answered, the other has 50 ms more (RFC 8305
/// section 3), and an answer without it is remembered for 5 seconds at most. The file of hosts comes first, then the name servers
/// with the search list, as in getaddrinfo; other sources of the system, such as mDNS, are not asked. A name that does not
/// exist, or has no address, is an [`ErrorKind::Resolve`](crate::ErrorKind) with the kind
/// [`NotFound`](std::io::ErrorKind::NotFound).
///
/// The crate hickory-resolver needs Rust 1.88, which is more than the rest of this library does.
///
/// ```no_run
/// use sockeye::{Client, DnsResolver};
///
/// let client = Client::builder().resolver(DnsResolver::from_system()?).build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub struct DnsResolver {
    config: ResolverConfig,
    options: ResolverOpts,
    /// Names that are tried behind a short one.
    search: Vec<Name>,
    hosts: Hosts,
    /// The sockets of one belong to the runtime that made them, so another runtime gets another. Held for a few lines.
    built: Mutex<Option<(runtime::Id, TokioResolver)>>,
}

impl DnsResolver {
    /// With the name servers, the search list and the hosts of the system: `/etc/resolv.conf` and `/etc/hosts`, or the registry of
    /// Windows. They are read once, here, which blocks for as long as files do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind) if the system's settings cannot be read or name no server.
    #[cfg(any(unix, windows))]
    pub fn from_system() -> Result<Self> {
        let read = hickory_resolver::system_conf::read_system_conf();
        let (config, options) = read.map_err(|error| {
            Error::invalid("DnsResolver: the system's settings cannot be used")
                .because(io::Error::other(error))
        })?;
        let search = config.search().iter().take(MAX_SEARCH).cloned().collect();
        let (_, _, servers) = config.into_parts();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        // A system without such a file has no such names.
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self::new(config, options, search, hosts))
    }

    /// With these name servers, from 1 to 8, and nothing of the system's settings. Each has 5 seconds to answer, and is asked
    /// three times at most; two are asked at once.
    ///
    /// ```
    /// use sockeye::DnsResolver;
    ///
    /// let resolver = DnsResolver::from_servers(&[([192, 0, 2, 53], 53).into()])?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`](crate::ErrorKind) for none, and for more than 8.
    pub fn from_servers(servers: &[SocketAddr]) -> Result<Self> {
        let count = servers.len();
        if !(1..=MAX_SERVERS).contains(&count) {
            return Err(Error::invalid(format!(
                "DnsResolver: {count} name servers; it must be from 1 to {MAX_SERVERS}"
            )));
        }
        let servers = servers.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let options = ResolverOpts::default();
        Ok(Self::new(config, options, Vec::new(), Hosts::default()))
    }

    fn new(
        config: ResolverConfig,
        mut options: ResolverOpts,
        search: Vec<Name>,
        hosts: Hosts,
    ) -> Self {
        // What is remembered is the client's affair, and the hosts are looked up before the name servers are asked at all.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // An alias limits how long the addresses behind it hold.
        options.preserve_intermediates = true;
        Self {
            config,
            options,
            search,
            hosts,
            built: Mutex::new(None),
        }
    }

    /// The resolver of the runtime that runs this.
    fn resolver(&self) -> io::Result<TokioResolver> {
        let runtime = Handle::try_current().map_err(io::Error::other)?.id();
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, resolver)) = &*built {
            if *of == runtime {
                return Ok(resolver.clone());
            }
        }
        let mut builder = TokioResolver::builder_with_config(
            self.config.clone(),
            TokioRuntimeProvider::default(),
        );
        *builder.options_mut() = self.options.clone();
        let resolver = builder.build().map_err(|error| failure(&error))?;
        *built = Some((runtime, resolver.clone()));
        Ok(resolver)
    }

    /// The names that `host` may stand for, in the order in which they are asked for, and which of them is `host` itself.
    fn candidates(&self, host: &str) -> io::Result<(Vec<Name>, usize)> {
        let no_name = |_| io::Error::new(io::ErrorKind::InvalidInput, "the host is no name of DNS");
        let mut itself = Name::from_ascii(host).map_err(no_name)?;
        let is_local = host == "localhost" || host.ends_with(".localhost");
        let is_whole = itself.is_fqdn() || is_local;
        // One that has dots enough is likelier to be whole already.
        let is_first = host.matches('.').count() >= self.options.ndots;
        let below = |domain: &Name| itself.clone().append_domain(domain).ok();
        let mut names: Vec<Name> = match is_whole {
            true => Vec::new(),
            false => self.search.iter().filter_map(below).collect(),
        };
        itself.set_fqdn(true);
        let at = if is_first { 0 } else { names.len() };
        names.insert(at, itself);
        Ok((names, at))
    }

    /// What the file of hosts says.
    fn in_hosts(&self, name: &Name) -> Option<Resolved> {
        let of = |record| {
            let query = Query::query(name.clone(), record);
            self.hosts.lookup_static_host(&query)
        };
        let (six, four) = (of(RecordType::AAAA), of(RecordType::A));
        let addrs = merge(six.as_ref(), four.as_ref());
        // The file says nothing of how long it holds.
        (!addrs.is_empty()).then_some(Resolved { addrs, ttl: None })
    }
}

impl Resolve for DnsResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        Box::pin(async move {
            let (names, itself) = self.candidates(host)?;
            if let Some(found) = names.get(itself).and_then(|name| self.in_hosts(name)) {
                return Ok(found);
            }
            let resolver = self.resolver()?;
            let mut told = None;
            for (at, name) in names.into_iter().enumerate() {
                match both(&resolver, name).await {
                    Ok(found) => return Ok(found),
                    // A server that answers may know of the next name; one that is silent would be so again.
                    Err(error @ NetError::Dns(_)) => {
                        if at == itself {
                            told = Some(failure(&error));
                        }
                    }
                    // The crate does not say why it could not ask.
                    Err(error) => return Err(lack_of_files().unwrap_or_else(|| failure(&error))),
                }
            }
            Err(told.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
        })
    }
}

impl fmt::Debug for DnsResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self
            .config
            .name_servers()
            .iter()
            .map(|one| one.ip)
            .collect();
        f.debug_struct("DnsResolver")
            .field("servers", &servers)
            .finish_non_exhaustive()
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for way in &mut ways {
        way.port = address.port();
    }
    // A name that one server says not to exist is not asked of the others.
    NameServerConfig::new(address.ip(), true, ways.into())
}

/// Both families of one name. When one has brought addresses the other does not hold them back for long.
async fn both(resolver: &TokioResolver, name: Name) -> std::result::Result<Resolved, NetError> {
    let mut six = pin!(resolver.lookup(name.clone(), RecordType::AAAA));
    let mut four = pin!(resolver.lookup(name, RecordType::A));
    let (mut of_six, mut of_four) = (None, None);
    let mut late = pin!(None);
    poll_fn(|cx| {
        if of_six.is_none() {
            of_six = ready(six.as_mut().poll(cx));
        }
        if of_four.is_none() {
            of_four = ready(four.as_mut().poll(cx));
        }
        let brought = |told: &Option<Told>| {
            told.as_ref()
                .is_some_and(|told| told.as_ref().is_ok_and(has_addresses))
        };
        if of_six.is_some() && of_four.is_some() {
            return Poll::Ready(());
        }
        if !brought(&of_six) && !brought(&of_four) {
            return Poll::Pending;
        }
        if late.is_none() {
            late.set(Some(tokio::time::sleep(RESOLUTION_DELAY)));
        }
        late.as_mut()
            .as_pin_mut()
            .map_or(Poll::Pending, |late| late.poll(cx))
    })
    .await;
    join(of_six, of_four)
}

fn ready<T>(polled: Poll<T>) -> Option<T> {
    match polled {
        Poll::Ready(told) => Some(told),
        Poll::Pending => None,
    }
}

/// What the two lookups make together; `None` for one that was not waited for.
fn join(six: Option<Told>, four: Option<Told>) -> std::result::Result<Resolved, NetError> {
    let (mut found, mut failures, mut is_whole) = ([None, None], Vec::new(), true);
    for (told, found) in [six, four].into_iter().zip(&mut found) {
        match told {
            Some(Ok(lookup)) => *found = Some(lookup),
            Some(Err(error)) => {
                is_whole &= error.is_no_records_found();
                failures.push(error);
            }
            None => is_whole = false,
        }
    }
    let [six, four] = &found;
    let addrs = merge(six.as_ref(), four.as_ref());
    if addrs.is_empty() {
        // That a server is silent about one family says more than that it knows nothing of the other.
        failures.sort_by_key(NetError::is_no_records_found);
        // An answer that has aliases alone, or records of another type.
        let nothing = || NoRecords::new(Query::new(), ResponseCode::NoError).into();
        return Err(failures.into_iter().next().unwrap_or_else(nothing));
    }
    let records = found.iter().flatten().flat_map(|lookup| lookup.answers());
    let seconds = records.map(|record| record.ttl).min();
    let mut ttl = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    if !is_whole {
        ttl = Some(ttl.map_or(INCOMPLETE_TTL, |ttl| ttl.min(INCOMPLETE_TTL)));
    }
    Ok(Resolved { addrs, ttl })
}

fn has_addresses(lookup: &Lookup) -> bool {
    lookup
        .answers()
        .iter()
        .any(|record| record.data.ip_addr().is_some())
}

/// The addresses of both families in turn, so that neither pushes the other out of an answer that is capped.
fn merge(six: Option<&Lookup>, four: Option<&Lookup>) -> Vec<SocketAddr> {
    let addresses = |lookup: Option<&Lookup>| -> Vec<SocketAddr> {
        let records = lookup.map_or(&[][..], Lookup::answers).iter();
        let addresses = records.filter_map(|record| record.data.ip_addr());
        let kept = addresses.take(MAX_ADDRESSES);
        kept.map(|address| SocketAddr::new(address, 0)).collect()
    };
    let (six, four) = (addresses(six), addresses(four));
    let mut merged = Vec::new();
    for at in 0..six.len().max(four.len()) {
        merged.extend(six.get(at));
        merged.extend(four.get(at));
    }
    merged.truncate(MAX_ADDRESSES);
    merged
}

/// An error of the crate's in our words, with a kind that a caller can act on.
fn failure(error: &NetError) -> io::Error {
    let told = |kind, text: String| io::Error::new(kind, text);
    match error {
        NetError::Dns(DnsError::NoRecordsFound(nothing)) => match nothing.response_code {
            ResponseCode::NXDomain => told(
                io::ErrorKind::NotFound,
                "the name does not exist (NXDOMAIN)".into(),
            ),
            _ => told(io::ErrorKind::NotFound, NO_ADDRESS.into()),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => told(
            io::ErrorKind::Other,
            format!(
                "the name server answers with the error {}: {code}",
                u16::from(*code)
            ),
        ),
        NetError::Timeout => told(
            io::ErrorKind::TimedOut,
            "the name servers do not answer".into(),
        ),
        NetError::Io(error) => told(error.kind(), format!("asking the name servers: {error}")),
        other => told(
            io::ErrorKind::Other,
            format!("asking the name servers: {other}"),
        ),
    }
}

const NO_ADDRESS: &str = "the name has no address";

/// How long the addresses of one family wait for those of the other (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// How long an answer holds in which a family is missing because its server was silent or failed: the next dial but a few
/// shall find what is missing.
const INCOMPLETE_TTL: Duration = Duration::from_secs(5);

/// Name servers that can be given.
const MAX_SERVERS: usize = 8;

/// Domains of the search list that are tried, as in older versions of glibc.
const MAX_SEARCH: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(search: &[&str], ndots: usize) -> DnsResolver {
        let name = |text: &&str| Name::from_ascii(text).unwrap();
        let options = ResolverOpts::default();
        let mut resolver = DnsResolver::new(
            ResolverConfig::default(),
            options,
            search.iter().map(name).collect(),
            Hosts::default(),
        );
        resolver.options.ndots = ndots;
        resolver
    }

    #[test]
    fn names_that_a_host_may_stand_for() {
        let search = ["svc.test.", "test."];
        // The host, the dots that make a name whole, the names in their order, the place of the host's own.
        for (host, ndots, expected, itself) in [
            ("a", 1, &["a.svc.test.", "a.test.", "a."][..], 2),
            ("a.b", 1, &["a.b.", "a.b.svc.test.", "a.b.test."], 0),
            ("a.b", 5, &["a.b.svc.test.", "a.b.test.", "a.b."], 2),
            ("a.b.", 5, &["a.b."], 0),
            ("localhost", 5, &["localhost."], 0),
            ("a.localhost", 5, &["a.localhost."], 0),
            ("a_b.c", 1, &["a_b.c.", "a_b.c.svc.test.", "a_b.c.test."], 0),
        ] {
            let (names, at) = resolver(&search, ndots).candidates(host).unwrap();
            let names: Vec<_> = names.iter().map(Name::to_ascii).collect();
            assert_eq!(
                (names, at),
                (
                    expected.iter().map(|name| (*name).to_owned()).collect(),
                    itself
                ),
                "{host}"
            );
        }
        // A name that is too long with the domain behind it is not tried with it.
        let long = [
            "x".repeat(62),
            "x".repeat(62),
            "x".repeat(62),
            "x".repeat(60),
        ]
        .join(".");
        let (names, at) = resolver(&search, 9).candidates(&long).unwrap();
        assert_eq!((names.len(), at), (1, 0));
        assert!(resolver(&[], 1).candidates("a..b").is_err());
    }

    #[test]
    fn numbers_of_name_servers() {
        let address = SocketAddr::from(([192, 0, 2, 53], 53));
        for (count, is_ok) in [(0, false), (1, true), (8, true), (9, false)] {
            let made = DnsResolver::from_servers(&vec![address; count]);
            assert_eq!(made.is_ok(), is_ok, "{count}");
        }
        let error = DnsResolver::from_servers(&[]).unwrap_err();
        assert!(error.to_string().contains("0 name servers"), "{error}");
        let shown = format!("{:?}", DnsResolver::from_servers(&[address]).unwrap());
        assert!(shown.contains("192.0.2.53"), "{shown}");
    }
}
