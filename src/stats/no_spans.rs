//! In place of spans.rs where the feature `tracing` is not compiled in: there are no spans.

use std::future::Future;
use std::net::SocketAddr;

use http::{Method, StatusCode, Uri, Version};

use crate::error::Error;
use crate::url::Origin;

pub(crate) fn are_on() -> bool {
    false
}

pub(crate) struct AttemptSpan;

impl AttemptSpan {
    pub(crate) fn begin(_: &Method, _: &Origin, _: &Uri, _: u32) -> Self {
        Self
    }

    pub(crate) async fn around<F: Future>(&self, work: F) -> F::Output {
        work.await
    }

    pub(crate) fn ends(self, _: Result<StatusCode, &Error>) {}
}

pub(crate) fn connected(_: Version, _: Option<SocketAddr>) {}

pub(crate) fn body_ends(_: u64, _: u64, _: BodyOutcome<'_>) {}

/// What became of a body.
#[derive(Clone, Copy)]
#[expect(dead_code, reason = "nobody looks")]
pub(crate) enum BodyOutcome<'a> {
    End,
    Failed(&'a Error),
    Dropped,
}
