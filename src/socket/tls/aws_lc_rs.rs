//! The cryptography of aws-lc-rs: the one of the feature `tls`, and so the one of a build that has both.

pub(super) use rustls::crypto::aws_lc_rs::default_provider;
