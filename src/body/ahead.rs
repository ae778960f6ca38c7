//! A body of which a part was read before its reader asked: so that a small one frees its connection while somebody waits for
//! something else.

use std::collections::VecDeque;
use std::mem::take;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::timeout;

use super::{Body, Source};
use crate::error::Error;

/// Takes in what comes of a body within `limit` bytes and `wait`. Its reader notices nothing: what was read, an error
/// included, comes first.
pub(crate) async fn read_ahead(body: &mut Body, limit: usize, wait: Duration) {
    let mut frames = VecDeque::new();
    let reading = async {
        let mut room = limit;
        while let Some(frame) = body.next_frame().await {
            let len = frame
                .as_ref()
                .ok()
                .and_then(Frame::data_ref)
                .map_or(0, Bytes::len);
            frames.push_back(frame);
            if len > room {
                return;
            }
            room -= len;
        }
    };
    // What was read by then is kept; the rest stays where it is.
    let _ = timeout(wait, reading).await;
    if !frames.is_empty() {
        let rest = take(body);
        *body = Body::from_source(Ahead { frames, rest });
    }
}

/// Frames that were read, and the body that they are of.
struct Ahead {
    frames: VecDeque<Result<Frame<Bytes>, Error>>,
    rest: Body,
}

impl Source for Ahead {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.rest.poll_next(cx),
        }
    }

    fn left(&self) -> Option<u64> {
        let read = self
            .frames
            .iter()
            .filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let read: usize = read.map(Bytes::len).sum();
        Some(read as u64 + self.rest.left()?)
    }

    fn pause(&mut self) {
        self.rest.pause();
    }
}
