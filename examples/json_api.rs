//! A typed client for a JSON API: the program around it sees values and its own errors, and no HTTP.
//!
//! ```text
//! cargo run --example json_api
//! ```
//!
//! An interceptor adds a token to every call and fetches it when it has none; a policy sends again what may be sent again, a
//! POST included, because it carries an idempotency key. The server is one of its own, which is busy every other time.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sockeye::http::{HeaderValue, Request, header::AUTHORIZATION};
use sockeye::{Body, Client, Next, Retry};
use tokio::sync::OnceCell;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    id: u32,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Problem {
    title: String,
}

/// What a call of the API can come to besides an answer.
#[derive(Debug)]
enum Failure {
    NotFound(String),
    Other(sockeye::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(why) => f.write_str(why),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl Error for Failure {}

/// The API, as the rest of a program knows it.
struct Inventory(Client);

impl Inventory {
    fn new(base: &str) -> sockeye::Result<Self> {
        let token = Arc::new(OnceCell::new());
        let tokens = format!("{base}/token");
        // A client of its own: the call for the token must not wait for a token.
        let unauthorized = Client::new();
        let authorize = async move |mut request: Request<Body>, next: Next<'_>| {
            // All calls that find no token wait for the one that fetches it.
            let token = token.get_or_try_init(async || {
                let token = unauthorized.post(&tokens).send().await?.text().await?;
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(sockeye::Error::interceptor)?;
                value.set_sensitive(true);
                sockeye::Result::Ok(value)
            });
            let value = token.await?.clone();
            request.headers_mut().insert(AUTHORIZATION, value);
            next.run(request).await
        };
        let client = Client::builder()
            .base_url(base)
            .timeout(Duration::from_secs(10))
            .retry(Retry::default().with_max_attempts(3))
            .interceptor(authorize)
            .build()?;
        Ok(Self(client))
    }

    async fn item(&self, id: u32) -> Result<Item, Failure> {
        let response = self.0.get(format!("items/{id}")).send().await?;
        Ok(response.json().await?)
    }

    async fn add(&self, item: &Item) -> Result<Item, Failure> {
        // The key makes it safe to send the request again: the server knows what it has done already.
        let request = self.0.post("items").json(item).idempotency_key();
        Ok(request.send().await?.json().await?)
    }
}

/// A status of 400 or more is an error that still has the body, so that its reason is not lost.
impl From<sockeye::Error> for Failure {
    fn from(error: sockeye::Error) -> Self {
        match error.status_error() {
            Some(status) if status.status == StatusCode::NOT_FOUND => {
                let problem = status.json::<Problem>();
                Self::NotFound(problem.map_or_else(|_| String::new(), |problem| problem.title))
            }
            _ => Self::Other(error),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::default();
    let inventory = Inventory::new(&server.clone().start().await?)?;

    let item = inventory.item(7).await?;
    println!("item 7: {item:?}");
    assert_eq!(item.name, "a salmon");

    let trout = Item {
        id: 8,
        name: "a trout".into(),
    };
    let added = inventory.add(&trout).await?;
    println!("added: {added:?}");
    assert_eq!(added, trout);

    match inventory.item(404).await {
        Err(Failure::NotFound(why)) => {
            println!("item 404: {why}");
            assert_eq!(why, "no such item");
        }
        other => return Err(format!("not as expected: {other:?}").into()),
    }

    // Every first try was answered with 503; the token was fetched once for all calls.
    let stats = inventory.0.stats();
    println!("\n{stats}");
    assert_eq!(stats.total.requests_total, 3);
    assert_eq!(stats.total.attempts_total, 6);
    assert_eq!(server.tokens.load(Ordering::Relaxed), 1);
    Ok(())
}

/// The other side: it wants a token, and is busy every other time.
#[derive(Clone, Default)]
struct Server {
    requests: Arc<AtomicUsize>,
    tokens: Arc<AtomicUsize>,
}

impl Server {
    async fn start(self) -> std::io::Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let app = Router::new()
            .route(
                "/token",
                post(async |State(server): State<Self>| {
                    server.tokens.fetch_add(1, Ordering::Relaxed);
                    "let-me-in"
                }),
            )
            .route(
                "/items",
                post(
                    async |State(server): State<Self>, headers: HeaderMap, item: Json<Item>| {
                        server.admit(&headers).map(|()| item)
                    },
                ),
            )
            .route(
                "/items/{id}",
                get(
                    async |State(server): State<Self>, headers: HeaderMap, Path(id): Path<u32>| {
                        server.admit(&headers)?;
                        match id {
                            404 => Err(Refusal(StatusCode::NOT_FOUND, "no such item")),
                            _ => Ok(Json(Item {
                                id,
                                name: "a salmon".into(),
                            })),
                        }
                    },
                ),
            )
            .with_state(self);
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(base)
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers
            .get(AUTHORIZATION)
            .is_none_or(|value| value != "Bearer let-me-in")
        {
            return Err(Refusal(StatusCode::UNAUTHORIZED, "who are you?"));
        }
        match self.requests.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "busy")),
            _ => Ok(()),
        }
    }
}

/// A status, and why.
struct Refusal(StatusCode, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, title) = self;
        let problem = Problem {
            title: title.into(),
        };
        // Says when to come back, so that a POST with a key may be sent again.
        (status, [("retry-after", "0")], Json(problem)).into_response()
    }
}
