//! Tells how far a body has come.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::factory::{Factory, Stock};
use super::{Body, Repr, Source};
use crate::error::{BoxFuture, Error};

impl Body {
    /// Calls `tell` with the bytes that were taken of this body so far, and with how many there are in all where that is known,
    /// at each piece of 64 KiB or less; an empty body has none. A connection takes a piece when the one before it is on its
    /// way, so that the numbers are ahead of the wire by one piece, and by what the system buffers. A body that is sent again
    /// begins at its first piece again. `tell` runs inside the call, so it must not block. What the body is otherwise, such
    /// as its length, and that it can be sent again, stays as it is; the body of a response can be watched as well.
    ///
    /// ```
    /// use sockeye::Body;
    ///
    /// let body = Body::file("film.mkv").with_progress(|sent, total| match total {
    ///     Some(total) => eprintln!("{sent} of {total} bytes"),
    ///     None => eprintln!("{sent} bytes"),
    /// });
    /// ```
    #[must_use]
    pub fn with_progress(self, tell: impl Fn(u64, Option<u64>) + Send + Sync + 'static) -> Self {
        let tell = Arc::new(tell);
        match self.0 {
            Repr::Empty => self,
            Repr::Source(_) => watch(self, tell),
            Repr::Full(_) | Repr::Factory(_) => Self::from_factory(Watched {
                stock: Stock::new(self),
                tell,
            }),
        }
    }
}

type Tell = dyn Fn(u64, Option<u64>) + Send + Sync;

/// A body that can be sent again, watched each time.
struct Watched {
    stock: Stock,
    tell: Arc<Tell>,
}

impl Factory for Watched {
    fn make(&self) -> BoxFuture<'static, io::Result<Body>> {
        let (body, tell) = (self.stock.next(), Arc::clone(&self.tell));
        Box::pin(async move { Ok(watch(body?.ready().await?, tell)) })
    }

    fn len(&self) -> Option<u64> {
        self.stock.len()
    }

    fn measure(&self) -> BoxFuture<'static, io::Result<Option<u64>>> {
        self.stock.measure()
    }

    fn is_replayable(&self) -> bool {
        self.stock.is_replayable()
    }
}

fn watch(body: Body, tell: Arc<Tell>) -> Body {
    Body::from_source(Watching {
        total: body.left(),
        body,
        rest: Bytes::new(),
        taken: 0,
        tell,
    })
}

/// A body that is being watched.
struct Watching {
    body: Body,
    /// What is left of a piece that is too large to be told of at once.
    rest: Bytes,
    taken: u64,
    total: Option<u64>,
    tell: Arc<Tell>,
}

impl Source for Watching {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.rest.is_empty() {
            match ready!(self.body.poll_next(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(STEP));
        self.taken += piece.len() as u64;
        (self.tell)(self.taken, self.total);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn left(&self) -> Option<u64> {
        Some(self.body.left()? + self.rest.len() as u64)
    }

    fn pause(&mut self) {
        self.body.pause();
    }
}

/// Bytes between two calls at most.
const STEP: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    type Told = Arc<Mutex<Vec<(u64, Option<u64>)>>>;

    fn watched(body: Body) -> (Body, Told) {
        let told = Told::default();
        let tell = Arc::clone(&told);
        let body = body.with_progress(move |taken, total| {
            tell.lock().unwrap().push((taken, total));
        });
        (body, told)
    }

    #[tokio::test]
    async fn each_piece_is_told_of_and_the_last_number_is_the_length() {
        let step = STEP as u64;
        for (len, numbers) in [
            (0, vec![]),
            (1, vec![1]),
            (STEP, vec![step]),
            (2 * STEP + 5, vec![step, 2 * step, 2 * step + 5]),
        ] {
            let (body, told) = watched(Body::from(vec![7; len]));
            assert_eq!(body.left(), Some(len as u64));
            let copy = body.try_clone().unwrap();
            for body in [body, copy] {
                assert_eq!(body.collect().await.unwrap().bytes, vec![7; len]);
                let total = Some(len as u64);
                let expected: Vec<_> = numbers.iter().map(|taken| (*taken, total)).collect();
                assert_eq!(std::mem::take(&mut *told.lock().unwrap()), expected);
            }
        }
    }

    #[tokio::test]
    async fn what_a_body_is_stays_as_it_is() {
        let (empty, told) = watched(Body::empty());
        assert!(empty.is_empty() && empty.collect().await.unwrap().bytes.is_empty());
        assert!(told.lock().unwrap().is_empty());

        let (stream, told) = watched(Body::wrap(Body::from("hello")));
        assert!(!stream.is_replayable() && stream.try_clone().is_none());
        assert_eq!(stream.left(), Some(5));
        assert_eq!(stream.collect().await.unwrap().bytes, "hello");
        assert_eq!(*told.lock().unwrap(), [(5, Some(5))]);

        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let arrived = Body::with_trailers("hi".into(), Some(Box::new(trailers.clone())));
        let collected = watched(arrived).0.collect().await.unwrap();
        assert_eq!(collected.trailers, Some(trailers));

        let (made, told) = watched(Body::replay(|| Box::pin(async { Ok("four".into()) })));
        assert_eq!(made.left(), None);
        let made = made.made().unwrap().await.unwrap();
        assert_eq!(made.left(), Some(4));
        made.collect().await.unwrap();
        assert_eq!(*told.lock().unwrap(), [(4, Some(4))]);
    }
}
