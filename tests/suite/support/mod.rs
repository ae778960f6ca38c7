//! What the tests stand on: peers, faults and streams. No test is in here.

pub(crate) mod faults;
pub(crate) mod peer;
pub(crate) mod streams;
