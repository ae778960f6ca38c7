//! Credentials that are bound to an origin, and those that are renewed when a server refuses them.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use sockeye::{
    Authenticator, Body, BoxFuture, Challenge, Client, ClientBuilder, Error, ErrorKind, Limits,
    Phase, Result,
};
use tokio::sync::Semaphore;

use crate::support::peer::{Request, World, let_others_run, ok, reply, settle, until};
use crate::support::streams::Pieces;

const URL: &str = "http://peer.test/";

/// Serves by host and target, and keeps host, target and authorization of every request.
fn serve(
    world: &World,
    answer: impl Fn(&Request) -> String + Clone + Send + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    world.serve(move |request| {
        let host = request.field("host").unwrap();
        let authorization = request.field("authorization").unwrap_or("-");
        let line = format!("{host}{} {authorization}", request.target());
        log.lock().unwrap().push(line);
        answer(request)
    });
    seen
}

fn take(seen: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut seen.lock().unwrap())
}

/// Takes this token alone.
fn guarded(token: &'static str) -> impl Fn(&Request) -> String + Clone + Send + 'static {
    move |request| match request.field("authorization") {
        Some(value) if value == token => ok("welcome"),
        _ => refusal(),
    }
}

fn refusal() -> String {
    let challenge = "www-authenticate: Bearer realm=\"peer\", error=\"invalid_token\"\r\n";
    reply("401 Unauthorized", challenge, "who are you?")
}

/// Counts, waits for a permit if it is held up, and answers.
#[derive(Clone)]
struct Tokens(Arc<Inner>);

struct Inner {
    calls: AtomicUsize,
    permits: Semaphore,
    answer: Box<dyn Fn(usize) -> Result<Option<HeaderValue>> + Send + Sync>,
    told: Mutex<Vec<String>>,
}

impl Tokens {
    fn new(answer: impl Fn(usize) -> Result<Option<HeaderValue>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            calls: AtomicUsize::new(0),
            permits: Semaphore::new(1000),
            answer: Box::new(answer),
            told: Mutex::default(),
        }))
    }

    /// Answers `t1`, `t2` and so on.
    fn counting() -> Self {
        Self::new(|call| Ok(Some(HeaderValue::try_from(format!("t{call}")).unwrap())))
    }

    fn held(self) -> Self {
        self.0.permits.forget_permits(1000);
        self
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }
}

impl Authenticator for Tokens {
    fn refresh<'a>(
        &'a self,
        challenge: &'a Challenge,
    ) -> BoxFuture<'a, Result<Option<HeaderValue>>> {
        Box::pin(async move {
            let call = 1 + self.0.calls.fetch_add(1, Ordering::SeqCst);
            let bearer = challenge
                .scheme("bearer")
                .and_then(|scheme| scheme.param("realm"));
            let refused = challenge.refused().map(|value| value.to_str().unwrap());
            let told = format!("{} {bearer:?} {refused:?}", challenge.origin());
            self.0.told.lock().unwrap().push(told);
            assert!(!format!("{challenge:?}").contains("invalid_token"));
            self.0.permits.acquire().await.unwrap().forget();
            (self.0.answer)(call)
        })
    }
}

fn found(location: &str) -> String {
    reply("302 Found", &format!("location: {location}\r\n"), "")
}

#[tokio::test(start_paused = true)]
async fn credentials_go_to_their_origin_alone() {
    let world = World::new();
    let seen = serve(&world, |request| match request.target() {
        "/a" => found("http://b.test/b"),
        "/b" => found("http://a.test/c"),
        "/c" => found("http://a.test:81/d"),
        _ => ok(""),
    });
    let client = world
        .builder()
        .default_header("authorization", "default")
        .bearer_auth_for("http://a.test", "s3cret")
        .bearer_auth_for("http://a.test", "second")
        .basic_auth_for("http://b.test:80/", "user", Some("pass"))
        .build()
        .unwrap();
    client.get("http://a.test/a").send().await.unwrap();
    assert_eq!(
        take(&seen),
        [
            "a.test/a Bearer s3cret",
            "b.test/b Basic dXNlcjpwYXNz",
            "a.test/c Bearer s3cret",
            "a.test:81/d -",
        ]
    );
    client.get("http://c.test/d").send().await.unwrap();
    client
        .get("http://a.test/d")
        .bearer_auth("own")
        .send()
        .await
        .unwrap();
    client.get("http://u:p@a.test/d").send().await.unwrap();
    assert_eq!(
        take(&seen),
        [
            "c.test/d default",
            "a.test/d Bearer own",
            "a.test/d Basic dTpw"
        ]
    );
    // The caller's own are gone after a foreign hop; what is bound to the origin is not.
    client
        .get("http://a.test/a")
        .bearer_auth("own")
        .send()
        .await
        .unwrap();
    assert_eq!(
        take(&seen),
        [
            "a.test/a Bearer own",
            "b.test/b Basic dXNlcjpwYXNz",
            "a.test/c Bearer s3cret",
            "a.test:81/d -",
        ]
    );
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_storm_makes_one_refresh() {
    let world = World::new();
    let seen = serve(&world, guarded("t1"));
    let tokens = Tokens::counting().held();
    let client = world
        .builder()
        .authenticator(tokens.clone())
        .build()
        .unwrap();
    let calls: Vec<_> = (0..100)
        .map(|_| tokio::spawn(client.get(URL).send()))
        .collect();
    until("all were refused", || seen.lock().unwrap().len() == 100).await;
    let_others_run().await;
    assert_eq!(
        client.stats().total.connections_active,
        0,
        "no connection is held meanwhile"
    );
    tokens.0.permits.add_permits(1);
    for call in calls {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "welcome");
    }
    assert_eq!(tokens.calls(), 1);
    assert_eq!(
        *tokens.0.told.lock().unwrap(),
        ["http://peer.test Some(\"peer\") None"]
    );
    assert_eq!(seen.lock().unwrap().len(), 200);
    assert_eq!(client.stats().total.authenticated, 100);
    // From now on they go along from the start.
    take(&seen);
    client.get(URL).send().await.unwrap();
    assert_eq!(take(&seen), ["peer.test/ t1"]);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_run_out_is_renewed_and_only_once_for_a_call() {
    let world = World::new();
    let valid = Arc::new(Mutex::new("t1"));
    let current = Arc::clone(&valid);
    serve(&world, move |request| {
        guarded(*current.lock().unwrap())(request)
    });
    let tokens = Tokens::counting();
    let client = world
        .builder()
        .base_url(URL)
        .default_header("authorization", "t0")
        .authenticator(tokens.clone())
        .build()
        .unwrap();
    for token in ["t1", "t1", "t2"] {
        *valid.lock().unwrap() = token;
        client.post(URL).body("content").send().await.unwrap();
    }
    assert_eq!(
        *tokens.0.told.lock().unwrap(),
        [
            "http://peer.test Some(\"peer\") Some(\"t0\")",
            "http://peer.test Some(\"peer\") Some(\"t1\")",
        ]
    );
    *valid.lock().unwrap() = "another";
    let error = client.get("/").send().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(tokens.calls(), 3);
    // Whoever says by itself who it is is not answered.
    let error = client.get("/").bearer_auth("own").send().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(tokens.calls(), 3);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_reaches_all_who_wait_and_none_is_the_401() {
    for fails in [true, false] {
        let world = World::new();
        let seen = serve(&world, guarded("never"));
        let tokens = Tokens::new(move |_| match fails {
            true => Err(Error::interceptor("the login is down")),
            false => Ok(None),
        });
        let tokens = tokens.held();
        let client = world
            .builder()
            .authenticator(tokens.clone())
            .build()
            .unwrap();
        let calls: Vec<_> = (0..10)
            .map(|_| tokio::spawn(client.get(URL).send()))
            .collect();
        until("all were refused", || seen.lock().unwrap().len() == 10).await;
        let_others_run().await;
        tokens.0.permits.add_permits(1);
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            if fails {
                assert_eq!(
                    error.to_string(),
                    "GET http://peer.test: an interceptor failed the call: the login is down"
                );
            } else {
                assert_eq!(error.status_error().unwrap().body, "who are you?");
            }
        }
        assert_eq!(tokens.calls(), 1);
        tokens.0.permits.add_permits(1);
        client.get(URL).send().await.unwrap_err();
        assert_eq!(tokens.calls(), 2, "the next one asks again");
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_hands_its_turn_on() {
    let world = World::new();
    let seen = serve(&world, guarded("t3"));
    let tokens = Tokens::counting().held();
    let client = world
        .builder()
        .authenticator(tokens.clone())
        .build()
        .unwrap();
    let mut calls = Vec::new();
    for count in 1..=4 {
        calls.push(tokio::spawn(client.get(URL).send()));
        until("it was refused", || seen.lock().unwrap().len() == count).await;
        let_others_run().await;
    }
    for leader in 1..=2 {
        assert_eq!(tokens.calls(), leader);
        calls.remove(0).abort();
        let_others_run().await;
    }
    tokens.0.permits.add_permits(1);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(tokens.calls(), 3);
    // The total limit of a call ends its wait, in line as well as at its head.
    *tokens.0.told.lock().unwrap() = Vec::new();
    let other = |path: &str| {
        let call = client.get(format!("http://other.test{path}"));
        tokio::spawn(call.timeout(Duration::from_secs(5)).send())
    };
    for call in [other("/a"), other("/b")] {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Some(Phase::Prepare))
        );
        assert_eq!(error.origin().unwrap().host(), "other.test");
    }
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_can_be_sent_once_gets_the_401() {
    let world = World::new();
    serve(&world, guarded("t1"));
    let tokens = Tokens::counting();
    let client = world
        .builder()
        .error_for_status(false)
        .authenticator(tokens.clone())
        .build()
        .unwrap();
    for (status, body) in [(401, "who are you?"), (200, "welcome")] {
        let (pieces, _) = Pieces::new(2, 10);
        let response = client
            .post(URL)
            .body(Body::stream(pieces))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.text().await.unwrap(), body);
    }
    assert_eq!(tokens.calls(), 1);
    settle(&client, &world).await;
}

/// A 401 whose body is large, or slow, is what it was when nobody answers it.
#[tokio::test(start_paused = true)]
async fn the_body_of_a_401_that_stays_one_is_whole() {
    let world = World::new();
    let client = world
        .builder()
        .error_for_status(false)
        .authenticator(Tokens::new(|_| Ok(None)))
        .build()
        .unwrap();
    let call = tokio::spawn(client.get(URL).send());
    let mut peer = world.accept().await;
    peer.read_request().await;
    peer.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 200000\r\n\r\n")
        .await;
    peer.write(vec![b'x'; 150_000]).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.content_length(), Some(200_000));
    let reading = tokio::spawn(response.bytes());
    peer.write(vec![b'y'; 50_000]).await;
    let bytes = reading.await.unwrap().unwrap();
    assert_eq!(
        (bytes.len(), bytes[149_999], bytes[150_000]),
        (200_000, b'x', b'y')
    );
    settle(&client, &world).await;
}

/// A 401 of an origin that a redirect led to is not answered, unless there are credentials for it by name.
#[tokio::test(start_paused = true)]
async fn only_the_origin_it_is_for_is_answered() {
    let run = async |settings: fn(ClientBuilder, Tokens) -> ClientBuilder| {
        let world = World::new();
        let seen = serve(&world, |request| match request.target() {
            "/a" => found("http://other.test/b"),
            _ => guarded("t1")(request),
        });
        let tokens = Tokens::counting();
        let client = settings(world.builder(), tokens.clone()).build().unwrap();
        let outcome = client.get("http://peer.test/a").send().await;
        settle(&client, &world).await;
        (outcome.is_ok(), tokens.calls(), take(&seen).len())
    };
    let unscoped = run(|builder, tokens| builder.authenticator(tokens)).await;
    assert_eq!(unscoped, (false, 0, 2));
    let of_base = run(|builder, tokens| builder.base_url(URL).authenticator(tokens)).await;
    assert_eq!(of_base, (false, 0, 2));
    let named =
        |builder: ClientBuilder, tokens| builder.authenticator_for("http://other.test", tokens);
    assert_eq!(run(named).await, (true, 1, 3));
}

/// What gets the credentials may use the client that waits for them, even if that has one connection and even if it is refused itself.
#[tokio::test(start_paused = true)]
async fn an_authenticator_may_use_its_own_client() {
    struct Login {
        client: Mutex<Option<Client>>,
        path: &'static str,
    }

    impl Authenticator for Login {
        fn refresh<'a>(&'a self, _: &'a Challenge) -> BoxFuture<'a, Result<Option<HeaderValue>>> {
            Box::pin(async move {
                let client = self.client.lock().unwrap().clone().unwrap();
                let token = client
                    .get(format!("http://peer.test{}", self.path))
                    .send()
                    .await?;
                Ok(Some(HeaderValue::try_from(token.text().await?).unwrap()))
            })
        }
    }

    for (path, works) in [("/token", true), ("/guarded", false)] {
        let world = World::new();
        serve(&world, |request| match request.target() {
            "/token" => ok("t1"),
            _ => guarded("t1")(request),
        });
        let login = Arc::new(Login {
            client: Mutex::default(),
            path,
        });
        let client = world
            .builder()
            .limits(Limits::default().with_max_connections(NonZeroUsize::new(1)))
            .authenticator(Arc::clone(&login))
            .build()
            .unwrap();
        *login.client.lock().unwrap() = Some(client.clone());
        let outcome = client.get(URL).send().await;
        match outcome {
            Ok(response) => assert!(works, "{response:?}"),
            Err(error) => assert_eq!(
                (works, error.status()),
                (false, Some(StatusCode::UNAUTHORIZED))
            ),
        }
        settle(&client, &world).await;
        *login.client.lock().unwrap() = None;
    }
}

#[test]
fn mistakes_name_the_setting_and_no_secret() {
    let check = |builder: ClientBuilder, expected: &str| {
        let error = builder.build().unwrap_err().to_string();
        assert!(
            error.contains(expected) && !error.contains("s3cret"),
            "{error}"
        );
    };
    let builder = Client::builder;
    let none = None::<&str>;
    check(
        builder().bearer_auth_for("https://api.test/v1", "s3cret"),
        "bearer_auth_for: https://api.test is followed",
    );
    check(
        builder().bearer_auth_for("https://s3cret@api.test", "s3cret"),
        "bearer_auth_for: https://api.test is followed or preceded",
    );
    check(
        builder().bearer_auth_for("api.test", "s3cret"),
        "bearer_auth_for: the origin",
    );
    check(
        builder().bearer_auth_for("https://api.test", "s3cret\n"),
        "bearer_auth_for: the credentials hold a control character",
    );
    check(
        builder().basic_auth_for("https://api.test", "s3cret:", none),
        "basic_auth_for: the user holds a colon",
    );
    check(
        builder().authenticator_for("", Tokens::counting()),
        "authenticator_for: the origin",
    );
    let fine = builder().bearer_auth_for("https://api.test", "s3cret");
    assert!(!format!("{fine:?}").contains("s3cret"));
}
