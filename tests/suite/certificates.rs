//! The certificate table (spec security section 3): which certificates pass, and what the error of each of the others says.
//!
//! Every case is a chain made on the spot, a server in memory that shows it whether it makes sense or not, and a client. Each
//! runs over TLS 1.2 and 1.3.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, RevokedCertParams, RsaKeySize,
    SanType, SerialNumber, date_time_ymd,
};
use sockeye::test::at_rest;
use sockeye::{
    BoxFuture, Client, Connect, ErrorKind, HttpVersions, Phase, Route, Sent, Socket, TlsConfig,
    TlsConfigBuilder, TlsVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::support::server::{TLS12, TLS13, within};

/// A certificate with its key, which can issue others.
struct Issued {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Issued {
    fn root(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority("a root");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// An authority below this one.
    fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority("an intermediate");
        change(&mut params);
        self.sign(params, KeyPair::generate().unwrap())
    }

    /// A server's certificate for `good.test`, unless changed.
    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        self.leaf_of(KeyPair::generate().unwrap(), change)
    }

    fn leaf_of(&self, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a leaf");
        change(&mut params);
        self.sign(params, key)
    }

    fn sign(&self, params: CertificateParams, key: KeyPair) -> Self {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.issuer.key().serialize_der()).into()
    }

    fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The pin of its key, by another SHA-256 than the library's.
    fn pin(&self) -> String {
        let key = self.issuer.key().subject_public_key_info();
        let digest = aws_lc_rs::default_provider()
            .cipher_suites
            .iter()
            .filter_map(|suite| suite.tls13())
            .find(|suite| suite.common.hash_provider.output_len() == 32)
            .map(|suite| suite.common.hash_provider.hash(&key))
            .unwrap();
        STANDARD.encode(digest)
    }

    /// A list of the certificates with these serial numbers, valid to the beginning of the year `end`.
    fn revokes(&self, serials: &[u64], end: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2001, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(end, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn named(names: &[&str]) -> impl FnOnce(&mut CertificateParams) + use<> {
    let names: Vec<SanType> = names
        .iter()
        .map(|name| SanType::DnsName(Ia5String::try_from(*name).unwrap()))
        .collect();
    move |params| params.subject_alt_names = names
}

fn addressed(address: &str) -> impl FnOnce(&mut CertificateParams) + use<> {
    let address = SanType::IpAddress(address.parse().unwrap());
    move |params| params.subject_alt_names = vec![address]
}

fn numbered(serial: u64) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.serial_number = Some(SerialNumber::from(serial))
}

fn permits(permitted: &[&str], excluded: &[&str]) -> impl FnOnce(&mut CertificateParams) + use<> {
    let trees = |names: &[&str]| -> Vec<GeneralSubtree> {
        let dns = |name: &&str| GeneralSubtree::DnsName((*name).to_owned());
        names.iter().map(dns).collect()
    };
    let constraints = NameConstraints {
        permitted_subtrees: trees(permitted),
        excluded_subtrees: trees(excluded),
    };
    move |params| params.name_constraints = Some(constraints)
}

/// What a case is made of.
struct Case {
    name: String,
    url: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client: TlsConfigBuilder,
    versions: Vec<&'static [&'static SupportedProtocolVersion]>,
    http: HttpVersions,
    /// Changes the server in ways that have no field.
    server: Box<dyn Fn(&mut ServerConfig)>,
    client_roots: Option<CertificateDer<'static>>,
    /// `Err` with what the line must hold.
    expected: Result<(), &'static str>,
}

impl Case {
    /// A leaf below a trusted root that is not sent, as it should be.
    fn new(name: &str, root: &Issued, leaf: &Issued) -> Self {
        Self {
            name: name.to_owned(),
            url: format!("https://{HOST}/"),
            chain: vec![leaf.der()],
            key: leaf.key(),
            client: TlsConfig::builder().only_roots(root.pem()),
            versions: vec![TLS12, TLS13],
            http: HttpVersions::Http1,
            server: Box::new(|_| {}),
            client_roots: None,
            expected: Ok(()),
        }
    }

    fn host(mut self, host: &str) -> Self {
        self.url = format!("https://{host}/");
        self
    }

    fn chain(mut self, chain: &[&Issued]) -> Self {
        self.chain = chain.iter().map(|issued| issued.der()).collect();
        self
    }

    fn set(mut self, set: impl FnOnce(TlsConfigBuilder) -> TlsConfigBuilder) -> Self {
        self.client = set(self.client);
        self
    }

    fn over(mut self, version: &'static [&'static SupportedProtocolVersion]) -> Self {
        self.versions = vec![version];
        self
    }

    fn fails(mut self, saying: &'static str) -> Self {
        self.expected = Err(saying);
        self
    }
}

/// A server in memory: each connection is a task that shakes hands and answers one request.
struct InMemory(Arc<ServerConfig>);

impl Connect for InMemory {
    fn connect<'a>(&'a self, _: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.0));
        tokio::spawn(async move {
            let Ok(mut tls) = acceptor.accept(theirs).await else {
                return;
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if !matches!(tls.read_buf(&mut request).await, Ok(1..)) {
                    return;
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _ = tls.write_all(answer).await;
            let _ = tls.shutdown().await;
        });
        Box::pin(async { Ok(Socket::from_io(ours)) })
    }
}

/// Runs a case; an error says how it went wrong.
async fn run(case: &Case, versions: &[&'static SupportedProtocolVersion]) -> Result<(), String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(case.key.clone_key());
    // This resolver does not ask whether chain and key make sense together.
    let shown = CertifiedKey::new(case.chain.clone(), key.unwrap());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match &case.client_roots {
        Some(root) => {
            let mut roots = RootCertStore::empty();
            roots.add(root.clone()).unwrap();
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    (case.server)(&mut server);
    let client = Client::builder()
        .tls(case.client.clone().build().unwrap())
        .http_versions(case.http)
        .connector(InMemory(Arc::new(server)))
        .build()
        .unwrap();
    let outcome = match client.get(&case.url).send().await {
        Ok(response) => response.text().await,
        Err(error) => Err(error),
    };
    at_rest(&client);
    judge(outcome, case.expected).map_err(|why| format!("{}: {why}", case.name))
}

fn judge(outcome: sockeye::Result<String>, expected: Result<(), &str>) -> Result<(), String> {
    let (error, saying) = match (outcome, expected) {
        (Ok(text), Ok(())) if text == "ok" => return Ok(()),
        (Ok(text), expected) => return Err(format!("answered {text:?}, instead of {expected:?}")),
        (Err(error), Ok(())) => return Err(format!("failed: {error}")),
        (Err(error), Err(saying)) => (error, saying),
    };
    let line = error.to_string();
    let holds = line.contains(saying)
        && line.len() < 600
        && error.kind() == ErrorKind::Tls
        && (error.phase() != Some(Phase::Tls) || error.sent() == Sent::Nothing)
        && !error.is_retryable();
    if holds {
        return Ok(());
    }
    Err(format!("{error:?}, instead of {saying:?}"))
}

#[tokio::test]
async fn the_table() {
    let (mut names, mut wrong) = (BTreeSet::new(), Vec::new());
    let cases = [
        names_and_dates(),
        wildcards_and_addresses(),
        chains(),
        constraints(),
        keys_and_signatures(),
        revocation(),
        settings(),
        pins(),
    ];
    for case in cases.into_iter().flatten() {
        assert!(names.insert(case.name.clone()), "{} twice", case.name);
        for versions in &case.versions {
            wrong.extend(within(run(&case, versions)).await.err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(names.len() >= 100, "{} cases", names.len());
}

fn names_and_dates() -> Vec<Case> {
    let root = Issued::root(|_| {});
    let good = root.leaf(|_| {});
    let of = |name: &str, change: &dyn Fn(&mut CertificateParams)| {
        Case::new(name, &root, &root.leaf(|params| change(params)))
    };
    let until =
        |year| move |params: &mut CertificateParams| params.not_after = date_time_ymd(year, 1, 1);
    let from =
        |year| move |params: &mut CertificateParams| params.not_before = date_time_ymd(year, 1, 1);
    let no_names = |params: &mut CertificateParams| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, HOST);
    };
    let for_names =
        |names: &'static [&'static str]| move |params: &mut CertificateParams| named(names)(params);
    vec![
        Case::new("good", &root, &good),
        Case::new("uppercase host", &root, &good).host("GOOD.test"),
        Case::new("host with a trailing dot", &root, &good).host("good.test."),
        of("uppercase name", &for_names(&["GOOD.TEST"])),
        of("second of two names", &for_names(&["other.test", HOST])),
        of("expired", &until(2001))
            .fails("has expired: it was valid until Mon, 01 Jan 2001 00:00:00 GMT"),
        of("not valid yet", &from(3000))
            .fails("not valid yet: it will be from Wed, 01 Jan 3000 00:00:00 GMT"),
        of("wrong host", &for_names(&["a.other.test", "b.other.test"]))
            .fails("for another host: it names a.other.test, b.other.test"),
        of("common name only", &no_names).fails("common name does not count"),
        of("name with a NUL", &for_names(&["good.test\0.evil.test"])).fails("another host"),
        of("name with a trailing dot", &for_names(&["good.test."])).fails("another host"),
        of("name with a leading dot", &for_names(&[".good.test"])).fails("another host"),
        of("name below", &for_names(&["a.good.test"])).fails("another host"),
        of("name above", &for_names(&["test"])).fails("another host"),
    ]
}

fn wildcards_and_addresses() -> Vec<Case> {
    let root = Issued::root(|_| {});
    let wild = |pattern: &str, host: &str| {
        let name = format!("{pattern} for {host}");
        Case::new(&name, &root, &root.leaf(named(&[pattern]))).host(host)
    };
    let at = |address: &str, host: &str| {
        let name = format!("address {address} for {host}");
        Case::new(&name, &root, &root.leaf(addressed(address))).host(host)
    };
    let other = "another host";
    vec![
        wild("*.good.test", "a.good.test"),
        wild("*.good.test", "a.b.good.test").fails(other),
        wild("*.good.test", "good.test").fails(other),
        wild("*.test", "a.test").fails(other),
        wild("*", "good.test").fails(other),
        wild("a*.good.test", "ab.good.test").fails(other),
        wild("*a.good.test", "ba.good.test").fails(other),
        wild("*.*.good.test", "a.b.good.test").fails(other),
        wild("x.*.good.test", "x.a.good.test").fails(other),
        wild("xn--*.good.test", "xn--abc.good.test").fails(other),
        at("192.0.2.1", "192.0.2.1"),
        at("2001:db8::1", "[2001:db8::1]"),
        at("192.0.2.1", "192.0.2.2").fails("another host: it names 192.0.2.1"),
        at("192.0.2.1", "[::ffff:192.0.2.1]").fails(other),
        at("192.0.2.1", "good.test").fails(other),
        wild("127.0.0.1", "127.0.0.1").fails(other),
    ]
}

fn chains() -> Vec<Case> {
    let root = Issued::root(|_| {});
    let upper = root.intermediate(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "an upper one");
    });
    let lower = upper.intermediate(|_| {});
    let leaf = lower.leaf(|_| {});
    let stranger = Issued::root(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "a stranger");
    });
    let namesake = stranger.intermediate(|_| {});
    let bogus: Vec<Issued> = (0..90).map(|_| stranger.intermediate(|_| {})).collect();
    let bogus: Vec<&Issued> = [&leaf].into_iter().chain(&bogus).collect();
    let of = |name: &str, chain: &[&Issued]| Case::new(name, &root, &leaf).chain(chain);
    let untrusted = "issuer is not trusted";
    let mut malformed = of("garbage between", &[&leaf]);
    malformed.chain.push(b"garbage".to_vec().into());

    let selfish = |is_ca: IsCa| {
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        Issued {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    };
    let alone = selfish(IsCa::NoCa);
    let explicit = selfish(IsCa::ExplicitNoCa);
    let both = selfish(IsCa::Ca(BasicConstraints::Unconstrained));
    let authority_leaf = root.leaf(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let no_authority = root.intermediate(|params| params.is_ca = IsCa::ExplicitNoCa);
    let below_no_authority = no_authority.leaf(|_| {});
    let short = root.intermediate(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let too_deep = short.intermediate(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "too deep");
    });
    let deepest = too_deep.leaf(|_| {});
    vec![
        of("two intermediates", &[&leaf, &lower, &upper]),
        of("the root is sent, too", &[&leaf, &lower, &upper, &root]),
        of("chain out of order", &[&leaf, &root, &upper, &lower]),
        of(
            "junk in the chain",
            &[&leaf, &stranger, &lower, &namesake, &upper, &alone],
        ),
        of("missing intermediate", &[&leaf, &lower]).fails(untrusted),
        of("all intermediates missing", &[&leaf]).fails(untrusted),
        of(
            "wrong intermediate of the same name",
            &[&leaf, &namesake, &upper],
        )
        .fails(untrusted),
        of("90 bogus intermediates of the same name", &bogus).fails(untrusted),
        malformed.fails("malformed"),
        Case::new("untrusted root", &root, &stranger.leaf(|_| {})).fails(untrusted),
        Case::new("the default roots", &root, &root.leaf(|_| {}))
            .set(|_| TlsConfig::builder())
            .fails(untrusted),
        Case::new("self-signed", &root, &alone).fails("is self-signed and not trusted"),
        Case::new("self-signed, trusted", &alone, &alone),
        Case::new("self-signed, no CA, trusted", &explicit, &explicit),
        Case::new("self-signed, CA, trusted", &both, &both).fails("openssl req -x509"),
        Case::new("leaf is a CA", &root, &authority_leaf).fails("certificate of an authority"),
        Case::new("intermediate is no CA", &root, &below_no_authority)
            .chain(&[&below_no_authority, &no_authority])
            .fails("no authority"),
        Case::new("path length", &root, &deepest)
            .chain(&[&deepest, &too_deep, &short])
            .fails("path length"),
        Case::new("path length kept", &root, &short.leaf(|_| {})).set(|set| set),
    ]
    .into_iter()
    .map(|mut case| {
        if case.name == "path length kept" {
            case.chain.push(short.der());
        }
        case
    })
    .collect()
}

fn constraints() -> Vec<Case> {
    let of = |name: &str, permitted: &[&str], excluded: &[&str], sans: &[&str], host: &str| {
        let root = Issued::root(|_| {});
        let ca = root.intermediate(permits(permitted, excluded));
        let leaf = ca.leaf(named(sans));
        Case::new(name, &root, &leaf)
            .chain(&[&leaf, &ca])
            .host(host)
    };
    let inside = "a.allowed.test";
    let may_not = "may not issue for its names";
    let root = Issued::root(|_| {});
    let constrained = root.intermediate(permits(&["allowed.test"], &[]));
    let with_address = constrained.leaf(addressed("192.0.2.1"));
    let usage = |name: &str, usages: Vec<ExtendedKeyUsagePurpose>| {
        Case::new(
            name,
            &root,
            &root.leaf(|params| params.extended_key_usages = usages),
        )
    };
    let critical = root.leaf(|params| {
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    });
    let harmless = root.leaf(|params| {
        let unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        params.custom_extensions.push(unknown);
    });
    let odd_usage = root.leaf(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    vec![
        of(
            "name constraints inside",
            &["allowed.test"],
            &[],
            &[inside],
            inside,
        ),
        of(
            "name constraints outside",
            &["allowed.test"],
            &[],
            &["a.test.test"],
            "a.test.test",
        )
        .fails(may_not),
        of(
            "another name outside",
            &["allowed.test"],
            &[],
            &[inside, "evil.test"],
            inside,
        )
        .fails(may_not),
        of("name excluded", &[], &["allowed.test"], &[inside], inside).fails(may_not),
        of("not excluded", &[], &["other.test"], &[inside], inside),
        of(
            "wildcard inside",
            &["allowed.test"],
            &[],
            &["*.allowed.test"],
            inside,
        ),
        of(
            "wildcard over the border",
            &["a.allowed.test"],
            &[],
            &["*.allowed.test"],
            inside,
        )
        .fails(may_not),
        of(
            "wildcard of one label",
            &["allowed.test"],
            &[],
            &["*.test"],
            "allowed.test",
        )
        .fails("malformed"),
        Case::new("names constrained, addresses not", &root, &with_address)
            .chain(&[&with_address, &constrained])
            .host("192.0.2.1"),
        usage(
            "meant for servers",
            vec![ExtendedKeyUsagePurpose::ServerAuth],
        ),
        usage(
            "meant for both",
            vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
        ),
        usage(
            "meant for clients",
            vec![ExtendedKeyUsagePurpose::ClientAuth],
        )
        .fails("not meant for servers"),
        usage("meant for anything", vec![ExtendedKeyUsagePurpose::Any])
            .fails("not meant for servers"),
        Case::new("unknown critical extension", &root, &critical).fails("critical extension"),
        Case::new("unknown extension", &root, &harmless),
        Case::new("odd key usage", &root, &odd_usage),
    ]
}

fn keys_and_signatures() -> Vec<Case> {
    let root = Issued::root(|_| {});
    let with = |name: &str, key: KeyPair| Case::new(name, &root, &root.leaf_of(key, |_| {}));
    let generate = |algorithm| KeyPair::generate_for(algorithm).unwrap();
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
    let changed = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let leaf = root.leaf(|_| {});
        let mut bytes = leaf.der().to_vec();
        change(&mut bytes);
        let mut case = Case::new(name, &root, &leaf);
        case.chain = vec![bytes.into()];
        case
    };
    let mut mismatched = Case::new("key of another certificate", &root, &root.leaf(|_| {}));
    mismatched.key = root.leaf(|_| {}).key();
    // Accepting any certificate is no reason to believe someone without its key.
    let mut unchecked = Case::new(
        "key of another certificate, unchecked",
        &root,
        &root.leaf(|_| {}),
    );
    unchecked.key = root.leaf(|_| {}).key();
    let mut cases = vec![
        with("P-256", generate(&rcgen::PKCS_ECDSA_P256_SHA256)),
        with("P-384", generate(&rcgen::PKCS_ECDSA_P384_SHA384)),
        with("Ed25519", generate(&rcgen::PKCS_ED25519)),
        with("RSA 2048", rsa(RsaKeySize::_2048)),
        with("RSA 4096", rsa(RsaKeySize::_4096)),
        mismatched.fails("does not have its key"),
        unchecked
            .set(|set| set.danger_accept_invalid_certs(true))
            .fails("does not have its key"),
        changed("flipped bit of the signature", &|bytes| {
            *bytes.last_mut().unwrap() ^= 1
        })
        .fails("signature is wrong"),
        changed("trailing byte", &|bytes| bytes.push(0)).fails("malformed"),
        changed("cut short", &|bytes| bytes.truncate(100)).fails("malformed"),
        changed("garbage", &|bytes| *bytes = b"garbage".to_vec()).fails("malformed"),
        changed("no bytes", &|bytes| bytes.clear()).fails(""),
    ];
    // ring does not know this curve.
    if cfg!(feature = "tls") {
        cases.push(with("P-521", generate(&rcgen::PKCS_ECDSA_P521_SHA512)));
    }
    cases
}

fn revocation() -> Vec<Case> {
    let root = Issued::root(|_| {});
    let ca = root.intermediate(numbered(20));
    let leaf = ca.leaf(numbered(30));
    let stranger = Issued::root(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "a stranger");
    });
    let namesake = stranger.intermediate(numbered(20));
    let of = |name: &str, lists: &[String], allow: bool| {
        Case::new(name, &root, &leaf)
            .chain(&[&leaf, &ca])
            .set(|set| {
                lists
                    .iter()
                    .fold(set, |set, list| set.crls(list))
                    .allow_unknown_revocation(allow)
            })
    };
    let of_root = |serials: &[u64]| root.revokes(serials, 4000);
    let of_ca = |serials: &[u64]| ca.revokes(serials, 4000);
    let unknown = "nobody says whether";
    vec![
        of("no list", &[], false),
        of("lists without it", &[of_root(&[21]), of_ca(&[31])], false),
        of("lists in one file", &[of_root(&[]) + &of_ca(&[])], false),
        of("revoked", &[of_root(&[]), of_ca(&[30, 31])], false).fails("is revoked"),
        of("intermediate revoked", &[of_root(&[20]), of_ca(&[])], false).fails("is revoked"),
        of("revoked, unknown allowed", &[of_ca(&[30])], true).fails("is revoked"),
        of("list of the intermediate only", &[of_ca(&[])], false).fails(unknown),
        of("list of the root only", &[of_root(&[])], false).fails(unknown),
        of(
            "list of the intermediate only, unknown allowed",
            &[of_ca(&[])],
            true,
        ),
        of(
            "list of a stranger only",
            &[stranger.revokes(&[30], 4000)],
            false,
        )
        .fails(unknown),
        of("stale list", &[of_root(&[]), ca.revokes(&[], 2001)], false)
            .fails("too old: it was valid until Mon, 01 Jan 2001"),
        of(
            "stale list, unknown allowed",
            &[of_root(&[]), ca.revokes(&[], 2001)],
            true,
        )
        .fails("too old"),
        of(
            "forged list",
            &[of_root(&[]), namesake.revokes(&[], 4000)],
            false,
        )
        .fails("revocation list"),
    ]
}

fn settings() -> Vec<Case> {
    let root = Issued::root(|_| {});
    let good = root.leaf(|_| {});
    let client = root.leaf(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    // Of an authority with the same name.
    let stranger = Issued::root(|_| {}).leaf(|_| {});
    let of = |name: &str| Case::new(name, &root, &good);
    let serving = |name: &str, server: fn(&mut ServerConfig)| {
        let mut case = of(name);
        case.server = Box::new(server);
        case
    };
    let asking = |name: &str, shown: Option<&Issued>| {
        let mut case = of(name);
        case.client_roots = Some(root.der());
        match shown {
            Some(shown) => case.set(|set| {
                set.client_identity_pem(shown.pem().as_bytes(), shown.key_pem().as_bytes())
                    .unwrap()
            }),
            None => case,
        }
    };
    let http2_only = |server: &mut ServerConfig| server.alpn_protocols = vec![b"h2".to_vec()];
    let mut cases = vec![
        serving("ALPN: nothing in common", http2_only).fails("HTTP versions that were offered"),
        serving("ALPN: none", |_| {}),
        of("1.2 where 1.3 is demanded")
            .over(TLS12)
            .set(|set| set.min_version(TlsVersion::Tls13))
            .fails("no version of TLS that is allowed"),
        of("1.3 where 1.3 is demanded")
            .over(TLS13)
            .set(|set| set.min_version(TlsVersion::Tls13)),
        of("1.2 where 1.2 is demanded")
            .over(TLS12)
            .set(|set| set.min_version(TlsVersion::Tls12)),
        asking("client certificate", Some(&client)),
        asking("no client certificate", None).fails("client certificate"),
        asking("client certificate of a stranger", Some(&stranger)).fails("client's certificate"),
        of("client certificate that nobody asks for").set(|set| {
            set.client_identity_pem(client.pem().as_bytes(), client.key_pem().as_bytes())
                .unwrap()
        }),
        of("another server name")
            .host("elsewhere.test")
            .set(|set| set.server_name(HOST)),
        of("a wrong server name")
            .set(|set| set.server_name("elsewhere.test"))
            .fails("another host"),
        of("an address as the server name")
            .set(|set| set.server_name("192.0.2.1"))
            .fails("another host: it names good.test"),
        of("anything goes")
            .host("elsewhere.test")
            .set(|set| set.danger_accept_invalid_certs(true)),
        of("nothing goes any more")
            .host("elsewhere.test")
            .set(|set| {
                set.danger_accept_invalid_certs(true)
                    .danger_accept_invalid_certs(false)
            })
            .fails("another host"),
    ];
    // A group of which the client sent no share: another round trip.
    for (name, group) in [("P-384 alone", "secp384r1"), ("P-256 alone", "secp256r1")] {
        let mut case = of(name);
        case.server = Box::new(move |server| {
            let mut provider = (**server.crypto_provider()).clone();
            provider
                .kx_groups
                .retain(|known| known.name().as_str() == Some(group));
            assert_eq!(provider.kx_groups.len(), 1, "{group}");
            let resolver = Arc::clone(&server.cert_resolver);
            *server = ServerConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(resolver);
        });
        cases.push(case);
    }
    cases
}

fn pins() -> Vec<Case> {
    let root = Issued::root(|_| {});
    let ca = root.intermediate(|_| {});
    let leaf = ca.leaf(|_| {});
    let stranger = Issued::root(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "a stranger");
    });
    let of = |name: &str, pins: &[String]| {
        Case::new(name, &root, &leaf)
            .chain(&[&leaf, &ca, &stranger])
            .set(|set| pins.iter().fold(set, |set, pin| set.pin_spki(pin)))
    };
    let refused = "pinned keys is in the certificate's chain";
    let unchecked = |set: TlsConfigBuilder| set.danger_accept_invalid_certs(true);
    let fresh = root.revokes(&[], 4000) + &ca.revokes(&[], 4000);
    vec![
        of("the leaf is pinned", &[leaf.pin()]),
        of(
            "the leaf is pinned, with the name of the hash",
            &[format!("sha256/{}", leaf.pin())],
        ),
        of("the intermediate is pinned", &[ca.pin()]),
        of("the root is pinned", &[root.pin()]),
        of("the root is pinned, with lists", &[root.pin()]).set(|set| set.crls(fresh)),
        of(
            "one of two is pinned",
            &[stranger.leaf(|_| {}).pin(), leaf.pin()],
        ),
        of("another key is pinned", &[stranger.leaf(|_| {}).pin()]).fails(refused),
        of("a certificate off the path is pinned", &[stranger.pin()]).fails(refused),
        // A pin is no replacement for the rest.
        of("the leaf is pinned, the host is wrong", &[leaf.pin()])
            .host("elsewhere.test")
            .fails("another host"),
        of("unchecked, the leaf is pinned", &[leaf.pin()]).set(unchecked),
        of("unchecked, the intermediate is pinned", &[ca.pin()])
            .set(unchecked)
            .fails(refused),
        of("unchecked, another key is pinned", &[stranger.pin()])
            .set(unchecked)
            .fails(refused),
    ]
}

/// The error of a wrong pin says what the right one would be.
#[tokio::test]
async fn a_wrong_pin_tells_the_right_one() {
    let root = Issued::root(|_| {});
    let leaf = root.leaf(|_| {});
    let mut case = Case::new("pin", &root, &leaf).set(|set| set.pin_spki(root.leaf(|_| {}).pin()));
    let pin: &'static str = Box::leak(format!("own key is sha256/{}", leaf.pin()).into());
    case = case.fails(pin);
    within(run(&case, TLS13)).await.unwrap();
}

/// A chain of bogus intermediates costs the client little: the search for a path has a budget.
#[tokio::test]
async fn looking_for_a_path_is_bounded() {
    let root = Issued::root(|_| {});
    let leaf = root.intermediate(|_| {}).leaf(|_| {});
    let stranger = Issued::root(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "a stranger");
    });
    let bogus: Vec<Issued> = (0..90).map(|_| stranger.intermediate(|_| {})).collect();
    let chain: Vec<&Issued> = [&leaf].into_iter().chain(&bogus).collect();
    let case = Case::new("bogus", &root, &leaf)
        .chain(&chain)
        .fails("issuer is not trusted");
    let work = run(&case, TLS13);
    // Milliseconds, where nothing else runs.
    let outcome = tokio::time::timeout(Duration::from_secs(5), work).await;
    assert_eq!(outcome, Ok(Ok(())));
}

const HOST: &str = "good.test";
