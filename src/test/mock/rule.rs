//! One rule of the mock: which requests it is for, what it does with each in turn, and how often.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};

use super::Shared;
use super::pattern::Pattern;
use crate::error::BoxFuture;
use crate::test::received::Received;
use crate::test::reply::{Fault, Reply};

/// A rule without an answer yet: made by [`MockTransport::on`](super::MockTransport::on), it says which requests the rule is for.
#[must_use = "a rule counts when its answer is said: reply, reply_with or fail"]
pub struct When {
    shared: Arc<Shared>,
    entry: Entry,
}

/// A rule that counts. What it says last can be changed, and more answers can follow.
pub struct Rule {
    shared: Arc<Shared>,
    number: usize,
}

/// What a rule does with one request: a [`Reply`], a [`Fault`], or what a function makes of it.
#[derive(Clone)]
pub struct Act(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Reply(Reply),
    Fault(Fault),
    Call(Arc<dyn Fn(Received) -> BoxFuture<'static, Reply> + Send + Sync>),
}

/// A rule as the mock keeps it.
pub(super) struct Entry {
    method: Option<Method>,
    pub(super) pattern: Pattern,
    conditions: Vec<Condition>,
    times: Option<usize>,
    acts: Vec<(Act, Duration)>,
    used: usize,
}

/// What else must be true of a request, and what it is if that is not.
struct Condition {
    otherwise: String,
    holds: Box<dyn Fn(&Received) -> bool + Send + Sync>,
}

impl When {
    pub(super) fn new(shared: Arc<Shared>, method: Option<Method>, pattern: Pattern) -> Self {
        Self {
            shared,
            entry: Entry {
                method,
                pattern,
                conditions: Vec::new(),
                times: None,
                acts: Vec::new(),
                used: 0,
            },
        }
    }

    /// Only requests with this field, one of whose values is this. Panics if the name is none.
    #[track_caller]
    pub fn header<N>(self, name: N, value: impl AsRef<[u8]>) -> Self
    where
        N: TryInto<HeaderName, Error: fmt::Display>,
    {
        let name = match name.try_into() {
            Ok(name) => name,
            Err(why) => panic!("a rule of the mock: {why}"),
        };
        let value = value.as_ref().to_vec();
        self.only_if(format!("no such value of {name}"), move |received| {
            let mut values = received.headers.get_all(&name).iter();
            values.any(|one| one.as_bytes() == value)
        })
    }

    /// Only requests with this body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        self.only_if("another body", move |received| received.body == body)
    }

    /// Only requests on a connection that has carried one before, or only those on a new one.
    pub fn reused(self, reused: bool) -> Self {
        let otherwise = if reused {
            "a new connection"
        } else {
            "a connection that was used before"
        };
        self.only_if(otherwise, move |received| received.reused == reused)
    }

    /// Only requests that this is true of. It must not call the mock.
    pub fn matching(self, holds: impl Fn(&Received) -> bool + Send + Sync + 'static) -> Self {
        self.only_if("not what the rule's own test wants", holds)
    }

    /// The rule is for so many requests in all. Default: any number.
    pub fn times(mut self, times: usize) -> Self {
        self.entry.times = Some(times);
        self
    }

    /// Answers with this status and body. Panics if the status is none.
    #[track_caller]
    pub fn reply<S>(self, status: S, body: impl Into<Bytes>) -> Rule
    where
        S: TryInto<StatusCode, Error: fmt::Display>,
    {
        self.act(Reply::new(status, body))
    }

    /// Answers with what an async function makes of the request. What it captures must be `Clone`.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use sockeye::test::{MockTransport, Received, Reply};
    /// use sockeye::{Client, Method};
    ///
    /// let mock = MockTransport::new();
    /// mock.on(Method::POST, "http://echo.test/*")
    ///     .reply_with(async |request: Received| Reply::new(200, request.body));
    /// let client = Client::builder().connector(mock).build()?;
    /// let response = client.post("http://echo.test/any").body("hello").send().await?;
    /// assert_eq!(response.text().await?, "hello");
    /// # Ok::<(), sockeye::Error>(()) }).unwrap();
    /// ```
    pub fn reply_with<F, R>(self, answer: F) -> Rule
    where
        F: FnOnce(Received) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        self.act(Act::call(answer))
    }

    /// Fails in this way.
    pub fn fail(self, fault: Fault) -> Rule {
        self.act(fault)
    }

    /// Answers or fails: a [`Reply`] with fields or pieces, or a [`Fault`].
    pub fn act(mut self, act: impl Into<Act>) -> Rule {
        self.entry.acts.push((act.into(), Duration::ZERO));
        let number = {
            let mut state = self.shared.lock();
            state.rules.push(self.entry);
            state.rules.len() - 1
        };
        self.shared.changed.notify_waiters();
        Rule {
            shared: self.shared,
            number,
        }
    }

    pub(in crate::test) fn only_if(
        mut self,
        otherwise: impl Into<String>,
        holds: impl Fn(&Received) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.entry.conditions.push(Condition {
            otherwise: otherwise.into(),
            holds: Box::new(holds),
        });
        self
    }
}

impl Rule {
    /// What is done with the next request. The last of a rule's answers is given to all that follow.
    pub fn then(self, act: impl Into<Act>) -> Self {
        let act = act.into();
        self.change(|entry| entry.acts.push((act, Duration::ZERO)))
    }

    /// How long the answer that was said last waits after the request has come. Default: not at all.
    pub fn delay(self, delay: Duration) -> Self {
        self.change(|entry| {
            if let Some((_, waits)) = entry.acts.last_mut() {
                *waits = delay;
            }
        })
    }

    /// The rule is for so many requests in all. Default: any number.
    pub fn times(self, times: usize) -> Self {
        self.change(|entry| entry.times = Some(times))
    }

    /// How many requests the rule has answered, and dials refused.
    pub fn used(&self) -> usize {
        let state = self.shared.lock();
        state.rules.get(self.number).map_or(0, |entry| entry.used)
    }

    fn change(self, change: impl FnOnce(&mut Entry)) -> Self {
        if let Some(entry) = self.shared.lock().rules.get_mut(self.number) {
            change(entry);
        }
        self.shared.changed.notify_waiters();
        self
    }
}

impl Act {
    pub(super) fn call<F, R>(answer: F) -> Self
    where
        F: FnOnce(Received) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        Self(Kind::Call(Arc::new(move |received| {
            Box::pin(answer.clone()(received))
        })))
    }
}

impl From<Reply> for Act {
    fn from(reply: Reply) -> Self {
        Self(Kind::Reply(reply))
    }
}

impl From<Fault> for Act {
    fn from(fault: Fault) -> Self {
        Self(Kind::Fault(fault))
    }
}

/// Why a rule does not answer a request.
pub(super) enum Misfit {
    /// It is for other requests.
    Other,
    UsedUp,
    Condition(String),
}

impl Entry {
    /// What it does next, if it is not used up.
    pub(super) fn next(&self) -> Option<&(Act, Duration)> {
        if self.times.is_some_and(|times| self.used >= times) {
            return None;
        }
        self.acts.get(self.used).or(self.acts.last())
    }

    /// The fault that it has for the next dial, if it has one.
    pub(super) fn next_of_dials(&self) -> Option<Fault> {
        match self.next() {
            Some((Act(Kind::Fault(fault)), _)) if fault.is_of_dials() => Some(*fault),
            _ => None,
        }
    }

    pub(super) fn fits(
        &self,
        origin: &crate::url::Origin,
        received: &Received,
    ) -> Result<(), Misfit> {
        let fits_method = self
            .method
            .as_ref()
            .is_none_or(|own| *own == received.method);
        if !fits_method || !self.pattern.fits(origin, &received.url) {
            return Err(Misfit::Other);
        }
        let unmet = self.conditions.iter().find(|one| !(one.holds)(received));
        if let Some(unmet) = unmet {
            return Err(Misfit::Condition(unmet.otherwise.clone()));
        }
        self.next().map(|_| ()).ok_or(Misfit::UsedUp)
    }

    /// Counts a use; answers what is done, and after which delay.
    pub(super) fn take(&mut self) -> Option<(Act, Duration)> {
        let next = self.next()?.clone();
        self.used += 1;
        Some(next)
    }

    /// What is missing, if something is.
    pub(super) fn unmet(&self, number: usize) -> Option<String> {
        let wanted = self.times.unwrap_or(self.acts.len());
        let least = if self.times.is_some() {
            ""
        } else {
            "at least "
        };
        (self.used < wanted).then(|| {
            format!(
                "rule {number} ({self}) was used {} times of {least}{wanted}",
                self.used
            )
        })
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.as_ref().map_or("any method", Method::as_str);
        write!(f, "{method} {}", self.pattern)
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When")
            .field(&format_args!("{}", self.entry))
            .finish()
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("number", &(self.number + 1))
            .field("used", &self.used())
            .finish()
    }
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Reply(reply) => reply.fmt(f),
            Kind::Fault(fault) => fault.fmt(f),
            Kind::Call(_) => f.write_str("Call"),
        }
    }
}
