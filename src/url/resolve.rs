//! What a Location field names, seen from the URL that answered with it (RFC 3986 section 5).
//!
//! A reference of a server's is read more kindly than a URL of a caller's in one point: bytes that must be percent-encoded in
//! a path or a query and are not (blanks, non-ASCII, brackets, a `%` that is none) are encoded here, as browsers do. Nothing
//! about the authority is repaired: what comes of it passes the strict check of `url.rs`, and a backslash in a path, which some
//! parsers read as `/`, is refused. Userinfo is refused (security R8, ruling 17). Called by the redirect policy.

use std::borrow::Cow;

use super::{
    CLASSES, PATH, QUERY, Rule, Target, UrlError, decode_percent, parse_text, refuse, scheme_text,
};

impl Target {
    /// The URL that `location` names when this URL answers with it. A fragment is dropped: it is never sent.
    pub(crate) fn resolve(&self, location: &[u8]) -> Result<Self, UrlError> {
        let reference = Reference::split(location);
        let https = match reference.scheme {
            None => self.is_https(),
            Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => true,
            Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => false,
            Some(scheme) => {
                let error = Rule::Scheme.of(&String::from_utf8_lossy(scheme));
                return Err(error.redacted_if(location.contains(&b'@')));
            }
        };
        let no_slashes = reference.scheme.is_some() && reference.authority.is_none();
        refuse(no_slashes, Rule::Slashes)?;
        let mut text = format!("{}://", scheme_text(https));
        match reference.authority {
            Some(authority) => {
                refuse(authority.contains(&b'@'), Rule::LocationUserinfo)?;
                refuse(!authority.is_ascii(), Rule::HostNotAscii)?;
                text.push_str(&String::from_utf8_lossy(authority));
            }
            None => text.push_str(self.authority()),
        }
        let path = encode(reference.path, PATH);
        let base = self.uri().path();
        let is_rooted = reference.authority.is_some() || path.starts_with('/');
        if path.is_empty() && reference.authority.is_none() {
            text.push_str(base);
        } else if is_rooted {
            push_without_dots(&mut text, &path);
        } else {
            let folder = base.rfind('/').and_then(|slash| base.get(..=slash));
            push_without_dots(&mut text, &format!("{}{path}", folder.unwrap_or("/")));
        }
        let kept = path.is_empty() && reference.authority.is_none();
        let query = match reference.query {
            Some(query) => Some(encode(query, QUERY)),
            None if kept => self.uri().query().map(str::to_owned),
            None => None,
        };
        if let Some(query) = query {
            text.push('?');
            text.push_str(&query);
        }
        Ok(parse_text(Cow::Owned(text), None)?.target)
    }

    /// Whether this URL is not protected where the other is.
    pub(crate) fn is_downgrade_of(&self, other: &Self) -> bool {
        other.is_https() && !self.is_https()
    }
}

/// The parts of a reference (RFC 3986 appendix B), before any check.
struct Reference<'a> {
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
}

impl<'a> Reference<'a> {
    fn split(text: &'a [u8]) -> Self {
        let (text, _) = split_at(text, |byte| byte == b'#');
        let (scheme, rest) = split_scheme(text);
        let (hierarchy, query) = split_at(rest, |byte| byte == b'?');
        let (authority, path) = match hierarchy.strip_prefix(b"//") {
            Some(behind) => {
                let end = behind.iter().position(|byte| *byte == b'/');
                let (authority, path) = behind.split_at(end.unwrap_or(behind.len()));
                (Some(authority), path)
            }
            None => (None, hierarchy),
        };
        Self {
            scheme,
            authority,
            path,
            query,
        }
    }
}

/// What stands before and behind the first byte of a kind.
fn split_at(text: &[u8], is_end: impl Fn(u8) -> bool) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| is_end(*byte)) {
        Some(at) => {
            let (before, behind) = text.split_at(at);
            (before, behind.get(1..))
        }
        None => (text, None),
    }
}

/// The scheme, if the text begins with one, and what follows its colon.
fn split_scheme(text: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let is_scheme = |name: &[u8]| {
        let rest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        name.first().is_some_and(u8::is_ascii_alphabetic) && name.iter().all(rest)
    };
    match split_at(text, |byte| matches!(byte, b':' | b'/' | b'?')) {
        (name, Some(rest)) if text.get(name.len()) == Some(&b':') && is_scheme(name) => {
            (Some(name), rest)
        }
        _ => (None, text),
    }
}

/// The text with everything percent-encoded that may not stand in this part as it is. What no server means, controls and a
/// backslash in a path, stays and is refused by the check behind this.
fn encode(bytes: &[u8], mask: u8) -> String {
    let mut text = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().copied().enumerate() {
        let stays = CLASSES[usize::from(byte)] & mask != 0
            || byte.is_ascii_control()
            || (byte == b'\\' && mask == PATH)
            || (byte == b'%' && decode_percent(bytes, at).is_some());
        if stays {
            text.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    text
}

/// Appends a path without its `.` and `..` segments (RFC 3986 section 5.2.4), plain or percent-encoded; `..` never leaves the root.
fn push_without_dots(text: &mut String, path: &str) {
    let Some(path) = path.strip_prefix('/') else {
        // Nothing stands behind an authority.
        return text.push('/');
    };
    let mut kept = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split('/') {
        let dots = dots(segment);
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => drop(kept.pop()),
        }
        ends_in_folder = dots > 0;
    }
    for segment in &kept {
        text.push('/');
        text.push_str(segment);
    }
    if ends_in_folder || kept.is_empty() {
        text.push('/');
    }
}

/// How many dots a segment is, if it is nothing but one or two.
fn dots(segment: &str) -> usize {
    let one = |text: &mut &str| {
        let forms = [".", "%2e", "%2E"];
        let rest = forms.iter().find_map(|dot| text.strip_prefix(dot));
        rest.map(|rest| *text = rest).is_some()
    };
    let mut rest = segment;
    let count = usize::from(one(&mut rest)) + usize::from(one(&mut rest));
    if rest.is_empty() { count } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::UrlInput;
    use super::*;

    fn target(url: &str) -> Target {
        UrlInput::Text(url.into()).parse(None).unwrap().target
    }

    fn check(base: &str, location: impl AsRef<[u8]>, expected: Result<&str, &str>) {
        let location = location.as_ref();
        let shown = location.escape_ascii().to_string();
        match (target(base).resolve(location), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.uri().to_string(), expected, "{shown}"),
            (Err(error), Err(piece)) => {
                let error = error.to_string();
                assert!(error.contains(piece), "{shown}: {error}");
            }
            (outcome, expected) => panic!("{shown} gave {outcome:?}, not {expected:?}"),
        }
    }

    /// The examples of RFC 3986 section 5.4; a fragment is not part of what is sent.
    #[test]
    fn the_examples_of_the_rfc() {
        for (reference, expected) in [
            ("g:h", Err("(\"g\")")),
            ("g", Ok("http://a/b/c/g")),
            ("./g", Ok("http://a/b/c/g")),
            ("g/", Ok("http://a/b/c/g/")),
            ("/g", Ok("http://a/g")),
            ("//g", Ok("http://g/")),
            ("?y", Ok("http://a/b/c/d;p?y")),
            ("g?y", Ok("http://a/b/c/g?y")),
            ("#s", Ok("http://a/b/c/d;p?q")),
            ("g#s", Ok("http://a/b/c/g")),
            ("g?y#s", Ok("http://a/b/c/g?y")),
            (";x", Ok("http://a/b/c/;x")),
            ("g;x", Ok("http://a/b/c/g;x")),
            ("g;x?y#s", Ok("http://a/b/c/g;x?y")),
            ("", Ok("http://a/b/c/d;p?q")),
            (".", Ok("http://a/b/c/")),
            ("./", Ok("http://a/b/c/")),
            ("..", Ok("http://a/b/")),
            ("../", Ok("http://a/b/")),
            ("../g", Ok("http://a/b/g")),
            ("../..", Ok("http://a/")),
            ("../../", Ok("http://a/")),
            ("../../g", Ok("http://a/g")),
            ("../../../g", Ok("http://a/g")),
            ("../../../../g", Ok("http://a/g")),
            ("/./g", Ok("http://a/g")),
            ("/../g", Ok("http://a/g")),
            ("g.", Ok("http://a/b/c/g.")),
            (".g", Ok("http://a/b/c/.g")),
            ("g..", Ok("http://a/b/c/g..")),
            ("..g", Ok("http://a/b/c/..g")),
            ("./../g", Ok("http://a/b/g")),
            ("./g/.", Ok("http://a/b/c/g/")),
            ("g/./h", Ok("http://a/b/c/g/h")),
            ("g/../h", Ok("http://a/b/c/h")),
            ("g;x=1/./y", Ok("http://a/b/c/g;x=1/y")),
            ("g;x=1/../y", Ok("http://a/b/c/y")),
            ("g?y/./x", Ok("http://a/b/c/g?y/./x")),
            ("g?y/../x", Ok("http://a/b/c/g?y/../x")),
            ("g#s/./x", Ok("http://a/b/c/g")),
            ("g#s/../x", Ok("http://a/b/c/g")),
            // Strict, as the section allows: the other reading names a host.
            ("http:g", Err("not followed by //")),
        ] {
            check("http://a/b/c/d;p?q", reference, expected);
        }
    }

    #[test]
    fn what_servers_leave_unencoded_is_encoded() {
        for (reference, expected) in [
            (&b"a b"[..], "http://h/x/a%20b"),
            (b"/caf\xc3\xa9?\xe9", "http://h/caf%C3%A9?%E9"),
            (b"/100%/%zz/%2F", "http://h/100%25/%25zz/%2F"),
            (
                b"/a[1]{b}|c^`\"<>",
                "http://h/a%5B1%5D%7Bb%7D%7Cc%5E%60%22%3C%3E",
            ),
            (b"?q=a b&c=[1]\\", "http://h/x/y?q=a%20b&c=%5B1%5D%5C"),
            (b"//g?a b", "http://g/?a%20b"),
            (b"//g#a b", "http://g/"),
            (b"/a/%2e%2E/b/%2e", "http://h/b/"),
            (b"/a//../b", "http://h/a/b"),
            (b"/a//b", "http://h/a//b"),
            (b"https://h:443/../a", "https://h/a"),
            (b"HTTP://H:80", "http://h/"),
            (b"1:2", "http://h/x/1:2"),
            (b"/http://g/", "http://h/http://g/"),
        ] {
            check("http://h/x/y?old", reference, Ok(expected));
        }
    }

    #[test]
    fn what_could_name_another_host_is_refused() {
        for (reference, expected) in [
            (&b"//user@g/"[..], "userinfo"),
            (b"https://user:secret@g/", "userinfo"),
            (b"http://g@/", "userinfo"),
            (b"//b\xc3\xbccher.test/", "not ASCII"),
            (b"//\xff/", "not ASCII"),
            (b"\\\\g/", "write %5C"),
            (b"/\\g/", "write %5C"),
            (b"http:\\\\g/", "not followed by //"),
            (b"//g\\@h/", "userinfo"),
            (b"//g\\.h/", "the host may hold"),
            (b"///g", "the host is missing"),
            (b"http://", "the host is missing"),
            (b"http:///g", "the host is missing"),
            (b"javascript:alert(1)", "(\"javascript\")"),
            (b"file:///etc/passwd", "(\"file\")"),
            (b"//127.1/", "ends in a number"),
            (b"//0x7f.1/", "ends in a number"),
            (b"//g:0/", "out of range"),
            (b"//g:/", "the port is empty"),
            (b"//a..b/", "empty label"),
            (b"//[::1%25eth0]/", "zone identifier"),
            (b"/a\tb", "'\\t'"),
            (b"/a\x00b", "'\\0'"),
            (b"/a\x7fb", "byte 2"),
            (b"//%67/", "percent-encoded"),
        ] {
            check("http://h/x", reference, Err(expected));
        }
        let long = format!("/{}", "\u{e9}".repeat(11_000));
        check("http://h/x", long, Err("too long"));
    }

    /// Each pair of bytes in each place gives an outcome, and never another host than the one that the text shows.
    #[test]
    fn any_two_bytes_anywhere() {
        let base = target("http://h.test/a/b?c");
        let (mut kept, mut moved) = (0, 0);
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                for text in [&b"/x"[..], b"x/y", b"?x", b""] {
                    let mut location = vec![first, second];
                    location.extend_from_slice(text);
                    let Ok(found) = base.resolve(&location) else {
                        continue;
                    };
                    if found.same_origin(&base) {
                        kept += 1;
                    } else {
                        assert_eq!([first, second], *b"//", "{location:?}");
                        moved += 1;
                    }
                }
            }
        }
        assert!(kept > 10_000 && moved > 0, "{kept} {moved}");
    }
}
