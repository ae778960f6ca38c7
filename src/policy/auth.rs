//! Who may answer a challenge, and what a challenge says (RFC 9110 section 11).
//!
//! Pure. [`Challenge`] reads WWW-Authenticate as far as it makes sense and never fails; [`Renewal`] decides, for the many who were
//! refused with the same credentials, who renews them and who uses what another has brought. The spine waits and asks.

use std::fmt;

use http::HeaderValue;

use crate::error::Error;
use crate::url::Origin;

/// What a server said when it refused a request with status 401, for an [`Authenticator`](crate::Authenticator).
///
/// At most 16 schemes with 32 parameters each are read; what does not keep the grammar ends the reading.
#[derive(Clone)]
pub struct Challenge {
    origin: Origin,
    schemes: Vec<AuthScheme>,
    refused: Option<HeaderValue>,
}

impl Challenge {
    pub(crate) fn new<'a>(
        origin: Origin,
        values: impl Iterator<Item = &'a [u8]>,
        refused: Option<HeaderValue>,
    ) -> Self {
        let mut schemes = Vec::new();
        for value in values {
            read_schemes(value, &mut schemes);
        }
        Self {
            origin,
            schemes,
            refused,
        }
    }

    /// The origin that refused the request. What the authenticator answers with is sent to it alone.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The schemes that the server accepts, in its order; none if it did not say.
    pub fn schemes(&self) -> &[AuthScheme] {
        &self.schemes
    }

    /// The scheme of this name, in any case.
    pub fn scheme(&self, name: &str) -> Option<&AuthScheme> {
        let mut schemes = self.schemes.iter();
        schemes.find(|scheme| scheme.name.eq_ignore_ascii_case(name))
    }

    /// The `authorization` that was refused, if the request had one.
    pub fn refused(&self) -> Option<&HeaderValue> {
        self.refused.as_ref()
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters hold nonces, and what was refused is a secret.
        f.debug_struct("Challenge")
            .field("origin", &self.origin)
            .field("schemes", &self.schemes)
            .field("refused", &self.refused.is_some())
            .finish()
    }
}

/// One way to authenticate that a server offers: `Bearer realm="api", error="invalid_token"`.
#[derive(Clone)]
pub struct AuthScheme {
    name: String,
    token: Option<String>,
    params: Vec<(String, String)>,
}

impl AuthScheme {
    /// The name as the server wrote it; names have no case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a parameter, whose name has no case; of several the first.
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter();
        let found = params.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// What stands in place of parameters: `token68`, as `Negotiate` has it.
    pub fn token68(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl fmt::Debug for AuthScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthScheme")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Reads the challenges of one field value (RFC 9110 section 11.6.1): schemes and parameters share the comma.
fn read_schemes(value: &[u8], schemes: &mut Vec<AuthScheme>) {
    let mut text = Text(value);
    // A parameter at the beginning of a value belongs to no scheme.
    let mut is_open = false;
    loop {
        text.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
        let name = text.take(is_token);
        if name.is_empty() {
            return;
        }
        let behind = text;
        text.skip(is_blank);
        if text.eat(b'=') {
            let (true, Some(scheme)) = (is_open, schemes.last_mut()) else {
                return;
            };
            text.skip(is_blank);
            let Some(value) = text.value() else {
                return;
            };
            if scheme.params.len() < MAX_PARAMS {
                scheme.params.push((lossy(name), value));
            }
            continue;
        }
        if schemes.len() >= MAX_SCHEMES {
            return;
        }
        text = behind;
        let token = text.token68();
        is_open = true;
        schemes.push(AuthScheme {
            name: lossy(name),
            token,
            params: Vec::new(),
        });
    }
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        self.take(is_skipped);
    }

    fn take(&mut self, is_taken: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !is_taken(*byte));
        let (taken, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        taken
    }

    fn eat(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A token or a quoted string.
    fn value(&mut self) -> Option<String> {
        if !self.eat(b'"') {
            let token = self.take(is_token);
            return (!token.is_empty()).then(|| lossy(token));
        }
        let mut value = Vec::new();
        while let Some((byte, rest)) = self.0.split_first() {
            self.0 = rest;
            match byte {
                b'"' => return Some(lossy(&value)),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    value.push(*escaped);
                }
                byte => value.push(*byte),
            }
        }
        None
    }

    /// What stands behind the name of a scheme, if it is not a parameter.
    fn token68(&mut self) -> Option<String> {
        let mut text = *self;
        if text.take(is_blank).is_empty() {
            return None;
        }
        let begin = text.0;
        text.skip(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        text.skip(|byte| byte == b'=');
        let len = begin.len() - text.0.len();
        text.skip(is_blank);
        let ends = matches!(text.0.first(), None | Some(b','));
        if len == 0 || !ends {
            return None;
        }
        *self = text;
        begin.get(..len).map(lossy)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Schemes that are read of one response.
const MAX_SCHEMES: usize = 16;

/// Parameters that are kept of one scheme.
const MAX_PARAMS: usize = 32;

/// The credentials of one origin, which are renewed by one of those that were refused with them.
#[derive(Default)]
pub(crate) struct Renewal {
    value: Option<HeaderValue>,
    /// Renewals that have ended, well or not.
    rounds: u64,
    last: Option<Renewed>,
}

/// How a renewal ended.
#[derive(Clone)]
pub(crate) enum Renewed {
    Value(HeaderValue),
    /// The authenticator has none: the 401 is the answer.
    Declined,
    Failed(Error),
}

/// What someone does who was refused, and whose turn it is.
pub(crate) enum Turn {
    /// It is the first: it renews them.
    Renew,
    /// Another has done so.
    Take(Renewed),
}

impl Renewal {
    /// What requests use by now.
    pub(crate) fn value(&self) -> Option<&HeaderValue> {
        self.value.as_ref()
    }

    /// What one that was refused remembers until it is its turn.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Whose turn it is, of one that was refused with `used` and came when `rounds` renewals had ended.
    pub(crate) fn turn(&self, used: Option<&HeaderValue>, rounds: u64) -> Turn {
        if self.value.is_some() && self.value.as_ref() != used {
            return self
                .value
                .clone()
                .map_or(Turn::Renew, |value| Turn::Take(Renewed::Value(value)));
        }
        match &self.last {
            Some(last) if self.rounds > rounds => Turn::Take(last.clone()),
            _ => Turn::Renew,
        }
    }

    /// A renewal has ended. What was refused stays until there is something better.
    pub(crate) fn end(&mut self, renewed: Renewed) {
        if let Renewed::Value(value) = &renewed {
            self.value = Some(value.clone());
        }
        self.rounds += 1;
        self.last = Some(renewed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::UrlInput;

    fn challenge(values: &[&str]) -> Challenge {
        let url = UrlInput::Text("https://a.test/".into()).parse(None);
        let values = values.iter().map(|value| value.as_bytes());
        Challenge::new(url.unwrap().target.origin(), values, None)
    }

    fn told(values: &[&str]) -> String {
        let challenge = challenge(values);
        let schemes = challenge.schemes().iter().map(|scheme| {
            let params = scheme.params.iter();
            let mut parts: Vec<_> = params
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            parts.extend(scheme.token68().map(|token| format!("<{token}>")));
            format!("{}[{}]", scheme.name(), parts.join(";"))
        });
        schemes.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_a_challenge_says() {
        for (values, expected) in [
            (&[][..], ""),
            (&["Basic realm=\"simple\""], "Basic[realm=simple]"),
            (
                &[
                    "Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\", Basic realm=\"simple\"",
                ],
                "Newauth[realm=apps;type=1;title=Login to \"apps\"] Basic[realm=simple]",
            ),
            (&["Negotiate", "Bearer"], "Negotiate[] Bearer[]"),
            (&["Negotiate, Basic realm=x"], "Negotiate[] Basic[realm=x]"),
            (&["Negotiate YWJj+/=="], "Negotiate[<YWJj+/==>]"),
            (
                &["Negotiate YWJj, Basic realm=x"],
                "Negotiate[<YWJj>] Basic[realm=x]",
            ),
            (
                &[" , ,Bearer\trealm = \"a, b\" , scope=c,"],
                "Bearer[realm=a, b;scope=c]",
            ),
            (&["Bearer realm=\"caf\u{e9}\""], "Bearer[realm=caf\u{e9}]"),
            (&["Bearer realm=\"cut"], "Bearer[]"),
            (&["Bearer realm=\"cut\\"], "Bearer[]"),
            (&["Bearer realm="], "Bearer[<realm=>]"),
            (&["realm=\"of nobody\", Basic realm=x"], ""),
            (&["Basic", "realm=\"of nobody\""], "Basic[]"),
            (&["\"quoted\""], ""),
            (&["=", "@", "Basic @"], "Basic[]"),
        ] {
            assert_eq!(told(values), expected, "{values:?}");
        }
        let many = vec!["A b=1"; 100];
        assert_eq!(challenge(&many).schemes().len(), MAX_SCHEMES);
        let long = format!("A {}", "b=1,".repeat(100));
        assert_eq!(challenge(&[&long]).schemes()[0].params.len(), MAX_PARAMS);
        let found = challenge(&["Bearer REALM=x"]);
        assert_eq!(found.scheme("bearer").unwrap().param("realm"), Some("x"));
        assert_eq!(
            format!("{found:?}"),
            "Challenge { origin: https://a.test, schemes: [AuthScheme { name: \"Bearer\", .. }], refused: false }"
        );
    }

    #[test]
    fn one_renews_and_the_others_take_what_it_brought() {
        let value = |text: &'static str| HeaderValue::from_static(text);
        let shown = |turn: Turn| match turn {
            Turn::Renew => "renew".to_owned(),
            Turn::Take(Renewed::Value(value)) => value.to_str().unwrap().to_owned(),
            Turn::Take(Renewed::Declined) => "declined".to_owned(),
            Turn::Take(Renewed::Failed(error)) => error.to_string(),
        };
        let mut renewal = Renewal::default();
        assert_eq!(shown(renewal.turn(None, 0)), "renew");
        renewal.end(Renewed::Value(value("one")));
        assert_eq!(shown(renewal.turn(None, 0)), "one");
        // Refused with an older one, long after.
        assert_eq!(shown(renewal.turn(None, 1)), "one");
        // Refused with what is current: it has run out, unless this one waited for its renewal.
        assert_eq!(shown(renewal.turn(Some(&value("one")), 1)), "renew");
        assert_eq!(shown(renewal.turn(Some(&value("one")), 0)), "one");
        renewal.end(Renewed::Failed(Error::invalid("no luck")));
        assert_eq!(shown(renewal.turn(Some(&value("one")), 1)), "no luck");
        assert_eq!(shown(renewal.turn(Some(&value("one")), 2)), "renew");
        assert_eq!(renewal.value(), Some(&value("one")));
        renewal.end(Renewed::Declined);
        assert_eq!(shown(renewal.turn(Some(&value("one")), 2)), "declined");
        assert_eq!(renewal.rounds(), 3);
    }
}
