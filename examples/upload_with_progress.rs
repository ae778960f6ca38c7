//! A file that is uploaded with a progress bar, and fetched again into another file.
//!
//! ```text
//! cargo run --example upload_with_progress
//! ```
//!
//! The file is never in memory as a whole, its length is told to the server, and it would be opened again if the upload had to
//! be made again. The server is one of its own.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::put;
use sockeye::Client;
use tokio::sync::Mutex;

const SIZE: usize = 8 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = start().await?;
    let folder = Folder::new()?;
    let content: Vec<u8> = (0..SIZE).map(|at| (at * 31 % 251) as u8).collect();
    let (film, copy) = (folder.0.join("film.mkv"), folder.0.join("copy.mkv"));
    std::fs::write(&film, &content)?;

    let client = Client::new();
    let told = Arc::new(AtomicU64::new(0));
    let last = Arc::clone(&told);
    // The callback runs inside the call: it must be quick.
    let body = sockeye::Body::file(&film).with_progress(move |sent, total| {
        let percent = |bytes: u64| bytes * 100 / total.unwrap_or(u64::MAX).max(1);
        let before = last.swap(sent, Ordering::Relaxed);
        if percent(sent) / 10 > percent(before) / 10 {
            println!("up {:3} %  {sent} bytes", percent(sent));
        }
    });
    let response = client.put(&url).body(body).send().await?;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(told.load(Ordering::Relaxed), SIZE as u64);

    let bytes = client.get(&url).send().await?.save(&copy).await?;
    println!("down        {bytes} bytes");
    assert!(
        std::fs::read(&copy)? == content,
        "what came back is what was sent"
    );
    Ok(())
}

/// A folder that goes when the example ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let name = format!("sockeye-upload-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Kept = Arc<Mutex<Bytes>>;

async fn start() -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/film", listener.local_addr()?);
    let store = async |State(kept): State<Kept>, body: Body| {
        let Ok(bytes) = to_bytes(body, 2 * SIZE).await else {
            return StatusCode::PAYLOAD_TOO_LARGE;
        };
        *kept.lock().await = bytes;
        StatusCode::CREATED
    };
    let load = async |State(kept): State<Kept>| kept.lock().await.clone();
    let app = Router::new()
        .route("/film", put(store).get(load))
        .with_state(Kept::default());
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}
