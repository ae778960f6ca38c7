//! Server-sent events of a source that is connected to again whenever its stream ends (WHATWG HTML, section 9.2.3).
//!
//! ```text
//!  Idle ──▶ Connecting ──▶ Open ──▶ Waiting ──▶ Connecting …      what passes by itself: wait, and try again
//!              └─────────────┴────▶ Ended                         what does not: an error, and the end
//! ```
//! One state that its reader's own task polls: there is no task behind it, and dropping it closes it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::{Sleep, sleep};

use super::RequestBuilder;
use super::sse::EVENT_STREAM;
use crate::body::{Event, Events};
use crate::error::{BoxFuture, Error, ErrorKind, Phase, Result, Sent};
use crate::response::Response;

/// The events of a source, over as many connections as it takes. Made by
/// [`RequestBuilder::event_source`](crate::RequestBuilder::event_source).
///
/// When a stream ends, is cut off or falls silent for `Timeouts::read`, and when no connection comes about, the source is asked
/// again for what comes behind the last event (`last-event-id`). Before that it waits: 3 s, or what the stream said (`retry`,
/// taken as from 100 ms to 10 min), twice as long after each try in a row that gave no event, up to 20 s if it began below, and
/// up to half as long again by chance, so that many clients of a server that went away do not come back together.
///
/// A status of 204 is the end. Any other status but 200, a content type that is not `text/event-stream`, events that cannot be
/// read, a failed TLS handshake and a closed client give an error, and that is the end.
pub struct EventSource {
    /// What is sent each time.
    request: RequestBuilder,
    state: State,
    last_id: Arc<str>,
    /// What the wait begins with.
    retry: Duration,
    max_event: Option<usize>,
    /// Tries in a row that gave no event, and whether this one did.
    failures: u32,
    gave: bool,
    max_failures: Option<u32>,
}

enum State {
    Idle,
    /// The mutex is never locked: `get_mut` alone makes a future that is only `Send` part of a `Sync` source.
    Connecting(Mutex<BoxFuture<'static, Result<Response>>>),
    Open(Box<Events>),
    Waiting(Pin<Box<Sleep>>),
    /// It cannot be asked as it was built.
    Refused(Error),
    Ended,
}

impl RequestBuilder {
    /// Reads the events of this URL, and connects again when the stream ends: see [`EventSource`]. Only GET can be asked again;
    /// for the events of one response to any other method see [`Response::events`](crate::Response::events). Unless they are
    /// set, `accept: text/event-stream` and `cache-control: no-store` are sent; a `last-event-id` that is set is where it begins.
    ///
    /// ```no_run
    /// use sockeye::{Client, Timeouts};
    ///
    /// # async fn run() -> sockeye::Result<()> {
    /// let client = Client::builder().timeouts(Timeouts::patient()).build()?;
    /// let mut source = client.get("https://api.example.com/changes").event_source();
    /// while let Some(event) = source.next().await {
    ///     println!("{}", event?.data());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn event_source(mut self) -> EventSource {
        let head = &mut self.call.head;
        let state = match head.method {
            Method::GET => State::Idle,
            _ => State::Refused(Error::invalid(format!(
                "event_source: the method is {}, and only GET can be asked again",
                head.method
            ))),
        };
        let headers = &mut head.headers;
        headers
            .entry(ACCEPT)
            .or_insert(HeaderValue::from_static(EVENT_STREAM));
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        let begin = headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes);
        let last_id = begin.and_then(|id| std::str::from_utf8(id).ok());
        EventSource {
            last_id: Arc::from(last_id.unwrap_or_default()),
            request: self,
            state,
            retry: RETRY,
            max_event: None,
            failures: 0,
            gave: false,
            max_failures: None,
        }
    }
}

impl EventSource {
    /// After so many tries in a row that gave no event, the error of the last one is given, and that is the end. Default: there is
    /// no such limit, and the source is asked again for as long as somebody reads.
    #[must_use]
    pub fn max_failures(mut self, tries: u32) -> Self {
        self.max_failures = Some(tries);
        self
    }

    /// Bytes of one event: see [`Events::max_event`]. Default 16 MiB.
    #[must_use]
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.max_event = Some(bytes);
        self
    }

    /// The next event; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        struct Waiting<'a>(&'a mut EventSource);

        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                if let State::Open(events) = &mut self.0.state {
                    events.pause();
                }
            }
        }

        let waiting = Waiting(self);
        poll_fn(|cx| waiting.0.poll_event(cx)).await
    }

    /// The last id that the source has given: what it will be asked to go on from. Empty if there was none.
    pub fn last_event_id(&self) -> &str {
        match &self.state {
            State::Open(events) => events.last_event_id(),
            _ => &self.last_id,
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        loop {
            match &mut self.state {
                State::Idle => self.connect(),
                State::Connecting(connecting) => {
                    let connecting = connecting.get_mut().expect("nobody ever locks it");
                    match ready!(connecting.as_mut().poll(cx)) {
                        Ok(response) => self.opened(response),
                        Err(error) => self.failed(Some(error)),
                    }
                }
                State::Open(events) => {
                    let event = ready!(events.poll_event(cx));
                    self.last_id = Arc::clone(events.shared_id());
                    if let Some(retry) = events.retry() {
                        self.retry = retry.clamp(MIN_RETRY, MAX_RETRY);
                    }
                    match event {
                        Some(Ok(event)) => {
                            self.failures = 0;
                            self.gave = true;
                            return Poll::Ready(Some(Ok(event)));
                        }
                        Some(Err(error)) => self.failed(Some(error)),
                        None => self.failed(None),
                    }
                }
                State::Waiting(wait) => {
                    ready!(wait.as_mut().poll(cx));
                    self.connect();
                }
                State::Refused(_) | State::Ended => {
                    return Poll::Ready(match std::mem::replace(&mut self.state, State::Ended) {
                        State::Refused(error) => Some(Err(error)),
                        _ => None,
                    });
                }
            }
        }
    }

    /// Asks the source for what comes behind the last event.
    fn connect(&mut self) {
        let Some(mut request) = self.request.try_clone() else {
            let error =
                Error::invalid("event_source: a body that is a stream cannot be sent again");
            self.state = State::Refused(error);
            return;
        };
        let headers = &mut request.call.head.headers;
        headers.remove(LAST_EVENT_ID);
        // An id that no field can hold came from a server that does not want it back.
        if let (false, Ok(id)) = (
            self.last_id.is_empty(),
            HeaderValue::from_bytes(self.last_id.as_bytes()),
        ) {
            headers.insert(LAST_EVENT_ID, id);
        }
        self.gave = false;
        self.state = State::Connecting(Mutex::new(Box::pin(request.send())));
    }

    fn opened(&mut self, response: Response) {
        self.state = match response.status() {
            StatusCode::OK => {
                let mut events = response.events().resume(Arc::clone(&self.last_id));
                if let Some(max_event) = self.max_event {
                    events = events.max_event(max_event);
                }
                State::Open(Box::new(events))
            }
            StatusCode::NO_CONTENT => State::Ended,
            status => State::Refused(
                Error::new(ErrorKind::Protocol, Some(Phase::Head), Sent::All)
                    .saying(format!(
                        "a stream of events begins with status 200, and the server answered with {}",
                        status.as_u16()
                    ))
                    .at(&response.target.origin()),
            ),
        };
    }

    /// A try has ended, in an orderly way or with an error.
    fn failed(&mut self, error: Option<Error>) {
        let passes = error.as_ref().is_none_or(passes_by_itself);
        let wait = wait(self.retry, self.failures, RandomState::new().hash_one(0));
        self.failures = self.failures.saturating_add(u32::from(!self.gave));
        let too_many = self
            .max_failures
            .is_some_and(|most| self.failures >= most && !self.gave);
        self.state = match error {
            _ if passes && !too_many => State::Waiting(Box::pin(sleep(wait))),
            Some(error) => State::Refused(error),
            None => State::Refused(
                Error::new(ErrorKind::Body, Some(Phase::Read), Sent::All).saying(format!(
                    "the stream of events ended without an event, {} times in a row (max_failures)",
                    self.failures
                )),
            ),
        };
    }
}

/// Whether another try could go better.
fn passes_by_itself(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::CircuitOpen
            | ErrorKind::Connect
            | ErrorKind::Io
            | ErrorKind::PoolFull
            | ErrorKind::Protocol
            | ErrorKind::Proxy
            | ErrorKind::RateLimited
            | ErrorKind::Resolve
            | ErrorKind::Timeout
    )
}

/// How long to wait after so many tries in a row that gave nothing.
fn wait(retry: Duration, failures: u32, random: u64) -> Duration {
    let doubled = retry.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    let wait = doubled.min(LONGEST_WAIT.max(retry));
    // 0 to 1,023 parts of 2,046.
    wait + wait * u32::try_from(random % 1024).unwrap_or_default() / 2046
}

impl Stream for EventSource {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource")
            .field("request", &self.request)
            .field("last_event_id", &self.last_event_id())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long to wait before connecting again, if the stream does not say it.
const RETRY: Duration = Duration::from_secs(3);

/// The shortest time that a stream can say: it must not make its readers spin.
const MIN_RETRY: Duration = Duration::from_millis(100);

/// The longest time that a stream can say: it must not make its readers sleep for ever.
const MAX_RETRY: Duration = Duration::from_secs(600);

/// What doubling ends at, unless the stream asked for more.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_its_end_and_varies_by_half() {
        let seconds = Duration::from_secs;
        for (retry, failures, least) in [
            (3, 0, 3),
            (3, 1, 6),
            (3, 2, 12),
            (3, 3, 20),
            (3, 40, 20),
            (60, 0, 60),
            (60, 5, 60),
        ] {
            assert_eq!(
                wait(seconds(retry), failures, 0),
                seconds(least),
                "{retry} {failures}"
            );
            let most = wait(seconds(retry), failures, 1023);
            assert_eq!(most, seconds(least) * 3 / 2);
            let random = wait(seconds(retry), failures, u64::MAX);
            assert!((seconds(least)..=most).contains(&random));
        }
    }
}
