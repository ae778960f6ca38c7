//! An answer that is streamed word by word, as APIs of language models send it: server-sent events behind a POST.
//!
//! ```text
//! cargo run --example sse_chat --features sse
//! ```
//!
//! It prints what comes as it comes. `until` says how the last event looks, so that an answer that breaks off is an error and
//! does not pass for a whole one. The server is one of its own; every second answer of it breaks off.

use std::error::Error;
use std::io::{Write, stdout};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use sockeye::{Client, ErrorKind, Timeouts};
use tokio::time::{Interval, interval};

#[derive(Serialize)]
struct Question<'a> {
    prompt: &'a str,
    stream: bool,
}

#[derive(Deserialize)]
struct Delta {
    text: String,
}

/// Asks, and prints the answer as it comes.
async fn ask(client: &Client, url: &str, prompt: &str) -> Result<String, Box<dyn Error>> {
    let question = Question {
        prompt,
        stream: true,
    };
    let response = client
        .post(url)
        .bearer_auth("a-secret-key")
        .json(&question)
        .send()
        .await?;
    let mut events = response.events().until(|event| event.data() == "[DONE]");
    let mut answer = String::new();
    while let Some(event) = events.next().await {
        let event = event?;
        if event.data() == "[DONE]" {
            continue;
        }
        let delta: Delta = event.json()?;
        write!(stdout(), "{}", delta.text)?;
        stdout().flush()?;
        answer.push_str(&delta.text);
    }
    println!();
    Ok(answer)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = start().await?;
    // Such a server thinks for longer than others before it answers, and between two words.
    let client = Client::builder().timeouts(Timeouts::patient()).build()?;

    let answer = ask(&client, &url, "Where do sockeye swim?").await?;
    assert_eq!(answer, WORDS.concat());

    let Err(broken) = ask(&client, &url, "Where do sockeye swim?").await else {
        return Err("an answer without its end passed for a whole one".into());
    };
    let error: &sockeye::Error = broken.downcast_ref().ok_or("an error of another kind")?;
    println!("\n\n{error}");
    assert_eq!(error.kind(), ErrorKind::Body);
    Ok(())
}

const WORDS: [&str; 5] = ["Up the ", "stream ", "that they ", "were ", "born in."];

async fn start() -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/chat", listener.local_addr()?);
    let asked = Arc::new(AtomicUsize::new(0));
    let app = Router::new()
        .route("/v1/chat", post(answer))
        .with_state(asked);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}

async fn answer(State(asked): State<Arc<AtomicUsize>>) -> Response {
    let breaks_off = asked.fetch_add(1, Ordering::Relaxed) % 2 == 1;
    let words = WORDS.iter().take(if breaks_off { 3 } else { WORDS.len() });
    let mut events: Vec<_> = words
        .map(|word| format!("data: {{\"text\":{word:?}}}\n\n"))
        .collect();
    if !breaks_off {
        events.push("data: [DONE]\n\n".to_owned());
    }
    let body = Body::new(Paced {
        events: events.into_iter(),
        ticks: interval(Duration::from_millis(20)),
    });
    ([("content-type", "text/event-stream")], body).into_response()
}

/// A body with an event at each tick.
struct Paced {
    events: std::vec::IntoIter<String>,
    ticks: Interval,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        ready!(self.ticks.poll_tick(cx));
        let next = self.events.next();
        Poll::Ready(next.map(|event| Ok(http_body::Frame::data(event.into()))))
    }
}
