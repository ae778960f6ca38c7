//! Reads `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): a list of quoted names, each with numbers.
//!
//! ```text
//! RateLimit-Policy: "burst";q=100;w=60, "day";q=1000;w=86400
//! RateLimit: "burst";r=0;t=30
//! ```
//! Whatever is not understood is left out: a field of a server's must not fail a call.

use std::time::Duration;

use crate::head::ResponseHead;

/// How long the server says that a quota is used up: the longest `t` of those with `r=0`, or where there is none the window
/// `w` of the policy of that name.
pub(crate) fn used_up(head: &ResponseHead) -> Option<Duration> {
    used_up_by(|wanted| {
        let of_name = move |(name, value): (_, _)| is_name(name, wanted).then_some(value);
        head.fields().filter_map(of_name)
    })
}

fn is_name(name: &[u8], wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

fn used_up_by<'a, I: Iterator<Item = &'a [u8]>>(
    fields: impl Fn(&'static str) -> I,
) -> Option<Duration> {
    let mut longest = None;
    for item in fields("ratelimit").flat_map(items) {
        if number(item, b'r') != Some(0) {
            continue;
        }
        let window = || {
            let mut policies = fields("ratelimit-policy").flat_map(items);
            number(policies.find(|policy| name(policy) == name(item))?, b'w')
        };
        longest = longest.max(number(item, b't').or_else(window));
    }
    longest.map(Duration::from_secs)
}

/// The members of a list; a comma in quotes does not divide.
fn items(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(field, b',')
}

/// The name of a member with its quotes.
fn name(item: &[u8]) -> &[u8] {
    split(item, b';').next().unwrap_or_default().trim_ascii()
}

/// A parameter that is a whole number.
fn number(item: &[u8], key: u8) -> Option<u64> {
    split(item, b';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.trim_ascii().split_first()?;
        let digits = value.strip_prefix(b"=").filter(|_| *name == key)?;
        let text = std::str::from_utf8(digits).ok()?;
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    })
}

/// Parts between separators that are not in quotes.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let now = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = now.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                byte => return *byte == separator && !quoted,
            }
            false
        });
        match end {
            Some(end) => {
                rest = now.get(end + 1..);
                now.get(..end)
            }
            None => rest.take(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: &str, policy: &str, expected: Option<u64>) {
        let told = used_up_by(|name| match name {
            "ratelimit" => std::iter::once(limit.as_bytes()),
            _ => std::iter::once(policy.as_bytes()),
        });
        assert_eq!(told.map(|wait| wait.as_secs()), expected, "{limit:?}");
    }

    #[test]
    fn a_quota_that_is_used_up_says_for_how_long() {
        check(r#""p";r=0;t=30"#, "", Some(30));
        check(r#""p";r=5;t=30"#, "", None);
        check(r#""p"; r=0; t=30 "#, "", Some(30));
        check(r#""a";r=0;t=3, "b";r=0;t=40,"c";r=9;t=99"#, "", Some(40));
        check(r#""a,b";r=0;t=3"#, "", Some(3));
        check(r#""a\";r=0;t=9";r=0;t=4"#, "", Some(4));
        check(r#""p";r=0"#, r#""q";q=1;w=9, "p";q=100;w=60"#, Some(60));
        check(r#""p";r=0"#, r#""q";q=1;w=9"#, None);
        check(r#""p";r=0;t=0"#, "", Some(0));
        check("p;r=0;t=30", "", Some(30));
        check(r#""p";r=0;t=99999999999999999999"#, "", Some(u64::MAX));
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        for field in [
            "",
            ",",
            ";",
            r#"""#,
            r#""p;r=0;t=30"#,
            r#""p";r=-1;t=30"#,
            r#""p";r=0.5;t=1"#,
            r#""p";r=;t=1"#,
            r#""p";R=0;t=1"#,
            "limit=100, remaining=0, reset=30",
            "100;w=60",
            r#""p\"#,
        ] {
            check(field, "", None);
        }
        check(r#""p";r=0;t=x"#, "", None);
    }
}
