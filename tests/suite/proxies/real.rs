//! A proxy on real sockets: connections through it are kept, probed and closed like any other, TLS inside TLS included.

use std::time::Duration;

use sockeye::stats::CloseCause;
use sockeye::test::at_rest;
use sockeye::{Client, ClientBuilder, Limits};

use super::proxy;
use crate::support::proxy::ProxyServer;
#[cfg(any(feature = "socks", feature = "rustls"))]
use crate::support::server::honest;
use crate::support::server::{Action, Server, until, within};

fn builder() -> ClientBuilder {
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    Client::builder().limits(limits)
}

/// Calls that reuse one connection, one with a large body, and what the client notices of an idle connection that is closed or
/// spoken to.
async fn exercise(client: &Client, server: &Server, url: &str) {
    let large = vec![b'x'; 300 * 1024];
    for round in 0..4 {
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.reused(), round > 0);
        assert!(response.connection().remote_addr.is_some());
        assert_eq!(response.text().await.unwrap(), "GET /x ");
        // A POST has the kernel asked whether the connection stands.
        let response = client.post(url).body(large.clone()).send().await.unwrap();
        assert!(response.reused());
        let body = response.bytes().await.unwrap();
        assert_eq!(body.len(), large.len() + b"POST /x ".len());
    }
    assert_eq!(server.accepted(), 1);
    for (round, action) in [Action::Close, Action::Send(b"HTTP/1.1 200 OK\r\n\r\n")]
        .iter()
        .enumerate()
    {
        client.get(url).send().await.unwrap().bytes().await.unwrap();
        server.order(action);
        until("the client hears of it", || {
            client.stats().total.connections_idle == 0
        })
        .await;
        assert_eq!(server.accepted(), round + 1);
    }
    let closed = client.stats().total.connections_closed;
    assert_eq!(closed.get(CloseCause::PeerClosed), 1);
    assert_eq!(closed.get(CloseCause::Unsolicited), 1);
    client.get(url).send().await.unwrap().bytes().await.unwrap();
    client.close_idle();
    until("the server sees the end", || server.open() == 0).await;
    at_rest(client);
}

#[tokio::test]
async fn forwarded() {
    within(async {
        let (server, proxy_server) = (Server::plain(absolute_or_not), ProxyServer::plain().await);
        let url = format!("http://user:s3cret@127.0.0.1:{}", proxy_server.port());
        let client = builder().proxy(proxy(&url)).build().unwrap();
        exercise(&client, &server, &server.url("/x")).await;
        until("the proxy sees the end", || proxy_server.open() == 0).await;
        assert!(proxy_server.asked()[0].contains("proxy-authorization: Basic"));
    })
    .await;
}

/// The proxy passes on requests behind the first as they came.
async fn absolute_or_not(mut peer: crate::support::server::Peer) {
    while let Some(request) = peer.request().await {
        let path = format!("/{}", request.path.rsplit('/').next().unwrap());
        let mut answer = format!("{} {path} ", request.method).into_bytes();
        answer.extend_from_slice(&request.body);
        peer.answer(answer).await;
    }
}

#[cfg(feature = "socks")]
#[tokio::test]
async fn by_socks() {
    within(async {
        for (scheme, host, expected) in [
            ("socks5", "localhost", "1 \\x7f\\x00\\x00\\x01"),
            ("socks5h", "localhost", "3 localhost"),
            ("socks5h", "127.0.0.1", "1 \\x7f\\x00\\x00\\x01"),
        ] {
            let (server, proxy_server) = (Server::plain(honest), ProxyServer::plain().await);
            let url = format!("{scheme}://127.0.0.1:{}", proxy_server.port());
            let client = builder()
                .resolve("localhost", &[([127, 0, 0, 1], 0).into()])
                .proxy(proxy(&url))
                .build()
                .unwrap();
            exercise(&client, &server, &server.url_of(host, "/x")).await;
            let asked = format!("{expected}:{}", server.address().port());
            assert_eq!(proxy_server.asked()[0], asked);
        }
    })
    .await;
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn tls_inside_a_tunnel() {
    use sockeye::TlsConfig;

    use crate::support::server::{Authority, TLS12, TLS13};
    for versions in [TLS12, TLS13] {
        for proxy_tls in [false, true] {
            within(async {
                let authority = Authority::new();
                let server = Server::tls(authority.local().server(versions), honest);
                let tls = || {
                    let builder = TlsConfig::builder().only_roots(authority.pem());
                    builder.build().unwrap()
                };
                let (proxy_server, scheme) = match proxy_tls {
                    false => (ProxyServer::plain().await, "http"),
                    true => (
                        ProxyServer::tls(authority.local().server(versions)).await,
                        "https",
                    ),
                };
                let url = format!("{scheme}://localhost:{}", proxy_server.port());
                let client = builder()
                    .resolve("localhost", &[([127, 0, 0, 1], 0).into()])
                    .tls(tls())
                    .proxy(proxy(&url).tls(tls()))
                    .build()
                    .unwrap();
                exercise(&client, &server, &server.url_of("localhost", "/x")).await;
                until("the proxy sees the end", || proxy_server.open() == 0).await;
                let connect = format!("CONNECT localhost:{} HTTP/1.1\r\n", server.address().port());
                let asked = proxy_server.asked();
                assert!(
                    asked.iter().all(|head| head.starts_with(&connect)),
                    "{asked:?}"
                );
            })
            .await;
        }
    }
}

/// Whoever ends a tunnel ends no body with it: only what the server itself says inside its TLS does (RFC 9112 section 9.8). The
/// proxy's own end, with the close_notify of its leg, is no more than that of a TCP connection.
#[cfg(feature = "rustls")]
#[tokio::test]
async fn the_end_of_a_tunnel_is_not_that_of_a_body() {
    use sockeye::{ErrorKind, Phase, TlsConfig};

    use crate::support::server::{Authority, TLS12, TLS13};
    for (versions, proxy_tls) in [(TLS12, false), (TLS12, true), (TLS13, false), (TLS13, true)] {
        within(async {
            let authority = Authority::new();
            let identity = authority.local().server(versions);
            let server = Server::tls(identity, |mut peer| async move {
                let path = peer.request().await.map(|request| request.path);
                let path = path.unwrap_or_default();
                let framing = match path.starts_with("/length") {
                    true => "content-length: 5\r\n",
                    false => "",
                };
                peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\nwhole"))
                    .await;
                if path.ends_with("/said") {
                    peer.close().await;
                }
            });
            let (proxy_server, scheme) = match proxy_tls {
                false => (ProxyServer::plain().await, "http"),
                true => {
                    let identity = authority.local().server(versions);
                    (ProxyServer::tls(identity).await, "https")
                }
            };
            let tls = TlsConfig::builder().only_roots(authority.pem());
            let tls = tls.build().unwrap();
            let url = format!("{scheme}://127.0.0.1:{}", proxy_server.port());
            let client = builder()
                .tls(tls.clone())
                .proxy(proxy(&url).tls(tls))
                .build()
                .unwrap();
            for (path, is_whole) in [
                ("/length/said", true),
                ("/length/cut", true),
                ("/until/said", true),
                ("/until/cut", false),
            ] {
                let response = client.get(server.url(path)).send().await.unwrap();
                match response.text().await {
                    Ok(text) => assert!(is_whole && text == "whole", "{path}: {text}"),
                    Err(error) => {
                        assert!(!is_whole, "{path}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                        assert_eq!(error.phase(), Some(Phase::Read), "{error}");
                        assert!(error.to_string().contains("close_notify"), "{error}");
                    }
                }
            }
            client.close_idle();
            until("the server sees the end", || server.open() == 0).await;
            at_rest(&client);
        })
        .await;
    }
}
