//! hyper's HTTP/1.1 client connection: one connection for each task, driven by a task of its own as
//! hyper demands; no pool.

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::bodies::{collect, drain};
use super::pieces::Pieces;
use super::{Slot, expect_ok};
use crate::scenario::{Failure, Target};

/// The sending half of one connection.
pub(crate) struct Connection {
    sender: SendRequest<Pieces>,
    host: HeaderValue,
    small: Uri,
    big: Uri,
    post_body: Bytes,
    target: Target,
}

impl Connection {
    async fn send(
        &mut self,
        method: Method,
        uri: Uri,
        body: Pieces,
    ) -> Result<Response<Incoming>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, self.host.clone())
            .body(body)?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        expect_ok(response.status())?;
        Ok(response)
    }
}

impl Slot for Connection {
    type Shared = ();

    fn shared(_: &Target) -> Result<(), Failure> {
        Ok(())
    }

    async fn open((): &(), target: &Target) -> Result<Self, Failure> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // A failure of the connection reaches the sender too, so the task's own result is not needed.
        tokio::spawn(connection);
        Ok(Self {
            sender,
            host: HeaderValue::from_str(&target.address.to_string())?,
            small: origin_form(&target.small)?,
            big: origin_form(&target.big)?,
            post_body: target.post_body.clone(),
            target: target.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        collect(
            self.send(Method::GET, self.small.clone(), Pieces::one(Bytes::new()))
                .await?,
        )
        .await
    }

    async fn post(&mut self) -> Result<u64, Failure> {
        collect(
            self.send(
                Method::POST,
                self.small.clone(),
                Pieces::one(self.post_body.clone()),
            )
            .await?,
        )
        .await
    }

    async fn download(&mut self) -> Result<u64, Failure> {
        drain(
            self.send(Method::GET, self.big.clone(), Pieces::one(Bytes::new()))
                .await?,
        )
        .await
    }

    async fn upload(&mut self) -> Result<u64, Failure> {
        let body = Pieces::large(&self.target);
        collect(self.send(Method::POST, self.small.clone(), body).await?).await
    }
}

/// A connection without a client above it takes the target as it goes on the wire.
fn origin_form(uri: &Uri) -> Result<Uri, Failure> {
    let path = uri.path_and_query().ok_or("a URI without a path")?;
    Ok(Uri::from(path.clone()))
}
