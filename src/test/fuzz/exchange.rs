//! Any bytes as what a peer says to a request, through the public client and over a stream in memory.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use super::{cuts, split};
use crate::client::Client;
use crate::config::Limits;
use crate::deadline::Timeouts;
use crate::error::{BoxFuture, ErrorKind, Result};
use crate::socket::{Connect, Route, Socket};
use crate::test::check;

/// Answers one request with the bytes and a second one, to the same host, as it should be. The first byte chooses the request,
/// the settings of the client, and whether the peer closes the connection behind the bytes.
pub fn exchange(data: &[u8]) {
    let (choice, input) = split(data);
    let whole = run(choice, input, &[]);
    for cuts in cuts(input) {
        // Byte by byte is dear; two cuts find what it finds in a long input.
        if cuts.len() > 512 {
            continue;
        }
        let cut = run(choice, input, &cuts);
        assert_eq!(cut, whole, "cut at {cuts:?}: {}", input.escape_ascii());
    }
}

/// What came of the first call.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Response {
        status: u16,
        fields: usize,
        body: Vec<u8>,
        trailers: usize,
    },
    Failed(ErrorKind),
    /// More was waited for, and the call given up.
    Stalled,
}

fn run(choice: u8, input: &[u8], cuts: &[usize]) -> Outcome {
    RUNTIME.with(|runtime| runtime.block_on(calls(choice, input, cuts)))
}

thread_local! {
    /// To make one costs more than a call.
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime in memory");
}

async fn calls(choice: u8, input: &[u8], cuts: &[usize]) -> Outcome {
    let pick = |bit: u8| choice & bit != 0;
    let mut limits = Limits::default();
    if pick(8) {
        limits = limits
            .with_max_head(128)
            .with_max_head_fields(4)
            .with_max_trailer(32);
    }
    let client = Client::builder()
        .connector(Peers::new(input, cuts, pick(4)))
        .timeouts(Timeouts::none())
        .limits(limits)
        .lenient_heads(pick(16))
        .error_for_status(pick(32))
        .max_body(64 * 1024)
        .build()
        .expect("these settings are valid");
    let first = first_call(&client, choice);
    let outcome = match give_up_on(first).await {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => {
            let kinds = [
                ErrorKind::Protocol,
                ErrorKind::TooLarge,
                ErrorKind::Io,
                ErrorKind::Status,
            ];
            assert!(kinds.contains(&error.kind()), "{error}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(['\r', '\n']), "{shown}");
            Outcome::Failed(error.kind())
        }
        None => Outcome::Stalled,
    };
    // Whatever the first met, the second has its own response.
    let second = async {
        let response = client.get("http://peer.test/again").send().await?;
        assert_eq!(response.status(), 200);
        response.bytes().await
    };
    let second = give_up_on(second).await.expect("a good peer answers");
    assert_eq!(second.expect("a good peer is understood"), AGAIN_BODY);
    for _ in 0..8 {
        yield_now().await;
    }
    check(&client);
    outcome
}

async fn first_call(client: &Client, choice: u8) -> Result<Outcome> {
    let url = "http://peer.test/";
    let request = match choice & 3 {
        0 | 1 => client.get(url),
        2 => client.head(url),
        _ => client.post(url).body("hello"),
    };
    let response = request.send().await?;
    let status = response.status().as_u16();
    let fields = response.headers().len();
    let collected = response.collect().await?;
    Ok(Outcome::Response {
        status,
        fields,
        body: collected.bytes.to_vec(),
        trailers: collected.trailers.map_or(0, |trailers| trailers.len()),
    })
}

/// Drops a future that makes no progress any more. No time passes here, and everything that can move does so in a few turns.
async fn give_up_on<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut turns = 0;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if turns == 64 => Poll::Ready(None),
        Poll::Pending => {
            turns += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// The first connection leads to the scripted peer, all others to a good one.
struct Peers(Mutex<Option<Peer>>);

impl Peers {
    fn new(input: &[u8], cuts: &[usize], closes: bool) -> Self {
        let mut pieces = VecDeque::new();
        let mut from = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            pieces.push_back(input.get(from..end).unwrap_or_default().to_vec());
            from = end;
        }
        pieces.retain(|piece| !piece.is_empty());
        Self(Mutex::new(Some(Peer {
            pieces,
            closes,
            asked: false,
            waker: None,
        })))
    }
}

impl Connect for Peers {
    fn connect<'a>(&'a self, _route: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        let scripted = self.0.lock().expect("no panic holds it").take();
        let peer = scripted.unwrap_or_else(|| Peer {
            pieces: VecDeque::from([AGAIN.to_vec()]),
            closes: false,
            asked: false,
            waker: None,
        });
        Box::pin(async { Ok(Socket::from_io(peer)) })
    }
}

/// A peer that says its pieces once it was asked, and answers each later request as it should.
struct Peer {
    pieces: VecDeque<Vec<u8>>,
    closes: bool,
    asked: bool,
    waker: Option<Waker>,
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.asked {
            if let Some(mut piece) = self.pieces.pop_front() {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.pieces.push_front(rest);
                }
                return Poll::Ready(Ok(()));
            }
            if self.closes {
                return Poll::Ready(Ok(()));
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.asked {
            assert!(bytes.starts_with(b"GET /again "), "one write a request");
            assert!(
                self.pieces.is_empty(),
                "a request went out while bytes were unread"
            );
            assert!(!self.closes, "a request went out on a closed connection");
            self.pieces.push_back(AGAIN.to_vec());
        }
        self.asked = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a good peer says.
const AGAIN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nagain";
const AGAIN_BODY: &[u8] = b"again";
