//! The atomics that policies are made of: the standard library's; with `--cfg sockeye_loom` those of loom in tests, which tries every
//! order in which threads can touch them (`interleavings.rs`).

#[cfg(all(test, sockeye_loom))]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(all(test, sockeye_loom))]
pub(super) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, sockeye_loom)))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(all(test, sockeye_loom)))]
pub(super) use std::sync::{Mutex, MutexGuard};
