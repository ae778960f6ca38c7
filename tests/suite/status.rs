//! A status of 400 or more is an error that keeps its fields and the beginning of its body (design D11).

use std::time::Duration;

#[cfg(feature = "json")]
use sockeye::Sent;
use sockeye::{Body, ErrorKind, StatusCode, Timeouts};
use tokio::time::Instant;

use crate::support::peer::{World, let_others_run, ok, reply, settle};
use crate::support::streams::Pieces;

#[cfg(feature = "json")]
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
struct Problem {
    title: String,
    code: u32,
}

#[cfg(feature = "json")]
const PROBLEM: &str = r#"{"title":"no such user","code":17}"#;

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn the_error_has_status_fields_and_body() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| reply("404 Not Found", "x-request-id: r-1\r\n", PROBLEM));
    let error = client
        .get("http://peer.test/users/1?token=secret")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status);
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    assert!(error.is_status() && !error.is_timeout());
    assert_eq!(error.sent(), Sent::All);
    assert_eq!(error.attempts(), 1);
    let told = error.to_string();
    assert_eq!(told, "GET http://peer.test: status 404 Not Found");
    let status = error.status_error().unwrap();
    assert_eq!(status.status, 404);
    assert_eq!(status.headers["x-request-id"], "r-1");
    assert!(!status.truncated);
    let problem: Problem = status.json().unwrap();
    assert_eq!(
        problem,
        Problem {
            title: "no such user".to_owned(),
            code: 17
        }
    );
    assert!(!format!("{error:?} {status:?}").contains("secret"));
    settle(&client, &world).await;
}

/// A body that came with its head leaves the connection usable.
#[tokio::test(start_paused = true)]
async fn an_error_status_does_not_cost_the_connection() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| match request.target() {
        "/bad" => reply("500 Internal Server Error", "", "oops"),
        _ => ok("fine"),
    });
    client.get("http://peer.test/bad").send().await.unwrap_err();
    let response = client.get("http://peer.test/good").send().await.unwrap();
    assert!(response.reused());
    assert_eq!(response.text().await.unwrap(), "fine");
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn every_class_from_400_on_is_an_error() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| {
        let status = request.target().trim_start_matches('/');
        reply(&format!("{status} Whatever"), "", "body")
    });
    for status in [200, 204, 299, 300, 304, 399] {
        let url = format!("http://peer.test/{status}");
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
    }
    for status in [400, 404, 499, 500, 599, 600, 999] {
        let url = format!("http://peer.test/{status}");
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), status);
        assert_eq!(error.status_error().unwrap().body, "body");
    }
    let total = client.stats().total;
    assert_eq!(total.responses_2xx, 3);
    assert_eq!(total.responses_3xx, 3);
    assert_eq!(total.responses_4xx, 3);
    assert_eq!(total.responses_5xx, 4);
    assert_eq!(total.errors.get(ErrorKind::Status), 7);
    assert_eq!(total.requests_total, 13);
    settle(&client, &world).await;
}

/// A HEAD has no body to keep.
#[tokio::test(start_paused = true)]
async fn the_error_of_a_head_request_has_no_body() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| "HTTP/1.1 404 Not Found\r\ncontent-length: 100\r\n\r\n".to_owned());
    let error = client.head("http://peer.test/").send().await.unwrap_err();
    let status = error.status_error().unwrap();
    assert!(status.body.is_empty() && !status.truncated);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn the_body_is_kept_up_to_64_kib() {
    for (size, truncated) in [
        (100, false),
        (64 * 1024 - 1, false),
        (64 * 1024, false),
        (64 * 1024 + 1, true),
        (1024 * 1024, true),
    ] {
        let world = World::new();
        let client = world.client();
        let body = "x".repeat(size);
        world.serve(move |_| reply("502 Bad Gateway", "", &body));
        let error = client.get("http://peer.test/").send().await.unwrap_err();
        let status = error.status_error().unwrap();
        assert_eq!(status.body.len(), size.min(64 * 1024), "{size}");
        assert_eq!(status.truncated, truncated, "{size}");
        settle(&client, &world).await;
    }
}

/// A stall gives `truncated` within two seconds, and never another error.
#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_cut_within_two_seconds() {
    let world = World::new();
    let client = world.client();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection
                .write("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 100\r\n\r\nso far")
                .await;
            connection.closed().await;
        }
    });
    let started = Instant::now();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status);
    assert!(started.elapsed() <= Duration::from_millis(2010));
    let status = error.status_error().unwrap();
    assert_eq!(status.body, "so far");
    assert!(status.truncated);
    peer.await.unwrap();
    settle(&client, &world).await;
}

/// The call's own limits may be shorter: what they cut off is `truncated` as well.
#[tokio::test(start_paused = true)]
async fn a_shorter_limit_of_the_call_cuts_earlier() {
    let half = Some(Duration::from_millis(500));
    for timeouts in [
        Timeouts::default().with_read(half),
        Timeouts::default().with_total(half),
    ] {
        let world = World::new();
        let client = world.builder().timeouts(timeouts).build().unwrap();
        world.serve(|_| "HTTP/1.1 500 Oh\r\ncontent-length: 9\r\n\r\nsome".to_owned());
        let started = Instant::now();
        let error = client.get("http://peer.test/").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status, "{timeouts:?}");
        assert!(started.elapsed() <= Duration::from_millis(510));
        let status = error.status_error().unwrap();
        assert_eq!((&status.body[..], status.truncated), (&b"some"[..], true));
        settle(&client, &world).await;
    }
}

/// Dribbling does not extend the two seconds.
#[tokio::test(start_paused = true)]
async fn a_body_that_dribbles_is_cut_within_two_seconds() {
    let world = World::new();
    let client = world.client();
    tokio::spawn({
        let world = world.clone();
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection
                .write("HTTP/1.1 500 Oh\r\ncontent-length: 1000\r\n\r\n")
                .await;
            while connection.try_write(b"x").await {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    });
    let started = Instant::now();
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    assert!(started.elapsed() <= Duration::from_millis(2010));
    let status = error.status_error().unwrap();
    assert_eq!(status.body, "x".repeat(7));
    assert!(status.truncated);
    // The rest is waited for a moment longer, for the sake of the connection.
    let_others_run().await;
    tokio::time::advance(Duration::from_millis(51)).await;
    settle(&client, &world).await;
}

/// A body that is cut short or malformed does not hide the status.
#[tokio::test(start_paused = true)]
async fn a_broken_body_does_not_hide_the_status() {
    for rest in [
        "content-length: 100\r\n\r\nsome",
        "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n",
    ] {
        let world = World::new();
        let client = world.client();
        let peer = tokio::spawn({
            let world = world.clone();
            async move {
                let mut connection = world.accept().await;
                connection.read_request().await;
                connection.write("HTTP/1.1 500 Oh\r\n").await;
                connection.write_slowly(rest.as_bytes()).await;
            }
        });
        let error = client.get("http://peer.test/").send().await.unwrap_err();
        let status = error.status_error().expect("the status is what went wrong");
        assert_eq!(&status.body[..], b"some", "{rest:?}");
        assert!(status.truncated);
        peer.await.unwrap();
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_body_in_one_piece_with_its_head_does_not_hide_the_status() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| {
        "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n".to_owned()
    });
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    let status = error.status_error().expect("the status is what went wrong");
    assert!(status.truncated);
    settle(&client, &world).await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn it_can_be_turned_off_for_a_call_and_for_a_client() {
    let world = World::new();
    world.serve(|_| reply("404 Not Found", "", PROBLEM));
    let strict = world.client();
    let response = strict
        .get("http://peer.test/")
        .error_for_status(false)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.json::<Problem>().await.unwrap().code, 17);
    assert_eq!(strict.stats().total.errors.total(), 0);

    let lax = world.builder().error_for_status(false).build().unwrap();
    let response = lax.get("http://peer.test/").send().await.unwrap();
    assert_eq!(response.status(), 404);
    let error = lax
        .get("http://peer.test/")
        .error_for_status(true)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    drop(response);
    strict.close_idle();
    settle(&lax, &world).await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn a_response_can_be_made_an_error_later() {
    let world = World::new();
    let client = world.builder().error_for_status(false).build().unwrap();
    world.serve(|request| match request.target() {
        "/good" => ok("fine"),
        _ => reply("409 Conflict", "x-a: b\r\n", PROBLEM),
    });
    let good = client.get("http://peer.test/good").send().await.unwrap();
    let good = good.error_for_status().await.unwrap();
    assert_eq!(good.text().await.unwrap(), "fine");
    let bad = client.get("http://peer.test/bad").send().await.unwrap();
    let error = bad.error_for_status().await.unwrap_err();
    let status = error.status_error().unwrap();
    assert_eq!(status.headers["x-a"], "b");
    assert_eq!(status.json::<Problem>().unwrap().code, 17);
    assert!(error.to_string().contains("http://peer.test"), "{error}");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_told() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| match request.target() {
        "/seconds" => reply("429 Too Many Requests", "retry-after: 7\r\n", ""),
        "/date" => reply(
            "503 Service Unavailable",
            "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:37 GMT\r\n",
            "",
        ),
        _ => reply("503 Service Unavailable", "retry-after: soon\r\n", ""),
    });
    for (path, seconds) in [("/seconds", Some(7)), ("/date", Some(60)), ("/odd", None)] {
        let url = format!("http://peer.test{path}");
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(error.retry_after(), seconds.map(Duration::from_secs));
    }
    settle(&client, &world).await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_json_says_where() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| reply("400 Bad Request", "", "<html>oops</html>"));
    let error = client.get("http://peer.test/").send().await.unwrap_err();
    let error = error.status_error().unwrap().json::<Problem>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    let told = error.to_string();
    assert!(
        told.contains("status 400") && told.contains("<html>"),
        "{told}"
    );
    settle(&client, &world).await;
}

/// What was sent as a stream is gone: a status that passes is retryable only for a body that can be sent again.
#[tokio::test(start_paused = true)]
async fn a_stream_that_was_sent_is_not_retryable() {
    let world = World::new();
    let client = world.client();
    world.serve(|_| reply("503 Service Unavailable", "", "later"));
    let (pieces, _) = Pieces::new(2, 10);
    let stream = client.put("http://a.test/").body(Body::stream(pieces));
    let error = stream.send().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(!error.is_retryable());
    let bytes = client.put("http://a.test/").body("whole");
    assert!(bytes.send().await.unwrap_err().is_retryable());
    settle(&client, &world).await;
}
