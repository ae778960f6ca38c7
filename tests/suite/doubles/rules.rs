//! The rules of the mock: which request meets which, what is kept, and what a mistake says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use sockeye::test::{MockTransport, Received, Reply};
use sockeye::{Alpn, Body, Client, ErrorKind, Method, Phase, Sent};
use tokio::time::Instant;

use super::{URL, build, client, panic_of, settle};
use crate::support::streams::Pieces;

async fn text(client: &Client, url: &str) -> String {
    client.get(url).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_rule_that_fits_answers() {
    let mock = MockTransport::new();
    mock.on(Method::GET, "https://a.test/x?page=2")
        .reply(200, "page 2");
    mock.on(Method::GET, "https://a.test/x")
        .header("x-who", "ann")
        .reply(200, "for ann");
    mock.on(Method::GET, "https://a.test/x")
        .times(1)
        .reply(200, "once");
    mock.on(Method::GET, "https://A.test:443/x")
        .reply(200, "more");
    mock.on(Method::GET, "https://a.test:8443/x")
        .reply(200, "other port");
    mock.on(Method::GET, "http://a.test/x").reply(200, "plain");
    mock.on(Method::GET, "https://a.test/files/*")
        .reply(200, "a file");
    mock.on_any("https://a.test/*")
        .matching(|request| request.method == "PATCH")
        .reply(200, "patched");
    let client = client(&mock);
    assert_eq!(text(&client, "https://a.test/x?page=2").await, "page 2");
    assert_eq!(text(&client, "https://a.test/x?page=3").await, "once");
    assert_eq!(text(&client, "https://a.test/x").await, "more");
    assert_eq!(text(&client, "https://a.test/x?page=2").await, "page 2");
    assert_eq!(text(&client, "https://a.test:8443/x").await, "other port");
    assert_eq!(text(&client, "http://a.test/x").await, "plain");
    assert_eq!(
        text(&client, "https://a.test/files/a/b.txt").await,
        "a file"
    );
    let request = client.get("https://a.test/x").header("x-who", "ann");
    assert_eq!(
        request.send().await.unwrap().text().await.unwrap(),
        "for ann"
    );
    let request = client.patch("https://a.test/any");
    assert_eq!(
        request.send().await.unwrap().text().await.unwrap(),
        "patched"
    );
    mock.assert_done();
    settle(&client, &mock).await;
}

/// Methods, fields and bodies of every framing, as they were on the wire.
#[tokio::test(start_paused = true)]
async fn history_is_what_was_on_the_wire() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        if alpn == Alpn::Http2 && !cfg!(feature = "http2") {
            continue;
        }
        let mock = MockTransport::new().speaking(alpn);
        mock.on_any("https://a.test/*").reply(200, "");
        let client = client(&mock);
        let request = client
            .get("https://a.test/one?token=secret")
            .bearer_auth("hidden");
        request.send().await.unwrap().bytes().await.unwrap();
        let request = client.post("https://a.test/two").body("text");
        request.send().await.unwrap().bytes().await.unwrap();
        let (pieces, _) = Pieces::new(3, 4);
        let request = client
            .put("https://a.test/three")
            .expect_continue(true)
            .body(Body::stream(pieces));
        request.send().await.unwrap().bytes().await.unwrap();
        let history = mock.history();
        let seen: Vec<_> = history
            .iter()
            .map(|one| (one.method.as_str(), one.url.path(), one.body.len()))
            .collect();
        assert_eq!(
            seen,
            [
                ("GET", "/one", 0),
                ("POST", "/two", 4),
                ("PUT", "/three", 12)
            ],
            "{alpn:?}"
        );
        assert_eq!(history[0].url.query(), Some("token=secret"));
        assert_eq!(history[0].header("authorization"), Some("Bearer hidden"));
        assert_eq!(history[1].text(), "text");
        assert_eq!(history[1].header("content-length"), Some("4"));
        assert!(!history[0].reused && history[1].reused && history[2].reused);
        let shown = format!("{history:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("hidden"),
            "{shown}"
        );
        settle(&client, &mock).await;
    }
}

/// A request without a rule is refused with what a reader needs, and without what may be secret.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_rule() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        if alpn == Alpn::Http2 && !cfg!(feature = "http2") {
            continue;
        }
        let mock = MockTransport::new().speaking(alpn);
        mock.on(Method::GET, "https://a.test/known")
            .header("x-a", "1")
            .reply(200, "");
        mock.on(Method::GET, "https://a.test/once")
            .times(1)
            .reply(200, "");
        let client = client(&mock);
        let request = client.post("https://a.test/lost?key=secret&flag").body("x");
        let error = request.send().await.unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.contains("the mock has no rule for POST https://a.test/lost?key=..&flag"),
            "{shown}"
        );
        assert!(!shown.contains("secret"), "{shown}");
        let seen = (error.kind(), error.phase(), error.sent());
        assert_eq!(
            seen,
            (ErrorKind::Io, Some(Phase::Head), Sent::All),
            "{shown}"
        );

        let error = client
            .get("https://a.test/known")
            .send()
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("rule 1 (GET https://a.test/known) does not fit: no such value of x-a"),
            "{error}"
        );
        client.get("https://a.test/once").await.unwrap();
        let error = client
            .get("https://a.test/once")
            .send()
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("rule 2 (GET https://a.test/once) is used up after 1"),
            "{error}"
        );

        let said = panic_of(|| mock.assert_done());
        for part in [
            "rule 1 (GET https://a.test/known) was used 0 times of at least 1",
            "no rule for POST https://a.test/lost?key=..&flag",
            "used up after 1",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert!(
            !said.contains("secret") && !said.contains("rule 2 (GET https://a.test/once) was"),
            "{said}"
        );
        settle(&client, &mock).await;
    }
}

/// Over HTTP/1.1 a refused request is not sent again by itself, even on a connection that has served before.
#[tokio::test(start_paused = true)]
async fn a_refused_request_is_seen_once() {
    let mock = MockTransport::new();
    mock.on(Method::GET, URL).times(1).reply(200, "");
    let client = client(&mock);
    client.get(URL).await.unwrap();
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.attempts(), 1, "{error}");
    assert_eq!(mock.history().len(), 2);
    settle(&client, &mock).await;
}

#[test]
fn done_counts_what_rules_say() {
    let mock = MockTransport::new();
    mock.assert_done();
    let rule = mock
        .on(Method::GET, URL)
        .times(3)
        .reply(503, "")
        .then(Reply::new(200, ""));
    assert_eq!(rule.used(), 0);
    assert!(panic_of(|| mock.assert_done()).contains("was used 0 times of 3"));
    let _ = mock
        .on_any("http://b.test/*")
        .reply(200, "")
        .then(Reply::new(200, ""));
    let said = panic_of(|| mock.assert_done());
    assert!(
        said.contains("rule 2 (any method http://b.test/*) was used 0 times of at least 2"),
        "{said}"
    );
    drop(rule.times(0));
    assert!(!panic_of(|| mock.assert_done()).contains("rule 1"));
}

#[test]
fn mistakes_panic_where_they_are_made() {
    let mock = MockTransport::new();
    for url in ["/relative", "ftp://a.test/", "a.test", "", "http://"] {
        let said = panic_of(|| drop(mock.on(Method::GET, url)));
        assert!(said.contains("is no absolute http or https URL"), "{said}");
    }
    assert!(panic_of(|| drop(Reply::new(42, ""))).contains("status"));
    assert!(panic_of(|| drop(Reply::new(200, "").header("a b", ""))).contains("field"));
    assert!(panic_of(|| drop(Reply::new(200, "").header("a", "b\r\n"))).contains("field"));
    assert!(panic_of(|| drop(mock.on(Method::GET, URL).header("", ""))).contains("rule"));
    // A rule whose answer is not said does not count.
    mock.assert_done();
}

#[tokio::test(start_paused = true)]
async fn a_client_keeps_the_rules_of_a_dropped_mock() {
    let mock = MockTransport::new();
    mock.on(Method::GET, URL).reply(200, "still here");
    let client = client(&mock);
    drop(mock);
    assert_eq!(text(&client, URL).await, "still here");
    assert_eq!(text(&client, URL).await, "still here");
    sockeye::test::at_rest(&client);
}

/// Answers that wait, come in pieces, or are made by a function that waits.
#[tokio::test(start_paused = true)]
async fn answers_take_their_time() {
    let mock = MockTransport::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let (second, count) = (Duration::from_secs(1), Arc::clone(&asked));
    mock.on(Method::GET, "http://a.test/late")
        .reply(200, "late")
        .delay(5 * second)
        .then(Reply::new(200, "at once"));
    mock.on(Method::GET, "http://a.test/pieces")
        .act(Reply::pieces(200, ["a", "b", "c"], second));
    mock.on(Method::GET, "http://a.test/made")
        .reply_with(async move |request: Received| {
            tokio::time::sleep(second).await;
            let number = count.fetch_add(1, Ordering::SeqCst);
            Reply::new(StatusCode::CREATED, format!("{} {number}", request.method))
                .header("x-made", "yes")
        });
    let client = client(&mock);
    for (path, expected, seconds) in [
        ("late", "late", 5),
        ("late", "at once", 0),
        ("pieces", "abc", 3),
        ("made", "GET 0", 1),
        ("made", "GET 1", 1),
    ] {
        let begun = Instant::now();
        assert_eq!(
            text(&client, &format!("http://a.test/{path}")).await,
            expected
        );
        assert_eq!(begun.elapsed(), seconds * second, "{path}");
    }
    let made = client.get("http://a.test/made").send().await.unwrap();
    assert_eq!(
        (made.status(), made.header("x-made")),
        (StatusCode::CREATED, Some("yes"))
    );
    drop(made);
    settle(&client, &mock).await;
}

/// Bodiless answers, and fields that the answer brings itself.
#[tokio::test(start_paused = true)]
async fn the_framing_of_answers() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        if alpn == Alpn::Http2 && !cfg!(feature = "http2") {
            continue;
        }
        let mock = MockTransport::new().speaking(alpn);
        mock.on(Method::HEAD, URL).reply(200, "never sent");
        mock.on(Method::DELETE, URL).reply(204, "");
        let closing =
            Reply::new(200, "last").header(header::CONNECTION, HeaderValue::from_static("close"));
        let client = client(&mock);
        let head = client.head(URL).send().await.unwrap();
        assert_eq!(head.header("content-length"), Some("10"), "{alpn:?}");
        assert_eq!(head.text().await.unwrap(), "");
        let deleted = client.delete(URL).send().await.unwrap();
        assert_eq!(deleted.status(), 204);
        assert_eq!(deleted.text().await.unwrap(), "");
        assert_eq!(mock.dials(), 1);
        if alpn == Alpn::Http1 {
            mock.on(Method::GET, URL).act(closing);
            assert_eq!(text(&client, URL).await, "last");
            settle(&client, &mock).await;
            assert_eq!(mock.open_connections(), 0);
        }
        mock.assert_done();
        settle(&client, &mock).await;
    }
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_both_ways() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct User {
        name: String,
        age: u8,
    }
    let mock = MockTransport::new();
    let ann = User {
        name: "ann".into(),
        age: 7,
    };
    let rule = mock
        .on(Method::POST, URL)
        .body_json(&serde_json::json!({"age": 7, "name": "ann"}))
        .act(Reply::json(201, &ann));
    let client = client(&mock);
    let back: User = client
        .post(URL)
        .json(&ann)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(back, ann);
    assert_eq!(rule.used(), 1);
    assert_eq!(mock.history()[0].json::<User>().unwrap(), ann);
    let error = client.post(URL).json(&[1]).send().await.unwrap_err();
    assert!(error.to_string().contains("another JSON body"), "{error}");
    settle(&client, &mock).await;
}

/// Hosts that are let through reach a real server; the others do not.
#[tokio::test]
async fn the_network_is_reached_where_it_is_allowed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut read).await.unwrap();
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nreal")
            .await
            .unwrap();
    });
    let mock = MockTransport::new();
    mock.allow_net(|host| host == "127.0.0.1");
    let client = build(&mock, |builder| builder.timeout(Duration::from_secs(5)));
    assert_eq!(
        text(&client, &format!("http://127.0.0.1:{port}/")).await,
        "real"
    );
    let error = client
        .get("http://elsewhere.test/")
        .send()
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no rule for GET http://elsewhere.test/"),
        "{error}"
    );
    serving.await.unwrap();
    settle(&client, &mock).await;
}

/// Many calls at once, on several threads: every request is answered once, and by its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_many_threads() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        if alpn == Alpn::Http2 && !cfg!(feature = "http2") {
            continue;
        }
        let mock = MockTransport::new().speaking(alpn);
        mock.on_any("https://a.test/whole/*")
            .times(200)
            .reply_with(async |request: Received| {
                Reply::new(200, format!("{} {}", request.url.path(), request.text()))
            });
        mock.on_any("https://a.test/cut")
            .times(40)
            .act(Reply::new(200, "0123456789").close_after(4));
        let client = client(&mock);
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8 {
            let client = client.clone();
            tasks.spawn(async move {
                for number in 0..25 {
                    let url = format!("https://a.test/whole/{task}");
                    let request = client.post(url).body(number.to_string());
                    let answer = request.send().await.unwrap().text().await.unwrap();
                    assert_eq!(answer, format!("/whole/{task} {number}"));
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        for _ in 0..40 {
            let mut response = client.get("https://a.test/cut").send().await.unwrap();
            let mut read = Vec::new();
            while let Ok(Some(chunk)) = response.chunk().await {
                read.extend_from_slice(&chunk);
            }
            assert_eq!(read, b"0123", "{alpn:?}");
        }
        mock.assert_done();
        assert_eq!(mock.history().len(), 240);
    }
}
