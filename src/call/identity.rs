//! Who the client is to each origin: credentials that are bound to one, those that are renewed, and cookies.
//!
//! All of it is decided anew for each hop (security R4): what an origin does not own is never put on a request to it, and what the caller set on a
//! request is never replaced. A 401 is answered once for each origin of a call, by the authenticator of that origin.
//! Nothing here is reached by a client that has none of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue};
use tokio::sync::Mutex as Turns;
use tokio::time::timeout_at;

use super::CookieJar;
use crate::deadline::Deadline;
use crate::error::{BoxFuture, Error, Phase, Result, Sent};
use crate::head::ResponseHead;
use crate::policy::{Challenge, Renewal, Renewed, Turn};
use crate::response::Response;
use crate::url::{Origin, Target};

/// Gets credentials when a server asks for them.
///
/// When a request is refused with status 401, one call of [`refresh`](Self::refresh) gets new ones for all that are refused at the
/// same time; each request that was refused is then sent again, once, if its body can be sent again. Later requests to the
/// origin carry the credentials from the start. A request that sets `authorization` itself, or whose URL holds userinfo, is left alone.
///
/// What one answers is an `authorization` value for [`Challenge::origin`], and no other origin ever sees it. `None` hands the
/// 401 to the callers, an error fails their calls. When the caller whose turn it is gives up, the next one takes over. The total limit
/// of a call ends its wait. Calls that `refresh` itself makes with the same client, in the same task, are neither given
/// these credentials nor answered.
///
/// ```
/// use sockeye::http::HeaderValue;
/// use sockeye::{Authenticator, BoxFuture, Challenge, Client, Error, Result};
///
/// struct Tokens {
///     client: Client,
/// }
///
/// impl Authenticator for Tokens {
///     fn refresh<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<Option<HeaderValue>>> {
///         Box::pin(async move {
///             if challenge.scheme("bearer").is_none() {
///                 return Ok(None);
///             }
///             let token = self.client.post("https://login.example.com/token").send().await?.text().await?;
///             Ok(Some(HeaderValue::try_from(format!("Bearer {token}")).map_err(Error::interceptor)?))
///         })
///     }
/// }
///
/// let client = Client::builder()
///     .authenticator_for("https://api.example.com", Tokens { client: Client::new() })
///     .build()?;
/// # Ok::<(), sockeye::Error>(())
/// ```
pub trait Authenticator: Send + Sync + 'static {
    /// Gets credentials for the origin that refused a request.
    fn refresh<'a>(
        &'a self,
        challenge: &'a Challenge,
    ) -> BoxFuture<'a, Result<Option<HeaderValue>>>;
}

impl<T: Authenticator + ?Sized> Authenticator for Arc<T> {
    fn refresh<'a>(
        &'a self,
        challenge: &'a Challenge,
    ) -> BoxFuture<'a, Result<Option<HeaderValue>>> {
        self.as_ref().refresh(challenge)
    }
}

/// What a client is known by.
#[derive(Default)]
pub(crate) struct Identity {
    pub(crate) credentials: Vec<(Origin, HeaderValue)>,
    pub(crate) authenticators: Vec<Scoped>,
    pub(crate) cookies: Option<CookieJar>,
}

impl Identity {
    pub(crate) fn is_empty(&self) -> bool {
        self.credentials.is_empty() && self.authenticators.is_empty() && self.cookies.is_none()
    }

    /// Puts on what the next hop's origin knows the client by, in place of what the last one did.
    pub(super) fn dress(
        &self,
        target: &Target,
        fields: &mut HeaderMap,
        defaults: &HeaderMap,
        worn: &mut Worn,
    ) {
        self.put_cookies(target, fields, defaults, worn);
        if std::mem::take(&mut worn.authorization) {
            fields.remove(AUTHORIZATION);
        }
        if fields.contains_key(AUTHORIZATION) {
            return;
        }
        let renewed = self
            .authenticator(target, worn)
            .and_then(|found| found.value());
        let fixed = || {
            let mut all = self.credentials.iter();
            let found = all.find(|(origin, _)| origin.is_of(target));
            found.map(|(_, value)| value.clone())
        };
        if let Some(value) = renewed.or_else(fixed) {
            fields.insert(AUTHORIZATION, value);
            worn.authorization = true;
        }
    }

    /// The caller's own cookies are never mixed with those of the jar (security C1).
    pub(super) fn put_cookies(
        &self,
        target: &Target,
        fields: &mut HeaderMap,
        defaults: &HeaderMap,
        worn: &mut Worn,
    ) {
        if std::mem::take(&mut worn.cookies) {
            fields.remove(COOKIE);
        }
        let Some(jar) = &self.cookies else {
            return;
        };
        if fields.contains_key(COOKIE) || defaults.contains_key(COOKIE) {
            return;
        }
        if let Some(cookies) = jar.for_request(target) {
            fields.insert(COOKIE, cookies);
            worn.cookies = true;
        }
    }

    /// Keeps the cookies of a response, whatever its status.
    pub(super) fn learn(&self, response: &Response) {
        if let Some(jar) = &self.cookies {
            jar.learn(&response.target, response.values("set-cookie"));
        }
    }

    /// The same of one that is nobody's response.
    pub(super) fn learn_of(&self, target: &Target, head: &ResponseHead) {
        if let Some(jar) = &self.cookies {
            jar.learn(target, head.all("set-cookie"));
        }
    }

    /// Whoever may renew what this origin knows the client by.
    fn authenticator(&self, target: &Target, worn: &Worn) -> Option<Arc<Renewing>> {
        if self.authenticators.is_empty() || REFRESHING.try_with(|()| ()).is_ok() {
            return None;
        }
        let mut all = self.authenticators.iter();
        all.find_map(|scoped| scoped.of(target, worn.is_led_away))
    }

    /// Who answers a 401 of this request, and with what it was refused. Nobody, if the caller said who it is.
    pub(super) fn answers(
        &self,
        target: &Target,
        fields: &HeaderMap,
        worn: &Worn,
    ) -> Option<Arc<Renewing>> {
        let own = fields.contains_key(AUTHORIZATION) && !worn.authorization;
        if own {
            return None;
        }
        self.authenticator(target, worn)
    }
}

/// What a call wears that its caller did not put on, and where it may still.
#[derive(Default)]
pub(super) struct Worn {
    authorization: bool,
    cookies: bool,
    /// A redirect has led it to another origin: from then on only credentials bound to an origin by name are worn.
    pub(super) is_led_away: bool,
}

/// An authenticator and the origins that it answers.
pub(crate) struct Scoped {
    authenticator: Arc<dyn Authenticator>,
    scope: Scope,
}

enum Scope {
    Origin(Arc<Renewing>),
    /// Each origin that a caller names, by itself.
    Called(Mutex<HashMap<Origin, Arc<Renewing>>>),
}

impl Scoped {
    /// For one origin, or for each that a caller names.
    pub(crate) fn new(authenticator: Arc<dyn Authenticator>, origin: Option<Origin>) -> Self {
        let scope = match origin {
            Some(origin) => Scope::Origin(Renewing::new(Arc::clone(&authenticator), origin)),
            None => Scope::Called(Mutex::default()),
        };
        Self {
            authenticator,
            scope,
        }
    }

    fn of(&self, target: &Target, is_led_away: bool) -> Option<Arc<Renewing>> {
        match &self.scope {
            Scope::Origin(renewing) => renewing.origin.is_of(target).then(|| Arc::clone(renewing)),
            Scope::Called(_) if is_led_away => None,
            Scope::Called(origins) => {
                let mut origins = origins.lock().unwrap_or_else(PoisonError::into_inner);
                let origin = target.origin();
                if let Some(renewing) = origins.get(&origin) {
                    return Some(Arc::clone(renewing));
                }
                if origins.len() >= MAX_ORIGINS {
                    origins.retain(|_, renewing| Arc::strong_count(renewing) > 1);
                }
                let renewing = Renewing::new(Arc::clone(&self.authenticator), origin.clone());
                origins.insert(origin, Arc::clone(&renewing));
                Some(renewing)
            }
        }
    }
}

/// The credentials of one origin and who renews them.
pub(super) struct Renewing {
    authenticator: Arc<dyn Authenticator>,
    origin: Origin,
    renewal: Mutex<Renewal>,
    /// Held by the one that renews; those that wait are next in line when it gives up.
    turns: Turns<()>,
}

impl Renewing {
    fn new(authenticator: Arc<dyn Authenticator>, origin: Origin) -> Arc<Self> {
        Arc::new(Self {
            authenticator,
            origin,
            renewal: Mutex::default(),
            turns: Turns::new(()),
        })
    }

    fn value(&self) -> Option<HeaderValue> {
        self.with(|renewal| renewal.value().cloned())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Renewal) -> T) -> T {
        look(&mut self.renewal.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// New credentials after a 401, from whoever gets them first; `false` if there are none.
    pub(super) async fn renew(
        &self,
        challenge: &Challenge,
        deadline: &Deadline<'_>,
    ) -> Result<bool> {
        let renewing = self.renew_in_turn(challenge);
        let renewed = match deadline.next(Phase::Prepare, None) {
            Some(limit) => timeout_at(limit.at, renewing)
                .await
                .map_err(|_| Error::timeout(limit.expired, Sent::All))?,
            None => renewing.await,
        };
        match renewed {
            Renewed::Value(_) => Ok(true),
            Renewed::Declined => Ok(false),
            Renewed::Failed(error) => Err(error),
        }
    }

    async fn renew_in_turn(&self, challenge: &Challenge) -> Renewed {
        let rounds = self.with(|renewal| renewal.rounds());
        let _turn = self.turns.lock().await;
        if let Turn::Take(renewed) = self.with(|renewal| renewal.turn(challenge.refused(), rounds))
        {
            return renewed;
        }
        let refreshing = self.authenticator.refresh(challenge);
        let renewed = match REFRESHING.scope((), refreshing).await {
            Ok(Some(mut value)) => {
                value.set_sensitive(true);
                Renewed::Value(value)
            }
            Ok(None) => Renewed::Declined,
            Err(error) => Renewed::Failed(error),
        };
        self.with(|renewal| renewal.end(renewed.clone()));
        renewed
    }
}

tokio::task_local! {
    /// Set while an authenticator runs: the calls that it makes cannot wait for it.
    static REFRESHING: ();
}

/// Origins for which an authenticator without a scope keeps credentials; beyond them those are forgotten that nobody uses.
const MAX_ORIGINS: usize = 1024;
