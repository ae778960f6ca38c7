//! `url::Url` as a URL of a request (feature `url`): it counts as its text, which passes the check of every other form.
//!
//! That crate follows the URL Standard, which repairs what it reads; nothing is repaired here.

use std::borrow::Cow;

use url::Url;

use super::UrlInput;
use super::sealed::Sealed;

impl Sealed for Url {
    fn into_url_input<'a>(self) -> UrlInput<'a>
    where
        Self: 'a,
    {
        UrlInput::Text(Cow::Owned(self.into()))
    }
}

impl Sealed for &Url {
    fn into_url_input<'a>(self) -> UrlInput<'a>
    where
        Self: 'a,
    {
        UrlInput::Text(Cow::Borrowed(self.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the URL Standard repairs arrives repaired; what it lets through beyond that is not taken.
    #[test]
    fn a_url_of_the_crate_url_counts_as_its_text() {
        let parse = |text: &str| {
            let url: Url = text.parse().unwrap();
            let by_reference = (&url).into_url_input().parse(None);
            let parsed = url.into_url_input().parse(None);
            match (parsed, by_reference) {
                (Ok(one), Ok(other)) => {
                    assert_eq!(one.target.uri(), other.target.uri());
                    assert_eq!(one.authorization, other.authorization);
                    Ok((one.target.into_uri().to_string(), one.authorization))
                }
                (Err(one), Err(other)) => {
                    assert_eq!(one, other);
                    Err(one.to_string())
                }
                _ => panic!("one of both was refused: {text}"),
            }
        };
        for (text, expected) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM:443/a b#c", "https://example.com/a%20b"),
            (
                "https://b\u{fc}cher.example/\u{fc}",
                "https://xn--bcher-kva.example/%C3%BC",
            ),
            ("http://127.1/a/../b?x=\"", "http://127.0.0.1/b?x=%22"),
            ("http://[::0001]:8080", "http://[::1]:8080/"),
        ] {
            assert_eq!(parse(text).unwrap(), (expected.to_owned(), None), "{text}");
        }
        let (uri, authorization) = parse("https://ann:secret@example.com/").unwrap();
        assert_eq!(uri, "https://example.com/");
        assert_eq!(*authorization.unwrap(), "Basic YW5uOnNlY3JldA==");
        for (text, said) in [
            ("https://example.com/?a[b]=c", "%5B"),
            ("https://example.com/?a=b|c", "%7C"),
            ("https://example.com/%zz", "%25"),
            ("file:///etc/passwd", "http://"),
            ("data:text/plain,a", "http://"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }
}
