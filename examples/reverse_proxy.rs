//! A reverse proxy: an axum service that hands every request on to a server behind it, and streams both bodies.
//!
//! ```text
//! cargo run --example reverse_proxy
//! ```
//!
//! `forward` is all there is to it. A proxy takes what comes as it is: it follows no redirects, turns no status into an error
//! and decodes nothing. The example then sends requests through it, to a server of its own.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sockeye::{Client, ErrorKind, Redirects};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Backend {
    client: Client,
    base: String,
}

async fn forward(
    State(backend): State<Backend>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("{}{path}", backend.base).parse::<Uri>() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    parts.uri = uri;
    remove_hop_by_hop(&mut parts.headers);
    if let Some(host) = parts.headers.remove(header::HOST) {
        parts.headers.insert("x-forwarded-host", host);
    }
    if let Ok(from) = HeaderValue::try_from(from.ip().to_string()) {
        parts.headers.append("x-forwarded-for", from);
    }
    let request = Request::from_parts(parts, sockeye::Body::wrap(body));
    match backend.client.execute(request).await {
        Ok(response) => {
            let mut response = response.into_http().map(Body::new);
            remove_hop_by_hop(response.headers_mut());
            response
        }
        // The line names the step that failed and the origin, and nothing that is secret.
        Err(error) => {
            eprintln!("proxy: {error}");
            match error.kind() {
                ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
                ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
                _ => StatusCode::BAD_GATEWAY,
            }
            .into_response()
        }
    }
}

/// What belongs to one connection is not handed on (RFC 9110 section 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().map(HeaderName::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let backend = start(
        Router::new()
            .route(
                "/echo",
                post(async |headers: HeaderMap, body: Bytes| {
                    let from = headers.get("x-forwarded-for").cloned();
                    let from = from.unwrap_or(HeaderValue::from_static("nobody"));
                    ([("x-came-from", from)], body)
                }),
            )
            .route(
                "/moved",
                get(async || (StatusCode::FOUND, [("location", "/elsewhere")])),
            ),
    )
    .await?;
    let client = Client::builder()
        .error_for_status(false)
        .decompress(false)
        .redirects(Redirects::none())
        .connect_timeout(Duration::from_secs(2))
        .build()?;
    let proxy = |base: String| {
        let backend = Backend {
            client: client.clone(),
            base,
        };
        start(Router::new().fallback(forward).with_state(backend))
    };
    let through = proxy(backend).await?;
    // A port that nobody listens at: it was free a moment ago.
    let nobody = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let broken = proxy(format!("http://{nobody}")).await?;

    let user = Client::builder()
        .error_for_status(false)
        .redirects(Redirects::none())
        .build()?;
    let film = "x".repeat(1_000_000);
    let response = user
        .post(format!("{through}/echo?a=b"))
        .body(film.clone())
        .send()
        .await?;
    println!(
        "POST /echo: {}, from {:?}",
        response.status(),
        response.header("x-came-from")
    );
    assert_eq!(response.header("x-came-from"), Some("127.0.0.1"));
    assert_eq!(response.text().await?, film);
    for (url, status) in [
        (format!("{through}/moved"), StatusCode::FOUND),
        (format!("{through}/lost"), StatusCode::NOT_FOUND),
        (format!("{broken}/echo"), StatusCode::BAD_GATEWAY),
    ] {
        let response = user.get(&url).send().await?;
        println!("GET {url}: {}", response.status());
        assert_eq!(response.status(), status);
    }
    println!("\nThe proxy's own client:\n{}", client.stats());
    Ok(())
}

async fn start(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(base)
}
