//! Any text as a URL.

use std::borrow::Cow;

use http::Uri;

use crate::url::UrlInput;

/// Parses a URL as text and as a URI, and what came of it once more.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parsed = match UrlInput::Text(text.into()).parse(None) {
        Ok(parsed) => parsed,
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.contains(['\r', '\n', '\0']), "{shown:?}");
            return;
        }
    };
    let target = parsed.target;
    let graphic = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(graphic(target.path_and_query()) && target.path_and_query().starts_with('/'));
    assert!(
        !target.path_and_query().contains('#'),
        "no fragment is sent"
    );
    let host = target.host_field();
    assert!(
        graphic(host) && !host.is_empty() && !host.contains(['@', '/', '?', '#', '\\']),
        "{host}"
    );
    assert!(target.port() != 0 && !target.host().is_empty());
    assert_eq!(
        target.host(),
        target.host().to_ascii_lowercase(),
        "a host has one spelling"
    );
    // What was parsed is its own text, and says the same again in both forms.
    let written = target.uri().to_string();
    let again = UrlInput::Text(written.clone().into()).parse(None);
    let as_uri = UrlInput::Uri(Cow::Borrowed(target.uri())).parse(None);
    for same in [again, as_uri] {
        let Ok(same) = same else {
            panic!("{written:?} of {text:?} is refused");
        };
        assert!(same.target.same_origin(&target), "{text:?}");
        assert_eq!(same.target.uri(), target.uri(), "{text:?}");
        assert!(
            same.authorization.is_none(),
            "credentials stay out of {written:?}"
        );
    }
    // The other way in must lead to the same place, if it is open at all.
    if let Ok(uri) = text.parse::<Uri>() {
        if let Ok(other) = UrlInput::Uri(Cow::Owned(uri)).parse(None) {
            assert!(other.target.same_origin(&target), "{text:?}");
            assert_eq!(
                other.target.path_and_query(),
                target.path_and_query(),
                "{text:?}"
            );
        }
    }
}
