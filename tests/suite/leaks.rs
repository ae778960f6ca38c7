//! No secret is ever shown (security L1): not in what `tracing` hears at its finest level, not in what observers are told, not in the
//! `Debug` and `Display` of anything a user can print, whether calls succeed or fail, and wherever the secret was put.

use std::fmt::{Debug, Display};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use sockeye::{
    Body, CircuitBreaker, Client, ClientBuilder, Error, Limits, RateLimit, RequestBuilder,
    Response, Result, Retry, Timeouts,
};

use crate::support::coding::gzip;
use crate::support::peer::{Dial, Request, World, let_others_run, ok, reply};
use crate::support::recorder::Recorder;
use crate::support::spans::Spans;
use crate::support::streams::within_polls;

const SECOND: Duration = Duration::from_secs(1);

/// What every secret of these tests holds, and how base64 shows it behind `user:`.
const SECRET: &str = "s3cret";
const CODED: &str = "dXNlcjpzM2NyZXQ";

/// Everything that could be shown.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<String>>);

impl Shown {
    fn debug(&self, thing: &dyn Debug) {
        let mut shown = self.0.lock().unwrap();
        shown.push_str(&format!("{thing:?}\n{thing:#?}\n"));
    }

    fn display(&self, thing: &dyn Display) {
        self.0.lock().unwrap().push_str(&format!("{thing}\n"));
    }

    fn error(&self, error: &Error) {
        self.debug(error);
        self.display(error);
        self.debug(&error.status_error());
        let mut cause = error.cause();
        while let Some(part) = cause {
            self.display(&part);
            self.debug(&part);
            cause = part.source();
        }
    }

    fn response(&self, response: &Response) {
        self.debug(response);
        self.debug(response.connection());
        self.debug(&response.redirects());
        self.display(&response.timings());
    }

    fn client(&self, client: &Client) {
        let stats = client.stats();
        self.debug(client);
        self.debug(&stats);
        self.display(&stats);
        self.display(&stats.prometheus());
        #[cfg(feature = "json")]
        self.display(&serde_json::to_string(&stats).unwrap());
    }

    /// `name` says what has just been done.
    #[track_caller]
    fn expect_silence(&self, name: &str, others: &[String]) {
        let mut shown = self.0.lock().unwrap();
        assert!(shown.len() > 100, "{name} has shown something");
        for text in others.iter().chain([&*shown]) {
            for secret in [SECRET, CODED] {
                let line = text.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "{name}");
            }
        }
        shown.clear();
    }
}

fn sensitive(value: &'static str) -> HeaderValue {
    let mut value = HeaderValue::from_static(value);
    value.set_sensitive(true);
    value
}

/// Secrets in every place of a client that has one.
fn client(builder: ClientBuilder) -> ClientBuilder {
    without_base(builder).base_url("http://user:s3cret-base@peer.test/v1")
}

fn without_base(builder: ClientBuilder) -> ClientBuilder {
    let builder = builder
        .default_header("x-api-key", "s3cret-default")
        .default_header("x-default", sensitive("s3cret-marked"))
        .bearer_auth_for("http://bearer.test", "s3cret-bearer")
        .basic_auth_for("http://basic.test", "user", Some("s3cret-basic"));
    #[cfg(feature = "cookies")]
    let builder = {
        let jar = sockeye::CookieJar::new();
        jar.set("http://peer.test/", "sid=s3cret-jar").unwrap();
        builder.cookies(jar)
    };
    builder
}

/// Secrets in every place of a request that has one; those that exclude each other take turns.
fn load(request: RequestBuilder, turn: usize) -> RequestBuilder {
    let request = request
        .header("cookie", "sid=s3cret-cookie")
        .header("x-auth-token", "s3cret-token")
        .header("x-own", sensitive("s3cret-own"));
    #[cfg(feature = "form")]
    let request = request.query(&[("key", "s3cret-query")]);
    let request = match turn % 3 {
        0 => request.bearer_auth("s3cret-bearer"),
        1 => request.basic_auth("user", Some("s3cret-basic")),
        _ => request.header("authorization", "Digest s3cret-field"),
    };
    match turn % 4 {
        0 => request.body("s3cret-body"),
        #[cfg(feature = "form")]
        1 => request.form(&[("field", "s3cret-form")]),
        2 => request.body(Body::stream(Pieces(2))),
        _ => request,
    }
}

/// A body that comes in pieces.
struct Pieces(usize);

impl futures_core::Stream for Pieces {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0 = self.0.saturating_sub(1);
        std::task::Poll::Ready((self.0 > 0).then(|| Ok(Bytes::from("s3cret-stream"))))
    }
}

/// What the server does, by the path: its bytes, and whether it closes behind them.
fn answer(request: &Request) -> (Vec<u8>, bool) {
    let path = request.target().split('?').next().unwrap_or_default();
    let echo = "s3cret-echo";
    let text = match path.trim_start_matches("/v1/") {
        "ok" => reply("200 OK", &format!("set-cookie: a={echo}\r\n"), "fine"),
        "interim" => format!("HTTP/1.1 103 Hints\r\nlink: {echo}\r\n\r\n{}", ok("fine")),
        // It tells what it was told.
        "401" => reply(
            "401 Unauthorized",
            &format!("www-authenticate: {echo}\r\n"),
            &request.head,
        ),
        "500" => reply("500 Broken", &format!("x-echo: {echo}\r\n"), &request.head),
        "429" => reply("429 Slowly", "retry-after: 3000\r\n", echo),
        "close" => return (Vec::new(), true),
        "half" => {
            return (
                format!("HTTP/1.1 200 OK\r\nset-cookie: {echo}").into(),
                true,
            );
        }
        "name" => format!("HTTP/1.1 200 OK\r\nx y: {echo}\r\n\r\n"),
        "nul" => format!("HTTP/1.1 200 OK\r\nx-y: {echo}\0\r\n\r\n"),
        "control" => format!("HTTP/1.1 200 OK\r\nset-cookie: {echo}\u{1}\r\n\r\n"),
        "colon" => format!("HTTP/1.1 200 OK\r\n: {echo}\r\n\r\n"),
        "fold" => format!("HTTP/1.1 200 OK\r\n {echo}\r\n\r\n"),
        "large" => format!("HTTP/1.1 200 OK\r\nx-y: {}\r\n\r\n", echo.repeat(20_000)),
        "many" => {
            let fields = format!("x-y: {echo}\r\n").repeat(300);
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
        }
        "cut" => {
            return (
                format!("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{echo}").into(),
                true,
            );
        }
        "until" => return (format!("HTTP/1.1 200 OK\r\n\r\n{echo}").into(), true),
        "trailer" => format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx y: {echo}\r\n\r\n"
        ),
        "gzip" => reply("200 OK", "content-encoding: gzip\r\n", echo),
        "coded" => {
            let mut coded = gzip(echo.as_bytes());
            coded.truncate(coded.len() - 4);
            let mut bytes = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                coded.len()
            )
            .into_bytes();
            bytes.extend(coded);
            return (bytes, false);
        }
        "huge" => reply("200 OK", "", &echo.repeat(1000)),
        "text" => {
            let mut bytes = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                echo.len() + 1
            )
            .into_bytes();
            bytes.extend(echo.as_bytes());
            bytes.push(0xff);
            return (bytes, false);
        }
        "silent" => return (Vec::new(), false),
        "stalls" => format!("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{echo}"),
        "led" => reply(
            "302 Found",
            &format!("location: http://other.test/v1/ok?a={echo}\r\n"),
            "",
        ),
        "loop" => reply("302 Found", &format!("location: /v1/loop?a={echo}\r\n"), ""),
        "userinfo" => reply(
            "302 Found",
            &format!("location: http://user:{echo}@b.test/\r\n"),
            "",
        ),
        "unparsed" => reply(
            "302 Found",
            &format!("location: http://b.test:x/?a={echo}\r\n"),
            "",
        ),
        "downgrade" => reply(
            "302 Found",
            &format!("location: ftp://b.test/?a={echo}\r\n"),
            "",
        ),
        "switch" => {
            format!("HTTP/1.1 101 Switching\r\nupgrade: {echo}\r\nconnection: upgrade\r\n\r\n")
        }
        other => panic!("no answer for {other}"),
    };
    (text.into_bytes(), false)
}

const PATHS: [&str; 28] = [
    "ok",
    "interim",
    "401",
    "500",
    "429",
    "close",
    "half",
    "name",
    "nul",
    "control",
    "colon",
    "fold",
    "large",
    "many",
    "cut",
    "until",
    "trailer",
    "gzip",
    "coded",
    "huge",
    "text",
    "silent",
    "stalls",
    "led",
    "loop",
    "userinfo",
    "unparsed",
    "downgrade",
];

fn serve(world: &World) {
    let world = world.clone();
    tokio::spawn(async move {
        loop {
            let mut connection = world.accept().await;
            tokio::spawn(async move {
                while let Some(request) = connection.next_request().await {
                    let (bytes, closes) = answer(&request);
                    if !connection.try_write(&bytes).await || closes {
                        return;
                    }
                }
            });
        }
    });
}

/// Everything that there is to be seen of a call.
async fn call(shown: &Shown, request: RequestBuilder) -> bool {
    shown.debug(&request);
    let outcome = match request.send().await {
        Ok(response) => {
            shown.response(&response);
            response.text().await.map(drop)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &outcome {
        shown.error(error);
    }
    outcome.is_ok()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shown_of_calls_over_http1() {
    let (spans, _listening) = Spans::listen();
    let shown = Shown::default();
    let mut outcomes = (0, 0);
    for (turn, path) in PATHS.iter().chain(&["switch"]).enumerate() {
        for relative in [true, false] {
            let (world, told) = (World::new(), Recorder::default());
            serve(&world);
            let builder = client(world.builder())
                .observer(told.clone())
                .max_body(1000)
                .rate_limit(RateLimit::default())
                .circuit_breaker(CircuitBreaker::default())
                .retry(Retry::default().with_max_attempts(2))
                .timeouts(Timeouts::all(SECOND));
            shown.debug(&builder);
            let client = builder.build().unwrap();
            let url = match relative {
                true => (*path).to_owned(),
                false => format!("http://user:s3cret-url@peer.test/v1/{path}?token=s3cret-url"),
            };
            let request = load(client.put(&url), turn);
            match call(&shown, request).await {
                true => outcomes.0 += 1,
                false => outcomes.1 += 1,
            }
            // The same once more, and given up.
            let again = load(client.put(&url), turn);
            // One that the rate limit refuses at once is over by then.
            let _ = within_polls(1, again.send()).await;
            shown.client(&client);
            drop(client);
            let_others_run().await;
            told.expect_balance();
            shown.expect_silence(path, &[told.debug(), spans.text()]);
        }
    }
    assert!(outcomes.0 >= 8 && outcomes.1 >= 40, "{outcomes:?}");
    assert!(spans.text().contains("url.full=http://peer.test/v1/ok?"));
}

/// Calls that fail before anything is sent, or because of how things stand.
#[tokio::test(start_paused = true)]
async fn nothing_is_shown_of_calls_that_cannot_be_made() {
    let (spans, _listening) = Spans::listen();
    let (world, told, shown) = (World::new(), Recorder::default(), Shown::default());
    let limits = Limits::default()
        .with_max_connections(NonZeroUsize::new(1))
        .with_max_pending(NonZeroUsize::new(1));
    let builder = client(world.builder())
        .observer(told.clone())
        .circuit_breaker(CircuitBreaker::default())
        .limits(limits)
        .timeouts(Timeouts::all(SECOND));
    let client = builder.build().unwrap();
    let requests: Vec<fn(&Client) -> RequestBuilder> = vec![
        |client| client.get("http://user:s3cret@ho st/"),
        |client| client.get("http://user:s3cret@peer.test:99999/"),
        |client| client.get("http://user:s3cret\u{e9}@peer.test/"),
        |client| client.get("http://peer.test/a b?q=s3cret"),
        |client| client.get("ftp://user:s3cret@peer.test/"),
        |client| client.get("http://user:s3cret@0x7f.1/"),
        |client| client.get("ok").header("x-y", "s3cret\n"),
        |client| client.get("ok").header("x y", "s3cret"),
        |client| client.get("ok").bearer_auth("s3cret\r\n"),
        |client| client.get("ok").basic_auth("user:s3cret", Some("x")),
        |client| client.get("ok").header("transfer-encoding", "s3cret"),
        |client| client.get("ok").header("te", "s3cret"),
        |client| client.get("ok").header("host", "user:s3cret@b.test"),
        |client| {
            client
                .put("ok")
                .header("content-length", "5")
                .body("s3cret")
        },
        |client| client.get("ok").upgrade("s3cret\n"),
        |client| client.put("ok").body(Body::file("/nowhere/at/all")),
        |client| client.put("ok").body(Body::sized_stream(2, Pieces(2))),
    ];
    for (turn, request) in requests.into_iter().enumerate() {
        let request = request(&client);
        shown.debug(&request);
        let error = load(request, 3).send().await.unwrap_err();
        shown.error(&error);
        shown.expect_silence(&format!("request {turn}"), &[told.debug(), spans.text()]);
    }
    // Dials that fail or hang, the line, the breaker, and the end of the client.
    world.always(Dial::Refuse);
    assert!(!call(&shown, load(client.get("ok"), 0)).await);
    world.always(Dial::Hang);
    let line: Vec<_> = (0..4)
        .map(|turn| {
            let (shown, request) = (shown.clone(), load(client.get("ok"), turn));
            tokio::spawn(async move { call(&shown, request).await })
        })
        .collect();
    for call in line {
        assert!(!call.await.unwrap());
    }
    client.circuit_breaker("/").unwrap().isolate();
    shown.debug(&client.circuit_breaker("/").unwrap());
    assert!(!call(&shown, load(client.get("ok"), 1)).await);
    client.close(SECOND).await;
    assert!(!call(&shown, load(client.get("ok"), 2)).await);
    shown.client(&client);
    shown.expect_silence("how things stand", &[told.debug(), spans.text()]);
    told.expect_balance();
}

/// What a proxy is told, and what it says back: its bytes by the host that it is asked for, behind `http` or inside a tunnel.
fn proxied(request: &Request) -> (Vec<u8>, bool) {
    let (echo, told) = ("s3cret-echo", &request.head);
    let text = match request.target() {
        target if target.contains("ok.test") => reply("200 OK", "", told),
        target if target.contains("login.test") => reply(
            "407 Proxy Authentication Required",
            &format!(
                "proxy-authenticate: {echo}\r\nproxy-authenticate: Basic realm=\"{echo}\"\r\n"
            ),
            told,
        ),
        target if target.contains("gateway.test") => {
            reply("502 Bad Gateway", &format!("x-echo: {echo}\r\n"), told)
        }
        target if target.contains("control.test") => {
            format!("HTTP/1.1 200 OK\r\nx-echo: {echo}\u{1}\r\n\r\n")
        }
        target if target.contains("half.test") => return (told.clone().into(), true),
        target if target.contains("behind.test") => format!("HTTP/1.1 200 OK\r\n\r\n{echo}"),
        target if target.contains("silent.test") => String::new(),
        _ => return (Vec::new(), true),
    };
    (text.into_bytes(), false)
}

/// A proxy with credentials and fields of its own, that does what it likes.
#[tokio::test(start_paused = true)]
async fn nothing_is_shown_of_proxies() {
    use sockeye::Proxy;

    let (spans, _listening) = Spans::listen();
    let shown = Shown::default();
    let mut outcomes = (0, 0);
    let hosts = [
        "ok", "login", "gateway", "control", "half", "behind", "silent", "close",
    ];
    for (turn, host) in hosts.into_iter().enumerate() {
        for scheme in ["http", "https"] {
            if scheme == "https" && cfg!(not(feature = "rustls")) {
                continue;
            }
            for in_url in [true, false] {
                let (world, told) = (World::new(), Recorder::default());
                let peers = world.clone();
                tokio::spawn(async move {
                    loop {
                        let mut connection = peers.accept().await;
                        while let Some(request) = connection.read_head().await {
                            let (bytes, closes) = proxied(&request);
                            if !connection.try_write(&bytes).await || closes {
                                break;
                            }
                        }
                    }
                });
                let proxy = match in_url {
                    true => Proxy::all("http://user:s3cret@proxy.test:3128").unwrap(),
                    false => {
                        let proxy = Proxy::all("http://proxy.test:3128").unwrap();
                        proxy.basic_auth("user", "s3cret").unwrap()
                    }
                };
                let proxy = proxy.header("x-proxy-key", "s3cret-field").unwrap();
                shown.debug(&proxy);
                shown.display(&proxy);
                let builder = without_base(world.builder())
                    .observer(told.clone())
                    .proxy(proxy)
                    .timeouts(Timeouts::all(SECOND));
                shown.debug(&builder);
                let client = builder.build().unwrap();
                let url = format!("{scheme}://user:s3cret-url@{host}.test/?token=s3cret-url");
                match call(&shown, load(client.put(&url), 4 * turn + 3)).await {
                    true => outcomes.0 += 1,
                    false => outcomes.1 += 1,
                }
                shown.client(&client);
                drop(client);
                let_others_run().await;
                told.expect_balance();
                let name = format!("{url} {in_url}");
                shown.expect_silence(&name, &[told.debug(), spans.text()]);
            }
        }
    }
    assert!(outcomes.0 >= 2 && outcomes.1 >= 14, "{outcomes:?}");
    let mistakes: [fn() -> Result<Proxy>; 4] = [
        || Proxy::all("http://user:s3cret@ho st"),
        || Proxy::all("ftp://user:s3cret@proxy.test"),
        || Proxy::all("http://proxy.test")?.basic_auth("us:er", "s3cret"),
        || Proxy::all("http://proxy.test")?.header("x-proxy-key", "s3cret\n"),
    ];
    for (number, mistake) in mistakes.into_iter().enumerate() {
        shown.error(&mistake().unwrap_err());
        shown.expect_silence(&format!("proxy {number}"), &[]);
    }
}

/// Settings that are refused.
#[test]
fn nothing_is_shown_of_mistakes_in_settings() {
    let shown = Shown::default();
    let builders: Vec<fn(ClientBuilder) -> ClientBuilder> = vec![
        |builder| builder.base_url("http://user:s3cret@ho st/"),
        |builder| builder.base_url("http://user:s3cret@peer.test:0/?q=s3cret"),
        |builder| builder.default_header("x-y", "s3cret\n"),
        |builder| builder.default_header("content-length", "s3cret"),
        |builder| builder.user_agent("s3cret\0"),
        |builder| builder.bearer_auth_for("http://peer.test", "s3cret\n"),
        |builder| builder.bearer_auth_for("http://user:s3cret@ho st", "s3cret"),
        |builder| builder.basic_auth_for("http://peer.test", "s3cret:x", Some("s3cret")),
    ];
    for (number, set) in builders.into_iter().enumerate() {
        let builder = set(client(Client::builder()));
        shown.debug(&builder);
        shown.error(&builder.build().unwrap_err());
        shown.expect_silence(&format!("setting {number}"), &[]);
    }
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn nothing_is_shown_of_calls_over_http2() {
    use crate::support::http2::{Honest, Reply};
    use sockeye::HttpVersions;

    let (spans, _listening) = Spans::listen();
    let (world, told, shown) = (World::new(), Recorder::default(), Shown::default());
    let server = Honest {
        goaway_after: Some(5),
        answer: Arc::new(|request| {
            let reply = Reply::new("s3cret-body").field("set-cookie", "s3cret-echo");
            match request.head.path() {
                path if path.contains("401") => reply.status(401),
                path if path.contains("led") => {
                    reply.status(307).field("location", "/v1/401?q=s3cret")
                }
                path if path.contains("late") => reply.after(5 * SECOND),
                _ => reply.trailers(vec![("x-end".to_owned(), "s3cret-trailer".to_owned())]),
            }
        }),
        ..Honest::default()
    };
    server.serve(&world);
    let client = client(world.builder())
        .http_versions(HttpVersions::Http2PriorKnowledge)
        .observer(told.clone())
        .timeouts(Timeouts::all(SECOND))
        .build()
        .unwrap();
    for turn in 0..12 {
        for path in ["ok?q=s3cret", "401", "led", "late"] {
            let is_ok = call(&shown, load(client.put(path), turn)).await;
            // A body that can be sent once is not sent after a redirect.
            let is_end = path == "led" && turn % 4 == 2;
            assert_eq!(is_ok, path.starts_with("ok") || is_end, "{path}");
        }
    }
    shown.client(&client);
    shown.expect_silence("HTTP/2", &[told.debug(), spans.text()]);
    client.close_idle();
    let_others_run().await;
    told.expect_balance();
    assert!(
        spans.text().contains("h2::"),
        "the crate h2 has its say as well"
    );
}

/// A client with a key of its own, and a server that wants to hear nothing of TLS, or is not trusted.
#[cfg(feature = "rustls")]
#[tokio::test]
async fn nothing_is_shown_of_a_key_and_of_failed_handshakes() {
    use crate::support::server::{Authority, Server, TLS13, honest, within};
    use sockeye::{ClientIdentity, TlsConfig};

    within(async {
        let (spans, _listening) = Spans::listen();
        let (told, shown) = (Recorder::default(), Shown::default());
        let (authority, stranger) = (Authority::new(), Authority::new());
        let own = stranger.issue(&["client.test"], 4000);
        let (certificate, key) = (own.certificate_pem(), own.key_pem());
        let identity = ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        shown.debug(&identity);
        let tls = TlsConfig::builder()
            .add_root_pem(authority.pem().as_bytes())
            .unwrap()
            .client_identity_pem(certificate.as_bytes(), key.as_bytes())
            .unwrap();
        shown.debug(&tls);
        let tls = tls.build().unwrap();
        shown.debug(&tls);
        let lines: Vec<_> = key.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(!lines.is_empty());
        // A key that is none, and one of somebody else.
        let broken = key.replace(lines[0], "s3cret+s3cret");
        let error = ClientIdentity::from_pem(certificate.as_bytes(), broken.as_bytes());
        shown.error(&error.unwrap_err());
        let other = authority.local().certificate_pem();
        let error = ClientIdentity::from_pem(other.as_bytes(), key.as_bytes());
        shown.error(&error.unwrap_err());
        let client = without_base(Client::builder().tls(tls).observer(told.clone()))
            .build()
            .unwrap();
        let trusted = Server::tls(authority.local().server(TLS13), honest);
        let untrusted = Server::tls(stranger.local().server(TLS13), honest);
        // It speaks no TLS, and says so.
        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/a", plain.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = plain.accept().await {
                let told = b"HTTP/1.1 400 Bad Request\r\n\r\n";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, told).await;
            }
        });
        let port = trusted.address().port();
        for (turn, (url, works)) in [
            (trusted.url("/a?q=s3cret"), true),
            (format!("https://user:s3cret@127.0.0.1:{port}/"), true),
            (untrusted.url("/a?q=s3cret"), false),
            (url, false),
        ]
        .into_iter()
        .enumerate()
        {
            let is_ok = call(&shown, load(client.put(&url), turn)).await;
            assert_eq!(is_ok, works, "{url}: {}", shown.0.lock().unwrap());
        }
        shown.client(&client);
        drop(client);
        let everything = [told.debug(), spans.text(), shown.0.lock().unwrap().clone()];
        for line in lines {
            assert!(everything.iter().all(|text| !text.contains(line)));
        }
        shown.expect_silence("TLS", &everything);
        let_others_run().await;
        told.expect_balance();
    })
    .await;
}
