//! A body that can be sent once, lent to the user's code: an interceptor around a try.
//!
//! Whoever has it sends it, changes it or throws it away. As long as nobody has asked it for anything it can be taken back, and goes
//! to the next try as whole as it was. Called by the spine; what was lent and taken back fails whoever asks it still.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::{Body, Source};
use crate::error::{Error, ErrorKind, Sent};

/// The lender's side.
pub(crate) struct Lent(Shared);

/// The borrower's.
struct Borrowed(Shared);

type Shared = Arc<Mutex<Slot>>;

struct Slot {
    /// `None` once it was taken back.
    body: Option<Body>,
    polled: bool,
}

impl Lent {
    /// A body for the borrower, and a hold on it.
    pub(crate) fn of(body: Body) -> (Self, Body) {
        let shared = Arc::new(Mutex::new(Slot {
            body: Some(body),
            polled: false,
        }));
        let borrowed = Borrowed(Arc::clone(&shared));
        (Self(shared), Body::from_source(borrowed))
    }

    /// Whether it can be taken back.
    pub(crate) fn is_whole(&self) -> bool {
        let slot = lock(&self.0);
        !slot.polled && slot.body.is_some()
    }

    /// The body, if nobody has asked it for anything.
    pub(crate) fn take_back(&self) -> Option<Body> {
        let mut slot = lock(&self.0);
        if slot.polled {
            return None;
        }
        slot.body.take()
    }
}

impl Source for Borrowed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut slot = lock(&self.0);
        slot.polled = true;
        match &mut slot.body {
            Some(body) => body.poll_next(cx),
            None => Poll::Ready(Some(Err(Error::new(ErrorKind::Body, None, Sent::Nothing)
                .saying("the request body was taken back for another try")))),
        }
    }

    fn left(&self) -> Option<u64> {
        lock(&self.0).body.as_ref()?.left()
    }
}

/// Held while a frame is asked for, which no other side does at the same time.
fn lock(shared: &Shared) -> MutexGuard<'_, Slot> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn next(body: &mut Body) -> Option<Result<Bytes, Error>> {
        match body.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => {
                frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
            }
            Poll::Pending => None,
        }
    }

    #[test]
    fn it_comes_back_while_it_is_whole() {
        let (lent, mut borrowed) = Lent::of(Body::from("text"));
        assert_eq!(borrowed.left(), Some(4));
        assert!(lent.is_whole());
        let mut back = lent.take_back().unwrap();
        assert!(!lent.is_whole());
        assert!(lent.take_back().is_none());
        let late = next(&mut borrowed).unwrap().unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Body);
        assert_eq!(next(&mut back).unwrap().unwrap(), "text");
    }

    #[test]
    fn what_was_asked_for_stays_with_who_asked() {
        let (lent, mut borrowed) = Lent::of(Body::from("text"));
        assert_eq!(next(&mut borrowed).unwrap().unwrap(), "text");
        assert!(!lent.is_whole());
        assert!(lent.take_back().is_none());
    }

    #[test]
    fn one_that_was_thrown_away_comes_back() {
        let (lent, borrowed) = Lent::of(Body::from("text"));
        drop(borrowed);
        assert!(lent.take_back().is_some());
    }
}
