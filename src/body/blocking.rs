//! Work of a body that may block or takes long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Work that may block, on a thread of the runtime's that may be blocked. Dropped, it does not begin if it has not yet.
pub(super) struct Job<T>(Result<JoinHandle<io::Result<T>>, Option<io::Error>>);

impl<T: Send + 'static> Job<T> {
    pub(super) fn new(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Self {
        Self(match Handle::try_current() {
            Ok(runtime) => Ok(runtime.spawn_blocking(work)),
            Err(error) => Err(Some(io::Error::other(error))),
        })
    }
}

impl<T> Future for Job<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            // The runtime may shut down before the work begins.
            Ok(job) => {
                ready!(Pin::new(job).poll(cx)).unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            Err(error) => Err(error.take().unwrap_or_else(|| io::ErrorKind::Other.into())),
        })
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        if let Ok(job) = &self.0 {
            job.abort();
        }
    }
}
