//! Bodies that are made when they are sent, anew for each attempt.
//!
//! The spine asks [`Body::made`] when it has a connection, before a byte of the request is written: what a factory says of the
//! length comes in time for the head, and a factory that fails costs no connection. Whoever polls such a body without asking
//! has it made by the first poll.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::{Body, Repr, Source, body_error};
use crate::error::{BoxFuture, Error};

/// Makes a body as often as it is sent.
pub(super) trait Factory: Send + Sync {
    /// A body to send.
    fn make(&self) -> BoxFuture<'static, io::Result<Body>>;

    /// Bytes of data that each one has, where that is known without making one.
    fn len(&self) -> Option<u64>;

    /// As [`len`](Self::len), where finding out takes a look at what the body will be made of.
    fn measure(&self) -> BoxFuture<'static, io::Result<Option<u64>>> {
        let len = self.len();
        Box::pin(async move { Ok(len) })
    }

    /// Whether it can make more than one.
    fn is_replayable(&self) -> bool {
        true
    }
}

impl Body {
    /// A body that can be sent again: `make` is called for each attempt, when there is a connection for it, and once more when
    /// a kept connection turns out to be dead. The connection waits meanwhile, so what takes long belongs into a stream that
    /// `make` gives. If that has a length it becomes the content length. An error of `make` ends the call with
    /// [`ErrorKind::Body`](crate::ErrorKind::Body) and nothing sent; the limits `attempt` and `total` of
    /// [`Timeouts`](crate::Timeouts) apply to it.
    ///
    /// ```
    /// use sockeye::Body;
    /// # struct Rows;
    /// # async fn query() -> std::io::Result<Rows> { Ok(Rows) }
    /// # impl futures_core::Stream for Rows {
    /// #     type Item = Result<String, std::io::Error>;
    /// #     fn poll_next(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
    /// #         std::task::Poll::Ready(None)
    /// #     }
    /// # }
    /// let body = Body::replay(|| Box::pin(async { Ok(Body::stream(query().await?)) }));
    /// ```
    pub fn replay(
        make: impl Fn() -> BoxFuture<'static, io::Result<Self>> + Send + Sync + 'static,
    ) -> Self {
        Self::from_factory(Function { len: None, make })
    }

    /// As [`replay`](Self::replay), for bodies of exactly `len` bytes each. A body of another length ends the call with
    /// [`ErrorKind::Body`](crate::ErrorKind::Body), and no byte beyond the length is ever sent.
    ///
    /// ```
    /// use sockeye::Body;
    ///
    /// let body = Body::replay_sized(5, || Box::pin(async { Ok("hello".into()) }));
    /// ```
    pub fn replay_sized(
        len: u64,
        make: impl Fn() -> BoxFuture<'static, io::Result<Self>> + Send + Sync + 'static,
    ) -> Self {
        let len = Some(len);
        Self::from_factory(Function { len, make })
    }

    pub(super) fn from_factory(factory: impl Factory + 'static) -> Self {
        Self(Repr::Factory(Arc::new(factory)))
    }

    /// What to send in place of this body; `None` if that is the body itself.
    pub(crate) fn made(&self) -> Option<BoxFuture<'static, io::Result<Self>>> {
        match &self.0 {
            Repr::Factory(factory) => Some(make(Arc::clone(factory), MAX_NESTED)),
            Repr::Empty | Repr::Full(_) | Repr::Source(_) => None,
        }
    }

    /// The same body once more, unless it can be read only once: a stream, or what another crate's body became.
    ///
    /// ```
    /// use sockeye::Body;
    ///
    /// assert!(Body::from("text").try_clone().is_some());
    /// ```
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Repr::Empty => Some(Self::empty()),
            Repr::Full(bytes) => Some(bytes.clone().into()),
            Repr::Factory(factory) => factory
                .is_replayable()
                .then(|| Self(Repr::Factory(Arc::clone(factory)))),
            Repr::Source(_) => None,
        }
    }

    /// Bytes of data, where that can be known without making the body.
    #[cfg_attr(
        not(feature = "multipart"),
        expect(dead_code, reason = "only forms ask")
    )]
    pub(super) async fn measured(&self) -> io::Result<Option<u64>> {
        match (&self.0, self.left()) {
            (Repr::Factory(factory), None) => factory.measure().await,
            (_, left) => Ok(left),
        }
    }

    /// The body, made if it has to be made.
    pub(super) async fn ready(self) -> io::Result<Self> {
        match self.made() {
            Some(making) => making.await,
            None => Ok(self),
        }
    }
}

/// What a factory makes its bodies of: a body that is copied each time, or one that is there once.
pub(super) struct Stock {
    body: Mutex<Option<Body>>,
    len: Option<u64>,
    replayable: bool,
}

impl Stock {
    pub(super) fn new(body: Body) -> Self {
        Self {
            len: body.left(),
            replayable: body.is_replayable(),
            body: Mutex::new(Some(body)),
        }
    }

    pub(super) fn next(&self) -> io::Result<Body> {
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match self.replayable {
            true => body.as_ref().and_then(Body::try_clone),
            false => body.take(),
        };
        next.ok_or_else(|| io::Error::other("a body that can be sent once was sent before"))
    }

    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    /// See [`Factory::measure`]; `None` of a body that is there once, which was taken.
    pub(super) fn measure(&self) -> BoxFuture<'static, io::Result<Option<u64>>> {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        match body.as_ref().map(|body| &body.0) {
            Some(Repr::Factory(factory)) => factory.measure(),
            _ => {
                let len = self.len;
                Box::pin(async move { Ok(len) })
            }
        }
    }

    pub(super) fn is_replayable(&self) -> bool {
        self.replayable
    }
}

/// A function of the user's.
struct Function<F> {
    len: Option<u64>,
    make: F,
}

impl<F> Factory for Function<F>
where
    F: Fn() -> BoxFuture<'static, io::Result<Body>> + Send + Sync,
{
    fn make(&self) -> BoxFuture<'static, io::Result<Body>> {
        (self.make)()
    }

    fn len(&self) -> Option<u64> {
        self.len
    }
}

/// Makes a body that is none of a factory, and holds it to the length that was said.
fn make(factory: Arc<dyn Factory>, nested: usize) -> BoxFuture<'static, io::Result<Body>> {
    Box::pin(async move {
        let mut body = factory.make().await?;
        if let Repr::Factory(inner) = body.0 {
            if nested == 0 {
                return Err(io::Error::other(format!(
                    "a body that can be sent again was made by more than {MAX_NESTED} others within one another"
                )));
            }
            body = make(inner, nested - 1).await?;
        }
        match factory.len() {
            Some(len) => hold(body, len),
            None => Ok(body),
        }
    })
}

/// The same body, certain to have `len` bytes or to fail.
fn hold(body: Body, len: u64) -> io::Result<Body> {
    match body.left() {
        Some(left) if left == len => Ok(body),
        Some(left) => Err(io::Error::other(format!(
            "a body of {len} bytes was announced, and one of {left} bytes was made"
        ))),
        None => Ok(exact(body, len)),
    }
}

/// The same body, which fails before a byte too many, and at its end if one is missing.
pub(super) fn exact(body: Body, len: u64) -> Body {
    Body::from_source(Exact {
        body,
        len,
        left: len,
    })
}

/// A body that is made by the first poll.
pub(super) enum Making {
    Future(BoxFuture<'static, io::Result<Body>>, Option<u64>),
    Made(Body),
}

impl Making {
    pub(super) fn begin(factory: &Arc<dyn Factory>) -> Self {
        Self::Future(make(Arc::clone(factory), MAX_NESTED), factory.len())
    }
}

impl Source for Making {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Self::Future(making, _) = self {
            match ready!(Pin::new(making).poll(cx)) {
                Ok(body) => *self = Self::Made(body),
                Err(error) => return Poll::Ready(Some(Err(body_error(error.into())))),
            }
        }
        match self {
            Self::Made(body) => body.poll_next(cx),
            Self::Future(..) => Poll::Pending,
        }
    }

    fn left(&self) -> Option<u64> {
        match self {
            Self::Future(_, len) => *len,
            Self::Made(body) => body.left(),
        }
    }
}

/// A body that does not know its length, held to the one that was announced for it.
struct Exact {
    body: Body,
    len: u64,
    left: u64,
}

impl Source for Exact {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.body.poll_next(cx));
        let (len, left) = (self.len, self.left);
        let broken = |why| Poll::Ready(Some(Err(body_error(io::Error::other(why).into()))));
        match &frame {
            Some(Ok(frame)) => {
                let more = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(after) = left.checked_sub(more) else {
                    return broken(format!("the body has more bytes than the {len} announced"));
                };
                self.left = after;
            }
            None if left > 0 => {
                return broken(format!(
                    "the body ended {left} bytes short of the {len} announced"
                ));
            }
            None | Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn left(&self) -> Option<u64> {
        Some(self.left)
    }
}

/// So many factories may give one another as bodies; one that gives itself would go on for ever.
const MAX_NESTED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A stream that does not say how long it is.
    struct Letters(&'static [&'static str]);

    impl futures_core::Stream for Letters {
        type Item = io::Result<&'static str>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let (first, rest) = match self.0 {
                [first, rest @ ..] => (*first, rest),
                [] => return Poll::Ready(None),
            };
            self.0 = rest;
            Poll::Ready(Some(Ok(first)))
        }
    }

    fn letters(pieces: &'static [&'static str]) -> Body {
        Body::stream(Letters(pieces))
    }

    async fn text(body: Body) -> Result<String, String> {
        let collected = body.collect().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&collected.bytes).into_owned())
    }

    #[tokio::test]
    async fn each_copy_is_made_anew() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let body = Body::replay(move || {
            let before = count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { Ok(format!("number {before}").into()) })
        });
        assert!(body.is_replayable() && !body.is_empty());
        assert_eq!(body.left(), None);
        let copy = body.try_clone().unwrap();
        assert_eq!(made.load(Ordering::SeqCst), 0, "nothing is made early");
        let sent = body.made().unwrap().await.unwrap();
        assert_eq!(sent.left(), Some(8));
        assert_eq!(text(sent).await.unwrap(), "number 0");
        assert_eq!(text(copy).await.unwrap(), "number 1");
        assert_eq!(text(body).await.unwrap(), "number 2");
    }

    #[tokio::test]
    async fn a_length_that_was_announced_is_kept() {
        const PIECES: &[&str] = &["ab", "", "cde"];
        let check = async |len, make: fn() -> Body, expected: Result<&str, &str>| {
            let body = Body::replay_sized(len, move || Box::pin(async move { Ok(make()) }));
            assert_eq!(body.left(), Some(len));
            match (text(body).await, expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(piece)) => assert!(error.contains(piece), "{error}"),
                (outcome, expected) => panic!("{outcome:?}, not {expected:?}"),
            }
        };
        check(5, || letters(PIECES), Ok("abcde")).await;
        check(0, || letters(&[]), Ok("")).await;
        check(5, || "abcde".into(), Ok("abcde")).await;
        check(6, || letters(PIECES), Err("1 bytes short of the 6")).await;
        check(4, || letters(PIECES), Err("more bytes than the 4")).await;
        check(4, || "abcde".into(), Err("one of 5 bytes was made")).await;
        check(4, Body::empty, Err("one of 0 bytes was made")).await;
    }

    #[tokio::test]
    async fn factories_give_factories_within_limits() {
        fn nested(levels: usize) -> Body {
            Body::replay(move || {
                Box::pin(async move {
                    Ok(match levels {
                        0 => "end".into(),
                        _ => nested(levels - 1),
                    })
                })
            })
        }
        assert_eq!(text(nested(MAX_NESTED)).await.unwrap(), "end");
        let error = text(nested(MAX_NESTED + 1)).await.unwrap_err();
        assert!(error.contains("more than 8 others"), "{error}");
    }

    #[tokio::test]
    async fn an_error_of_the_factory_is_the_bodys() {
        let body = Body::replay(|| Box::pin(async { Err(io::ErrorKind::NotFound.into()) }));
        let error = body.collect().await.unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Body);
        assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
    }
}
