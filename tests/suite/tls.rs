//! TLS on real sockets: who is trusted, what a failed handshake says, and what the end of a TLS stream means.
//!
//! Scenarios of the pool's specification by number: 18, 22 and 23. All certificates are made on the spot.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sockeye::stats::{CloseCause, ProbeOutcome};
use sockeye::test::at_rest;
use sockeye::{
    BoxFuture, Client, Connect, Error, ErrorKind, Limits, Method, Phase, Route, Sent, Socket,
    TlsConfig,
};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConfig;

use crate::support::server::{
    Action, Authority, Peer, Server, TLS12, TLS13, honest, take_notice, until, within,
};

/// A client that trusts `authority`, and keeps idle connections for longer than any test takes.
fn client_of(authority: &Authority) -> Client {
    let tls = TlsConfig::builder()
        .add_root_pem(authority.pem().as_bytes())
        .unwrap()
        .build()
        .unwrap();
    client_with(tls)
}

fn client_with(tls: TlsConfig) -> Client {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    Client::builder().limits(limits).tls(tls).build().unwrap()
}

/// An authority, and what its server for this machine speaks TLS with.
fn local() -> (Authority, Arc<ServerConfig>) {
    let authority = Authority::new();
    let config = authority.local().server(TLS13);
    (authority, config)
}

async fn get(client: &Client, server: &Server, path: &str) -> String {
    let response = client.get(server.url(path)).send().await.unwrap();
    response.text().await.unwrap()
}

/// What a GET fails with, checked for what all failed handshakes have in common.
async fn refused(client: &Client, url: String) -> Error {
    let error = client.get(url).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert_eq!(error.phase(), Some(Phase::Tls), "{error}");
    assert_eq!(error.sent(), Sent::Nothing, "{error}");
    assert!(error.is_tls() && error.is_connect(), "{error}");
    assert_eq!(client.stats().total.connections_opened, 0);
    at_rest(client);
    error
}

#[tokio::test]
async fn an_added_root_is_trusted_over_both_versions() {
    for versions in [TLS12, TLS13] {
        within(async {
            let authority = Authority::new();
            let server = Server::tls(authority.local().server(versions), honest);
            let client = client_of(&authority);
            for (host, accepted) in [("127.0.0.1", 1), ("localhost", 2)] {
                for reused in [false, true] {
                    let request = client.post(server.url_of(host, "/a")).body("payload");
                    let response = request.send().await.unwrap();
                    assert_eq!(response.reused(), reused);
                    let info = response.connection();
                    let tls = info.tls.as_ref().unwrap();
                    let suite = tls.cipher_suite();
                    assert!(suite.starts_with("TLS") && suite.contains("_"), "{suite}");
                    assert_eq!(info.remote_addr, Some(server.address()));
                    assert_eq!(response.timings().tls.is_some(), !reused);
                    assert_eq!(response.text().await.unwrap(), "POST /a payload");
                    assert_eq!(server.accepted(), accepted);
                }
            }
            at_rest(&client);
        })
        .await;
    }
}

#[tokio::test]
async fn the_version_has_its_usual_name() {
    for (versions, version) in [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")] {
        within(async {
            let authority = Authority::new();
            let server = Server::tls(authority.local().server(versions), honest);
            let client = client_of(&authority);
            let response = client.get(server.url("/")).send().await.unwrap();
            let tls = response.connection().tls.clone().unwrap();
            assert_eq!(tls.version(), version);
            drop(response);
            at_rest(&client);
        })
        .await;
    }
}

#[tokio::test]
async fn only_the_roots_that_were_given_are_trusted() {
    within(async {
        let (authority, config) = local();
        let server = Server::tls(config, honest);
        let other = Authority::new();
        let only = |pem: String| TlsConfig::builder().only_roots(pem).build().unwrap();
        let trusting = client_with(only(authority.pem()));
        assert_eq!(get(&trusting, &server, "/").await, "GET / ");
        at_rest(&trusting);
        refused(&client_with(only(other.pem())), server.url("/")).await;
        // Roots that are added count besides.
        let both = TlsConfig::builder()
            .only_roots(other.pem())
            .add_root_pem(authority.pem().as_bytes())
            .unwrap();
        let trusting = client_with(both.build().unwrap());
        assert_eq!(get(&trusting, &server, "/").await, "GET / ");
        at_rest(&trusting);
        // So do several in one file.
        let bundle = only(other.pem() + &authority.pem());
        let trusting = client_with(bundle);
        assert_eq!(get(&trusting, &server, "/").await, "GET / ");
        at_rest(&trusting);
    })
    .await;
}

#[tokio::test]
async fn the_default_roots_refuse_a_private_authority_and_say_what_to_do() {
    within(async {
        let (_, config) = local();
        let server = Server::tls(config, honest);
        let error = refused(&Client::new(), server.url("/secret?token=1")).await;
        let line = error.to_string();
        assert!(line.contains("issuer is not trusted"), "{line}");
        assert!(line.contains("add_root_pem"), "{line}");
        assert!(line.contains("127.0.0.1"), "{line}");
        assert!(!line.contains("token"), "{line}");
        assert!(!error.is_retryable());
        let counted = Client::new();
        refused(&counted, server.url("/")).await;
        assert_eq!(counted.stats().total.connect_failures, 1);
        assert_eq!(counted.stats().total.errors.get(ErrorKind::Tls), 1);
        assert_eq!(server.requests().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    within(async {
        let authority = Authority::new();
        let identity = authority.issue(&["example.test", "*.localhost"], 4000);
        let server = Server::tls(identity.server(TLS13), honest);
        for host in ["localhost", "127.0.0.1"] {
            let error = refused(&client_of(&authority), server.url_of(host, "/")).await;
            assert!(error.to_string().contains("for another host"), "{error}");
        }
        assert_eq!(server.requests().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    within(async {
        let authority = Authority::new();
        let identity = authority.issue(&["localhost", "127.0.0.1"], 2001);
        for versions in [TLS12, TLS13] {
            let server = Server::tls(identity.server(versions), honest);
            let error = refused(&client_of(&authority), server.url("/")).await;
            assert!(error.to_string().contains("has expired"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_certificates_are_accepted_only_on_demand() {
    within(async {
        let authority = Authority::new();
        let identity = authority.issue(&["example.test"], 2001);
        let tls = |accept| {
            TlsConfig::builder()
                .danger_accept_invalid_certs(accept)
                .build()
                .unwrap()
        };
        for versions in [TLS12, TLS13] {
            let server = Server::tls(identity.server(versions), honest);
            let client = client_with(tls(true));
            assert_eq!(get(&client, &server, "/").await, "GET / ");
            at_rest(&client);
            refused(&client_with(tls(false)), server.url("/")).await;
        }
    })
    .await;
}

#[test]
fn files_that_hold_no_usable_certificate_are_errors() {
    let key = Authority::new().local().key_pem();
    let garbled = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let good = Authority::new().pem();
    // One that would be left out silently is a mistake as well.
    let marked = format!("\u{feff}{good}{good}");
    let indented = format!("{good} {good}");
    let files = ["", "no PEM at all", key.as_str(), garbled, no_certificate];
    for file in files.into_iter().chain([&*marked, &*indented]) {
        let added = TlsConfig::builder()
            .add_root_pem(file.as_bytes())
            .and_then(|builder| builder.build());
        let only = TlsConfig::builder().only_roots(file).build();
        for error in [added.unwrap_err(), only.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Tls, "{file:?}: {error}");
            assert_eq!(error.phase(), Some(Phase::Prepare), "{file:?}: {error}");
            // The file may be a key by mistake.
            let secret = key.lines().nth(1).unwrap();
            assert!(!format!("{error} {error:?}").contains(secret));
        }
    }
}

#[tokio::test]
async fn https_to_a_plain_port_says_so() {
    within(async {
        // As real servers do: a line that cannot be parsed is answered with an error.
        let server = Server::plain(|mut peer: Peer| async move {
            peer.any_byte().await;
            peer.send("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
                .await;
            peer.end().await;
        });
        let url = server.url("/").replace("http://", "https://");
        let error = refused(&Client::new(), url).await;
        let line = error.to_string();
        assert!(line.contains("does not speak TLS"), "{line}");
        assert!(line.contains("http://"), "{line}");
    })
    .await;
}

#[tokio::test]
async fn http_to_a_tls_port_says_so() {
    within(async {
        let (authority, config) = local();
        let server = Server::tls(config, honest);
        let client = client_of(&authority);
        let url = server.url("/").replace("https://", "http://");
        let error = client.get(url).send().await.unwrap_err();
        // The server answers with an alert, which is no HTTP.
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains("https://"), "{error}");
        assert_eq!(server.requests().len(), 0);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_closes_in_the_handshake() {
    within(async {
        let server = Server::plain(|mut peer: Peer| async move {
            peer.any_byte().await;
            peer.close().await;
        });
        let url = server.url("/").replace("http://", "https://");
        let error = refused(&Client::new(), url).await;
        let line = error.to_string();
        assert!(line.contains("during the handshake"), "{line}");
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::UnexpectedEof));
        assert_eq!(server.accepted(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_resets_in_the_handshake() {
    within(async {
        let server = Server::plain(|mut peer: Peer| async move {
            peer.any_byte().await;
            peer.reset();
        });
        let url = server.url("/").replace("http://", "https://");
        let error = refused(&Client::new(), url).await;
        assert_eq!(
            error.io_kind(),
            Some(std::io::ErrorKind::ConnectionReset),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_handshake_without_an_answer_times_out() {
    within(async {
        let server = Server::plain(|mut peer: Peer| async move { peer.end().await });
        let client = Client::builder()
            .connect_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        let url = server.url("/").replace("http://", "https://");
        let error = client.post(url).body("x").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.phase(), Some(Phase::Tls), "{error}");
        assert_eq!(error.sent(), Sent::Nothing);
        assert!(error.is_timeout() && error.is_connect());
        assert!(error.to_string().contains("100ms"), "{error}");
        // The dial's own limit is as long, so its socket is closed at about the same time.
        until("the socket is closed", || server.open() == 0).await;
        until("the permit is back", || {
            client.stats().total.connections_connecting == 0
        })
        .await;
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn alpn_offers_http1_and_the_name_is_sent() {
    within(async {
        let authority = Authority::new();
        let server = Server::tls(
            authority.local().server(TLS13),
            |mut peer: Peer| async move {
                let agreed = format!("{:?}", peer.agreed());
                while peer.request().await.is_some() {
                    peer.answer(&agreed).await;
                }
            },
        );
        let client = client_of(&authority);
        let asked = |host: &str| client.get(server.url_of(host, "/")).send();
        let named = asked("localhost").await.unwrap().text().await.unwrap();
        // The server would rather speak h2, but that was not offered.
        assert_eq!(named, r#"(Some("http/1.1"), Some("localhost"))"#);
        // RFC 6066 section 3: an address is no name.
        let by_address = asked("127.0.0.1").await.unwrap().text().await.unwrap();
        assert_eq!(by_address, r#"(Some("http/1.1"), None)"#);
        assert_eq!(server.accepted(), 2);
        at_rest(&client);
    })
    .await;
}

/// Leads every route to one address, so that a test can use any name.
struct Everywhere(SocketAddr);

impl Connect for Everywhere {
    fn connect<'a>(&'a self, _: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async { Ok(Socket::from_io(TcpStream::connect(self.0).await?)) })
    }
}

/// A trailing dot belongs to the origin, and neither to the certificate nor to the name that is sent (ruling 16). TLS is
/// spoken over a transport of the user's here.
#[tokio::test]
async fn a_trailing_dot_is_no_part_of_the_name_for_tls() {
    within(async {
        let authority = Authority::new();
        let identity = authority.issue(&["name.test"], 4000);
        let server = Server::tls(identity.server(TLS13), |mut peer: Peer| async move {
            let (_, name) = peer.agreed();
            while let Some(request) = peer.request().await {
                let host = request.field("host").unwrap_or_default();
                let answer = format!("{name:?} {host}");
                peer.answer(answer).await;
            }
        });
        let tls = TlsConfig::builder().only_roots(authority.pem()).build();
        let client = Client::builder()
            .tls(tls.unwrap())
            .connector(Everywhere(server.address()))
            .build()
            .unwrap();
        for (accepted, host) in ["name.test", "name.test."].into_iter().enumerate() {
            for _ in 0..2 {
                let url = format!("https://{host}/");
                let response = client.get(url).send().await.unwrap();
                let expected = format!("Some(\"name.test\") {host}");
                assert_eq!(response.text().await.unwrap(), expected);
                assert_eq!(server.accepted(), accepted + 1);
            }
        }
        refused_name(&client).await;
        at_rest(&client);
    })
    .await;
}

async fn refused_name(client: &Client) {
    let error = client.get("https://other.test/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("for another host"), "{error}");
}

#[tokio::test]
async fn a_second_connection_resumes_the_session() {
    for versions in [TLS12, TLS13] {
        within(async {
            let authority = Authority::new();
            let server = Server::tls(authority.local().server(versions), honest);
            let client = client_of(&authority);
            for resumed in [false, true, true] {
                let response = client.get(server.url("/")).send().await.unwrap();
                let tls = response.connection().tls.clone().unwrap();
                assert_eq!(tls.resumed(), resumed);
                assert_eq!(response.text().await.unwrap(), "GET / ");
                client.close_idle();
            }
            assert_eq!(server.accepted(), 3);
            at_rest(&client);
            // A configuration of its own has sessions of its own.
            let other = client_of(&authority);
            let response = other.get(server.url("/")).send().await.unwrap();
            assert!(!response.connection().tls.clone().unwrap().resumed());
            drop(response);
            at_rest(&other);
        })
        .await;
    }
}

/// Scenario 22, R-LIVE-4: session tickets arrive while nobody asked for anything, and are legal.
#[tokio::test]
async fn t22_tickets_on_an_idle_connection() {
    within(async {
        let (authority, config) = local();
        let server = Server::tls(config, honest);
        let client = client_of(&authority);
        assert_eq!(client.preconnect(server.url("/"), 1).await.unwrap(), 1);
        server.shook_hands();
        take_notice().await;
        for method in [Method::GET, Method::POST] {
            let request = client.request(method.clone(), server.url("/"));
            let text = request.send().await.unwrap().text().await.unwrap();
            assert_eq!(text, format!("{method} / "));
        }
        let total = client.stats().total;
        assert_eq!(total.connections_closed.total(), 0);
        assert!(total.probes.get(ProbeOutcome::SettledAlive) > 0);
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

/// Scenario 22, where the runtime had no turn: the tickets are found by the look at the kernel.
#[tokio::test]
async fn t22_tickets_unseen_by_the_runtime() {
    within(async {
        let (authority, config) = local();
        let server = Server::tls(config, honest);
        let client = client_of(&authority);
        assert_eq!(client.preconnect(server.url("/"), 1).await.unwrap(), 1);
        server.shook_hands();
        let response = client.post(server.url("/")).body("x").send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "POST / x");
        let probes = client.stats().total.probes;
        assert!(probes.get(ProbeOutcome::SettledAlive) > 0, "{probes:?}");
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

/// Scenario 18, R-LIVE-4 over TLS, with and without close_notify: only the kernel knows of the end.
#[tokio::test]
async fn t18_an_end_unseen_by_the_runtime() {
    for end in [Action::Close, Action::Cut] {
        within(async {
            let (authority, config) = local();
            let server = Server::tls(config, honest);
            let client = client_of(&authority);
            get(&client, &server, "/before").await;
            server.order(&end);
            server.end_arrived();
            let response = client.post(server.url("/after")).body("once").send();
            let response = response.await.unwrap();
            assert_eq!(response.attempts(), 1);
            assert_eq!(response.text().await.unwrap(), "POST /after once");
            assert_eq!(server.requests(), ["GET /before", "POST /after"]);
            assert_eq!(server.accepted(), 2);
            at_rest(&client);
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_ended_or_spoke_while_idle_is_replaced() {
    let forged = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    for action in [Action::Close, Action::Cut, Action::Send(forged)] {
        for method in [Method::GET, Method::POST] {
            within(async {
                let (authority, config) = local();
                let server = Server::tls(config, honest);
                let client = client_of(&authority);
                get(&client, &server, "/before").await;
                server.order(&action);
                match action {
                    Action::Send(_) => server.bytes_arrived(),
                    Action::Close | Action::Cut => server.end_arrived(),
                }
                take_notice().await;
                let request = client.request(method.clone(), server.url("/after"));
                let response = request.send().await.unwrap();
                assert_eq!(response.attempts(), 1, "{action:?}");
                let expected = format!("{method} /after ");
                assert_eq!(response.text().await.unwrap(), expected);
                assert_eq!(server.accepted(), 2);
                at_rest(&client);
            })
            .await;
        }
    }
}

/// Scenario 23, R-REL-1: the end of the stream is in rustls already when the body is complete, and the TCP connection stays open.
#[tokio::test]
async fn t23_close_notify_in_one_segment_with_the_body() {
    let small = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned();
    let large = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n{}",
        "x".repeat(60_000)
    );
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned();
    for (versions, answer) in [TLS12, TLS13]
        .into_iter()
        .flat_map(|versions| [&small, &large, &chunked].map(|answer| (versions, answer)))
    {
        within(async {
            let authority = Authority::new();
            let config = authority.local().server(versions);
            let answer = answer.clone();
            let server = Server::tls(config, move |mut peer: Peer| {
                let answer = answer.clone();
                async move {
                    if peer.number > 0 {
                        return honest(peer).await;
                    }
                    peer.request().await;
                    peer.send_with_close_notify(answer).await;
                    peer.end().await;
                }
            });
            let client = client_of(&authority);
            let first = client.get(server.url("/first")).send().await.unwrap();
            let body = first.bytes().await.unwrap();
            assert!([2, 60_000].contains(&body.len()));
            let second = client.post(server.url("/second")).send().await.unwrap();
            assert_eq!(second.attempts(), 1);
            assert!(!second.reused());
            assert_eq!(second.text().await.unwrap(), "POST /second ");
            assert_eq!(server.accepted(), 2);
            at_rest(&client);
        })
        .await;
    }
}

/// What the end of a body that nothing else ends is worth: truncation must not look like an end (RFC 9112 section 9.8).
#[tokio::test]
async fn a_body_up_to_the_end_of_the_stream_needs_close_notify() {
    for versions in [TLS12, TLS13] {
        for said_goodbye in [true, false] {
            within(async {
                let authority = Authority::new();
                let config = authority.local().server(versions);
                let server = Server::tls(config, move |mut peer: Peer| async move {
                    peer.request().await;
                    peer.send("HTTP/1.1 200 OK\r\n\r\nhalf or whole?").await;
                    if said_goodbye {
                        peer.close().await;
                    }
                });
                let client = client_of(&authority);
                let response = client.get(server.url("/")).send().await.unwrap();
                match response.bytes().await {
                    Ok(body) => {
                        assert!(said_goodbye, "a cut body passed for a whole one");
                        assert_eq!(body, "half or whole?");
                    }
                    Err(error) => {
                        assert!(!said_goodbye, "{error}");
                        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                        assert_eq!(error.phase(), Some(Phase::Read));
                        assert!(error.to_string().contains("close_notify"), "{error}");
                    }
                }
                assert_eq!(client.stats().total.connections_idle, 0);
                at_rest(&client);
            })
            .await;
        }
    }
}

/// Many servers never send close_notify; a body with a length or chunks does not need it.
#[tokio::test]
async fn a_body_that_ends_by_itself_needs_no_close_notify() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    ] {
        within(async {
            let (authority, config) = local();
            let server = Server::tls(config, move |mut peer: Peer| async move {
                peer.request().await;
                peer.send(answer).await;
            });
            let client = client_of(&authority);
            for accepted in 1..=2 {
                assert_eq!(get(&client, &server, "/").await, "ok");
                assert_eq!(server.accepted(), accepted);
                until("the server has closed", || server.open() == 0).await;
                take_notice().await;
            }
            at_rest(&client);
        })
        .await;
    }
}

/// A body with a length that is cut short is one, whatever TLS says about the end.
#[tokio::test]
async fn a_body_that_is_cut_short() {
    for said_goodbye in [true, false] {
        within(async {
            let (authority, config) = local();
            let server = Server::tls(config, move |mut peer: Peer| async move {
                peer.request().await;
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf")
                    .await;
                if said_goodbye {
                    peer.close().await;
                }
            });
            let client = client_of(&authority);
            let response = client.get(server.url("/")).send().await.unwrap();
            let error = response.bytes().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
            assert_eq!(error.phase(), Some(Phase::Read));
            at_rest(&client);
        })
        .await;
    }
}

/// The stale race over TLS: the server ends the stream on a request that it has read.
#[tokio::test]
async fn an_end_on_a_reused_connection_replays_a_get_and_no_post() {
    for said_goodbye in [true, false] {
        for method in [Method::GET, Method::POST] {
            within(async {
                let (authority, config) = local();
                let server = Server::tls(config, move |mut peer: Peer| async move {
                    if peer.number > 0 {
                        return honest(peer).await;
                    }
                    peer.request().await;
                    peer.answer("").await;
                    peer.any_byte().await;
                    if said_goodbye {
                        peer.close().await;
                    }
                });
                let client = client_of(&authority);
                get(&client, &server, "/first").await;
                let request = client.request(method.clone(), server.url("/second"));
                match request.send().await {
                    Ok(response) => {
                        assert_eq!(method, Method::GET);
                        assert_eq!(response.attempts(), 2);
                        assert_eq!(response.text().await.unwrap(), "GET /second ");
                    }
                    Err(error) => {
                        assert_eq!(method, Method::POST, "{error}");
                        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                        assert_eq!(error.attempts(), 1);
                    }
                }
                at_rest(&client);
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_large_body_both_ways() {
    const SIZE: usize = 4 << 20;
    within(async {
        let (authority, config) = local();
        let server = Server::tls(config, |mut peer: Peer| async move {
            while let Some(request) = peer.request().await {
                peer.answer(request.body).await;
            }
        });
        let client = client_of(&authority);
        let content: Vec<u8> = (0..SIZE)
            .map(|at| u8::try_from((at + at / 65_521) % 251).unwrap())
            .collect();
        for _ in 0..2 {
            let request = client.post(server.url("/")).body(content.clone());
            let answer = request.send().await.unwrap().bytes().await.unwrap();
            assert!(answer == content, "the body changed on its way");
        }
        assert_eq!(server.accepted(), 1);
        at_rest(&client);
    })
    .await;
}

#[tokio::test]
async fn many_calls_at_once_share_connections() {
    within(async {
        let (authority, config) = local();
        let server = Server::tls(config, honest);
        let client = client_of(&authority);
        for _ in 0..2 {
            let mut tasks = tokio::task::JoinSet::new();
            for call in 0..30 {
                let request = client.get(server.url(&format!("/{call}")));
                tasks.spawn(async move {
                    let response = request.send().await.unwrap();
                    let id = response.connection().id;
                    assert_eq!(response.text().await.unwrap(), format!("GET /{call} "));
                    id
                });
            }
            let ids: HashSet<u64> = tasks.join_all().await.into_iter().collect();
            assert!(ids.len() <= 30);
        }
        assert!(server.accepted() <= 30, "{} connections", server.accepted());
        assert!(server.handshakes().iter().all(Result::is_ok));
        assert_eq!(server.requests().len(), 60);
        until("all dials have ended", || {
            client.stats().total.connections_connecting == 0
        })
        .await;
        at_rest(&client);
    })
    .await;
}

/// What close says about an idle connection is true: the server sees its end.
#[tokio::test]
async fn closing_the_client_closes_idle_connections() {
    within(async {
        let (authority, config) = local();
        let server = Server::tls(config, honest);
        let client = client_of(&authority);
        let clone = client.clone();
        get(&client, &server, "/").await;
        drop(client);
        assert_eq!(get(&clone, &server, "/").await, "GET / ");
        assert_eq!(server.accepted(), 1);
        let closed = clone.close(Duration::from_secs(5)).await;
        assert_eq!((closed.finished, closed.cut), (1, 0));
        until("the server sees the end", || server.open() == 0).await;
        assert_eq!(
            clone
                .stats()
                .total
                .connections_closed
                .get(CloseCause::PoolClosed),
            1
        );
        at_rest(&clone);
    })
    .await;
}
