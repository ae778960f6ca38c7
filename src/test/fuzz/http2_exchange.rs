//! Any bytes as what a peer of HTTP/2 says to a request, through the public client and over a stream in memory.

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
use crate::config::{HttpVersions, Limits};
use crate::deadline::Timeouts;
use crate::error::{BoxFuture, ErrorKind, Result};
use crate::socket::{Connect, Route, Socket};
use crate::test::check;

/// Answers a request with the bytes, and one to another host as it should be. The first byte chooses the request, the settings
/// of the client, whether the peer begins with its settings as it should, and whether it closes behind the bytes.
pub fn http2_exchange(data: &[u8]) {
    if !crate::pool::HTTP2_BUILT_IN {
        return;
    }
    let (choice, input) = split(data);
    let whole = run(choice, input, &[]);
    for cuts in cuts(input) {
        // Byte by byte is dear; two cuts find what it finds in a long input.
        if cuts.len() > 256 {
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
    /// Of what kind depends on whether the peer was heard out before it was refused.
    Failed,
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
        .connector(Peers::new(input, cuts, pick(4), pick(16)))
        .timeouts(Timeouts::none())
        .limits(limits)
        .http_versions(HttpVersions::Http2PriorKnowledge)
        .error_for_status(pick(32))
        .max_body(64 * 1024)
        .build()
        .expect("these settings are valid");
    let outcome = match give_up_on(first_call(&client, choice)).await {
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
            Outcome::Failed
        }
        None => Outcome::Stalled,
    };
    // Whatever the first met, a call to another host has its own response.
    let second = async {
        let response = client.get("http://good.test/").send().await?;
        assert_eq!(response.status(), 200);
        response.bytes().await
    };
    let second = give_up_on(second).await.expect("a good peer answers");
    assert_eq!(second.expect("a good peer is understood"), "good");
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

/// Drops a future that makes no progress any more. No time passes here, and everything that can move does so in some turns.
async fn give_up_on<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut turns = 0;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if turns == 1024 => Poll::Ready(None),
        Poll::Pending => {
            turns += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// The first connection to `peer.test` leads to the scripted peer; all to `good.test` lead to a good one, and further ones to
/// `peer.test` end at once.
struct Peers(Mutex<Option<Peer>>);

impl Peers {
    fn new(input: &[u8], cuts: &[usize], closes: bool, begins: bool) -> Self {
        let mut pieces = VecDeque::new();
        if begins {
            pieces.push_back(SETTINGS.to_vec());
        }
        let mut from = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            pieces.push_back(input.get(from..end).unwrap_or_default().to_vec());
            from = end;
        }
        pieces.retain(|piece| !piece.is_empty());
        Self(Mutex::new(Some(Peer::new(pieces, closes))))
    }
}

impl Connect for Peers {
    fn connect<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        let peer = if route.origin().host() == "good.test" {
            Peer::new(VecDeque::from([GOOD.to_vec()]), false)
        } else {
            let scripted = self.0.lock().expect("no panic holds it").take();
            scripted.unwrap_or_else(|| Peer::new(VecDeque::new(), true))
        };
        Box::pin(async { Ok(Socket::from_io(peer)) })
    }
}

/// A peer that says its pieces once a request has come, and takes whatever it is told.
struct Peer {
    pieces: VecDeque<Vec<u8>>,
    closes: bool,
    /// What was written, as far as no frame of a request has been found in it.
    written: Vec<u8>,
    asked: bool,
    waker: Option<Waker>,
}

impl Peer {
    fn new(pieces: VecDeque<Vec<u8>>, closes: bool) -> Self {
        Self {
            pieces,
            closes,
            written: Vec::new(),
            asked: false,
            waker: None,
        }
    }

    /// Looks for the HEADERS of a request in what was written.
    fn look(&mut self) {
        let mut at = PREFACE;
        while let Some([_, l1, l2, kind, ..]) = self.written.get(at..at + 9) {
            self.asked |= *kind == 1;
            at += 9 + usize::from(*l1) * 256 + usize::from(*l2);
        }
    }
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
        if !self.asked {
            self.written.extend_from_slice(bytes);
            self.look();
        }
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

/// Bytes of the client's preface.
const PREFACE: usize = 24;

/// SETTINGS without a parameter.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// What a good peer says: its settings, and `200` with the body `good` on the first stream.
const GOOD: &[u8] =
    b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x04\0\x01\0\0\0\x01good";
