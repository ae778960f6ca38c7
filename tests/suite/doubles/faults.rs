//! Each fault of the mock, and the error that is documented for it: kind, phase, and how much was sent.

use std::time::Duration;

use sockeye::test::{Fault, MockTransport, Reply};
use sockeye::{Alpn, Client, Error, ErrorKind, Method, Phase, Retry, Sent, Timeouts};
use tokio::time::Instant;

use super::{URL, build, client, settle};

/// A fault, and the error of a POST that meets it on a new connection: its kind, phase and how much was sent.
type Case = (Fault, ErrorKind, Phase, Sent);

const CASES: [Case; 9] = [
    (
        Fault::ConnectRefused,
        ErrorKind::Connect,
        Phase::Connect,
        Sent::Nothing,
    ),
    (
        Fault::ConnectStall,
        ErrorKind::Timeout,
        Phase::Connect,
        Sent::Nothing,
    ),
    (Fault::Stall, ErrorKind::Timeout, Phase::Head, Sent::All),
    (
        Fault::ResetBeforeHead,
        ErrorKind::Io,
        Phase::Head,
        Sent::All,
    ),
    (
        Fault::CloseBeforeHead,
        ErrorKind::Io,
        Phase::Head,
        Sent::All,
    ),
    (
        Fault::TruncatedHead,
        ErrorKind::Protocol,
        Phase::Head,
        Sent::All,
    ),
    (
        Fault::ResetMidBody { after: 3 },
        ErrorKind::Io,
        Phase::Read,
        Sent::All,
    ),
    (
        Fault::TruncatedBody { after: 3 },
        ErrorKind::Protocol,
        Phase::Read,
        Sent::All,
    ),
    (
        Fault::StallMidBody { after: 3 },
        ErrorKind::Timeout,
        Phase::Read,
        Sent::All,
    ),
];

/// Makes a POST and reads its answer to the end.
async fn post(client: &Client) -> Result<String, Error> {
    let response = client.post(URL).body("content").send().await?;
    response.text().await
}

async fn check(alpn: Alpn, (fault, kind, phase, sent): Case) {
    let mock = MockTransport::new().speaking(alpn);
    mock.on(Method::POST, URL)
        .fail(fault)
        .then(Reply::new(200, "fine"));
    let client = client(&mock);
    let begun = Instant::now();
    let error = post(&client).await.unwrap_err();
    let seen = (error.kind(), error.phase(), error.sent());
    assert_eq!(
        seen,
        (kind, Some(phase), sent),
        "{fault:?} {alpn:?}: {error}"
    );
    let waited = if kind == ErrorKind::Timeout { 10 } else { 0 };
    assert_eq!(begun.elapsed(), Duration::from_secs(waited), "{fault:?}");
    // Whatever it was, the next call works; a dial whose time is up is to be gone first.
    crate::support::peer::let_others_run().await;
    assert_eq!(post(&client).await.unwrap(), "fine", "{fault:?}");
    mock.assert_done();
    settle(&client, &mock).await;
}

#[tokio::test(start_paused = true)]
async fn each_fault_gives_its_error_over_http1() {
    for case in CASES {
        check(Alpn::Http1, case).await;
    }
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn each_fault_gives_its_error_over_http2() {
    for (fault, kind, phase, sent) in CASES {
        // Half a frame is no head that was begun.
        let kind = if fault == Fault::TruncatedHead {
            ErrorKind::Io
        } else {
            kind
        };
        check(Alpn::Http2, (fault, kind, phase, sent)).await;
    }
}

/// What comes before a broken end is handed over.
#[tokio::test(start_paused = true)]
async fn a_body_breaks_at_its_byte() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        if alpn == Alpn::Http2 && !cfg!(feature = "http2") {
            continue;
        }
        for reply in [
            Reply::new(200, "0123456789").reset_after(4),
            Reply::new(200, "0123456789").close_after(4),
            Reply::new(200, "0123456789").stall_after(4),
            Reply::pieces(200, ["012", "3456", "789"], Duration::ZERO).reset_after(4),
            Reply::pieces(200, ["012", "3456", "789"], Duration::ZERO).close_after(4),
        ] {
            let mock = MockTransport::new().speaking(alpn);
            mock.on(Method::GET, URL).act(reply.clone());
            let client = client(&mock);
            let mut response = client.get(URL).send().await.unwrap();
            let mut read = Vec::new();
            let error = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => read.extend_from_slice(&chunk),
                    Ok(None) => panic!("it does not end well: {reply:?}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(read, b"0123", "{reply:?} {alpn:?}: {error}");
            drop(response);
            settle(&client, &mock).await;
        }
    }
}

/// On a connection that has served before, a reset looks like a stale one: what is idempotent is sent once more, by itself.
#[tokio::test(start_paused = true)]
async fn a_reset_of_a_reused_connection() {
    for fault in [Fault::ResetBeforeHead, Fault::CloseBeforeHead] {
        let mock = MockTransport::new();
        mock.on_any(URL).reused(true).fail(fault);
        mock.on_any(URL).reused(false).reply(200, "new");
        let client = client(&mock);
        for attempts in [1, 2] {
            let response = client.get(URL).send().await.unwrap();
            assert_eq!(response.attempts(), attempts, "{fault:?}");
            assert_eq!(response.text().await.unwrap(), "new");
        }
        let error = post(&client).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (ErrorKind::Io, 1),
            "{error}"
        );
        let on: Vec<_> = mock.history().iter().map(|one| one.connection).collect();
        assert_eq!(on, [0, 0, 1, 1], "{fault:?}");
        mock.assert_done();
        settle(&client, &mock).await;
    }
}

/// A rule whose turn it is to refuse closes what is idle, so that there is a dial to refuse.
#[tokio::test(start_paused = true)]
async fn refusing_closes_what_is_idle() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        if alpn == Alpn::Http2 && !cfg!(feature = "http2") {
            continue;
        }
        let mock = MockTransport::new().speaking(alpn);
        mock.on(Method::POST, URL)
            .reply(200, "before")
            .then(Fault::ConnectRefused)
            .then(Reply::new(200, "after"));
        let client = client(&mock);
        assert_eq!(post(&client).await.unwrap(), "before");
        crate::support::peer::let_others_run().await;
        let error = post(&client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{alpn:?}: {error}");
        assert_eq!(post(&client).await.unwrap(), "after");
        assert_eq!(mock.dials(), 3);
        mock.assert_done();
        settle(&client, &mock).await;
    }
}

/// What HTTP/2 says was not processed is sent again whatever its method; and told where there is no HTTP/2.
#[tokio::test(start_paused = true)]
async fn refused_streams() {
    for fault in [Fault::RefusedStream, Fault::GoAway] {
        #[cfg(feature = "http2")]
        {
            let mock = MockTransport::new().speaking(Alpn::Http2);
            let rule = mock.on(Method::POST, URL).fail(fault);
            let rule = rule.then(Reply::new(200, "second"));
            let client = client(&mock);
            let response = client.post(URL).body("content").send().await.unwrap();
            assert_eq!(response.attempts(), 2, "{fault:?}");
            assert_eq!(response.text().await.unwrap(), "second");
            assert_eq!(rule.used(), 2);
            let sessions = if fault == Fault::GoAway { 2 } else { 1 };
            assert_eq!(mock.dials(), sessions, "{fault:?}");
            settle(&client, &mock).await;
        }
        #[cfg(feature = "http2")]
        {
            let mock = MockTransport::new().speaking(Alpn::Http2);
            mock.on(Method::POST, URL).fail(fault);
            let client = client(&mock);
            let error = client.post(URL).body("content").send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{fault:?}: {error}");
            assert_eq!(error.attempts(), 3, "{fault:?}: {error}");
            settle(&client, &mock).await;
        }
        let mock = MockTransport::new();
        mock.on(Method::GET, URL).fail(fault);
        let client = client(&mock);
        let error = client.get(URL).send().await.unwrap_err();
        assert!(error.to_string().contains("let it speak HTTP/2"), "{error}");
        settle(&client, &mock).await;
    }
}

/// All of it over HTTP/2 by prior knowledge, without TLS.
#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn a_client_that_insists_gets_its_version() {
    use sockeye::HttpVersions;
    for (url, versions, seen) in [
        ("http://a.test/", HttpVersions::Auto, http::Version::HTTP_11),
        (
            "http://a.test/",
            HttpVersions::Http2PriorKnowledge,
            http::Version::HTTP_2,
        ),
        ("https://a.test/", HttpVersions::Auto, http::Version::HTTP_2),
        (
            "https://a.test/",
            HttpVersions::Http1,
            http::Version::HTTP_11,
        ),
        (
            "https://a.test/",
            HttpVersions::Http2,
            http::Version::HTTP_2,
        ),
    ] {
        let mock = MockTransport::new().speaking(Alpn::Http2);
        mock.on(Method::PUT, url).body("up").reply(200, "down");
        let client = build(&mock, |builder| builder.http_versions(versions));
        let response = client.put(url).body("up").send().await.unwrap();
        assert_eq!(response.version(), seen, "{url} {versions:?}");
        assert_eq!(response.text().await.unwrap(), "down");
        assert_eq!(mock.history()[0].version, seen);
        assert_eq!(mock.history()[0].url, url);
        settle(&client, &mock).await;
    }
}

/// Policies run above it: the waits of a retry, in no time.
#[tokio::test(start_paused = true)]
async fn policies_see_what_the_mock_does() {
    let mock = MockTransport::new();
    mock.on(Method::GET, URL)
        .fail(Fault::ConnectRefused)
        .then(Fault::Stall)
        .then(Reply::new(503, "").header("retry-after", "20"))
        .then(Reply::new(200, "at last"));
    let timeouts = Timeouts::all(Duration::from_secs(3));
    let client = build(&mock, |builder| {
        let retry = Retry::default().with_max_attempts(4);
        builder.timeouts(timeouts).retry(retry)
    });
    let begun = Instant::now();
    let response = client.get(URL).send().await.unwrap();
    assert_eq!(response.attempts(), 4);
    assert!(begun.elapsed() >= Duration::from_secs(23));
    let stats = client.stats();
    assert_eq!(stats.total.attempts_total, 4, "{stats}");
    drop(response);
    mock.assert_done();
    settle(&client, &mock).await;
}
