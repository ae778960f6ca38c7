//! Which URLs a rule is for.

use std::fmt;

use http::Uri;

use crate::test::received::without_values;
use crate::url::{Origin, UrlInput};

/// An origin, a path or the beginning of one, and a query if it matters.
pub(super) struct Pattern {
    url: Uri,
    origin: Origin,
    is_prefix: bool,
}

impl Pattern {
    #[track_caller]
    pub(super) fn new(text: &str) -> Self {
        let parsed = UrlInput::Text(text.to_owned().into()).parse(None);
        let url = text.parse::<Uri>();
        let (Ok(parsed), Ok(url)) = (parsed, url) else {
            panic!("a rule of the mock: {text:?} is no absolute http or https URL");
        };
        Self {
            origin: parsed.target.origin(),
            is_prefix: url.path().ends_with('*'),
            url,
        }
    }

    /// Whether it is for URLs of this origin.
    pub(super) fn is_at(&self, origin: &Origin) -> bool {
        self.origin == *origin
    }

    /// Whether it is for a URL that was asked for at `origin`.
    pub(super) fn fits(&self, origin: &Origin, url: &Uri) -> bool {
        let path = self.url.path();
        let fits_path = if self.is_prefix {
            url.path().starts_with(path.trim_end_matches('*'))
        } else {
            url.path() == path
        };
        let fits_query = self.url.query().is_none() || self.url.query() == url.query();
        self.is_at(origin) && fits_path && fits_query
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_values(&self.url))
    }
}
