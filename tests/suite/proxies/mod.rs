//! Proxies: what is forwarded, what goes through tunnels, who is asked, and what never leaves with it.
//!
//! The proxies are scripts over connections in memory; `real` has one on real sockets.

mod choosing;
mod environment;
mod forwarding;
mod real;
#[cfg(feature = "socks")]
mod socks;
mod tunnels;

use sockeye::{Client, ClientBuilder, Proxy};

use crate::support::peer::{PeerConnection, Request, World};

/// A client whose calls go through a proxy of this world.
pub(crate) fn through(world: &World, url: &str) -> ClientBuilder {
    world.builder().proxy(proxy(url))
}

pub(crate) fn proxy(url: &str) -> Proxy {
    Proxy::all(url).unwrap()
}

/// The proxy's end of the next connection, after the request for a tunnel, which was answered with 200.
pub(crate) async fn tunnel(world: &World) -> (PeerConnection, Request) {
    let mut connection = world.accept().await;
    let request = connection
        .read_head()
        .await
        .expect("a request for a tunnel");
    connection
        .write("HTTP/1.1 200 Connection established\r\n\r\n")
        .await;
    (connection, request)
}

/// `user:s3cret`.
pub(crate) const CREDENTIALS: &str = "Basic dXNlcjpzM2NyZXQ=";

/// A call that fails, and its error; it may show nothing of the credentials that the tests use.
pub(crate) async fn fails(client: &Client, url: &str) -> sockeye::Error {
    let error = client.get(url).send().await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains("s3cret") && !shown.contains("dXNlc"),
        "{shown}"
    );
    error
}
