//! The client as a service of the tower kind (feature `tower`), for layers that others have written.

use std::any::Any;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::{Client, RequestBuilder};
use crate::body::Body;
use crate::error::{BoxError, BoxFuture, Error};

/// Sends the request and answers with the head and a body that is still to be read.
///
/// It is always ready: a limit on what runs at once is the pool's, or a layer's. A status is never an error here, whatever the
/// client's setting, because layers decide by statuses. The URL must be absolute, or be a path that
/// [`base_url`](crate::ClientBuilder::base_url) completes. A body that is a [`Body`] stays what it is, so that one that
/// can be sent again is. Dropping the future cancels the call as dropping that of [`RequestBuilder::send`] does.
///
/// ```no_run
/// use bytes::Bytes;
/// use http::Request;
/// use sockeye::{Body, Client};
/// use tower_service::Service;
///
/// # async fn run() -> sockeye::Result<()> {
/// let mut client = Client::new();
/// let request = Request::get("http://example.com/").body(Body::empty()).expect("a good request");
/// let response = client.call(request).await?;
/// println!("{}", response.status());
/// let body: Bytes = response.into_body().collect().await?.bytes;
/// # Ok(()) }
/// ```
impl<B> Service<Request<B>> for Client
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(into_body);
        let call = RequestBuilder::from_http(self.clone(), request).error_for_status(false);
        Box::pin(async move { Ok(call.send().await?.into_http()) })
    }
}

/// The body as one of ours; one that is already is not wrapped.
fn into_body<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = Some(body);
    if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>() {
        return own.take().unwrap_or_default();
    }
    body.map_or_else(Body::empty, Body::wrap)
}
