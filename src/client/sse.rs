//! Server-sent events of one response.

use crate::body::Events;
use crate::response::Response;

impl Response {
    /// The body as server-sent events (WHATWG HTML, section 9.2), as they arrive; of a response to any method. If its content
    /// type is not `text/event-stream`, the first item is an error of kind [`Decode`](crate::ErrorKind::Decode) that names it.
    /// There is no limit to how many events there are; one of them may have 16 MiB: see
    /// [`Events::max_event`].
    ///
    /// A stream that is silent for longer than `Timeouts::read` fails; comments that servers send to keep it alive count as
    /// data. [`Timeouts::patient`](crate::Timeouts::patient) waits for ten minutes, which suits APIs that think. A total limit
    /// would cut a healthy stream, so that it is better left unset.
    ///
    /// ```no_run
    /// use sockeye::{Client, Timeouts};
    ///
    /// # async fn run() -> sockeye::Result<()> {
    /// let client = Client::builder().timeouts(Timeouts::patient()).build()?;
    /// let response = client
    ///     .post("https://api.example.com/v1/chat")
    ///     .header("accept", "text/event-stream")
    ///     .body("{}")
    ///     .send()
    ///     .await?;
    /// let mut events = response.events().until(|event| event.data() == "[DONE]");
    /// while let Some(event) = events.next().await {
    ///     println!("{}", event?.data());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn events(self) -> Events {
        let kind = self.media_type();
        let status = self.status().as_u16();
        let pieces = self.into_pieces();
        if kind.eq_ignore_ascii_case(EVENT_STREAM) {
            Events::new(pieces)
        } else {
            let what = format!("the body of status {status} is no {EVENT_STREAM}: it has {kind}");
            Events::refused(pieces, what)
        }
    }
}

/// The media type of a stream of events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
