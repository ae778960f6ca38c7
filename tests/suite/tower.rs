//! The client as a service, under layers that others have written (feature `tower`).

use std::future::{Ready, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use sockeye::test::{Fault, MockTransport, Received, Reply};
use sockeye::{Body, BoxError, Client, Error, ErrorKind, Method};
use tokio::time::Instant;
use tower::retry::Policy;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::set_header::SetRequestHeaderLayer;

use crate::support::peer::settle_among;
use crate::support::streams::Pieces;

const URL: &str = "http://peer.test/";

fn get(url: &str) -> Request<Body> {
    Request::get(url).body(Body::empty()).unwrap()
}

fn client(mock: &MockTransport) -> Client {
    Client::builder().connector(mock.clone()).build().unwrap()
}

/// The rules were used as they say, and the pool is at rest.
async fn done(client: &Client, mock: &MockTransport) {
    mock.assert_done();
    settle_among(client, || mock.open_connections()).await;
}

async fn text(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().bytes
}

/// A body goes out as what it is, whose kind ever it is.
#[tokio::test(start_paused = true)]
async fn bodies_of_any_kind_are_sent() {
    let mock = MockTransport::new();
    mock.on_any(URL).reply_with(async |request: Received| {
        let framing = request.header("content-length");
        let framing = framing.or(request.header("transfer-encoding"));
        Reply::new(
            200,
            format!("{} {}", framing.unwrap_or("none"), request.text()),
        )
    });
    let mut client = client(&mock);
    let (pieces, _) = Pieces::new(2, 2);
    for (body, seen) in [
        (Body::from("full"), "4 full"),
        (Body::empty(), "none "),
        (Body::stream(pieces), "chunked "),
    ] {
        let method = if seen == "none " { "GET" } else { "PATCH" };
        let request = Request::builder().method(method).uri(URL);
        let request = request.body(body).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        let answer = text(response).await;
        assert!(answer.starts_with(seen.as_bytes()), "{answer:?}");
    }
    // Not one of ours.
    let request = Request::patch(URL).body("text".to_owned()).unwrap();
    let response = client.call(request).await.unwrap();
    assert_eq!(text(response).await, "4 text");
    done(&client, &mock).await;
}

/// A body that can be sent again is not wrapped, so the call survives a connection that has died.
#[tokio::test(start_paused = true)]
async fn bodies_can_be_sent_again() {
    let mock = MockTransport::new();
    mock.on(Method::PUT, URL)
        .reply(200, "one")
        .then(Fault::CloseBeforeHead)
        .then(Reply::new(200, "two"));
    let mut client = client(&mock);
    for expected in ["one", "two"] {
        let request = Request::put(URL).body(Body::from("put")).unwrap();
        let response = client.call(request).await.unwrap();
        assert_eq!(text(response).await, expected);
    }
    let bodies: Vec<_> = mock.history().iter().map(|one| one.text()).collect();
    assert_eq!(bodies, ["put"; 3]);
    done(&client, &mock).await;
}

/// Statuses are answers, whatever the client's own setting; what is wrong with a request is an error.
#[tokio::test(start_paused = true)]
async fn a_status_is_no_error() {
    let mock = MockTransport::new();
    mock.on(Method::GET, URL).reply(503, "later");
    let builder = Client::builder().connector(mock.clone());
    let mut client = builder.error_for_status(true).build().unwrap();
    let response = client.call(get(URL)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(text(response).await, "later");
    let error = client.call(get("/relative")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    done(&client, &mock).await;
}

/// Sends again what was answered with 503.
#[derive(Clone)]
struct Again(usize);

impl Policy<Request<Body>, Response<Body>, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Self::Future> {
        let busy = matches!(result, Ok(response) if response.status() == 503);
        self.0 = self.0.checked_sub(usize::from(busy))?;
        busy.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut again = Request::new(request.body().try_clone()?);
        *again.uri_mut() = request.uri().clone();
        *again.headers_mut() = request.headers().clone();
        Some(again)
    }
}

/// Timeout, concurrency limit, retry and a layer of tower-http, all around one client.
#[tokio::test(start_paused = true)]
async fn layers_do_what_they_do() {
    let mock = MockTransport::new();
    mock.on(Method::GET, URL)
        .reply(503, "")
        .then(Reply::new(503, ""))
        .then(Reply::new(200, "served"));
    let client = client(&mock);
    let name = HeaderName::from_static("x-layer");
    let mut service = ServiceBuilder::new()
        .timeout(Duration::from_secs(3))
        .concurrency_limit(2)
        .retry(Again(5))
        .map_err(|error: Error| -> BoxError { error.into() })
        .layer(SetRequestHeaderLayer::overriding(
            name,
            HeaderValue::from_static("was here"),
        ))
        .service(client.clone());
    let response = service.ready().await.unwrap().call(get(URL)).await.unwrap();
    assert_eq!(text(response).await, "served");
    let history = mock.history();
    assert_eq!(history.len(), 3);
    let layered = |one: &Received| one.header("x-layer") == Some("was here");
    assert!(history.iter().all(layered));
    done(&client, &mock).await;
}

/// A layer that drops the call cancels it, and the client goes on.
#[tokio::test(start_paused = true)]
async fn a_timeout_of_a_layer_cancels_the_call() {
    let mock = MockTransport::new();
    mock.on(Method::GET, URL)
        .fail(Fault::Stall)
        .then(Reply::new(200, "next"));
    let client = client(&mock);
    let service = ServiceBuilder::new().timeout(Duration::from_secs(3));
    let mut service = service.service(client.clone());
    let started = Instant::now();
    let error = service.call(get(URL)).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    let response = service.call(get(URL)).await.unwrap();
    assert_eq!(text(response).await, "next");
    done(&client, &mock).await;
    assert_eq!(mock.open_connections(), 1, "the cancelled call's is closed");
}
