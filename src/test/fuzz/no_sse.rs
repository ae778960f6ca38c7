//! Stands in for `sse` in a build without events: it reads nothing.

/// See the build with the feature `sse`.
pub fn sse(_: &[u8]) {}
