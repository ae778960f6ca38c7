//! The h2 crate by itself, used well: one connection driven by a task, a handle for each slot, windows that do not
//! hold the peer up, and every byte released as it is taken.
//!
//! Not an HTTP client: no pool, no limits, no timeouts.

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Uri, header};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::pieces::Pieces;
use super::{Slot, expect_ok};
use crate::scenario::{Failure, Target};
use crate::sending::send_piece;

/// A handle of the session, and the target.
pub(crate) struct Bare {
    session: SendRequest<Bytes>,
    target: Target,
}

impl Bare {
    async fn send(
        &mut self,
        method: Method,
        uri: Uri,
        is_all: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let fields = request.headers_mut();
        fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        fields.insert(header::USER_AGENT, HeaderValue::from_static("bare/0.1.0"));
        fields.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("gzip, deflate"),
        );
        std::future::poll_fn(|cx| self.session.poll_ready(cx)).await?;
        Ok(self.session.send_request(request, is_all)?)
    }
}

impl Slot for Bare {
    type Shared = OnceCell<SendRequest<Bytes>>;

    fn shared(_: &Target) -> Result<Self::Shared, Failure> {
        Ok(OnceCell::new())
    }

    async fn open(session: &Self::Shared, target: &Target) -> Result<Self, Failure> {
        let session = session.get_or_try_init(|| handshake(target)).await?;
        Ok(Self {
            session: session.clone(),
            target: target.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        let (response, _) = self
            .send(Method::GET, self.target.small.clone(), true)
            .await?;
        collect(response).await
    }

    async fn download(&mut self) -> Result<u64, Failure> {
        let (response, _) = self
            .send(Method::GET, self.target.big.clone(), true)
            .await?;
        let mut body = body(response).await?;
        let mut received = 0;
        while let Some(data) = next(&mut body).await? {
            received += data.len() as u64;
        }
        Ok(received)
    }

    async fn upload(&mut self) -> Result<u64, Failure> {
        let (response, mut stream) = self
            .send(Method::POST, self.target.small.clone(), false)
            .await?;
        let mut pieces = Pieces::of(self.target.big_bytes).peekable();
        while let Some(piece) = pieces.next() {
            send_piece(&mut stream, piece, pieces.peek().is_none()).await?;
        }
        collect(response).await
    }
}

async fn handshake(target: &Target) -> Result<SendRequest<Bytes>, Failure> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let (session, connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(target.bare.stream())
        .initial_connection_window_size(target.bare.connection())
        .handshake(stream)
        .await?;
    // A failure of the connection reaches the streams too, so the task's own result is not needed.
    tokio::spawn(connection);
    Ok(session)
}

async fn body(response: ResponseFuture) -> Result<RecvStream, Failure> {
    let response = response.await?;
    expect_ok(response.status())?;
    Ok(response.into_body())
}

/// The next data; the peer may send as much again.
async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, Failure> {
    let Some(data) = body.data().await.transpose()? else {
        return Ok(None);
    };
    body.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// The length of the collected body. Like the others it hands out an owned one, and copies nothing that came in
/// one piece.
async fn collect(response: ResponseFuture) -> Result<u64, Failure> {
    let mut body = body(response).await?;
    let Some(first) = next(&mut body).await? else {
        return Ok(0);
    };
    let Some(second) = next(&mut body).await? else {
        return Ok(first.len() as u64);
    };
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    while let Some(data) = next(&mut body).await? {
        all.extend_from_slice(&data);
    }
    Ok(all.freeze().len() as u64)
}
