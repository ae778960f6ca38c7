//! The other side of a connection in memory: reads requests, asks an [`Answerer`] and does what it says, over HTTP/1.1 and
//! HTTP/2. It is made for the client of this crate and reads each request whole before it answers.

mod http1;
#[cfg(feature = "http2")]
mod http2;
#[cfg(not(feature = "http2"))]
mod no_http2;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, Method, Uri, Version};
#[cfg(not(feature = "http2"))]
use no_http2 as http2;

pub(super) use http1::{fill, read_head, read_request};

use super::pipe::{Control, End};
use super::received::Received;
use super::reply::{Fault, Reply};
use crate::error::BoxFuture;
use crate::socket::Alpn;
use crate::url::Origin;

/// Who says what becomes of a request.
pub(super) trait Answerer: Send + Sync + 'static {
    /// What to do with a request, and how long after it has come.
    fn answer<'a>(&'a self, at: &'a Place, received: Received) -> BoxFuture<'a, (Act, Duration)>;

    /// Ends when connections to this origin that wait for a request are to close.
    fn dismissal<'a>(&'a self, origin: &'a Origin) -> BoxFuture<'a, ()>;
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Reply(Reply),
    Fault(Fault),
    /// The connection fails, and this says why.
    Deny(String),
}

/// Which connection it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) number: usize,
}

/// Serves a connection until it ends. Dropping it closes the connection.
pub(super) async fn serve(
    alpn: Alpn,
    io: End,
    control: Control,
    place: Place,
    answerer: Arc<dyn Answerer>,
) {
    let _ = match alpn {
        Alpn::Http1 => http1::serve(io, &control, &place, &*answerer).await,
        Alpn::Http2 => http2::serve(io, &control, place, answerer).await,
    };
}

/// A request without its body yet; `None` if target and host make no URL.
fn received(
    place: &Place,
    method: Method,
    target: &str,
    version: Version,
    headers: HeaderMap,
) -> Option<Received> {
    let url = if target.starts_with('/') || target == "*" {
        let host = headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.map_or_else(
            || place.origin.to_string(),
            |host| format!("{}://{host}", place.origin.scheme()),
        );
        format!("{host}{}", if target == "*" { "/*" } else { target })
    } else {
        target.to_owned()
    };
    Some(Received {
        method,
        url: Uri::try_from(url).ok()?,
        version,
        headers,
        body: bytes::Bytes::new(),
        connection: place.number,
        reused: false,
    })
}

/// The first of two that ends; `None` if it is the second. Dropping the other one must lose nothing.
async fn unless<T>(work: impl Future<Output = T>, stop: impl Future<Output = ()>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut stop = std::pin::pin!(stop);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        stop.as_mut().poll(cx).map(|()| None)
    })
    .await
}
