//! What redirects must not give away: nobody but the origin that a secret was set for ever sees it, and `https` is not left.

use std::sync::{Arc, Mutex};

use http::HeaderValue;
use http::header::HeaderName;
use sockeye::{Alpn, Client, ErrorKind, Redirects};

use crate::redirects::{found, serve};
use crate::support::peer::{World, ok, reply, settle};
use crate::support::streams::Random;

#[tokio::test(start_paused = true)]
async fn https_is_not_left_unless_allowed() {
    let world = World::new();
    world.negotiates(Alpn::Http1);
    let seen = serve(&world, |target| match target {
        "/a" => found("http://peer.test/b"),
        target => ok(target),
    });
    let get = |client: &Client| {
        client
            .get("https://peer.test/a")
            .header("referer", "https://peer.test/")
    };
    let client = world.client();
    let error = get(&client).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert!(error.to_string().contains("from https to http"), "{error}");
    let allowed = Redirects::default().with_downgrade(true);
    let call = get(&client).redirects(allowed.clone());
    call.send().await.unwrap();
    assert_eq!(seen.lock().unwrap().last().unwrap().field("referer"), None);
    let strict = world
        .builder()
        .https_only(true)
        .redirects(allowed)
        .build()
        .unwrap();
    let error = get(&strict).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert!(error.to_string().contains("https_only"), "{error}");
    drop(strict);
    settle(&client, &world).await;
}

/// The four origins of the chains: they differ in scheme, port, and a trailing dot.
const ORIGINS: [&str; 4] = [
    "https://a.test",
    "https://a.test:8443",
    "https://a.test.",
    "http://a.test",
];

/// What must reach the first origin alone.
const SECRETS: [&str; 6] = [
    "authorization",
    "cookie",
    "x-api-key",
    "x-marked",
    "x-listed",
    "x-default-token",
];

/// A chain of origins from a seed: the same one twice in a row, and back to the first, are likely.
fn chain(seed: u64) -> Vec<&'static str> {
    let mut random = Random::new(seed);
    let length = 2 + random.below(10);
    (0..length)
        .map(|_| ORIGINS[usize::try_from(random.below(4)).unwrap()])
        .collect()
}

fn marked(value: &'static str) -> HeaderValue {
    let mut value = HeaderValue::from_static(value);
    value.set_sensitive(true);
    value
}

/// Sends a request with every kind of secret down the chain.
async fn lead(client: &Client, origins: &[&str], seed: u64) {
    let userinfo = seed % 2 == 0;
    let mut url = format!("{}/0", origins[0]);
    if userinfo {
        url = url.replacen("://", "://user:s3cret@", 1);
    }
    let mut call = client
        .post(url)
        .body("content")
        .header("cookie", "sid=s3cret")
        .header("x-api-key", "s3cret")
        .header("x-marked", marked("s3cret"))
        .header("x-listed", "s3cret")
        .header("x-plain", "plain");
    if !userinfo {
        call = call.bearer_auth("s3cret");
    }
    let response = call.send().await.unwrap();
    assert_eq!(response.redirects().len(), origins.len() - 1);
}

fn settings(builder: sockeye::ClientBuilder) -> Client {
    let redirects = Redirects::follow(12)
        .with_downgrade(true)
        .with_sensitive_headers([HeaderName::from_static("x-listed")]);
    builder
        .default_header("x-default-token", marked("s3cret"))
        .default_header("x-default", "plain")
        .redirects(redirects)
        .build()
        .unwrap()
}

/// Looks at what each hop received: a secret reaches the first origin until the chain has left it, and nobody ever again.
fn inspect(origins: &[&str], fields: impl Fn(usize, &str) -> Option<String>) {
    let mut left = false;
    for hop in 0..origins.len() {
        left |= origins[hop] != origins[0];
        for name in SECRETS {
            let found = fields(hop, name);
            assert_eq!(found.is_some(), !left, "{name} at hop {hop} of {origins:?}");
        }
        for name in ["x-plain", "x-default"] {
            assert_eq!(
                fields(hop, name).as_deref(),
                Some("plain"),
                "{name} at hop {hop}"
            );
        }
    }
}

/// Where hop `at` of a chain leads. 307 keeps the body, so that a POST stays one.
fn location(origins: &[&str], at: usize) -> Option<String> {
    origins.get(at + 1).map(|next| format!("{next}/{}", at + 1))
}

#[tokio::test(start_paused = true)]
async fn secrets_stay_with_their_origin_over_http1() {
    for seed in 0..200 {
        let origins = chain(seed);
        let world = World::new();
        world.negotiates(Alpn::Http1);
        let plan = origins.clone();
        let seen = serve(&world, move |target| {
            match location(&plan, target[1..].parse().unwrap()) {
                Some(next) => reply(
                    "307 Temporary Redirect",
                    &format!("location: {next}\r\n"),
                    "",
                ),
                None => ok("end"),
            }
        });
        let client = settings(world.builder());
        lead(&client, &origins, seed).await;
        {
            let seen = seen.lock().unwrap();
            assert_eq!(seen.len(), origins.len());
            assert!(seen.iter().all(|request| request.body == b"content"));
            inspect(&origins, |hop, name| {
                seen[hop].field(name).map(str::to_owned)
            });
        }
        settle(&client, &world).await;
    }
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn secrets_stay_with_their_origin_over_http2() {
    use crate::support::http2::{Honest, Reply};
    use sockeye::HttpVersions;

    for seed in 0..60 {
        let origins = chain(seed);
        let world = World::new();
        world.negotiates(Alpn::Http2);
        let (plan, seen) = (origins.clone(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        let server = Honest {
            answer: Arc::new(move |request| {
                log.lock().unwrap().push(request.clone());
                match location(&plan, request.head.path()[1..].parse().unwrap()) {
                    Some(next) => Reply::new("").status(307).field("location", next),
                    None => Reply::new("end"),
                }
            }),
            ..Honest::default()
        };
        let report = server.serve(&world);
        let builder = world
            .builder()
            .http_versions(HttpVersions::Http2PriorKnowledge);
        let client = settings(builder);
        lead(&client, &origins, seed).await;
        {
            let seen = seen.lock().unwrap();
            assert_eq!(seen.len(), origins.len());
            assert!(seen.iter().all(|request| request.body == b"content"));
            inspect(&origins, |hop, name| {
                seen[hop].head.field(name).map(str::to_owned)
            });
        }
        report.expect_no_violation();
        client.close_idle();
        settle(&client, &world).await;
    }
}
