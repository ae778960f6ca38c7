//! The client as a service, under layers that others have written (feature `tower`).

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use sockeye::{Body, BoxError, Error, ErrorKind};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::retry::Policy;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::set_header::SetRequestHeaderLayer;

use crate::support::peer::{World, ok, reply, settle};
use crate::support::streams::Pieces;

const URL: &str = "http://peer.test/";

fn get(url: &str) -> Request<Body> {
    Request::get(url).body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().bytes
}

/// A body goes out as what it is, whose kind ever it is.
#[tokio::test(start_paused = true)]
async fn bodies_of_any_kind_are_sent() {
    let world = World::new();
    world.serve(|request| {
        let framing = request
            .field("content-length")
            .or(request.field("transfer-encoding"));
        let content = String::from_utf8_lossy(&request.body);
        ok(&format!("{} {content}", framing.unwrap_or("none")))
    });
    let mut client = world.client();
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
    settle(&client, &world).await;
}

/// A body that can be sent again is not wrapped, so the call survives a connection that has died.
#[tokio::test(start_paused = true)]
async fn bodies_can_be_sent_again() {
    let world = World::new();
    let mut client = world.client();
    let peer = tokio::spawn({
        let world = world.clone();
        async move {
            let mut first = world.accept().await;
            first.read_request().await;
            first.write(ok("one")).await;
            first.read_request().await;
            first.close();
            let mut second = world.accept().await;
            let again = second.read_request().await;
            second.write(ok("two")).await;
            (again.body, second)
        }
    });
    for expected in ["one", "two"] {
        let request = Request::put(URL).body(Body::from("put")).unwrap();
        let response = client.call(request).await.unwrap();
        assert_eq!(text(response).await, expected);
    }
    let (body, second) = peer.await.unwrap();
    assert_eq!(body, b"put");
    drop(second);
    settle(&client, &world).await;
}

/// Statuses are answers, whatever the client's own setting; what is wrong with a request is an error.
#[tokio::test(start_paused = true)]
async fn a_status_is_no_error() {
    let world = World::new();
    world.serve(|_| reply("503 Service Unavailable", "", "later"));
    let mut client = world.builder().error_for_status(true).build().unwrap();
    let response = client.call(get(URL)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(text(response).await, "later");
    let error = client.call(get("/relative")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    settle(&client, &world).await;
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
    let world = World::new();
    let served = Arc::new(AtomicUsize::new(0));
    world.serve({
        let served = Arc::clone(&served);
        move |request| match served.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => reply("503 Service Unavailable", "", ""),
            _ => ok(request.field("x-layer").unwrap_or("nothing")),
        }
    });
    let client = world.client();
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
    assert_eq!(text(response).await, "was here");
    assert_eq!(served.load(Ordering::SeqCst), 3);
    settle(&client, &world).await;
}

/// A layer that drops the call cancels it, and the client goes on.
#[tokio::test(start_paused = true)]
async fn a_timeout_of_a_layer_cancels_the_call() {
    let world = World::new();
    let client = world.client();
    let gate = Arc::new(Semaphore::new(0));
    let peer = tokio::spawn({
        let (world, gate) = (world.clone(), Arc::clone(&gate));
        async move {
            let mut silent = world.accept().await;
            silent.read_request().await;
            silent.closed().await;
            gate.add_permits(1);
            let mut next = world.accept().await;
            next.read_request().await;
            next.write(ok("next")).await;
            next
        }
    });
    let service = ServiceBuilder::new().timeout(Duration::from_secs(3));
    let mut service = service.service(client.clone());
    let started = Instant::now();
    let error = service.call(get(URL)).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    gate.acquire().await.unwrap().forget();
    let response = service.call(get(URL)).await.unwrap();
    assert_eq!(text(response).await, "next");
    drop(peer.await.unwrap());
    settle(&client, &world).await;
}
