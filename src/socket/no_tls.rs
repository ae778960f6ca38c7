//! Stands in for `tls` in a build without it: the same names, and no way to reach them at run time.
//!
//! `https` is refused before a connection is dialled, so the stream type here has no values.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Alpn, Socket};
use crate::config::HttpVersions;
use crate::stats::CloseCause;

pub(crate) const TLS_BUILT_IN: bool = false;

/// Settings of TLS, of which this build has none.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig(());

/// What the handshake settled; never made in this build.
#[derive(Clone, Debug)]
pub struct TlsInfo(TlsFailure);

/// A stream that cannot exist.
pub(super) struct TlsStream(TlsFailure);

/// A handshake that cannot run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TlsFailure {}

impl TlsConfig {
    pub(crate) fn id(&self) -> u64 {
        let Self(()) = self;
        0
    }

    /// Nothing of these settings changes.
    pub(crate) fn on_reload(
        &self,
        listener: impl Fn() + Send + Sync + 'static,
    ) -> Arc<dyn Fn() + Send + Sync> {
        Arc::new(listener)
    }
}

impl TlsInfo {
    /// Never called: there is no value.
    pub fn version(&self) -> &str {
        match self.0 {}
    }

    /// Never called: there is no value.
    pub fn resumed(&self) -> bool {
        match self.0 {}
    }
}

impl TlsFailure {
    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        match *self {}
    }

    pub(crate) fn is_broken_off(&self) -> bool {
        match *self {}
    }
}

impl std::error::Error for TlsFailure {}

impl fmt::Display for TlsFailure {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// None is needed.
pub(super) fn gather_entropy() {}

pub(super) async fn handshake(
    _: &TlsConfig,
    _: &str,
    _: HttpVersions,
    _: Socket,
) -> Result<(TlsStream, TlsInfo, Option<Alpn>), TlsFailure> {
    // The client refuses https before it dials.
    std::future::pending().await
}

pub(super) fn below(stream: &TlsStream) -> &Socket {
    match stream.0 {}
}

pub(super) fn keeps_any(stream: &TlsStream) -> bool {
    match stream.0 {}
}

pub(super) fn let_go(stream: &mut TlsStream) {
    match stream.0 {}
}

pub(super) fn settle(stream: &mut TlsStream, _: &mut Context<'_>) -> Result<(), CloseCause> {
    match stream.0 {}
}

pub(super) fn say_goodbye(stream: &mut TlsStream) {
    match stream.0 {}
}

pub(super) fn holds_nothing(stream: &mut TlsStream) -> bool {
    match stream.0 {}
}

#[cfg_attr(
    not(feature = "http2"),
    expect(dead_code, reason = "only HTTP/2 lends its errors")
)]
pub(crate) fn is_tls(_: &io::Error) -> bool {
    false
}

pub(crate) fn tls_failure(error: io::Error) -> Result<TlsFailure, io::Error> {
    Err(error)
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
