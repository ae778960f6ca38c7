//! How far a call has been led: what outlives one URL of it, and the way to the next.
//!
//! [`Trail::follow`] asks the policy what a redirect means and acts on the answer: it changes the request, leaves behind what
//! another origin must not see, and drops the redirect's body, which is drained or closes its connection as any dropped body
//! does. The total limit spans all hops; every other limit begins anew with each.

use std::time::Duration;

use http::header::AUTHORIZATION;
use tokio::time::Instant;

use super::identity::Worn;
use super::{Call, Engine};
use crate::body::{Body, read_ahead};
use crate::deadline::{Deadline, Timeouts};
use crate::error::Result;
use crate::head::DefaultFields;
use crate::policy::{Asked, Challenge, Redirects, Refused};
use crate::response::{Content, Led, Redirect, Response};
use crate::stats::Event;
use crate::url::Origin;

/// What one URL of a call leaves to the next.
pub(super) struct Trail<'a> {
    deadline: Deadline<'a>,
    /// When this hop began.
    begun: Instant,
    /// Whether the body can be sent again. Asked before it is sent: one that cannot is gone then.
    replayable: bool,
    /// Whether one that cannot came back from this hop as whole as it was.
    is_whole: bool,
    worn: Worn,
    /// Of the hops before this one, if there was any.
    past: Option<Box<Past>>,
}

/// What the hops before have left.
#[derive(Default)]
struct Past {
    led: Box<Led>,
    /// The client's default fields without what another origin must not see, once there was one.
    stripped: Option<DefaultFields>,
    /// Origins whose 401 was answered.
    answered: Vec<Origin>,
}

impl<'a> Trail<'a> {
    /// A call that begins now.
    pub(super) fn begin(timeouts: &'a Timeouts, call: &Call) -> Self {
        let begun = Instant::now();
        Self {
            deadline: Deadline::new(timeouts, call.started.unwrap_or(begun)),
            begun,
            replayable: call.body.is_replayable(),
            is_whole: false,
            worn: Worn::default(),
            past: None,
        }
    }

    pub(super) fn deadline(&self) -> Deadline<'a> {
        self.deadline
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// The default fields that this hop may send.
    pub(super) fn defaults<'d>(&'d self, engine: &'d Engine) -> &'d DefaultFields {
        defaults(self.past.as_deref(), engine)
    }

    /// The same, and what the caller did not put on himself.
    pub(super) fn outfit<'d>(
        &'d mut self,
        engine: &'d Engine,
    ) -> (&'d DefaultFields, &'d mut Worn) {
        (defaults(self.past.as_deref(), engine), &mut self.worn)
    }

    /// This hop is over, and nothing was asked of the body.
    pub(super) fn got_back(&mut self, call: &mut Call, unpolled: Option<Box<Body>>) {
        self.is_whole = unpolled.is_some();
        if let Some(body) = unpolled {
            call.body = *body;
        }
    }

    /// The final response is told what led to it.
    pub(super) fn end(&mut self, response: &mut Response) {
        // One that an interceptor has got elsewhere may bring what led to it there.
        if self.past.is_some() || response.led.is_some() {
            response.led = self.past.take().map(|past| past.led);
        }
    }

    /// The next hop begins.
    fn next(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun);
        self.past.get_or_insert_default().led.took += took;
        self.begun = now;
    }

    /// Puts on what the next hop's origin knows the client by.
    pub(super) fn dress(&mut self, engine: &Engine, call: &mut Call) {
        if let Some(identity) = &engine.identity {
            let head = &mut call.head;
            let defaults = defaults(self.past.as_deref(), engine);
            let worn = &mut self.worn;
            identity.dress(&head.target, &mut head.headers, defaults.map(), worn);
        }
    }

    /// Has a 401 answered by who may; `true` if the request is to be made again.
    pub(super) async fn authenticate(
        &mut self,
        engine: &Engine,
        call: &mut Call,
        response: &mut Response,
    ) -> Result<bool> {
        let fields = &call.head.headers;
        let mut answered = self.past.iter().flat_map(|past| &past.answered);
        let is_answered = answered.any(|origin| origin.is_of(&response.target));
        let identity = engine.identity.as_deref().filter(|_| !is_answered);
        let answers =
            identity.and_then(|identity| identity.answers(&response.target, fields, &self.worn));
        let Some(renewing) = answers else {
            return Ok(false);
        };
        let origin = response.target.origin();
        let defaults = self.defaults(engine).map();
        let refused = fields.get(AUTHORIZATION).or(defaults.get(AUTHORIZATION));
        let values = response.values("www-authenticate");
        let challenge = Challenge::new(origin.clone(), values, refused.cloned());
        // What gets the credentials may need the connection.
        if let Content::Apart(body) = &mut response.content {
            read_ahead(body, MAX_AHEAD, MAX_WAIT).await;
        }
        let renewed = renewing.renew(&challenge, &self.deadline).await;
        let renewed = renewed.map_err(|error| {
            let (method, attempts) = (&call.head.method, response.attempts());
            error.on_call(origin.clone(), method, attempts, self.replayable)
        })?;
        if !renewed || !(self.replayable || self.is_whole) {
            return Ok(false);
        }
        engine.pool.counters(&origin).authenticated();
        if let Some(told) = &call.told {
            let origin = &origin;
            told.tell(|call| Event::Authenticated { call, origin });
        }
        self.past.get_or_insert_default().answered.push(origin);
        call.head.put_back(|| response.target.take());
        response.content = Content::Apart(Body::empty());
        self.next();
        Ok(true)
    }

    /// Makes the next request of `call` if the response is a redirect to follow; `false` means that it is the final response.
    pub(super) fn follow(
        &mut self,
        engine: &Engine,
        call: &mut Call,
        response: &mut Response,
    ) -> Result<bool> {
        let own = call.own.clone();
        let redirects = own.as_deref().and_then(|own| own.redirects.as_ref());
        let redirects = redirects.unwrap_or(&engine.redirects);
        self.step(engine, redirects, call, response)
            .map_err(|refused| {
                let error = refused.into_error();
                let origin = response.target.origin();
                let counters = engine.pool.counters(&origin);
                counters.body_failed(error.kind(), error.phase());
                error.on_call(
                    origin,
                    &call.head.method,
                    response.attempts(),
                    self.replayable,
                )
            })
    }

    fn step(
        &mut self,
        engine: &Engine,
        redirects: &Redirects,
        call: &mut Call,
        response: &mut Response,
    ) -> Result<bool, Refused> {
        let asked = Asked {
            head: &call.head,
            from: &response.target,
            replayable: self.replayable || self.is_whole,
            followed: self
                .past
                .as_ref()
                .map_or(0, |past| past.led.redirects.len()),
        };
        let status = response.status();
        let locations = response.values("location");
        let Some(step) = redirects.decide(status, locations, &asked)? else {
            return Ok(false);
        };
        engine.check_scheme(&step.target).map_err(Refused::Scheme)?;
        step.change(&mut call.head, redirects);
        if step.drops_body() {
            call.body = Body::empty();
            self.replayable = true;
        }
        if step.is_foreign() {
            self.worn.is_led_away = true;
            // The caller has named it for an origin that this one is not.
            if call.own(|own| own.unix.as_ref()).is_some() {
                call.own_mut().unix = None;
            }
            self.strip_defaults(engine, redirects);
        }
        let from = response.target.origin();
        engine.pool.counters(&from).redirected();
        if let Some(told) = &call.told {
            let (from, to) = (&from, &step.target.origin());
            told.tell(|call| Event::Redirected {
                call,
                status,
                from,
                to,
            });
        }
        let past = self.past.get_or_insert_default();
        past.led.redirects.push(Redirect {
            status,
            target: response.target.take(),
        });
        call.head.target = step.target;
        // Drained or closed before the next request looks for a connection.
        response.content = Content::Apart(Body::empty());
        self.next();
        Ok(true)
    }

    /// A client that has no secrets among its defaults keeps using them as they are.
    fn strip_defaults(&mut self, engine: &Engine, redirects: &Redirects) {
        let mut fields = self.defaults(engine).map().clone();
        if redirects.strip(&mut fields) {
            self.past.get_or_insert_default().stripped = Some(DefaultFields::new(&fields));
        }
    }
}

/// The default fields that a hop may send which has this past.
fn defaults<'d>(past: Option<&'d Past>, engine: &'d Engine) -> &'d DefaultFields {
    let stripped = past.and_then(|past| past.stripped.as_ref());
    stripped.unwrap_or(&engine.defaults)
}

/// Bytes of a 401 that are taken in while credentials are renewed, so that it holds no connection.
const MAX_AHEAD: usize = 64 * 1024;

/// How long they are waited for.
const MAX_WAIT: Duration = Duration::from_secs(2);
