//! Tunnels by CONNECT: what is asked, everything that a proxy can answer, and who sees what of TLS on each leg.

use std::time::Duration;

#[cfg(feature = "http2")]
use sockeye::HttpVersions;
use sockeye::{ErrorKind, Limits, Phase};

#[cfg(feature = "rustls")]
use super::CREDENTIALS;
use super::{fails, proxy, through, tunnel};
use crate::support::peer::{Dial, World, let_others_run, ok, settle};
use crate::support::streams::within_polls;

/// An upgrade needs a tunnel in every build, with and without TLS.
async fn ask(client: &sockeye::Client) -> sockeye::Result<sockeye::Response> {
    client.get("http://a.test/").upgrade("echo").send().await
}

async fn refusal(answer: &str, ends: bool, limits: Limits) -> sockeye::Error {
    let world = World::new();
    let client = through(&world, "http://user:s3cret@proxy.test:3128")
        .limits(limits)
        .build()
        .unwrap();
    let peer = async {
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection.try_write(answer.as_bytes()).await;
        if ends {
            connection.close();
        } else {
            connection.read_to_end().await;
        }
    };
    let (error, ()) = tokio::join!(ask(&client), peer);
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
    assert_eq!(error.phase(), Some(Phase::Connect));
    assert!(error.is_connect());
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("http://proxy.test:3128"), "{shown}");
    for secret in ["s3cret", "dXNlc", "realm", "\r", "\n", "\u{1b}"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    settle(&client, &world).await;
    error
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_refused() {
    for (answer, status, expected, retryable) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"x\"\r\nproxy-authenticate: Negotiate\r\n\r\n",
            407,
            "status 407 Proxy Authentication Required, although it was given credentials: they are wrong, or of another kind \
             (it takes Basic, Negotiate)",
            false,
        ),
        (
            "HTTP/1.1 407\r\nproxy-authenticate: \x01\r\n\r\n",
            0,
            "cannot be understood",
            false,
        ),
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nbody",
            403,
            "status 403 Forbidden",
            false,
        ),
        (
            "HTTP/1.0 403 Not this port\r\n\r\n",
            403,
            "403 Forbidden (\"Not this port\")",
            false,
        ),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", 502, "status 502", true),
        (
            "HTTP/1.1 503 Busy \u{1b}[31m\r\n\r\n",
            0,
            "cannot be understood",
            false,
        ),
        (
            "HTTP/1.1 504 Gateway Timeout\r\ntransfer-encoding: chunked\r\n\r\n",
            504,
            "504",
            true,
        ),
        ("HTTP/1.1 429 Too Many Requests\r\n\r\n", 429, "429", true),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://evil.test/\r\n\r\n",
            302,
            "302",
            false,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n",
            500,
            "(\"Oh\")",
            true,
        ),
        ("HTTP/1.1 699 Odd\r\n\r\n", 699, "699", false),
    ] {
        for ends in [true, false] {
            let error = refusal(answer, ends, Limits::default()).await;
            let told = error.proxy_status().map_or(0, |status| status.as_u16());
            assert_eq!(told, status, "{error}");
            assert_eq!(error.status(), None);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.is_retryable(), retryable, "{error}");
        }
    }
    let long = format!("HTTP/1.1 403 {}\r\n\r\n", "x".repeat(5000));
    let text = refusal(&long, true, Limits::default()).await.to_string();
    assert!(
        text.contains(&format!("(\"{}…\")", "x".repeat(64))),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn credentials_are_asked_for() {
    let world = World::new();
    let client = through(&world, "http://proxy.test").build().unwrap();
    let peer = async {
        let mut connection = world.accept().await;
        let request = connection.read_head().await.unwrap();
        assert_eq!(request.field("proxy-authorization"), None);
        connection
            .write("HTTP/1.1 407 Log in\r\nproxy-authenticate: Basic realm=\"x\"\r\n\r\n")
            .await;
    };
    let (error, ()) = tokio::join!(ask(&client), peer);
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("set credentials in its URL or by Proxy::basic_auth (it takes Basic)"),
        "{text}"
    );
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none() {
    let fields = "x: y\r\n".repeat(300);
    let long = format!("x: {}\r\n", "y".repeat(200 * 1024));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(40);
    for (answer, ends, expected) in [
        ("", true, "closed the connection without an answer"),
        ("HTTP/1.1 200 OK\r\n", true, "cannot be understood"),
        ("SSH-2.0-OpenSSH_9.2\r\n", false, "cannot be understood"),
        ("\x05\x00", true, "cannot be understood"),
        ("\x16\x03\x01\x02\x00", true, "cannot be understood"),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            false,
            "cannot be understood",
        ),
        ("HTTP/2 200\r\n\r\n", false, "cannot be understood"),
        ("HTTP/1.1 200 OK\nx: y\n\n", true, "cannot be understood"),
        (&interim, false, "32"),
        (&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), false, "256"),
        (&format!("HTTP/1.1 200 OK\r\n{long}\r\n"), false, "128 KiB"),
        (
            "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            false,
            "19 bytes came behind its answer",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            false,
            "2 bytes came behind",
        ),
    ] {
        let error = refusal(answer, ends, Limits::default()).await;
        assert!(
            error.to_string().contains(expected),
            "{expected} is not in {error}"
        );
        assert_eq!(error.proxy_status(), None);
    }
    let limits = Limits::default().with_max_head(100).with_max_head_fields(2);
    let answer = format!("HTTP/1.1 403 Forbidden\r\nx: {}\r\n\r\n", "y".repeat(100));
    let error = refusal(&answer, true, limits).await;
    assert!(error.to_string().contains("100"), "{error}");
}

/// The head may come byte by byte, with an interim one before it, and by HTTP/1.0; its Content-Length means nothing (RFC 9110
/// section 9.3.6).
#[tokio::test(start_paused = true)]
async fn what_a_proxy_may_say_with_a_tunnel() {
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 Connection established\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nvia: 1.1 p\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
    ] {
        let world = World::new();
        let client = through(&world, "proxy.test").build().unwrap();
        let peer = async {
            let mut connection = world.accept().await;
            let request = connection.read_head().await.unwrap();
            assert_eq!(
                request.head,
                "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\n\r\n"
            );
            assert!(connection.write_slowly(answer.as_bytes()).await);
            let request = connection.read_request().await;
            assert_eq!(request.target(), "/");
            connection.write(ok("through")).await;
        };
        let (response, ()) = tokio::join!(ask(&client), peer);
        let response = response.unwrap();
        assert_eq!(
            response.connection().proxy().as_deref(),
            Some("http://proxy.test:80")
        );
        assert_eq!(response.text().await.unwrap(), "through");
        settle(&client, &world).await;
    }
}

/// Fields of CONNECT stay on that hop, and credentials of another scheme take the place of Basic ones.
#[tokio::test(start_paused = true)]
async fn fields_for_the_proxy_alone() {
    let world = World::new();
    let asking = proxy("http://user:s3cret@proxy.test")
        .header("x-tenant", "7")
        .unwrap()
        .header("proxy-authorization", "Bearer t0ken")
        .unwrap()
        .header("x-tenant", "8")
        .unwrap();
    let client = world.builder().proxy(asking).build().unwrap();
    let peer = async {
        let (mut connection, asked) = tunnel(&world).await;
        assert_eq!(
            asked.head,
            "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\nproxy-authorization: Bearer t0ken\r\nx-tenant: 7\r\nx-tenant: 8\r\n\r\n"
        );
        let request = connection.read_request().await;
        assert_eq!(request.field("x-tenant"), None);
        assert_eq!(request.field("proxy-authorization"), None);
        connection.write(ok("")).await;
        // A request that is forwarded carries the credentials, and not the fields, which the server would see.
        let mut connection = world.accept().await;
        let request = connection.read_request().await;
        assert_eq!(request.field("x-tenant"), None);
        assert_eq!(request.field("proxy-authorization"), Some("Bearer t0ken"));
        connection.write(ok("")).await;
    };
    let calls = async {
        ask(&client).await.unwrap().bytes().await.unwrap();
        client
            .get("http://a.test/")
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
    };
    tokio::join!(calls, peer);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_runs_into_the_connect_limit() {
    let world = World::new();
    let client = through(&world, "http://user:s3cret@proxy.test")
        .connect_timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    let peer = async {
        let mut connection = world.accept().await;
        connection.read_head().await.unwrap();
        connection.write("HTTP/1.1 200").await;
        connection.read_to_end().await;
    };
    let (error, _) = tokio::join!(ask(&client), peer);
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.phase(), Some(Phase::Connect));
    assert!(error.is_connect() && error.is_retryable());
    let text = error.to_string();
    assert!(
        text.contains("3s") && text.ends_with("by way of the proxy http://proxy.test:80"),
        "{text}"
    );
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_not_there() {
    let world = World::new();
    world.always(Dial::Refuse);
    let client = through(&world, "http://user:s3cret@proxy.test")
        .build()
        .unwrap();
    // Forwarded and through a tunnel.
    for error in [
        ask(&client).await.unwrap_err(),
        fails(&client, "http://a.test/").await,
    ] {
        assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
        assert_eq!(error.phase(), Some(Phase::Connect));
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused));
        assert!(error.is_connect() && error.is_retryable());
        let text = error.to_string();
        assert!(
            text.contains("could not reach the proxy http://proxy.test:80"),
            "{text}"
        );
    }
    settle(&client, &world).await;
}

/// Fault 16: a call that is dropped after any number of polls leaks nothing, and the next one works. The dial goes on.
#[tokio::test(start_paused = true)]
async fn cancelling_while_a_tunnel_is_asked_for() {
    for polls in 0..12 {
        let world = World::new();
        let client = through(&world, "proxy.test").build().unwrap();
        let serving = tokio::spawn({
            let world = world.clone();
            async move {
                loop {
                    let mut connection = world.accept().await;
                    tokio::spawn(async move {
                        connection.read_head().await?;
                        connection.write_slowly(b"HTTP/1.1 200 OK\r\n\r\n").await;
                        while let Some(request) = connection.next_request().await {
                            connection.try_write(ok(request.target()).as_bytes()).await;
                        }
                        Some(())
                    });
                }
            }
        });
        drop(within_polls(polls, ask(&client)).await);
        let response = ask(&client).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "/");
        let_others_run().await;
        settle(&client, &world).await;
        serving.abort();
    }
}

/// HTTP/2 by prior knowledge goes through a tunnel. Its server may speak first, and what it says may come with the proxy's answer.
#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn http2_by_prior_knowledge() {
    use crate::support::http2::{Frames, Honest, Report, Session};
    for answer in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let world = World::new();
        let client = through(&world, "proxy.test")
            .http_versions(HttpVersions::Http2PriorKnowledge)
            .build()
            .unwrap();
        let peer = async {
            let mut connection = world.accept().await;
            let request = connection.read_head().await.unwrap();
            assert_eq!(
                request.head,
                "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\n\r\n"
            );
            connection.write(answer).await;
            let session = Session::new(connection).await;
            if !answer.ends_with(b"\0") {
                session.send(Frames::new().settings(&[]));
            }
            (tokio::spawn(
                Honest::default().go_on(session, Report::default()),
            ),)
        };
        let (response, (serving,)) = tokio::join!(client.get("http://a.test/x").send(), peer);
        let response = response.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(response.text().await.unwrap(), "/x");
        drop(client);
        serving.await.unwrap();
    }
}

/// Security T2: each leg has a name and settings of its own.
#[cfg(feature = "rustls")]
mod secure {
    use sockeye::{Client, TlsConfig};

    use super::*;
    use crate::redirects::found;
    use crate::support::peer::PeerConnection;
    use crate::support::server::{Authority, TLS13};

    fn trusting(authority: &Authority) -> TlsConfig {
        let builder = TlsConfig::builder().only_roots(authority.pem());
        builder.build().unwrap()
    }

    /// Who vouches for the proxy and for the server.
    struct Authorities {
        proxies: Authority,
        servers: Authority,
    }

    impl Authorities {
        fn new() -> Self {
            Self {
                proxies: Authority::new(),
                servers: Authority::new(),
            }
        }

        fn client(&self, world: &World, proxy_url: &str) -> Client {
            let proxy = proxy(proxy_url).tls(trusting(&self.proxies));
            let builder = world.builder().tls(trusting(&self.servers));
            builder.proxy(proxy).build().unwrap()
        }
    }

    /// What the ends of both legs show of themselves.
    struct Shown<'a> {
        proxy: (&'a Authority, &'a str),
        server: (&'a Authority, &'a str),
    }

    /// Plays the proxy and the server behind it for one call. What each was sent is the answer.
    async fn play(
        world: &World,
        shown: &Shown<'_>,
        proxy_tls: bool,
        server_tls: bool,
    ) -> Vec<String> {
        let secure = async |connection: PeerConnection, (authority, name): (&Authority, &str)| {
            let identity = authority.issue(&[name], 4000);
            connection.secure(identity.server(TLS13)).await
        };
        let mut heads = Vec::new();
        let mut connection = world.accept().await;
        if proxy_tls {
            match secure(connection, shown.proxy).await {
                Some(secured) => connection = secured,
                None => return heads,
            }
        }
        if server_tls {
            let Some(asked) = connection.read_head().await else {
                return heads;
            };
            heads.push(asked.head);
            connection.write("HTTP/1.1 200 OK\r\n\r\n").await;
            match secure(connection, shown.server).await {
                Some(secured) => connection = secured,
                None => return heads,
            }
        }
        if let Some(request) = connection.read_head().await {
            heads.push(request.head);
            connection.write(ok("done")).await;
            connection.read_to_end().await;
        }
        heads
    }

    fn schemes(proxy_tls: bool, server_tls: bool) -> (String, &'static str) {
        let proxy_scheme = if proxy_tls { "https" } else { "http" };
        let url = if server_tls {
            "https://a.test/x"
        } else {
            "http://a.test/x"
        };
        (format!("{proxy_scheme}://user:s3cret@proxy.test:3128"), url)
    }

    const LEGS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

    #[tokio::test(start_paused = true)]
    async fn every_combination_works() {
        let authorities = Authorities::new();
        let shown = Shown {
            proxy: (&authorities.proxies, "proxy.test"),
            server: (&authorities.servers, "a.test"),
        };
        for (proxy_tls, server_tls) in LEGS {
            let world = World::new();
            let (proxy_url, url) = schemes(proxy_tls, server_tls);
            let client = authorities.client(&world, &proxy_url);
            let call = async {
                let response = client.get(url).send().await.unwrap();
                // That of the server; of the proxy's nobody is told.
                assert_eq!(response.connection().tls.is_some(), server_tls);
                assert_eq!(response.text().await.unwrap(), "done");
                client.close_idle();
            };
            let ((), heads) = tokio::join!(call, play(&world, &shown, proxy_tls, server_tls));
            if server_tls {
                let connect = format!(
                    "CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\nproxy-authorization: {CREDENTIALS}\r\n\r\n"
                );
                assert_eq!(heads[0], connect);
                assert!(heads[1].starts_with("GET /x HTTP/1.1\r\nhost: a.test\r\n"));
                assert!(!heads[1].contains("proxy-authorization"), "{}", heads[1]);
            } else {
                assert!(heads[0].starts_with("GET http://a.test/x HTTP/1.1\r\n"));
                assert!(heads[0].contains(CREDENTIALS));
            }
            settle(&client, &world).await;
        }
    }

    /// Security R2, R5: a redirect through tunnels. The proxy sees nothing that is for the servers, they see nothing that is for the
    /// proxy, and the second server nothing that was for the first. Led to one that needs no tunnel, the proxy sees the request, and
    /// none of its secrets either.
    #[tokio::test(start_paused = true)]
    async fn a_redirect_through_tunnels() {
        let authorities = Authorities::new();
        let world = World::new();
        let client = authorities.client(&world, "http://user:s3cret@proxy.test:3128");
        let redirects = sockeye::Redirects::default().with_downgrade(true);
        let call = client
            .get("https://a.test/x")
            .redirects(redirects)
            .bearer_auth("t0ken")
            .header("cookie", "sid=t0ken")
            .header("x-api-key", "t0ken");
        let call = tokio::spawn(call.send());
        let mut served = Vec::new();
        let mut inside = Vec::new();
        for (name, location) in [
            ("a.test", "https://b.test/y"),
            ("b.test", "http://c.test/z"),
        ] {
            let mut connection = world.accept().await;
            let asked = connection.read_head().await.unwrap();
            assert_eq!(
                asked.head,
                format!(
                    "CONNECT {name}:443 HTTP/1.1\r\nhost: {name}:443\r\nproxy-authorization: {CREDENTIALS}\r\n\r\n"
                )
            );
            connection.write("HTTP/1.1 200 OK\r\n\r\n").await;
            let identity = authorities.servers.issue(&[name], 4000);
            let mut connection = connection.secure(identity.server(TLS13)).await.unwrap();
            inside.push(connection.read_request().await.head);
            connection.write(found(location)).await;
            served.push(connection);
        }
        assert!(inside[0].matches("t0ken").count() == 3, "{}", inside[0]);
        assert!(!inside[1].contains("t0ken"), "{}", inside[1]);
        for head in &inside {
            assert!(!head.contains("proxy-authorization"), "{head}");
        }
        let mut proxy = world.accept().await;
        let asked = proxy.read_request().await;
        assert_eq!(asked.target(), "http://c.test/z");
        assert_eq!(asked.field("proxy-authorization"), Some(CREDENTIALS));
        assert!(!asked.head.contains("t0ken"), "{}", asked.head);
        proxy.write(ok("there")).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "there");
        drop((served, proxy));
        client.close_idle();
        crate::support::peer::let_others_run().await;
        settle(&client, &world).await;
    }

    /// Urllib3 CVE-2021-28363 and undici CVE-2026-9697: a certificate that is for the other leg, or for nobody, fails its own.
    #[tokio::test(start_paused = true)]
    async fn a_wrong_certificate_on_either_leg() {
        let authorities = Authorities::new();
        let Authorities { proxies, servers } = &authorities;
        let stranger = Authority::new();
        let good = |name| (if name == "a.test" { servers } else { proxies }, name);
        for (proxy_tls, server_tls) in LEGS {
            let (proxy_url, url) = schemes(proxy_tls, server_tls);
            let wrong_proxies = [
                (&stranger, "proxy.test"),
                (proxies, "a.test"),
                (servers, "proxy.test"),
            ];
            let wrong_servers = [
                (&stranger, "a.test"),
                (servers, "proxy.test"),
                (proxies, "a.test"),
            ];
            let by_proxy = wrong_proxies
                .into_iter()
                .filter(|_| proxy_tls)
                .map(|wrong| {
                    let shown = Shown {
                        proxy: wrong,
                        server: good("a.test"),
                    };
                    (shown, ErrorKind::Proxy)
                });
            let by_server = wrong_servers
                .into_iter()
                .filter(|_| server_tls)
                .map(|wrong| {
                    let shown = Shown {
                        proxy: good("proxy.test"),
                        server: wrong,
                    };
                    (shown, ErrorKind::Tls)
                });
            for (shown, expected) in by_proxy.chain(by_server) {
                let world = World::new();
                let client = authorities.client(&world, &proxy_url);
                let (error, heads) = tokio::join!(
                    fails(&client, url),
                    play(&world, &shown, proxy_tls, server_tls)
                );
                assert_eq!(error.kind(), expected, "{error}");
                assert_eq!(error.phase(), Some(Phase::Tls), "{error}");
                assert!(error.is_connect() && !error.is_retryable(), "{error}");
                let names_proxy = error.to_string().contains("https://proxy.test:3128");
                assert_eq!(names_proxy, expected == ErrorKind::Proxy, "{error}");
                // Credentials are for a proxy that has shown who it is, and the request for such a server.
                let asked = usize::from(expected == ErrorKind::Tls);
                assert_eq!(heads.len(), asked, "{heads:?}");
                settle(&client, &world).await;
            }
        }
    }

    /// The other four of the eight combinations: without a proxy, and with one that speaks no TLS of its own.
    #[tokio::test(start_paused = true)]
    async fn a_wrong_certificate_without_a_proxy_and_behind_socks() {
        let authorities = Authorities::new();
        let Authorities { proxies, servers } = &authorities;
        let stranger = Authority::new();
        let ways: &[bool] = if cfg!(feature = "socks") {
            &[false, true]
        } else {
            &[false]
        };
        for &by_socks in ways {
            let client = |world: &World| {
                let builder = world.builder().tls(trusting(servers));
                match by_socks {
                    true => {
                        // What the proxy is trusted for does not count for the server.
                        let proxy = proxy("socks5h://user:s3cret@proxy.test");
                        builder.proxy(proxy.tls(trusting(proxies)))
                    }
                    false => builder,
                }
                .build()
                .unwrap()
            };
            for (authority, name, is_right) in [
                (servers, "a.test", true),
                (&stranger, "a.test", false),
                (servers, "proxy.test", false),
                (proxies, "a.test", false),
            ] {
                let world = World::new();
                let client = client(&world);
                let peer = async {
                    let mut connection = world.accept().await;
                    if by_socks {
                        connect_by_socks(&mut connection, 443).await;
                    }
                    let identity = authority.issue(&[name], 4000);
                    let Some(mut connection) = connection.secure(identity.server(TLS13)).await
                    else {
                        return false;
                    };
                    let request = connection.read_head().await;
                    connection.try_write(ok("done").as_bytes()).await;
                    connection.read_to_end().await;
                    request.is_some()
                };
                let call = async {
                    if is_right {
                        let response = client.get("https://a.test/x").send().await.unwrap();
                        assert_eq!(response.text().await.unwrap(), "done");
                        client.close_idle();
                    } else {
                        let error = fails(&client, "https://a.test/x").await;
                        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
                        assert_eq!(error.phase(), Some(Phase::Tls), "{error}");
                        assert!(error.is_connect() && !error.is_retryable(), "{error}");
                    }
                };
                let ((), was_asked) = tokio::join!(call, peer);
                assert_eq!(was_asked, is_right, "{name} {by_socks}");
                settle(&client, &world).await;
            }
            // Without TLS no certificate is asked for.
            let world = World::new();
            let client = client(&world);
            let peer = async {
                let mut connection = world.accept().await;
                if by_socks {
                    connect_by_socks(&mut connection, 80).await;
                }
                connection.read_request().await;
                connection.write(ok("done")).await;
            };
            let call = async { client.get("http://a.test/x").send().await.unwrap() };
            let (response, ()) = tokio::join!(call, peer);
            assert_eq!(response.connection().tls, None);
            assert_eq!(response.text().await.unwrap(), "done");
            settle(&client, &world).await;
        }
    }

    /// Plays a proxy of SOCKS5 that wants a password and takes the call to a.test.
    async fn connect_by_socks(connection: &mut PeerConnection, port: u16) {
        let asked = [&b"\x05\x01\x00\x03\x06a.test"[..], &port.to_be_bytes()].concat();
        for (expected, answer) in [
            (&b"\x05\x02\x00\x02"[..], &b"\x05\x02"[..]),
            (b"\x01\x04user\x06s3cret", b"\x01\x00"),
            (&asked, b"\x05\x00\x00\x01\0\0\0\0\0\0"),
        ] {
            let read = connection.take(expected.len()).await;
            assert_eq!(read.as_deref(), Some(expected));
            connection.write(answer).await;
        }
    }

    /// Ruling 22: a connection that was opened with another identity on the leg to the proxy is not used again.
    #[tokio::test(start_paused = true)]
    async fn an_identity_for_the_proxy_that_is_replaced() {
        use sockeye::ClientIdentity;
        let authorities = Authorities::new();
        let own = authorities.proxies.issue(&["client.test"], 4000);
        let (certificate, key) = (own.certificate_pem(), own.key_pem());
        let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
        for server_tls in [false, true] {
            let world = World::new();
            let identity = ClientIdentity::from_pem(certificate, key).unwrap();
            let tls = TlsConfig::builder()
                .only_roots(authorities.proxies.pem())
                .client_identity(&identity)
                .build()
                .unwrap();
            let (proxy_url, url) = schemes(true, server_tls);
            let client = world
                .builder()
                .tls(trusting(&authorities.servers))
                .proxy(proxy(&proxy_url).tls(tls))
                .build()
                .unwrap();
            let shown = Shown {
                proxy: (&authorities.proxies, "proxy.test"),
                server: (&authorities.servers, "a.test"),
            };
            let calls = async {
                for _ in 0..2 {
                    let response = client.get(url).send().await.unwrap();
                    assert!(!response.reused());
                    assert_eq!(response.text().await.unwrap(), "done");
                    assert_eq!(client.stats().total.connections_idle, 1);
                    identity.reload_pem(certificate, key).unwrap();
                    let_others_run().await;
                    assert_eq!(client.stats().total.connections_idle, 0);
                    // A dial of the same moment might have been before it.
                    tokio::time::advance(Duration::from_millis(1)).await;
                }
            };
            let peer = || play(&world, &shown, true, server_tls);
            tokio::join!(calls, peer(), peer());
            settle(&client, &world).await;
        }
    }

    /// A connection in a tunnel is kept and used again for the same origin.
    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_used_again() {
        let authorities = Authorities::new();
        for proxy_tls in [false, true] {
            let world = World::new();
            let (proxy_url, url) = schemes(proxy_tls, true);
            let client = authorities.client(&world, &proxy_url);
            let peer = async {
                let mut connection = world.accept().await;
                if proxy_tls {
                    let identity = authorities.proxies.issue(&["proxy.test"], 4000);
                    connection = connection.secure(identity.server(TLS13)).await.unwrap();
                }
                connection.read_head().await.unwrap();
                connection.write("HTTP/1.1 200 OK\r\n\r\n").await;
                let identity = authorities.servers.issue(&["a.test"], 4000);
                let mut connection = connection.secure(identity.server(TLS13)).await.unwrap();
                for _ in 0..3 {
                    connection.read_request().await;
                    connection.write(ok("done")).await;
                }
                connection
            };
            let calls = async {
                for round in 0..3 {
                    let response = client.get(url).send().await.unwrap();
                    assert_eq!(response.reused(), round > 0);
                    assert_eq!(response.text().await.unwrap(), "done");
                }
            };
            let ((), connection) = tokio::join!(calls, peer);
            assert_eq!(world.accepts(), 1);
            settle(&client, &world).await;
            drop(connection);
        }
    }

    /// Bytes that a proxy slips in before the server speaks are no part of its handshake.
    #[tokio::test(start_paused = true)]
    async fn a_byte_behind_the_answer_is_not_given_to_tls() {
        let authorities = Authorities::new();
        let world = World::new();
        let client = authorities.client(&world, "http://proxy.test");
        let peer = async {
            let mut connection = world.accept().await;
            connection.read_head().await.unwrap();
            connection.write("HTTP/1.1 200 OK\r\n\r\n\x15").await;
            connection.closed().await;
        };
        let (error, ()) = tokio::join!(fails(&client, "https://a.test/"), peer);
        assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
        assert!(error.to_string().contains("1 bytes came behind"), "{error}");
        settle(&client, &world).await;
    }

    /// ALPN is the server's, through whatever tunnel.
    #[cfg(feature = "http2")]
    #[tokio::test(start_paused = true)]
    async fn http2_inside_the_tunnel() {
        use crate::support::http2::{Frames, Honest, Report, Session};
        let authorities = Authorities::new();
        for proxy_tls in [false, true] {
            let world = World::new();
            let (proxy_url, url) = schemes(proxy_tls, true);
            let client = authorities.client(&world, &proxy_url);
            let peer = async {
                let mut connection = world.accept().await;
                if proxy_tls {
                    let identity = authorities.proxies.issue(&["proxy.test"], 4000);
                    connection = connection.secure(identity.server(TLS13)).await.unwrap();
                }
                connection.read_head().await.unwrap();
                connection.write("HTTP/1.1 200 OK\r\n\r\n").await;
                let identity = authorities.servers.issue(&["a.test"], 4000);
                let mut config = (*identity.server(TLS13)).clone();
                config.alpn_protocols = vec![b"h2".to_vec()];
                let connection = connection.secure(config.into()).await.unwrap();
                let session = Session::new(connection).await;
                session.send(Frames::new().settings(&[]));
                (tokio::spawn(
                    Honest::default().go_on(session, Report::default()),
                ),)
            };
            let (response, (serving,)) = tokio::join!(client.get(url).send(), peer);
            let response = response.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            assert_eq!(response.text().await.unwrap(), "/x");
            let response = client.get(url).send().await.unwrap();
            assert!(response.reused());
            assert_eq!(response.text().await.unwrap(), "/x");
            assert_eq!(world.accepts(), 1);
            drop(client);
            serving.await.unwrap();
        }
    }
}
