//! The spine: what happens between a request and its response. Read this first.
//!
//! ```text
//!  run       one call: counts it, and puts its name on whatever fails
//!   └ attempts  one URL: tries again what provably was not processed
//!      └ exchange  one try: a connection of the pool, the request out, the response in
//! ```
//! This is the only code that repeats or delays a request. What it decides by is pure (`replay.rs`); what it does is done by
//! the pool. With nothing configured a call allocates nothing here.

mod replay;

use std::sync::{Arc, OnceLock};

use http::{Extensions, HeaderMap};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::body::Body;
use crate::deadline::{Deadline, Timeouts};
use crate::error::{Error, Result};
use crate::head::{DefaultFields, RequestHead, ResponseHead};
use crate::pool::{ConnectionInfo, Failed, Host, Pool};
use crate::response::{Content, Response};
use crate::stats::{Counters, Timings};

use replay::{Again, Replay};

/// What all calls of a client share.
pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) defaults: DefaultFields,
}

/// One call, as the user asked for it.
pub(crate) struct Call {
    pub(crate) head: RequestHead,
    pub(crate) body: Body,
    pub(crate) timeouts: Timeouts,
    /// The user vouches that the request may be sent twice.
    pub(crate) idempotent: bool,
    pub(crate) max_body: usize,
}

/// Where a call stands: what every step below needs.
struct Hop<'a> {
    engine: &'a Engine,
    host: &'a Arc<Host>,
    call: &'a mut Call,
    deadline: Deadline,
    started: Instant,
    replay: Replay,
}

/// What a try that succeeded brought.
struct Answered {
    head: ResponseHead,
    content: Content,
    trailers: Option<HeaderMap>,
    connection: Arc<ConnectionInfo>,
    timings: Timings,
    at: Instant,
}

/// Makes the call. Dropping the future cancels it: see `Lease::exchange` for what that does to the connection.
pub(crate) async fn run(engine: &Engine, mut call: Call) -> Result<Response> {
    let Ok(runtime) = Handle::try_current() else {
        return Err(Error::invalid(
            "no tokio runtime around the call; await it inside one",
        ));
    };
    let started = Instant::now();
    let host = engine.pool.host(&call.head.target, &runtime);
    let watch = Watch::begin(&host);
    let mut hop = Hop {
        engine,
        host: &host,
        deadline: Deadline::new(&call.timeouts, started),
        started,
        replay: Replay::new(&call.head, &call.body, call.idempotent),
        call: &mut call,
    };
    let outcome = attempts(&mut hop).await;
    let (attempts, replayable) = (hop.replay.attempts(), hop.replay.is_replayable());
    match outcome {
        Ok(answered) => {
            watch.responded(&answered, started);
            Ok(Response {
                head: answered.head,
                map: OnceLock::new(),
                content: answered.content,
                trailers: answered.trailers,
                target: call.head.target,
                extensions: Extensions::new(),
                connection: answered.connection,
                timings: answered.timings,
                attempts,
                max_body: call.max_body,
            })
        }
        Err(error) => {
            watch.failed(&error);
            Err(error.on_call(
                host.origin().clone(),
                &call.head.method,
                attempts,
                replayable,
            ))
        }
    }
}

/// Tries until there is a response, or a failure that another try could not be trusted to mend.
async fn attempts(hop: &mut Hop<'_>) -> Result<Answered> {
    let mut again = Again::Anywhere;
    loop {
        hop.replay.begin();
        let failed = match exchange(hop, again).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        match hop.replay.decide(&failed) {
            Some(next) => again = next,
            None => return Err(failed.error),
        }
        if let Some(body) = failed.unpolled {
            hop.call.body = body;
        }
        hop.host.counters().retried();
    }
}

/// One try: checkout, send, answer.
async fn exchange(hop: &mut Hop<'_>, again: Again) -> Result<Answered, Failed> {
    let begun = if hop.replay.attempts() == 1 {
        hop.started
    } else {
        Instant::now()
    };
    hop.deadline.begin_attempt(begun);
    let pool = &hop.engine.pool;
    let lent = match again {
        Again::Anywhere => {
            pool.checkout(hop.host, &hop.deadline, hop.replay.is_careful(), begun)
                .await
        }
        Again::Fresh => pool.checkout_fresh(hop.host, &hop.deadline, begun).await,
    };
    let (mut lease, ready) = lent.map_err(Failed::before_exchange)?;
    let call = &mut *hop.call;
    let answer = lease
        .exchange(
            &call.head,
            &hop.engine.defaults,
            &mut call.body,
            &hop.deadline,
            ready,
        )
        .await?;
    let at = Instant::now();
    let connection = Arc::clone(lease.info());
    let timings = timings(&connection, lease.is_reused(), [begun, ready, at]);
    hop.deadline.end_attempt();
    let content = if answer.streaming {
        Content::Apart(lease.into_body(hop.deadline, hop.started))
    } else {
        lease.release(at);
        Content::Kept
    };
    Ok(Answered {
        head: answer.head,
        content,
        trailers: answer.trailers,
        connection,
        timings,
        at,
    })
}

fn timings(connection: &ConnectionInfo, reused: bool, [begun, ready, at]: [Instant; 3]) -> Timings {
    let mut timings = Timings::default();
    timings.reused = reused;
    timings.head = Some(at.saturating_duration_since(ready));
    timings.pool_wait = (ready != begun).then(|| ready.saturating_duration_since(begun));
    if !reused {
        timings.resolve = connection.resolve;
        timings.connect = connection.connect;
        timings.tls = connection.handshake;
    }
    timings
}

/// Counts a call exactly once, as a response, as a failure or, when it is dropped without either, as cancelled.
struct Watch<'a> {
    counters: Option<&'a Counters>,
}

impl<'a> Watch<'a> {
    fn begin(host: &'a Host) -> Self {
        let counters = host.counters();
        counters.started();
        Self {
            counters: Some(counters),
        }
    }

    fn responded(mut self, answered: &Answered, started: Instant) {
        if let Some(counters) = self.counters.take() {
            let taken = answered.at.saturating_duration_since(started);
            counters.responded(answered.head.status.as_u16(), taken);
            if matches!(answered.content, Content::Kept) {
                counters.body_done(taken);
            }
        }
    }

    fn failed(mut self, error: &Error) {
        if let Some(counters) = self.counters.take() {
            counters.failed(error.kind(), error.phase());
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(counters) = self.counters {
            counters.cancelled();
        }
    }
}
