//! The cryptography of ring: the one of a build with the feature `ring` and without `tls`.

pub(super) use rustls::crypto::ring::default_provider;
