//! Where observers are registered.

use std::sync::Arc;

use super::ClientBuilder;
use crate::stats::Observer;

impl ClientBuilder {
    /// Adds an observer, which is told of what the client does as it does it: see [`Observer`]. Of several each is told, in the order in
    /// which they were added. Default none; then nothing is made to be told.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use sockeye::stats::Event;
    /// use sockeye::{Client, EventMask, Observer};
    ///
    /// #[derive(Default)]
    /// struct Dials(AtomicU64);
    ///
    /// impl Observer for Dials {
    ///     fn interest(&self) -> EventMask {
    ///         EventMask::DIALS
    ///     }
    ///
    ///     fn on(&self, event: &Event<'_>) {
    ///         if matches!(event, Event::DialStart { .. }) {
    ///             self.0.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///     }
    /// }
    ///
    /// let dials = Arc::new(Dials::default());
    /// let client = Client::builder().observer(Arc::clone(&dials)).build()?;
    /// # Ok::<(), sockeye::Error>(())
    /// ```
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }
}
