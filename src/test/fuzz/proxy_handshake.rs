//! Any bytes as what a proxy says to a request for a tunnel, over HTTP and over SOCKS5.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{cuts, split};
use crate::config::Limits;
use crate::socket::{
    Destination, First, Proxies, Proxy, SOCKS_BUILT_IN, Socket, TunnelFailure, open_tunnel,
};
use crate::url::{Target, UrlInput};

/// Asks for a tunnel. The first byte chooses the proxy, who may speak first in the tunnel, and the limits. The verdict is the
/// same however the bytes come, nothing behind the answer is taken in, and an error is one line without secrets.
pub fn proxy_handshake(data: &[u8]) {
    let (choice, input) = split(data);
    let whole = run(choice, input, &[]);
    for cuts in cuts(input) {
        let cut = run(choice, input, &cuts);
        assert_eq!(cut, whole, "cut at {cuts:?}: {}", input.escape_ascii());
    }
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// A tunnel. That bytes behind the answer are refused depends on when they come.
    Tunnel,
    Failed(String),
}

fn run(choice: u8, input: &[u8], cuts: &[usize]) -> Outcome {
    let pick = |bit: u8| choice & bit != 0;
    let by_socks = SOCKS_BUILT_IN && pick(2);
    let url = match (by_socks, pick(1)) {
        (false, false) => "http://proxy.test",
        (false, true) => "http://user:s3cret@proxy.test",
        (true, false) => "socks5h://proxy.test",
        (true, true) => "socks5h://user:s3cret@proxy.test",
    };
    let first = if pick(4) { First::Either } else { First::We };
    let mut limits = Limits::default();
    if pick(8) {
        limits = limits
            .with_max_head(128)
            .with_max_head_fields(4)
            .with_max_informational(2);
    }
    let target = target(if pick(16) {
        "https://[::1]:8443"
    } else {
        "http://a.test"
    });
    let proxies = Proxies::Set(vec![Proxy::all(url).expect("a URL of the list")]);
    let via = proxies.choose(&target).expect("no mistake in it");
    let via = via.expect("the proxy is for every URL");
    let taken = Arc::new(AtomicUsize::new(0));
    let mut socket = Socket::from_io(Script {
        input: input.to_vec(),
        cuts: cuts.to_vec(),
        taken: Arc::clone(&taken),
    });
    let origin = target.origin();
    let opening = open_tunnel(
        &mut socket,
        via,
        Destination::Origin(&origin),
        first,
        &limits,
    );
    let mut opening = pin!(opening);
    let Poll::Ready(opened) = opening
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("it waits for nothing");
    };
    let taken = taken.load(Ordering::Relaxed);
    match opened {
        Ok(()) => {
            let answer = input.get(..taken).unwrap_or_default();
            check(answer, by_socks);
            Outcome::Tunnel
        }
        Err(TunnelFailure::Unsolicited(bytes)) => {
            assert!(!by_socks && first == First::We && bytes > 0 && bytes < taken);
            check(input.get(..taken - bytes).unwrap_or_default(), by_socks);
            Outcome::Tunnel
        }
        Err(failure) => {
            let shown = format!("{failure} {failure:?}");
            assert!(!failure.to_string().contains(char::is_control), "{shown}");
            assert!(
                !shown.contains("s3cret") && !shown.contains("dXNlc"),
                "{shown}"
            );
            // Of bytes that are no head as many are shown as have come.
            Outcome::Failed(match failure {
                TunnelFailure::Head(error) => format!("{:?}", error.rule),
                other => other.to_string(),
            })
        }
    }
}

/// What is taken for an answer is one, to its last byte.
fn check(answer: &[u8], by_socks: bool) {
    if by_socks {
        assert!(
            answer.starts_with(&[5]) && answer.len() >= 2 + 10 - 3,
            "{answer:?}"
        );
    } else {
        assert!(answer.ends_with(b"\r\n\r\n"), "{}", answer.escape_ascii());
        let line = answer
            .windows(5)
            .any(|word| word == b"1.1 2" || word == b"1.0 2");
        assert!(line, "{}", answer.escape_ascii());
    }
}

fn target(url: &str) -> Target {
    let parsed = UrlInput::Text(url.into()).parse(None);
    parsed.expect("a URL of the list").target
}

/// Gives the input in pieces, and ends; takes whatever is written.
struct Script {
    input: Vec<u8>,
    cuts: Vec<usize>,
    taken: Arc<AtomicUsize>,
}

impl AsyncRead for Script {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let at = self.taken.load(Ordering::Relaxed);
        let next = self.cuts.iter().find(|cut| **cut > at);
        let end = next.copied().unwrap_or(self.input.len());
        let end = end.min(at + buf.remaining()).min(self.input.len());
        buf.put_slice(self.input.get(at..end).unwrap_or_default());
        self.taken.store(end, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
