//! A service that tells Prometheus what its client does: `GET /metrics` answers with a snapshot of the client's stats.
//!
//! ```text
//! cargo run --example metrics_endpoint
//! ```
//!
//! The endpoint is one line. Scraping costs the calls nothing, because a snapshot only reads counters. The example makes some
//! calls to a server of its own, scrapes itself over HTTP, and checks the numbers with a parser that is not ours.

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_parse::{Scrape, Value};
use sockeye::Client;

async fn metrics(State(client): State<Client>) -> ([(&'static str, &'static str); 1], String) {
    let content_type = [("content-type", "text/plain; version=0.0.4")];
    (content_type, client.stats().prometheus().to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let backend = start(
        Router::new()
            .route("/", get(async || "hello"))
            .route("/busy", get(async || StatusCode::SERVICE_UNAVAILABLE)),
    )
    .await?;
    // The client that the service works with, and that it tells of.
    let client = Client::new();
    let service = start(
        Router::new()
            .route("/metrics", get(metrics))
            .with_state(client.clone()),
    )
    .await?;

    for _ in 0..20 {
        client.get(&backend).send().await?.text().await?;
    }
    let Err(busy) = client.get(format!("{backend}/busy")).send().await else {
        return Err("a status of 503 was no error".into());
    };
    println!("{busy}\n");

    let scrape = Client::new()
        .get(format!("{service}/metrics"))
        .send()
        .await?;
    assert_eq!(
        scrape.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    let text = scrape.text().await?;
    for line in text.lines().filter(|line| !line.contains("_bucket")) {
        println!("{line}");
    }
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned())))?;
    let open = scrape
        .samples
        .iter()
        .filter(|sample| sample.metric == "http_client_open_connections");
    let open: f64 = open.map(|sample| number(&sample.value)).sum();
    let timed = scrape
        .samples
        .iter()
        .find_map(|sample| match &sample.value {
            Value::Histogram(buckets)
                if sample.metric == "http_client_request_duration_seconds" =>
            {
                buckets.last().map(|bucket| bucket.count)
            }
            _ => None,
        });
    assert_eq!(open, 1.0, "one connection served all of them");
    assert_eq!(timed, Some(21.0), "every call was timed");
    Ok(())
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Counter(number) | Value::Gauge(number) | Value::Untyped(number) => *number,
        Value::Histogram(_) | Value::Summary(_) => f64::NAN,
    }
}

async fn start(app: Router) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(base)
}
