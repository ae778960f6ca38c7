//! Stands in for `socks` in a build without it. Never called: the URL of such a proxy is refused.

use std::fmt;
use std::io;

use super::Socket;
use super::proxy::Login;
use super::tunnel::Destination;

pub(crate) const SOCKS_BUILT_IN: bool = false;

/// What a proxy did that cannot happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SocksFailure {}

impl SocksFailure {
    pub(super) fn is_final(self) -> bool {
        match self {}
    }

    pub(super) fn may_be_the_address(self) -> bool {
        match self {}
    }
}

impl fmt::Display for SocksFailure {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(super) async fn negotiate(
    _: &mut Socket,
    _: Option<&Login>,
    to: Destination<'_>,
) -> io::Result<Result<(), SocksFailure>> {
    let to = match to {
        Destination::Origin(origin) => origin.to_string(),
        Destination::Address(address) => address.to_string(),
    };
    Err(io::Error::new(io::ErrorKind::Unsupported, to))
}
