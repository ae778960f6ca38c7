//! Redirects: where they lead, as which request, and what they must not give away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use sockeye::{Body, ErrorKind, Limits, Phase, Redirects, Timeouts};
use tokio::time::Instant;

use crate::support::peer::{Request, World, let_others_run, ok, reply, settle, until};
use crate::support::streams::{Pieces, within_polls};

const URL: &str = "http://peer.test/";

pub(crate) fn found(location: &str) -> String {
    reply(
        "302 Found",
        &format!("location: {location}\r\n"),
        "elsewhere",
    )
}

/// Serves by target, and keeps every request.
pub(crate) fn serve(
    world: &World,
    answer: impl Fn(&str) -> String + Clone + Send + 'static,
) -> Arc<Mutex<Vec<Request>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    world.serve(move |request| {
        log.lock().unwrap().push(request.clone());
        answer(request.target())
    });
    seen
}

#[tokio::test(start_paused = true)]
async fn a_chain_is_followed_on_one_connection_and_told() {
    let world = World::new();
    serve(&world, |target| match target {
        "/" => found("/a/b?c"),
        "/a/b?c" => found("../d e#top"),
        target => ok(target),
    });
    let client = world.client();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.url(), "http://peer.test/d%20e");
    let told: Vec<_> = response
        .redirects()
        .iter()
        .map(|redirect| (redirect.status.as_u16(), redirect.url().to_string()))
        .collect();
    let expected = [(302, URL), (302, "http://peer.test/a/b?c")];
    assert_eq!(told, expected.map(|(status, url)| (status, url.to_owned())));
    assert!(!format!("{:?}", response.redirects()).contains("?c"));
    assert_eq!(response.attempts(), 1);
    assert_eq!(response.text().await.unwrap(), "/d%20e");
    assert_eq!(
        world.dials(),
        1,
        "a body that has arrived does not cost the connection"
    );
    let total = client.stats().total;
    assert_eq!((total.redirects, total.requests_total), (2, 3));
    assert_eq!((total.responses_3xx, total.responses_2xx), (2, 1));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn limits_are_those_of_the_client_or_of_the_call() {
    let world = World::new();
    serve(&world, |_| found("/"));
    let client = world.client();
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert_eq!(
        error.to_string(),
        "GET http://peer.test: more redirects than the limit of 10 (Redirects::follow)"
    );
    let total = client.stats().total;
    assert_eq!((total.requests_total, total.redirects), (11, 10));
    assert_eq!(total.errors.get(ErrorKind::Redirect), 1);
    let call = client.get(URL).redirects(Redirects::follow(2));
    let error = call.send().await.unwrap_err();
    assert!(error.to_string().contains("the limit of 2"), "{error}");
    let call = client.get(URL).redirects(Redirects::none());
    let response = call.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.url(), URL);
    assert!(response.redirects().is_empty());
    drop(response);
    // A request that was built keeps its setting.
    let built = client
        .get(URL)
        .redirects(Redirects::none())
        .build()
        .unwrap();
    let response = client.execute(built).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    drop(response);
    settle(&client, &world).await;
    let client = world
        .builder()
        .redirects(Redirects::none())
        .build()
        .unwrap();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "elsewhere");
}

/// What is refused fails before another request is made, and names where it was refused.
#[tokio::test(start_paused = true)]
async fn hostile_locations() {
    for (fields, kind, expected) in [
        (
            "location: //user:s3cret@b.test/\r\n",
            ErrorKind::Redirect,
            "userinfo",
        ),
        (
            "location: http://b\u{fc}cher.test/\r\n",
            ErrorKind::Redirect,
            "not ASCII",
        ),
        (
            "location: javascript:alert(1)\r\n",
            ErrorKind::Redirect,
            "javascript",
        ),
        ("location: http:\\\\b.test\r\n", ErrorKind::Redirect, "//"),
        (
            "location: /a\r\nlocation: /b\r\n",
            ErrorKind::Redirect,
            "several",
        ),
        (
            &format!("location: /{}\r\n", "x".repeat(8192)),
            ErrorKind::TooLarge,
            "8192",
        ),
        (
            "location: http://127.1/\r\n",
            ErrorKind::Redirect,
            "127.0.0.1",
        ),
    ] {
        let world = World::new();
        let fields = fields.to_owned();
        world.serve(move |_| reply("301 Moved", &fields, ""));
        let client = world.client();
        let error = client.get(URL).send().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let shown = error.to_string();
        assert!(
            shown.contains(expected) && !shown.contains("s3cret"),
            "{shown}"
        );
        assert!(shown.starts_with("GET http://peer.test: "), "{shown}");
        assert_eq!(world.dials(), 1);
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_location_the_redirect_is_the_response() {
    for fields in ["", "location:\r\n"] {
        let world = World::new();
        world.serve(move |_| reply("302 Found", fields, "choose"));
        let client = world.client();
        let response = client.get(URL).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.text().await.unwrap(), "choose");
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_becomes_a_get_and_a_replayable_body_goes_along() {
    let world = World::new();
    let seen = serve(&world, |target| match target {
        "/302" => found("/end"),
        "/307" => reply("307 Temporary Redirect", "location: /end\r\n", ""),
        target => ok(target),
    });
    let client = world.client();
    let post = |target: &str| {
        let call = client
            .post(format!("http://peer.test{target}"))
            .body("content");
        call.header("content-type", "text/plain")
            .header("x-mine", "kept")
    };
    post("/302").send().await.unwrap();
    let response = post("/307").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "/end");
    // What is made anew for each attempt is made anew for each hop.
    let made = Body::replay(|| Box::pin(async { Ok("made".into()) }));
    client
        .post("http://peer.test/307")
        .body(made)
        .send()
        .await
        .unwrap();
    {
        let seen = seen.lock().unwrap();
        let brief = |request: &Request| {
            let field = |name| request.field(name).unwrap_or("-").to_owned();
            let body = String::from_utf8(request.body.clone()).unwrap();
            format!(
                "{} {} {} {} {body}",
                request.method(),
                request.target(),
                field("content-type"),
                field("x-mine")
            )
        };
        let seen: Vec<_> = seen.iter().map(brief).collect();
        assert_eq!(
            seen,
            [
                "POST /302 text/plain kept content",
                "GET /end - kept ",
                "POST /307 text/plain kept content",
                "POST /end text/plain kept content",
                "POST /307 - - made",
                "POST /end - - made",
            ]
        );
    }
    // A stream can be sent once, so that the redirect is the answer; 302 needs no body.
    let (pieces, _) = Pieces::new(2, 10);
    let once = client
        .post("http://peer.test/307")
        .body(Body::stream(pieces));
    let response = once.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    drop(response);
    let (pieces, _) = Pieces::new(2, 10);
    let once = client
        .post("http://peer.test/302")
        .body(Body::stream(pieces));
    assert_eq!(once.send().await.unwrap().text().await.unwrap(), "/end");
    settle(&client, &world).await;
}

/// Security R7: a body that can be sent once goes along if the redirect came before any of it was asked for; the same for a 401 that
/// is answered.
#[tokio::test(start_paused = true)]
async fn a_body_that_was_not_asked_for_goes_along() {
    for (status, method, follows) in [
        ("307 Temporary Redirect", "POST", true),
        ("308 Permanent Redirect", "PUT", true),
        ("302 Found", "PUT", true),
        ("303 See Other", "PUT", false),
    ] {
        let world = World::new();
        let client = world.client();
        let (pieces, _) = Pieces::new(2, 3);
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        let call = client.request(method.clone(), URL).expect_continue(true);
        let call = tokio::spawn(call.body(Body::stream(pieces)).send());
        let mut peer = world.accept().await;
        peer.read_head().await.unwrap();
        let redirect = reply(status, "location: http://other.test/next\r\n", "");
        peer.write(redirect).await;
        // Its head has promised a body that does not come: it carries no further request.
        peer.closed().await;
        let mut next = world.accept().await;
        let head = next.read_head().await.unwrap();
        assert_eq!(head.target(), "/next");
        if follows {
            assert_eq!(head.method(), method.as_str());
            next.write("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(
                next.read_body(head).await.unwrap().body.len(),
                6,
                "{status}"
            );
        } else {
            assert_eq!((head.method(), head.field("expect")), ("GET", None));
        }
        next.write(ok("there")).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.redirects().len(), 1);
        assert_eq!(response.text().await.unwrap(), "there");
        drop((peer, next));
        client.close_idle();
        settle(&client, &world).await;
    }
    // Where none is followed, and where there is nowhere to go, the redirect is the answer as before.
    for (redirects, fields) in [
        (Redirects::none(), "location: /next\r\n"),
        (Redirects::default(), ""),
    ] {
        let world = World::new();
        let client = world.builder().redirects(redirects).build().unwrap();
        let (pieces, _) = Pieces::new(2, 3);
        let call = client.post(URL).expect_continue(true);
        let call = tokio::spawn(call.body(Body::stream(pieces)).send());
        let mut peer = world.accept().await;
        peer.read_head().await.unwrap();
        peer.write(reply("307 Temporary Redirect", fields, "choose"))
            .await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.text().await.unwrap(), "choose");
        peer.closed().await;
        settle(&client, &world).await;
    }
}

/// A redirect with a body that never ends costs its connection, or nothing at all: the call goes on either way.
#[tokio::test(start_paused = true)]
async fn the_body_of_a_redirect_holds_nobody_up() {
    for (length, dials) in [(1_000_000_usize, 2), (20_000, 1)] {
        let world = World::new();
        let client = world
            .builder()
            .limits(Limits::default().with_max_connections(std::num::NonZeroUsize::new(1)))
            .build()
            .unwrap();
        let call = tokio::spawn(client.get(URL).send());
        let mut peer = world.accept().await;
        peer.read_request().await;
        let head =
            format!("HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: {length}\r\n\r\n");
        peer.write(head).await;
        peer.write(vec![b'x'; 10_000]).await;
        let_others_run().await;
        let mut peer = match dials {
            1 => {
                // What is little and comes soon is read away, and the connection kept.
                peer.write(vec![b'x'; length - 10_000]).await;
                peer
            }
            _ => {
                peer.closed().await;
                world.accept().await
            }
        };
        assert_eq!(peer.read_request().await.target(), "/b");
        peer.write(ok("b")).await;
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "b");
        assert_eq!(world.dials(), dials);
        let next = tokio::spawn(client.get(URL).send());
        peer.read_request().await;
        peer.write(ok("next")).await;
        assert_eq!(next.await.unwrap().unwrap().text().await.unwrap(), "next");
        settle(&client, &world).await;
    }
}

/// The total limit spans the hops; the limit of the head begins anew with each.
#[tokio::test(start_paused = true)]
async fn limits_of_time() {
    const SECOND: Duration = Duration::from_secs(1);
    for (total, passes) in [
        (None, true),
        (Some(10 * SECOND), true),
        (Some(7 * SECOND), false),
    ] {
        let world = World::new();
        let timeouts = Timeouts::default()
            .with_head(Some(3 * SECOND))
            .with_total(total);
        let client = world.builder().timeouts(timeouts).build().unwrap();
        let begun = Instant::now();
        let call = tokio::spawn(client.get(URL).send());
        let mut peer = world.accept().await;
        for hop in 0..4 {
            let Some(_) = peer.next_request().await else {
                break;
            };
            tokio::time::sleep(2 * SECOND).await;
            let answer = if hop < 3 { found("/") } else { ok("end") };
            if !peer.try_write(answer.as_bytes()).await {
                break;
            }
        }
        let outcome = call.await.unwrap();
        if passes {
            outcome.unwrap();
            assert_eq!(begun.elapsed(), 8 * SECOND);
        } else {
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.kind(), error.phase()),
                (ErrorKind::Timeout, Some(Phase::Head))
            );
            assert!(
                error.to_string().contains("Timeouts::total, is 7s"),
                "{error}"
            );
        }
        drop(peer);
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_names_the_origin_that_failed() {
    let world = World::new();
    world.plan(crate::support::peer::Dial::Open);
    world.always(crate::support::peer::Dial::Refuse);
    world.serve(|_| found("http://other.test:81/"));
    let client = world.client();
    let error = client.get(URL).send().await.unwrap_err();
    assert!(error.is_connect());
    assert_eq!(error.origin().unwrap().to_string(), "http://other.test:81");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_not_led_elsewhere() {
    let world = World::new();
    serve(&world, |_| found("/b"));
    let client = world.client();
    let response = client.get(URL).upgrade("websocket").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    drop(response);
    settle(&client, &world).await;
}

/// Dropped at any of its polls, a call that is led through four hops leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn cancelled_at_every_poll() {
    for polls in 1.. {
        let world = World::new();
        serve(&world, |target| match target.len() {
            1..5 => found(&format!("http://peer{}.test{target}x", target.len())),
            _ => ok("end"),
        });
        let client = world.client();
        let outcome = within_polls(polls, client.get(URL).send()).await;
        let ended = outcome.is_some();
        drop(outcome);
        until("nothing is under way", || {
            let total = client.stats().total;
            total.connections_active + total.connections_connecting == 0
        })
        .await;
        settle(&client, &world).await;
        assert_eq!(
            client
                .get("http://z.test/12345")
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
        if ended {
            assert!(polls > 4, "{polls}");
            break;
        }
    }
}
