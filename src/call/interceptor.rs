//! Code of the user's around a call, or around each try of one.
//!
//! A chain is the interceptors in the order in which they were registered, the first outermost, and an end: for a call the hops
//! and tries of it, for a try the exchange. Each run of the end gets a request of its own and the options of the call, so that
//! an interceptor may run it never, once, or again. Nothing here is reached by a client without interceptors.

use std::borrow::Cow;
use std::future::{Future, ready};
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{AUTHORIZATION, HeaderMap};
use http::{Method, request};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::replay::Replay;
use super::{Call, Course, Engine, Hop, Place, exchange, follow, runtime, taken};
use crate::body::{Body, Lent};
use crate::deadline::{Deadline, Timeouts};
use crate::error::{BoxFuture, Error, Phase, Result, Sent};
use crate::head::{DefaultFields, RequestHead, mark_secrets};
use crate::pool::{Failed, Host, check_request};
use crate::response::Response;
use crate::url::{Target, UrlInput};

/// Code of yours around a call or around each try of one: it may change the request, look at the response, answer by itself,
/// fail the call with [`Error::interceptor`], or run what is inside it again.
///
/// Registered by [`ClientBuilder::interceptor`](crate::ClientBuilder::interceptor) it wraps a call: redirects and retries happen
/// inside it, it sees the fields that the call set, and a decoded response of whatever status, because a status becomes an error
/// outside of all interceptors. Registered by
/// [`ClientBuilder::attempt_interceptor`](crate::ClientBuilder::attempt_interceptor) it wraps each try, and sees the fields that
/// go out, the client's defaults included, and the response as it came. Of several the one registered first is outermost: it sees the request
/// first and the response last.
///
/// Policies go by what comes out of the interceptors around a try: the status and the fields as they leave them, also where they make
/// an error of the status. An answer of their own, and an error that they have from elsewhere, says nothing of the origin to a
/// circuit breaker.
///
/// A request body that can be sent once comes to the interceptors around a try again, as it was, if another try is made before
/// anybody has asked it for anything: an interceptor that passes it on, wrapped or not, gives up no retry by that, and one that
/// has read it gets no second try.
///
/// Async closures and functions are interceptors; what a closure captures must be `Clone`, and is cloned for each call. For
/// what needs no `await` see [`on_request`] and [`on_response`]. Dropping the call drops the future of an interceptor where it waits.
///
/// ```
/// use sockeye::http::{HeaderValue, Request};
/// use sockeye::{Body, Client, Error, Next, Response, Result};
///
/// # async fn fetch_token() -> String { String::from("t") }
/// async fn add_auth_header(mut request: Request<Body>, next: Next<'_>) -> Result<Response> {
///     let token = fetch_token().await;
///     let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(Error::interceptor)?;
///     value.set_sensitive(true);
///     request.headers_mut().insert("authorization", value);
///     next.run(request).await
/// }
///
/// let client = Client::builder()
///     .interceptor(add_auth_header)
///     .interceptor(async |request: Request<Body>, next: Next<'_>| {
///         let method = request.method().clone();
///         let response = next.run(request).await?;
///         println!("{method} {} {}", response.url(), response.status());
///         Ok(response)
///     })
///     .build()?;
/// # Ok::<(), Error>(())
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// Handles one request. `next` is what is inside this interceptor.
    fn intercept<'a>(
        &'a self,
        request: http::Request<Body>,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Response>>;
}

impl<F, R> Interceptor for F
where
    F: FnOnce(http::Request<Body>, Next<'static>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response>> + Send + 'static,
{
    fn intercept<'a>(
        &'a self,
        request: http::Request<Body>,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Response>> {
        Box::pin(self.clone()(request, next.into_shared()))
    }
}

impl<T: Interceptor + ?Sized> Interceptor for Arc<T> {
    fn intercept<'a>(
        &'a self,
        request: http::Request<Body>,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Response>> {
        self.as_ref().intercept(request, next)
    }
}

/// An interceptor that changes the head of each request, or fails the call.
///
/// ```
/// use sockeye::http::HeaderValue;
/// use sockeye::{Client, on_request};
///
/// let client = Client::builder()
///     .attempt_interceptor(on_request(|parts| {
///         parts.headers.insert("x-sent-by", HeaderValue::from_static("inventory"));
///         Ok(())
///     }))
///     .build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub fn on_request<F>(hook: F) -> impl Interceptor
where
    F: Fn(&mut request::Parts) -> Result<()> + Send + Sync + 'static,
{
    OnRequest(hook)
}

/// An interceptor that looks at each response, changes it, or fails the call.
///
/// ```
/// use sockeye::{Client, on_response};
///
/// let client = Client::builder()
///     .interceptor(on_response(|response| {
///         println!("{} after {} attempts", response.status(), response.attempts());
///         Ok(())
///     }))
///     .build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub fn on_response<F>(hook: F) -> impl Interceptor
where
    F: Fn(&mut Response) -> Result<()> + Send + Sync + 'static,
{
    OnResponse(hook)
}

struct OnRequest<F>(F);

impl<F> Interceptor for OnRequest<F>
where
    F: Fn(&mut request::Parts) -> Result<()> + Send + Sync + 'static,
{
    fn intercept<'a>(
        &'a self,
        request: http::Request<Body>,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Response>> {
        let (mut parts, body) = request.into_parts();
        match (self.0)(&mut parts) {
            Ok(()) => next.run(http::Request::from_parts(parts, body)),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

struct OnResponse<F>(F);

impl<F> Interceptor for OnResponse<F>
where
    F: Fn(&mut Response) -> Result<()> + Send + Sync + 'static,
{
    fn intercept<'a>(
        &'a self,
        request: http::Request<Body>,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move {
            let mut response = next.run(request).await?;
            (self.0)(&mut response)?;
            Ok(response)
        })
    }
}

/// The interceptors of one kind, outermost first.
pub(crate) type Interceptors = Arc<[Arc<dyn Interceptor>]>;

/// What is inside an interceptor: the next one, or at the end the call or the try itself.
#[derive(Clone)]
pub struct Next<'a> {
    chain: Held<'a>,
    at: usize,
}

#[derive(Clone)]
enum Held<'a> {
    Lent(&'a Arc<Chain>),
    /// For futures that may borrow nothing.
    Shared(Arc<Chain>),
}

impl<'a> Next<'a> {
    /// Sends a request on. It can be called more than once, each time with a request of its own; a body can be sent again only if it
    /// is made for that (bytes, a function). The options of the call, such as its timeouts, hold for each.
    ///
    /// Around a call anything of the request may be changed; around a try neither its method nor its origin. Dropping the
    /// future cancels what it does.
    ///
    /// ```
    /// use sockeye::http::Request;
    /// use sockeye::{Body, Next, Response, Result};
    ///
    /// async fn pass(request: Request<Body>, next: Next<'_>) -> Result<Response> {
    ///     next.run(request).await
    /// }
    /// ```
    pub fn run(&self, request: http::Request<Body>) -> BoxFuture<'a, Result<Response>> {
        match &self.chain {
            Held::Lent(chain) => go(chain, self.at, request),
            Held::Shared(chain) => {
                let (chain, at) = (Arc::clone(chain), self.at);
                Box::pin(async move { go(&chain, at, request).await })
            }
        }
    }

    fn into_shared(self) -> Next<'static> {
        let chain = match self.chain {
            Held::Lent(chain) => Arc::clone(chain),
            Held::Shared(chain) => chain,
        };
        Next {
            chain: Held::Shared(chain),
            at: self.at,
        }
    }
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

/// Interceptors, and what they are around.
struct Chain {
    links: Interceptors,
    end: End,
}

enum End {
    Call(Box<WholeCall>),
    Attempt(Box<Attempt>),
}

impl Chain {
    /// Whether a request may have been sent. Of a call it is known only whether it was begun.
    fn may_have_sent(&self) -> bool {
        match &self.end {
            End::Call(call) => call.begun.load(Ordering::Relaxed),
            End::Attempt(attempt) => !matches!(*lock(&attempt.reached), Reached::Nothing),
        }
    }

    /// The try that it is around, if it is around one.
    fn attempt(&self) -> Option<&Attempt> {
        match &self.end {
            End::Call(_) => None,
            End::Attempt(attempt) => Some(attempt),
        }
    }

    /// Whether a try was answered, and the interceptors have the answer.
    fn is_answered(&self) -> bool {
        let reached = self.attempt().map(|attempt| *lock(&attempt.reached));
        matches!(reached, Some(Reached::Answered(_)))
    }
}

/// Runs the interceptor at a place, or the end behind the last.
fn go(
    chain: &Arc<Chain>,
    at: usize,
    request: http::Request<Body>,
) -> BoxFuture<'_, Result<Response>> {
    if let Some(link) = chain.links.get(at) {
        let chain = Held::Lent(chain);
        return link.intercept(request, Next { chain, at: at + 1 });
    }
    match &chain.end {
        End::Call(call) => Box::pin(call.run(request)),
        End::Attempt(attempt) => Box::pin(attempt.run(request)),
    }
}

/// The end of a chain around a call.
struct WholeCall {
    engine: Arc<Engine>,
    /// What holds for each run beside the request itself.
    options: Call,
    /// Whether it was run.
    begun: AtomicBool,
    /// Whether the request may be sent twice, whatever its method: as the last run had it, whose answer is the call's.
    vouched: AtomicBool,
}

impl WholeCall {
    async fn run(&self, request: http::Request<Body>) -> Result<Response> {
        self.begun.store(true, Ordering::Relaxed);
        let mut call = into_call(&self.options, request)?;
        self.engine.check_scheme(&call.head.target)?;
        let mut place = None;
        let outcome = follow(&self.engine, &mut call, &mut place).await;
        self.vouched.store(call.is_vouched(), Ordering::Relaxed);
        outcome.map(|()| taken(place))
    }
}

/// Makes a call with interceptors around it.
pub(super) async fn around_call(
    engine: &Arc<Engine>,
    call: &mut Call,
    place: &mut Place,
) -> Result<()> {
    // The limits need its timers.
    runtime()?;
    let started = Instant::now();
    let own = call.own(|own| own.timeouts.as_ref());
    let timeouts = *own.unwrap_or(&engine.timeouts);
    let deadline = Deadline::new(&timeouts, started);
    let replayable = call.body.is_replayable();
    let vouched = AtomicBool::new(call.is_vouched());
    let fields = take(&mut call.head.headers);
    let request = to_request(call, fields);
    let mut options = call.like(Body::empty());
    options.started = Some(started);
    let chain = Arc::new(Chain {
        links: Arc::clone(&engine.interceptors),
        end: End::Call(Box::new(WholeCall {
            engine: Arc::clone(engine),
            options,
            begun: AtomicBool::new(false),
            vouched,
        })),
    });
    let outcome = within(&deadline, &chain, request).await;
    // The fields are with the interceptors; what makes an error of a status later goes by this.
    if let End::Call(whole) = &chain.end {
        call.idempotent = whole.vouched.load(Ordering::Relaxed);
    }
    match outcome {
        Ok(response) => {
            *place = Some(adopt(response, call));
            Ok(())
        }
        Err(error) => {
            let head = &call.head;
            let error = error.vouched(call.idempotent);
            Err(error.on_call(head.target.origin(), &head.method, 0, replayable))
        }
    }
}

/// The end of a chain around a try: all of a hop that the exchange needs.
struct Attempt {
    engine: Arc<Engine>,
    host: Arc<Host>,
    http1: Option<Arc<Host>>,
    runtime: Handle,
    timeouts: Timeouts,
    total_at: Option<Instant>,
    attempt_at: Option<Instant>,
    started: Instant,
    replay: Replay,
    before: Option<Failed>,
    /// The hold on a body that can be sent once.
    lent: Option<Lent>,
    target: Target,
    method: Method,
    options: Call,
    /// The request has them all.
    no_defaults: DefaultFields,
    /// What the last run that failed says to those who may try again.
    failed: Mutex<Option<Failed>>,
    /// How far the last run came; of several at once, the one that came furthest.
    reached: Mutex<Reached>,
}

/// How far one run of a try has come.
#[derive(Clone, Copy)]
enum Reached {
    /// The request was given to no connection.
    Nothing,
    /// It was given to one then.
    Given(Instant),
    /// And answered: whatever time passes from then on is not the server's.
    Answered(Instant),
}

impl Attempt {
    fn of(hop: &Hop<'_>, before: Option<&Failed>, lent: Option<Lent>) -> Box<Self> {
        let (timeouts, total_at) = hop.deadline.into_parts();
        Box::new(Self {
            engine: Arc::clone(hop.engine),
            host: Arc::clone(hop.host),
            http1: hop.http1.clone(),
            runtime: hop.runtime.clone(),
            timeouts,
            total_at,
            attempt_at: hop.deadline.attempt_at(),
            started: hop.started,
            replay: hop.replay.clone(),
            before: before.map(Failed::without_body),
            lent,
            target: hop.call.head.target.clone(),
            method: hop.call.head.method.clone(),
            options: hop.call.like(Body::empty()),
            no_defaults: DefaultFields::default(),
            failed: Mutex::new(None),
            reached: Mutex::new(Reached::Nothing),
        })
    }

    async fn run(&self, request: http::Request<Body>) -> Result<Response> {
        // One of an earlier run says nothing about what comes of this one.
        self.take_failed();
        *lock(&self.reached) = Reached::Nothing;
        let mut call = into_call(&self.options, request)?;
        let same = call.head.target.same_origin(&self.target) && call.head.method == self.method;
        if !same {
            return Err(Error::invalid(
                "an interceptor around a try changed the method or the origin of the request; only one around a call can",
            ));
        }
        check_request(&call.head, &call.body)?;
        let mut place = None;
        let hop = Hop {
            place: &mut place,
            engine: &self.engine,
            host: &self.host,
            http1: self.http1.clone(),
            runtime: &self.runtime,
            call: &mut call,
            defaults: &self.no_defaults,
            worn: None,
            deadline: Deadline::of_attempt(&self.timeouts, self.total_at, self.attempt_at),
            started: self.started,
            replay: self.replay(),
            course: Course::begin(Instant::now()),
        };
        let mut run = Run {
            hop,
            has_answer: false,
            reached: &self.reached,
        };
        let outcome = exchange(&mut run.hop, self.before.as_ref()).await;
        run.has_answer = outcome.is_ok();
        drop(run);
        let failed = match outcome {
            Ok(()) => return Ok(taken(place)),
            Err(failed) => failed,
        };
        let error = failed.error.clone().at(&self.target.origin());
        *lock(&self.failed) = Some(failed);
        Err(error)
    }

    /// What is known of the request. A body that an interceptor has asked for something will not be there for another try.
    fn replay(&self) -> Replay {
        let replay = self.replay.clone();
        match &self.lent {
            Some(lent) if !lent.is_whole() => replay.keep_expecting(),
            _ => replay,
        }
    }

    /// A body that can be sent once, if no interceptor and no connection has asked it for anything.
    fn take_back(&self) -> Option<Body> {
        self.lent.as_ref().and_then(Lent::take_back)
    }

    fn take_failed(&self) -> Option<Failed> {
        lock(&self.failed).take()
    }
}

/// One run of a try. However it ends, dropped included, it tells how far it came.
struct Run<'a> {
    hop: Hop<'a>,
    has_answer: bool,
    reached: &'a Mutex<Reached>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let Some(at) = self.hop.course.given else {
            return;
        };
        let mut reached = lock(self.reached);
        match *reached {
            _ if self.has_answer => *reached = Reached::Answered(at),
            // Of two runs at once the one that was answered counts, whichever ends last.
            Reached::Answered(_) => {}
            Reached::Nothing | Reached::Given(_) => *reached = Reached::Given(at),
        }
    }
}

/// Held for an assignment only.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes one try with interceptors around it.
pub(super) async fn around_attempt(
    hop: &mut Hop<'_>,
    before: Option<&Failed>,
) -> Result<(), Failed> {
    hop.course.given = None;
    // Whether an interceptor passes the body on cannot be known, but whether anybody has asked it for something.
    let lent = match hop.replay.is_replayable() {
        true => None,
        false => {
            let (lent, borrowed) = Lent::of(take(&mut hop.call.body));
            hop.call.body = borrowed;
            Some(lent)
        }
    };
    let chain = Arc::new(Chain {
        links: Arc::clone(&hop.engine.attempt_interceptors),
        end: End::Attempt(Attempt::of(hop, before, lent)),
    });
    let fields = all_fields(hop.defaults, &hop.call.head.headers);
    let request = to_request(hop.call, fields);
    let outcome = within(&hop.deadline, &chain, request).await;
    let attempt = chain.attempt();
    let reached = attempt.map_or(Reached::Nothing, |attempt| *lock(&attempt.reached));
    let failed = attempt.and_then(Attempt::take_failed);
    let error = match outcome {
        Ok(response) => {
            // In place of an answer that did not come, it is the interceptor's own.
            if let Reached::Answered(at) = reached {
                hop.course.given = Some(at);
            }
            let response = adopt_of_try(response, hop.call);
            if hop.may_go_again(&response.head) {
                hop.course.unpolled = attempt.and_then(Attempt::take_back).map(Box::new);
            }
            *hop.place = Some(response);
            return Ok(());
        }
        Err(error) => error,
    };
    if let Reached::Given(at) = reached {
        hop.course.given = Some(at);
    }
    // An interceptor that fails for a reason of its own is not tried again for the reason of what is inside.
    let failed = failed.filter(|failed| failed.error.kind() == error.kind());
    let mut failed = failed.unwrap_or_else(|| {
        let mut own = Failed::before_exchange(error.clone());
        own.elsewhere = match reached {
            Reached::Nothing => true,
            Reached::Given(_) => false,
            // Of an answer an interceptor can make an error of a status.
            Reached::Answered(_) => !error.is_status() || error.origin() != Some(hop.host.origin()),
        };
        own
    });
    failed.error = error;
    // What a connection has not asked for is what the interceptors made of it; the next try gets what they were given.
    failed.unpolled = attempt.and_then(Attempt::take_back);
    if failed.expectation_refused {
        hop.call.head.stop_expecting();
        hop.change_cookies();
    }
    Err(failed)
}

/// Waits for a chain within the limits that no step of it has of its own. Once its end was run, all may have been sent.
async fn within(
    deadline: &Deadline<'_>,
    chain: &Arc<Chain>,
    request: http::Request<Body>,
) -> Result<Response> {
    let running = go(chain, 0, request);
    let Some(limit) = deadline.next(Phase::Prepare, None) else {
        return running.await;
    };
    timeout_at(limit.at, running).await.unwrap_or_else(|_| {
        let mut expired = limit.expired;
        if !chain.may_have_sent() {
            return Err(Error::timeout(expired, Sent::Nothing));
        }
        expired.phase = Phase::Head;
        let error = Error::timeout(expired, Sent::All);
        // An interceptor has taken the time, which it would take again.
        Err(match chain.is_answered() {
            true => error.never_again(),
            false => error,
        })
    })
}

/// The request of a call as its interceptors see it. A body that can be sent again stays with the call as well.
fn to_request(call: &mut Call, fields: HeaderMap) -> http::Request<Body> {
    let body = match call.body.try_clone() {
        Some(copy) => copy,
        None => take(&mut call.body),
    };
    let mut request = http::Request::new(body);
    *request.method_mut() = call.head.method.clone();
    *request.uri_mut() = call.head.target.uri().clone();
    *request.headers_mut() = fields;
    *request.extensions_mut() = call.extensions.clone();
    request
}

/// The call that an interceptor has made of a request.
fn into_call(options: &Call, request: http::Request<Body>) -> Result<Call> {
    let (parts, body) = request.into_parts();
    let url = UrlInput::Uri(Cow::Owned(parts.uri)).parse(None);
    let url = url.map_err(Error::invalid_request)?;
    let mut call = options.like(body);
    call.head = RequestHead {
        method: parts.method,
        target: url.target,
        headers: parts.headers,
        asks: options.head.asks.clone(),
    };
    if let Some(credentials) = url.authorization {
        let fields = &mut call.head.headers;
        fields.entry(AUTHORIZATION).or_insert(*credentials);
    }
    mark_secrets(&mut call.head.headers);
    call.extensions = parts.extensions;
    Ok(call)
}

/// A response that an interceptor has made by itself answers for the call that it was made for.
fn adopt(mut response: Response, call: &Call) -> Response {
    if response.target.is_nowhere() {
        response.target = call.head.target.clone();
        response.max_body = call.max_body;
    }
    response
}

/// The same for a try: whatever an interceptor has got elsewhere is an answer to the call, and of its origin. Redirects are judged
/// by that (security R2), and policies by the fields as the interceptors leave them.
fn adopt_of_try(response: Response, call: &Call) -> Response {
    let mut response = adopt(response, call);
    if !response.target.same_origin(&call.head.target) {
        response.target = call.head.target.clone();
    }
    response.settle_fields();
    response
}

/// The fields of the call, and the defaults that it does not hide.
fn all_fields(defaults: &DefaultFields, own: &HeaderMap) -> HeaderMap {
    let mut fields = defaults.map().clone();
    for name in own.keys() {
        fields.remove(name);
    }
    for (name, value) in own {
        fields.append(name.clone(), value.clone());
    }
    fields
}
