//! Interceptors: their order, what they see, what they may do, and that nothing is lost when they are dropped.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use sockeye::{
    Body, BoxFuture, Error, ErrorKind, Interceptor, Next, Phase, Response, Result, Sent, Timeouts,
    on_request, on_response,
};
use tokio::time::Instant;

use crate::support::peer::{World, let_others_run, ok, reply, settle, until};
use crate::support::streams::{Pieces, within_polls};

const URL: &str = "http://peer.test/";

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn say(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Says when a request goes in and when a response comes out.
struct Named(&'static str, Log);

impl Interceptor for Named {
    fn intercept<'a>(
        &'a self,
        request: Request<Body>,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move {
            self.1.say(format!("{} {}", self.0, request.uri().path()));
            let outcome = next.run(request).await;
            match &outcome {
                Ok(response) => self
                    .1
                    .say(format!("{} {}", self.0, response.status().as_u16())),
                Err(error) => self.1.say(format!("{} {:?}", self.0, error.kind())),
            }
            outcome
        })
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_is_outermost_and_tries_are_inside_calls() {
    let world = World::new();
    let log = Log::default();
    let client = world
        .builder()
        .interceptor(Named("outer", log.clone()))
        .interceptor(Named("inner", log.clone()))
        .attempt_interceptor(Named("try", log.clone()))
        .attempt_interceptor(Named("sign", log.clone()))
        .build()
        .unwrap();
    world.serve(|request| match request.target() {
        "/" => reply("302 Found", "location: /b\r\n", ""),
        _ => reply("404 Not Found", "", "gone"),
    });
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    assert_eq!(error.status_error().unwrap().body, "gone");
    assert_eq!(
        log.take(),
        [
            "outer /",
            "inner /",
            "try /",
            "sign /",
            "sign 302",
            "try 302",
            "try /b",
            "sign /b",
            "sign 404",
            "try 404",
            "inner 404",
            "outer 404",
        ]
    );
    settle(&client, &world).await;
}

/// Around a call are the fields of the call; around a try those that go out.
#[tokio::test(start_paused = true)]
async fn what_each_kind_sees_and_changes() {
    let world = World::new();
    let log = Log::default();
    let names = |parts: &http::request::Parts| {
        let mut names: Vec<_> = parts.headers.keys().map(ToString::to_string).collect();
        names.sort();
        names.join(" ")
    };
    let (call, attempt) = (log.clone(), log.clone());
    let client = world
        .builder()
        .default_header("x-default", "client")
        .decompress(false)
        .interceptor(on_request(move |parts| {
            call.say(names(parts));
            parts
                .headers
                .insert("x-call", HeaderValue::from_static("1"));
            parts
                .headers
                .insert("authorization", HeaderValue::from_static("s3cret"));
            parts.uri = "http://other.test/b?c".parse().unwrap();
            Ok(())
        }))
        .attempt_interceptor(on_request(move |parts| {
            attempt.say(names(parts));
            assert!(!format!("{parts:?}").contains("s3cret"));
            assert_eq!(parts.extensions.get(), Some(&7_u8));
            parts.headers.remove("user-agent");
            parts
                .headers
                .insert("accept", HeaderValue::from_static("text/plain"));
            parts.uri = "http://other.test/b?signed".parse().unwrap();
            Ok(())
        }))
        .build()
        .unwrap();
    world.serve(|request| ok(&request.head));
    let call = client.get(URL).header("x-own", "1").extension(7_u8);
    let response = call.send().await.unwrap();
    assert_eq!(response.url(), "http://other.test/b?signed");
    let text = response.text().await.unwrap();
    let mut lines: Vec<_> = text.trim_end().split("\r\n").collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /b?signed HTTP/1.1",
            "accept: text/plain",
            "authorization: s3cret",
            "host: other.test",
            "x-call: 1",
            "x-default: client",
            "x-own: 1",
        ]
    );
    assert_eq!(
        log.take(),
        [
            "x-own",
            "accept authorization user-agent x-call x-default x-own"
        ]
    );
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn closures_and_functions() {
    async fn tagged(mut request: Request<Body>, next: Next<'_>) -> Result<Response> {
        let tag = HeaderValue::from_static("function");
        request.headers_mut().append("x-tag", tag);
        next.run(request).await
    }

    let world = World::new();
    let tag = String::from("closure");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let client = world
        .builder()
        .interceptor(tagged)
        .interceptor(async move |mut request: Request<Body>, next: Next<'_>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let tag = HeaderValue::try_from(&tag).map_err(Error::interceptor)?;
            request.headers_mut().append("x-tag", tag);
            let response = next.run(request).await?;
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(response)
        })
        .attempt_interceptor(|request: Request<Body>, next: Next<'static>| async move {
            next.run(request).await
        })
        .interceptor(on_response(|response| {
            let seen = HeaderValue::from_static("yes");
            response.headers_mut().insert("x-seen", seen);
            Ok(())
        }))
        .build()
        .unwrap();
    world.serve(|request| ok(&request.fields("x-tag").collect::<Vec<_>>().join(" ")));
    for _ in 0..2 {
        let response = tokio::spawn(client.get(URL).send()).await.unwrap().unwrap();
        assert_eq!(response.header("x-seen"), Some("yes"));
        assert_eq!(response.text().await.unwrap(), "function closure");
    }
    assert_eq!(count.load(Ordering::SeqCst), 4);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_or_a_failure_of_its_own_needs_no_connection() {
    let answers = async |request: Request<Body>, next: Next<'_>| match request.uri().path() {
        "/cached" => Ok(Response::from(http::Response::new("cached"))),
        "/gone" => {
            let gone = http::Response::builder().status(410).body("gone");
            Ok(gone.map_err(Error::interceptor)?.into())
        }
        "/fails" => Err(Error::interceptor("no token")),
        _ => next.run(request).await,
    };
    for around_calls in [true, false] {
        let world = World::new();
        let builder = world.builder();
        let client = match around_calls {
            true => builder.interceptor(answers),
            false => builder.attempt_interceptor(answers),
        };
        let client = client.build().unwrap();
        let get = |path: &str| client.get(format!("http://peer.test{path}")).send();
        let response = get("/cached").await.unwrap();
        assert_eq!(response.url(), "http://peer.test/cached");
        assert_eq!((response.connection().id, response.attempts()), (0, 0));
        assert_eq!(response.content_length(), Some(6));
        assert_eq!(response.text().await.unwrap(), "cached");
        let error = get("/gone").await.unwrap_err();
        assert_eq!(error.to_string(), "GET http://peer.test: status 410 Gone");
        assert_eq!(error.status_error().unwrap().body, "gone");
        let error = get("/fails").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interceptor);
        assert_eq!(
            error.to_string(),
            "GET http://peer.test: an interceptor failed the call: no token"
        );
        assert_eq!(world.dials(), 0);
        settle(&client, &world).await;
    }
}

/// Tries again by itself after a 503.
async fn again(request: Request<Body>, next: Next<'_>) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await?.bytes;
    let copy = || Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    let response = next.run(copy()).await?;
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE => next.run(copy()).await,
        _ => Ok(response),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_inside_may_run_again() {
    for around_calls in [true, false] {
        let world = World::new();
        let count = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&count);
        world.serve(
            move |request| match served.fetch_add(1, Ordering::SeqCst) % 2 {
                0 => reply("503 Service Unavailable", "", ""),
                _ => ok(&String::from_utf8(request.body.clone()).unwrap()),
            },
        );
        let client = match around_calls {
            true => world.builder().interceptor(again),
            false => world.builder().attempt_interceptor(again),
        };
        let client = client.build().unwrap();
        let (pieces, _) = Pieces::new(3, 2);
        for body in [Body::from("xxxxxx"), Body::stream(pieces)] {
            let response = client.post(URL).body(body).send().await.unwrap();
            assert_eq!(response.bytes().await.unwrap().len(), 6);
        }
        assert_eq!(count.load(Ordering::SeqCst), 4);
        settle(&client, &world).await;
    }
}

/// The options of a call hold inside its interceptors, and its total limit for them as well.
#[tokio::test(start_paused = true)]
async fn options_of_the_call_survive() {
    let world = World::new();
    let rest = |time: u64| {
        move |request: Request<Body>, next: Next<'static>| async move {
            tokio::time::sleep(Duration::from_secs(time)).await;
            next.run(Request::get(request.uri()).body(Body::empty()).unwrap())
                .await
        }
    };
    let client = world.builder().interceptor(rest(3)).build().unwrap();
    let timeouts = Timeouts::default()
        .with_head(Some(Duration::from_secs(2)))
        .with_total(Some(Duration::from_secs(4)));
    for (total, expected) in [(Some(4), "Timeouts::total"), (None, "Timeouts::head is 2s")] {
        let begun = Instant::now();
        let timeouts = timeouts.with_total(total.map(Duration::from_secs));
        let call = tokio::spawn(client.get(URL).timeouts(timeouts).send());
        let mut peer = world.accept().await;
        peer.read_request().await;
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.phase(), Some(Phase::Head));
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(begun.elapsed(), Duration::from_secs(total.unwrap_or(5)));
        peer.closed().await;
        settle(&client, &world).await;
    }
    // An interceptor that never ends is held to the total limit, and to that of a try.
    let stuck = async |_: Request<Body>, _: Next<'_>| pending::<Result<Response>>().await;
    let around_calls = world.builder().interceptor(stuck).build().unwrap();
    let call = around_calls.get(URL).timeout(Duration::from_secs(4));
    let error = call.send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Some(Phase::Prepare))
    );
    let around_tries = world.builder().attempt_interceptor(stuck).build().unwrap();
    let limits = Timeouts::default().with_attempt(Some(Duration::from_secs(1)));
    let error = around_tries
        .get(URL)
        .timeouts(limits)
        .send()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("Timeouts::attempt is 1s"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_try_keeps_its_method_and_origin() {
    let world = World::new();
    let move_on: [fn(&mut http::request::Parts); 2] = [
        |parts| parts.method = http::Method::PUT,
        |parts| parts.uri = "http://other.test/".parse().unwrap(),
    ];
    for change in move_on {
        let client = world
            .builder()
            .attempt_interceptor(on_request(move |parts| {
                change(parts);
                Ok(())
            }))
            .build()
            .unwrap();
        let error = client.get(URL).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(
            error.to_string().contains("method or the origin"),
            "{error}"
        );
    }
    // What no request may hold is refused whoever has set it.
    let client = world.builder().interceptor(on_request(|parts| {
        let value = HeaderValue::from_static("chunked");
        parts.headers.insert("transfer-encoding", value);
        Ok(())
    }));
    let error = client.build().unwrap().get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(world.dials(), 0);
}

/// What an interceptor's own waiting costs is told apart from what may have been sent.
#[tokio::test(start_paused = true)]
async fn a_limit_tells_what_may_have_been_sent() {
    let world = World::new();
    world.serve(|_| ok(""));
    for around_calls in [true, false] {
        for sends in [true, false] {
            let slow = move |request: Request<Body>, next: Next<'static>| async move {
                if sends {
                    next.run(request).await?;
                }
                pending::<Result<Response>>().await
            };
            let client = match around_calls {
                true => world.builder().interceptor(slow),
                false => world.builder().attempt_interceptor(slow),
            };
            let client = client.build().unwrap();
            let second = Some(Duration::from_secs(1));
            let limits = Timeouts::default().with_attempt(second).with_total(second);
            let error = client.post(URL).timeouts(limits).send().await.unwrap_err();
            let (phase, sent) = match sends {
                true => (Phase::Head, Sent::All),
                false => (Phase::Prepare, Sent::Nothing),
            };
            assert_eq!(
                (error.phase(), error.sent()),
                (Some(phase), sent),
                "{error}"
            );
            settle(&client, &world).await;
        }
    }
}

/// A kept connection that is dead is replaced as without interceptors, and they see both tries.
#[tokio::test(start_paused = true)]
async fn replays_go_through_the_interceptors_of_tries() {
    let world = World::new();
    let log = Log::default();
    let client = world
        .builder()
        .attempt_interceptor(Named("try", log.clone()))
        .build()
        .unwrap();
    let first = tokio::spawn(client.get(URL).send());
    let mut peer = world.accept().await;
    peer.read_request().await;
    peer.write(ok("")).await;
    first.await.unwrap().unwrap();
    let second = tokio::spawn(client.get(URL).send());
    peer.read_request().await;
    drop(peer);
    let mut peer = world.accept().await;
    peer.read_request().await;
    peer.write(ok("second")).await;
    let response = second.await.unwrap().unwrap();
    assert_eq!(response.attempts(), 2);
    assert_eq!(
        log.take(),
        ["try /", "try 200", "try /", "try Io", "try /", "try 200"]
    );
    assert_eq!(client.stats().total.retries, 1);
    settle(&client, &world).await;
}

/// Dropped at any of its polls, a call with interceptors of both kinds leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn cancelled_at_every_poll() {
    async fn slow(request: Request<Body>, next: Next<'_>) -> Result<Response> {
        tokio::task::yield_now().await;
        let response = next.run(request).await;
        tokio::task::yield_now().await;
        response
    }

    for polls in 1.. {
        let world = World::new();
        world.serve(|_| ok("hello"));
        let client = world
            .builder()
            .interceptor(slow)
            .attempt_interceptor(slow)
            .build()
            .unwrap();
        let outcome = within_polls(polls, client.get(URL).send()).await;
        let ended = outcome.is_some();
        drop(outcome);
        let_others_run().await;
        until("nothing is under way", || {
            let total = client.stats().total;
            total.connections_active + total.connections_connecting == 0
        })
        .await;
        settle(&client, &world).await;
        let next: Result<Response> = client.get(URL).send().await;
        assert_eq!(next.unwrap().text().await.unwrap(), "hello");
        if ended {
            assert!(polls > 4, "{polls}");
            break;
        }
    }
}

/// What an interceptor makes of the fields of a response is what the client acts on.
#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn the_client_reads_the_fields_that_an_interceptor_leaves() {
    let world = World::new();
    world.serve(|_| {
        reply(
            "200 OK",
            "content-encoding: gzip\r\nlocation: /b\r\n",
            "no gzip",
        )
    });
    let client = world
        .builder()
        .attempt_interceptor(on_response(|response| {
            response.headers_mut().remove("content-encoding");
            Ok(())
        }))
        .build()
        .unwrap();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "no gzip");
    settle(&client, &world).await;
}
