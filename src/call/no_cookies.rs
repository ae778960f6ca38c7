//! In place of cookies.rs where the feature `cookies` is not compiled in: there is no jar.

use http::HeaderValue;

use crate::url::Target;

#[derive(Clone)]
pub(crate) enum CookieJar {}

impl CookieJar {
    pub(super) fn learn<'a>(&self, _: &Target, _: impl Iterator<Item = &'a [u8]>) {
        match *self {}
    }

    pub(super) fn for_request(&self, _: &Target) -> Option<HeaderValue> {
        match *self {}
    }
}
