//! One reply of a server, written as it is, and what a client makes of it.
//!
//! After the call a second request shows whether the connection was reused, and that the first reply did not spoil it.

use sockeye::{Client, Error, ErrorKind, Redirects, RequestBuilder};
use tokio::task::yield_now;

use super::peer::{PeerConnection, Request, World, ok, settle};

/// The bytes of a reply and how they are written.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    /// Whether the peer closes the connection behind them.
    pub(crate) closes: bool,
    pub(crate) pace: Pace,
}

/// In which pieces a reply is written. The client reads each before the next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// All at once.
    Whole,
    /// So many bytes at a time.
    Pieces(usize),
}

/// What came of a call.
pub(crate) struct Outcome {
    pub(crate) result: Result<Answer, Error>,
    /// The request as it came; `None` if it was refused before it was sent.
    pub(crate) sent: Option<Request>,
    pub(crate) reused: bool,
}

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<http::HeaderMap>,
}

/// Sends `request`, which goes to `origin`, answers it with `reply`, and makes a second request to the same origin.
pub(crate) async fn exchange(
    world: &World,
    client: &Client,
    request: RequestBuilder,
    origin: &str,
    reply: Reply,
) -> Outcome {
    let serving = tokio::spawn(serve(world.clone(), reply));
    // A reply is looked at, not obeyed.
    let result = read(request.redirects(Redirects::none())).await;
    let refused = matches!(&result, Err(error) if error.kind() == ErrorKind::InvalidRequest);
    let (connection, sent) = if refused {
        serving.abort();
        (None, None)
    } else {
        let (connection, request) = serving.await.unwrap();
        (connection, Some(request))
    };
    let before = world.accepts();
    let again = tokio::spawn(serve_again(world.clone(), connection));
    let second = client
        .get(format!("{origin}/again"))
        .send()
        .await
        .expect("the second request works whatever the first met");
    assert_eq!(second.header("content-length"), Some("5"));
    let reused = world.accepts() == before;
    assert_eq!(
        second.text().await.unwrap(),
        "again",
        "the second response is its own"
    );
    settle(client, world).await;
    again.abort();
    Outcome {
        result,
        sent,
        reused,
    }
}

async fn read(request: RequestBuilder) -> Result<Answer, Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let version = format!("{:?}", response.version());
    let headers = response.headers().clone();
    let collected = response.collect().await?;
    Ok(Answer {
        status,
        version,
        headers,
        body: collected.bytes.to_vec(),
        trailers: collected.trailers,
    })
}

/// Serves the first request. A connection that the peer closes is not handed back.
async fn serve(world: World, reply: Reply) -> (Option<PeerConnection>, Request) {
    let mut connection = world.accept().await;
    let request = connection.read_request().await;
    let size = match reply.pace {
        Pace::Whole => reply.bytes.len().max(1),
        Pace::Pieces(size) => size,
    };
    for piece in reply.bytes.chunks(size) {
        // The client may have closed already when it does not like what it reads.
        if !connection.try_write(piece).await {
            break;
        }
        yield_now().await;
        yield_now().await;
    }
    ((!reply.closes).then_some(connection), request)
}

/// Serves the second request wherever it comes.
async fn serve_again(world: World, first: Option<PeerConnection>) {
    let mut old = first;
    loop {
        let mut connection = match old.take() {
            Some(connection) => connection,
            None => world.accept().await,
        };
        while let Some(request) = connection.next_request().await {
            assert_eq!(request.target(), "/again");
            if !connection.try_write(ok("again").as_bytes()).await {
                break;
            }
        }
    }
}
