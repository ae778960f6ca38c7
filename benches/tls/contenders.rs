//! The contenders: bare tokio-rustls, Sockeye and reqwest, and what each does for a unit of work.
//!
//! All trust the bench's own root alone, check the status, collect the body and check its length; and check
//! that the protocol was the one that is measured; so is the kind of the handshake where one is made. Nothing here measures.

use std::sync::Arc;

use http::{Uri, Version, header};
use reqwest::Certificate;
use sockeye::TlsConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CipherSuite, ClientConfig, HandshakeKind, NamedGroup, RootCertStore};

use crate::scenario::{BODY, Failure, PATH, Scenario, Work};
use crate::server::Server;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// tokio-rustls by itself: what the others are built on.
    Bare,
    /// The same with Sockeye's order of cipher suites.
    BareAlike,
    /// Sockeye.
    Sockeye,
    /// reqwest.
    Reqwest,
}

/// One contender of one turn, in the middle of its work.
#[derive(Clone)]
enum Slot {
    Bare(Bare),
    Sockeye(Sockeye),
    Reqwest(Reqwest),
}

impl Contender {
    /// The name in flags and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareAlike => "bare-alike",
            Self::Sockeye => "sockeye",
            Self::Reqwest => "reqwest",
        }
    }

    /// The contender of that name.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        let all = [Self::Bare, Self::BareAlike, Self::Sockeye, Self::Reqwest];
        let mut all = all.into_iter();
        let found = all.find(|one| one.name() == name);
        found.ok_or_else(|| format!("no contender is named {name:?}").into())
    }

    /// Does so many units on a runtime of its own, after a few that are not read; gives what was read before and after.
    pub(crate) fn turn<R>(
        self,
        scenario: &Scenario,
        units: usize,
        server: &Server,
        reading: fn() -> Result<R, Failure>,
    ) -> Result<(R, R), Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let each = units.div_ceil(scenario.concurrent);
        runtime
            .block_on(async {
                let slot = match self {
                    Self::Bare | Self::BareAlike => {
                        let is_alike = self == Self::BareAlike;
                        Slot::Bare(Bare::new(scenario.work, server, is_alike)?)
                    }
                    Self::Sockeye => Slot::Sockeye(Sockeye::new(scenario.work, server)?),
                    Self::Reqwest => Slot::Reqwest(Reqwest::new(scenario.work, server)?),
                };
                // The first session cannot be resumed, and connections and caches are to exist.
                repeat(&slot, scenario.concurrent, 2, false).await?;
                let before = reading()?;
                repeat(&slot, scenario.concurrent, each, true).await?;
                Ok((before, reading()?))
            })
            .map_err(|failure: Failure| {
                format!("{} in {}: {failure}", self.name(), scenario.name).into()
            })
    }
}

async fn repeat(
    slot: &Slot,
    concurrent: usize,
    times: usize,
    is_warm: bool,
) -> Result<(), Failure> {
    let tasks: Vec<_> = (0..concurrent)
        .map(|_| {
            let slot = slot.clone();
            tokio::spawn(async move {
                for _ in 0..times {
                    let length = match &slot {
                        Slot::Bare(slot) => slot.unit(is_warm).await?,
                        Slot::Sockeye(slot) => slot.unit(is_warm).await?,
                        Slot::Reqwest(slot) => slot.unit().await?,
                    };
                    if length != BODY.len() {
                        return Err(Failure::from(format!("a body of {length} bytes")));
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// tokio-rustls with the groups of Sockeye, and rustls' own defaults otherwise.
#[derive(Clone)]
struct Bare {
    connector: TlsConnector,
    address: std::net::SocketAddr,
    is_resumed: bool,
    request: Arc<[u8]>,
}

impl Bare {
    fn new(work: Work, server: &Server, is_alike: bool) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(server.root_pem.as_bytes())?)?;
        // The hybrid group first, as Sockeye has it: it is a third of a handshake's work, and not what is compared.
        let mut provider = aws_lc_rs::default_provider();
        let is_hybrid = |group: NamedGroup| group == NamedGroup::X25519MLKEM768;
        provider
            .kx_groups
            .sort_by_key(|group| !is_hybrid(group.name()));
        if is_alike {
            let is_aes_128 = |suite: CipherSuite| format!("{suite:?}").contains("AES_128");
            provider
                .cipher_suites
                .sort_by_key(|suite| !is_aes_128(suite.suite()));
        }
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if work == Work::Full {
            config.resumption = Resumption::disabled();
        }
        let address = server.http1;
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nhost: {address}\r\nuser-agent: bare/0.1.0\r\naccept: */*\r\nconnection: close\r\n\r\n"
        );
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address,
            is_resumed: work == Work::Resumed,
            request: request.into_bytes().into(),
        })
    }

    async fn unit(&self, is_warm: bool) -> Result<usize, Failure> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let mut stream = self.connector.connect(name, tcp).await?;
        let kind = stream.get_ref().1.handshake_kind();
        expect_kind(
            is_warm,
            self.is_resumed,
            kind == Some(HandshakeKind::Resumed),
        )?;
        stream.write_all(&self.request).await?;
        stream.flush().await?;
        let mut answer = Vec::with_capacity(1024);
        let length = loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the server closed".into());
            }
            if let Some(at) = memchr::memmem::find(&answer, b"\r\n\r\n") {
                if answer.len() - at - 4 >= BODY.len() {
                    break answer.len() - at - 4;
                }
            }
        };
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Err("another status".into());
        }
        stream.shutdown().await?;
        Ok(length)
    }
}

/// Sockeye with its default settings.
#[derive(Clone)]
struct Sockeye {
    client: sockeye::Client,
    work: Work,
    root_pem: Arc<str>,
    uri: Uri,
}

impl Sockeye {
    fn new(work: Work, server: &Server) -> Result<Self, Failure> {
        Ok(Self {
            client: Self::client(work, &server.root_pem)?,
            work,
            root_pem: server.root_pem.as_str().into(),
            uri: url(work, server).parse()?,
        })
    }

    fn client(work: Work, root_pem: &str) -> Result<sockeye::Client, Failure> {
        let mut tls = TlsConfig::builder().only_roots(root_pem);
        match work {
            Work::Full => tls = tls.resumable_hosts(0),
            Work::ColdClassic => tls = tls.post_quantum(false),
            _ => {}
        }
        Ok(sockeye::Client::builder().tls(tls.build()?).build()?)
    }

    async fn unit(&self, is_warm: bool) -> Result<usize, Failure> {
        if matches!(self.work, Work::Cold | Work::ColdClassic) {
            return self
                .get(&Self::client(self.work, &self.root_pem)?, false)
                .await;
        }
        self.get(&self.client, is_warm).await
    }

    async fn get(&self, client: &sockeye::Client, is_warm: bool) -> Result<usize, Failure> {
        let mut request = client.get(&self.uri);
        if matches!(self.work, Work::Full | Work::Resumed) {
            request = request.header(header::CONNECTION, "close");
        }
        let response = request.send().await?;
        expect_version(self.work, response.version())?;
        if !matches!(self.work, Work::Cold | Work::ColdClassic) {
            let tls = response.connection().tls.as_ref().ok_or("no TLS")?;
            let is_fresh = matches!(self.work, Work::Full | Work::Resumed);
            expect_kind(
                is_warm && is_fresh,
                self.work == Work::Resumed,
                tls.resumed(),
            )?;
        }
        Ok(response.bytes().await?.len())
    }
}

/// reqwest with its default settings. It does not tell how it shook hands, and takes no part where that is what counts.
#[derive(Clone)]
struct Reqwest {
    client: reqwest::Client,
    work: Work,
    root_pem: Arc<str>,
    url: reqwest::Url,
}

impl Reqwest {
    fn new(work: Work, server: &Server) -> Result<Self, Failure> {
        Ok(Self {
            client: Self::client(&server.root_pem)?,
            work,
            root_pem: server.root_pem.as_str().into(),
            url: url(work, server).parse()?,
        })
    }

    fn client(root_pem: &str) -> Result<reqwest::Client, Failure> {
        let root = Certificate::from_pem(root_pem.as_bytes())?;
        Ok(reqwest::Client::builder().tls_certs_only([root]).build()?)
    }

    async fn unit(&self) -> Result<usize, Failure> {
        match self.work {
            Work::Cold | Work::ColdClassic => self.get(&Self::client(&self.root_pem)?).await,
            _ => self.get(&self.client).await,
        }
    }

    async fn get(&self, client: &reqwest::Client) -> Result<usize, Failure> {
        let response = client.get(self.url.clone()).send().await?;
        expect_version(self.work, response.version())?;
        if response.status() != http::StatusCode::OK {
            return Err("another status".into());
        }
        Ok(response.bytes().await?.len())
    }
}

fn url(work: Work, server: &Server) -> String {
    let address = match work {
        Work::Http2 => server.http2,
        _ => server.http1,
    };
    format!("https://{address}{PATH}")
}

fn expect_version(work: Work, version: Version) -> Result<(), Failure> {
    let expected = match work {
        Work::Http2 => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    match version == expected {
        true => Ok(()),
        false => Err(format!("{version:?} in place of {expected:?}").into()),
    }
}

/// Whether the handshake was of the kind that is measured; the first one never resumes.
fn expect_kind(counts: bool, expected: bool, resumed: bool) -> Result<(), Failure> {
    match !counts || expected == resumed {
        true => Ok(()),
        false => Err(format!("resumed: {resumed}, in place of {expected}").into()),
    }
}
