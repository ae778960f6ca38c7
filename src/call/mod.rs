//! The spine: what happens between a request and its response. Read this first.
//!
//! ```text
//!  run       one call: interceptors around it (interceptor.rs)
//!   └ follow   goes where redirects lead (hops.rs)
//!      └ hop      one URL: counts it, and puts its name on whatever fails
//!         └ attempts  asks the policies before each attempt and after it (trying.rs)
//!            └ replays   one attempt: sends again at once what provably may be sent again
//!               └ exchange  one try: a connection of the pool, the request out, the response in
//! ```
//! This is the only code that repeats or delays a request. What it decides by is pure (`replay.rs`, the folder `policy`); what it
//! does is done by the pool. With nothing configured a call allocates nothing here, and its response is made where the call's future
//! keeps it: the steps above hand down the place instead of handing up some 300 bytes six times.

#[cfg(feature = "cookies")]
mod cookies;
mod hops;
mod identity;
mod interceptor;
mod lots;
#[cfg(not(feature = "cookies"))]
mod no_cookies;
mod replay;
mod trying;
mod versions;
mod watched;
mod ways;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{Extensions, HeaderMap, StatusCode};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::body::{Accepted, Body};
use crate::config::HttpVersions;
use crate::deadline::{Deadline, Timeouts};
use crate::error::{BoxFuture, Error, ErrorKind, Phase, Result, Sent};
use crate::head::{DefaultFields, RequestHead, ResponseHead};
use crate::policy::{Policies, Redirects, Retry};
use crate::pool::{
    AnswerBody, Asked, Failed, Host, Pool, Proxies, TLS_BUILT_IN, Way, check_request,
};
use crate::response::{Content, Moments, Response};
use crate::stats::{CallTold, Counters, Observers, RetryCause};
use crate::url::Target;

#[cfg(feature = "cookies")]
pub use cookies::{CookieJar, CookieStore};
use hops::Trail;
pub use identity::Authenticator;
use identity::Worn;
pub(crate) use identity::{Identity, Scoped};
pub(crate) use interceptor::Interceptors;
pub use interceptor::{Interceptor, Next, on_request, on_response};
pub(crate) use lots::Lots;
#[cfg(not(feature = "cookies"))]
pub(crate) use no_cookies::CookieJar;
use replay::Replay;
pub(crate) use trying::Trying;
pub(crate) use versions::of_target as versions_for;
pub(crate) use watched::is_watched;
pub(crate) use ways::of_target as way_for;

/// What all calls of a client share.
pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) defaults: DefaultFields,
    pub(crate) timeouts: Timeouts,
    pub(crate) versions: HttpVersions,
    /// The socket of the Unix domain that all connections lead to.
    pub(crate) unix: Option<Arc<Path>>,
    /// `None` for a client that never goes through a proxy.
    pub(crate) proxies: Option<Box<Proxies>>,
    pub(crate) https_only: bool,
    pub(crate) redirects: Redirects,
    pub(crate) interceptors: Interceptors,
    pub(crate) attempt_interceptors: Interceptors,
    /// `None` for a client without credentials of its own.
    pub(crate) identity: Option<Box<Identity>>,
    pub(crate) policies: Policies,
    pub(crate) lots: Lots,
    /// `None` for a client that nobody observes.
    pub(crate) observers: Option<Arc<Observers>>,
}

impl Engine {
    /// Whether a request may go there: asked of what the caller wrote and of where a redirect leads.
    pub(crate) fn check_scheme(&self, target: &Target) -> Result<()> {
        if target.is_https() {
            if !TLS_BUILT_IN {
                return Err(Error::invalid(
                    "https needs the feature `tls`, which this build does not have",
                ));
            }
        } else if self.https_only {
            return Err(Error::invalid(
                "the scheme is http, but the client allows https only (https_only)",
            ));
        }
        Ok(())
    }
}

/// One call, as the user asked for it.
pub(crate) struct Call {
    pub(crate) head: RequestHead,
    pub(crate) body: Body,
    /// Most calls have nothing of their own.
    pub(crate) own: Option<Arc<Own>>,
    /// The user vouches that the request may be sent twice.
    pub(crate) idempotent: bool,
    pub(crate) max_body: usize,
    /// The content codings that are taken off the response.
    pub(crate) accepted: Accepted,
    /// For interceptors.
    pub(crate) extensions: Extensions,
    /// When the call began, if an interceptor has made this one of it.
    pub(crate) started: Option<Instant>,
    /// Whom it is told to; `None` if nobody watches it.
    pub(crate) told: Option<Arc<CallTold>>,
}

/// What a call has in place of its client's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) versions: Option<HttpVersions>,
    pub(crate) redirects: Option<Redirects>,
    pub(crate) unix: Option<Arc<Path>>,
    pub(crate) proxies: Option<Arc<Proxies>>,
    pub(crate) retry: Option<Arc<Retry>>,
}

impl Call {
    /// What it has of its own, to be changed.
    pub(crate) fn own_mut(&mut self) -> &mut Own {
        Arc::make_mut(self.own.get_or_insert_default())
    }

    /// One thing of those that it has of its own.
    pub(crate) fn own<T: ?Sized>(&self, one: impl FnOnce(&Own) -> Option<&T>) -> Option<&T> {
        self.own.as_deref().and_then(one)
    }

    /// Whether the caller, or a field, vouches that the request may be sent twice.
    pub(crate) fn is_vouched(&self) -> bool {
        self.idempotent || self.head.headers.contains_key("idempotency-key")
    }

    /// A call with the same options that leads nowhere yet.
    pub(crate) fn like(&self, body: Body) -> Self {
        Self {
            head: RequestHead {
                method: self.head.method.clone(),
                target: Target::nowhere(),
                headers: HeaderMap::new(),
                asks: self.head.asks.clone(),
            },
            body,
            own: self.own.clone(),
            idempotent: self.idempotent,
            max_body: self.max_body,
            accepted: self.accepted,
            extensions: Extensions::new(),
            started: self.started,
            told: self.told.clone(),
        }
    }
}

/// Where the response of a call is put. A step that succeeds has put one there.
pub(crate) type Place = Option<Response>;

/// Where a call stands at one URL: what every step below needs.
struct Hop<'a> {
    engine: &'a Arc<Engine>,
    host: &'a Arc<Host>,
    /// In its place, once the server has asked for HTTP/1.1.
    http1: Option<Arc<Host>>,
    runtime: &'a Handle,
    call: &'a mut Call,
    place: &'a mut Place,
    /// The client's, or what another origin may see of them.
    defaults: &'a DefaultFields,
    /// `None` inside interceptors around a try.
    worn: Option<&'a mut Worn>,
    deadline: Deadline<'a>,
    started: Instant,
    replay: Replay,
    course: Course,
}

/// How far the attempt at hand has come.
struct Course {
    begun: Instant,
    /// When the request was given to a connection. From then on a body that can be sent once is that connection's.
    given: Option<Instant>,
    /// Such a body, if the server answered that it wants the request another time, or elsewhere, before it took any of it.
    unpolled: Option<Box<Body>>,
}

impl Course {
    fn begin(now: Instant) -> Self {
        Self {
            begun: now,
            given: None,
            unpolled: None,
        }
    }
}

/// Makes the call. Dropping the future cancels it: see `Lease::exchange` for what that does to the connection.
pub(crate) async fn run(engine: &Arc<Engine>, call: &mut Call, place: &mut Place) -> Result<()> {
    match engine.interceptors.is_empty() && !watched::is_watched(engine) {
        true => follow(engine, call, place).await,
        false => Box::pin(watched::call(engine, call, place)).await,
    }
}

/// Goes where the call leads.
async fn follow(engine: &Arc<Engine>, call: &mut Call, place: &mut Place) -> Result<()> {
    let runtime = runtime()?;
    let own = call.own.clone();
    let timeouts = own.as_deref().and_then(|own| own.timeouts.as_ref());
    let timeouts = timeouts.unwrap_or(&engine.timeouts);
    let mut trail = Trail::begin(timeouts, call);
    loop {
        trail.dress(engine, call);
        hop(engine, call, place, &mut trail, &runtime).await?;
        let response = put(place);
        if let Some(identity) = &engine.identity {
            identity.learn(response);
        }
        if response.status() == StatusCode::UNAUTHORIZED && engine.identity.is_some() {
            // Boxed: it is rare, and would weigh on the future of every call.
            if Box::pin(trail.authenticate(engine, call, response)).await? {
                continue;
            }
        }
        if !response.status().is_redirection() || !trail.follow(engine, call, response)? {
            response.decode(call.accepted, &call.head.method);
            trail.end(response);
            return Ok(());
        }
    }
}

/// The runtime that the call is awaited on.
fn runtime() -> Result<Handle> {
    Handle::try_current()
        .map_err(|_| Error::invalid("no tokio runtime around the call; await it inside one"))
}

/// One URL of a call, counted as a request of its origin.
async fn hop(
    engine: &Arc<Engine>,
    call: &mut Call,
    place: &mut Place,
    trail: &mut Trail<'_>,
    runtime: &Handle,
) -> Result<()> {
    let (host, http1, versions) = hosts(engine, call, runtime)
        .map_err(|error| error.on_call(call.head.target.origin(), &call.head.method, 0, false))?;
    let watch = Watch::begin(&host);
    let replay = Replay::new(&call.head, &call.body, call.idempotent, versions);
    let course = Course::begin(trail.begun());
    let (deadline, started) = (trail.deadline(), trail.begun());
    let (defaults, worn) = trail.outfit(engine);
    let mut hop = Hop {
        engine,
        host: &host,
        http1,
        runtime,
        defaults,
        worn: Some(worn),
        deadline,
        started,
        replay,
        course,
        call,
        place,
    };
    match attempts(&mut hop).await {
        Ok(()) => {
            watch.responded(put(hop.place));
            let unpolled = hop.course.unpolled.take();
            trail.got_back(call, unpolled);
            Ok(())
        }
        Err(error) => {
            watch.failed(&error);
            let (attempts, replayable) = (hop.replay.attempts(), hop.replay.is_replayable());
            let method = &hop.call.head.method;
            let error = error.vouched(hop.replay.is_idempotent());
            Err(error.on_call(host.origin().clone(), method, attempts, replayable))
        }
    }
}

/// Whose connections a request may use: the host; the same over HTTP/1.1 alone, if its server has asked for that; and the versions
/// that the call may be made over. A request that may not be sent ends here.
fn hosts(
    engine: &Engine,
    call: &Call,
    runtime: &Handle,
) -> Result<(Arc<Host>, Option<Arc<Host>>, HttpVersions)> {
    check_request(&call.head, &call.body)?;
    let versions = *call
        .own(|own| own.versions.as_ref())
        .unwrap_or(&engine.versions);
    let versions = versions::of_call(versions, &call.head)?;
    let way = ways::of_call(engine, call, versions)?;
    let target = &call.head.target;
    let host = engine.pool.host(target, way, runtime);
    let http1 = host.wants_http1() && versions == HttpVersions::Auto;
    let http1 = http1.then(|| over_http1(engine, way, target, runtime));
    Ok((host, http1, versions))
}

/// The response that a step has put there.
pub(crate) fn put(place: &mut Place) -> &mut Response {
    place
        .as_mut()
        .expect("a step that succeeds puts a response there")
}

/// The same for the last step, which gives it to the user.
pub(crate) fn taken(place: Place) -> Response {
    place.expect("a step that succeeds puts a response there")
}

/// Makes attempts until the policies want no more. Without any there is one.
async fn attempts(hop: &mut Hop<'_>) -> Result<()> {
    let mut trying = Trying::of(hop);
    loop {
        if let Some(trying) = &mut trying {
            if let Some(end) = trying.enter(hop).await {
                return end;
            }
        }
        let outcome = replays(hop).await;
        let Some(trying) = &mut trying else {
            return outcome.map_err(|failed| failed.error);
        };
        match trying.settle(hop, outcome) {
            ControlFlow::Break(end) => return end,
            ControlFlow::Continue(wait) => {
                if let Some(end) = Box::pin(trying.pause(hop.engine, wait)).await {
                    return Err(end);
                }
            }
        }
    }
}

/// Tries until there is a response, or a failure that another try at once could not be trusted to mend.
async fn replays(hop: &mut Hop<'_>) -> Result<(), Failed> {
    // Boxed, like all that is rare: it would weigh on the future of every call.
    let mut before: Option<Box<Failed>> = None;
    loop {
        hop.replay.begin();
        hop.deadline.begin_attempt(hop.course.begun);
        let is_plain = hop.engine.attempt_interceptors.is_empty() && hop.call.told.is_none();
        let tried = match is_plain {
            true => exchange(hop, before.as_deref()).await,
            false => Box::pin(watched::attempt(hop, before.as_deref())).await,
        };
        let mut failed = match tried {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        let Some(cause) = hop.replay.decide(&failed) else {
            return Err(failed);
        };
        hop.retried(cause, Duration::ZERO);
        if cause == RetryCause::Http1Required {
            hop.host.note_http1_required();
            // The choice for this URL is the same as before; that it was made without a mistake is known.
            if let Ok(way) = ways::of_call(hop.engine, hop.call, HttpVersions::Http1) {
                let target = &hop.call.head.target;
                hop.http1 = Some(over_http1(hop.engine, way, target, hop.runtime));
            }
        }
        hop.take_back(failed.unpolled.take());
        before = Some(Box::new(failed));
        hop.course.begun = Instant::now();
    }
}

impl Hop<'_> {
    /// The body of a try that failed, for the next. One that can be sent again was lent or made anew; the call has it still.
    fn take_back(&mut self, unpolled: Option<Body>) {
        if let Some(body) = unpolled {
            if !self.replay.is_replayable() {
                self.call.body = body;
            }
            self.course.given = None;
        }
    }

    /// Whether a body that nobody has asked for anything is taken back from the connection: one that can be sent once. Inside
    /// interceptors it is lent, and comes back by itself.
    fn keeps_unpolled(&self) -> bool {
        self.worn.is_some() && !self.replay.is_replayable()
    }

    /// Whether a request whose body is still whole may be made another time because of this answer: later, with credentials, or
    /// elsewhere.
    fn may_go_again(&self, head: &ResponseHead) -> bool {
        match head.status.as_u16() {
            401 => self.engine.identity.is_some(),
            429 | 503 => true,
            301 | 302 | 307 | 308 => {
                let own = self.call.own(|own| own.redirects.as_ref());
                own.unwrap_or(&self.engine.redirects).follows() && head.first("location").is_some()
            }
            _ => false,
        }
    }

    /// Keeps the cookies of an answer that nobody else sees, and puts them on what is sent again: balancers of loads tell by them
    /// where it belongs.
    fn heed_cookies(&mut self, head: &ResponseHead) {
        if let Some(identity) = &self.engine.identity {
            let target = &self.call.head.target;
            identity.learn_of(target, head);
            self.change_cookies();
        }
    }

    fn change_cookies(&mut self) {
        if let (Some(identity), Some(worn)) = (&self.engine.identity, &mut self.worn) {
            let RequestHead {
                target, headers, ..
            } = &mut self.call.head;
            identity.put_cookies(target, headers, self.defaults.map(), worn);
        }
    }
}

/// One try: checkout, send, answer. After one that failed `before`, it is made on a new connection.
async fn exchange(hop: &mut Hop<'_>, before: Option<&Failed>) -> Result<(), Failed> {
    let begun = hop.course.begun;
    if hop.replay.is_replayable() {
        hop.course.given = None;
    }
    let pool = &hop.engine.pool;
    let host = hop.http1.as_ref().unwrap_or(hop.host);
    let told = hop.call.told.as_ref();
    let lent = match before {
        None => {
            let careful = hop.replay.is_careful();
            match pool.checkout_idle(host, careful, told, begun) {
                Some(lease) => Ok((lease, begun)),
                None => {
                    pool.checkout(host, &hop.deadline, careful, told, begun)
                        .await
                }
            }
        }
        Some(failed) => {
            pool.checkout_again(host, &hop.deadline, failed, told, begun)
                .await
        }
    };
    let (mut lease, ready) = lent.map_err(Failed::before_exchange)?;
    let call = &mut *hop.call;
    let (mut made, mut sending) = (None, ready);
    if let Some(making) = call.body.made() {
        let making = Box::pin(make_body(making, &hop.deadline));
        made = Some(making.await.map_err(Failed::before_exchange)?);
        sending = Instant::now();
    }
    hop.course.given = Some(sending);
    let answer = lease
        .exchange(
            &call.head,
            hop.defaults,
            made.as_mut().unwrap_or(&mut call.body),
            &hop.deadline,
            sending,
        )
        .await?;
    if answer.head.status == StatusCode::EXPECTATION_FAILED {
        let unpolled = lease.take_unpolled_body();
        let is_whole = unpolled.is_some() || hop.replay.is_replayable();
        if is_whole && hop.replay.may_stop_expecting() && call.head.stop_expecting() {
            hop.heed_cookies(&answer.head);
            return Err(lease.expectation_refused(unpolled));
        }
    }
    if hop.keeps_unpolled() && hop.may_go_again(&answer.head) {
        hop.course.unpolled = lease.take_unpolled_body().map(Box::new);
    }
    let call = &mut *hop.call;
    let answered = Instant::now();
    let connection = Arc::clone(lease.info());
    let attempts = hop.replay.attempts();
    let moments = Moments {
        attempts,
        reused: lease.is_reused(),
        ..Moments::between(hop.started, begun, ready, answered)
    };
    let content = match answer.body {
        AnswerBody::Kept => {
            lease.release(answered);
            Content::Kept(answer.trailers)
        }
        AnswerBody::Streaming => {
            let asked = Asked {
                method: call.head.method.clone(),
                attempts,
                replayable: hop.replay.is_replayable(),
            };
            Content::Apart(lease.into_body(hop.deadline, hop.started, asked))
        }
        AnswerBody::Switched => Content::Switched(Box::new(Mutex::new(lease.into_upgraded()))),
    };
    *hop.place = Some(Response {
        head: answer.head,
        parts: OnceLock::new(),
        content,
        target: call.head.target.take(),
        connection,
        moments,
        led: None,
        max_body: call.max_body,
    });
    Ok(())
}

/// The host of the same target where HTTP/1.1 alone is spoken.
fn over_http1(engine: &Engine, way: Way<'_>, target: &Target, runtime: &Handle) -> Arc<Host> {
    let way = Way {
        versions: HttpVersions::Http1,
        ..way
    };
    engine.pool.host(target, way, runtime)
}

/// Waits for a body that is made for this try, within the limits that no step has of its own.
async fn make_body(
    making: BoxFuture<'static, io::Result<Body>>,
    deadline: &Deadline<'_>,
) -> Result<Body> {
    let made = match deadline.next(Phase::Prepare, None) {
        Some(limit) => timeout_at(limit.at, making)
            .await
            .map_err(|_| Error::timeout(limit.expired, Sent::Nothing))?,
        None => making.await,
    };
    made.map_err(|error| {
        Error::new(ErrorKind::Body, Some(Phase::Prepare), Sent::Nothing).because(error)
    })
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

    fn responded(mut self, response: &Response) {
        if let Some(counters) = self.counters.take() {
            let taken = response.moments.call();
            counters.responded(response.head.status.as_u16(), taken);
            if matches!(response.content, Content::Kept(_)) {
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
