//! A chain of redirects: what servers write into Location, and which fields go along.

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderValue, Method, StatusCode};

use crate::head::RequestHead;
use crate::policy::{Asked, Redirects};
use crate::url::{Target, UrlInput};

/// Follows each line as the Location of a redirect, from a URL that the first byte chooses. A secret never leaves the first
/// origin, and what is followed is a URL like any other.
pub fn location(data: &[u8]) {
    let Some((choice, lines)) = data.split_first() else {
        return;
    };
    let allows_downgrade = choice & 0x80 != 0;
    let first = target(STARTS[usize::from(*choice) % STARTS.len()]);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("secret"));
    headers.insert("x-plain", HeaderValue::from_static("plain"));
    let mut head = RequestHead {
        method: Method::POST,
        target: first.clone(),
        headers,
        asks: None,
    };
    let redirects = Redirects::follow(LIMIT).with_downgrade(allows_downgrade);
    let (mut has_left, mut followed) = (false, 0);
    for line in lines.split(|byte| *byte == b'\n') {
        let from = head.target.clone();
        let asked = Asked {
            head: &head,
            from: &from,
            replayable: true,
            followed,
        };
        let status = STATUSES[line.len() % STATUSES.len()];
        let status = StatusCode::from_u16(status).expect("one of the list");
        let step = match redirects.decide(status, std::iter::once(line), &asked) {
            Ok(Some(step)) => step,
            Ok(None) => continue,
            Err(refused) => {
                let shown = refused.into_error().to_string();
                assert!(!shown.contains(['\r', '\n', '\0']), "{shown:?}");
                continue;
            }
        };
        step.change(&mut head, &redirects);
        followed += 1;
        check(line, &from, &step.target);
        assert!(allows_downgrade || step.target.is_https() || !from.is_https());
        has_left |= !step.target.same_origin(&first);
        assert_eq!(head.headers.contains_key(AUTHORIZATION), !has_left);
        assert!(head.headers.contains_key("x-plain"));
        head.target = step.target;
    }
    assert!(followed <= LIMIT);
}

/// What holds of a URL that was resolved.
fn check(line: &[u8], from: &Target, found: &Target) {
    let written = found.uri().to_string();
    let Ok(again) = UrlInput::Text(written.clone().into()).parse(None) else {
        panic!("{written:?} is refused as a URL");
    };
    assert_eq!(again.target.uri(), found.uri());
    assert!(again.authorization.is_none(), "{written:?}");
    let names_a_host = line.contains(&b':') || line.starts_with(b"//");
    assert!(names_a_host || found.same_origin(from), "{written:?}");
    let path = found.path_and_query().split('?').next().unwrap_or_default();
    let has_dots = path.split('/').any(|part| matches!(part, "." | ".."));
    assert!(!has_dots, "{written:?}");
}

fn target(url: &str) -> Target {
    let parsed = UrlInput::Text(url.into()).parse(None);
    parsed.expect("a URL of the list").target
}

const LIMIT: usize = 10;

const STARTS: [&str; 4] = [
    "http://a.test/b/c?d",
    "https://a.test:8443/",
    "http://[::1]/x/y/z",
    "https://a.test./?",
];

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
