//! The proxies that the environment names: `http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`, in either case.
//!
//! Pure: the variables come from a function, so that every rule is a row of a table below. The client's builder reads them once.
//! A variable that cannot be understood is a mistake that is kept: calls that it concerns fail rather than go another way.

use std::ffi::OsString;

use super::exclusions::{Exclusions, is_loopback};
use super::proxy::Via;
use crate::error::{Error, Result};
use crate::url::Target;

/// What was found. Of a program that has such variables every client has one.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    http: Result<Option<Via>>,
    https: Result<Option<Via>>,
    exclusions: Exclusions,
}

impl Environment {
    /// Reads the variables. `None` if they name no proxy.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        // What a CGI program finds under HTTP_PROXY is a field of the request that it serves (security U4). On Windows the
        // case of a name makes no difference.
        let is_cgi = variable("REQUEST_METHOD").is_some();
        let lower = if is_cgi && cfg!(windows) {
            ""
        } else {
            "http_proxy"
        };
        let upper = if is_cgi { "" } else { "HTTP_PROXY" };
        let everything = ["all_proxy", "ALL_PROXY"];
        let first = |names: &[&'static str]| {
            let mut names = names.iter().copied().filter(|name| !name.is_empty());
            names.find_map(|name| Some((name, variable(name).filter(|value| !value.is_empty())?)))
        };
        let proxy = |names: [&'static str; 2]| match first(&names).or_else(|| first(&everything)) {
            Some((name, value)) => via(name, &value).map(Some),
            None => Ok(None),
        };
        let (http, https) = (proxy([lower, upper]), proxy(["https_proxy", "HTTPS_PROXY"]));
        if matches!((&http, &https), (Ok(None), Ok(None))) {
            return None;
        }
        let list = first(&["no_proxy", "NO_PROXY"]).map(|(_, value)| value);
        let list = list.unwrap_or_default().to_string_lossy().into_owned();
        Some(Self {
            http,
            https,
            // Lists in the wild hold items of other programs' syntax; what cannot match anything matches nothing.
            exclusions: Exclusions::parse(&list).0,
        })
    }

    /// The first mistake.
    pub(crate) fn check(&self) -> Result<()> {
        self.http.as_ref().map_err(Error::clone)?;
        self.https.as_ref().map_err(Error::clone)?;
        Ok(())
    }

    /// The proxy for a URL, if there is one.
    pub(crate) fn choose(&self, target: &Target) -> Result<Option<&Via>> {
        let proxy = if target.is_https() {
            &self.https
        } else {
            &self.http
        };
        if matches!(proxy, Ok(None)) || is_loopback(target) || self.exclusions.hold(target) {
            return Ok(None);
        }
        match proxy {
            Ok(via) => Ok(via.as_ref()),
            Err(mistake) => Err(mistake.clone()),
        }
    }
}

/// The value of a variable; the error names the variable and never shows the value, which may hold a password.
fn via(name: &'static str, value: &OsString) -> Result<Via> {
    let told = |why: &str| {
        Error::invalid(format!(
            "the environment variable {name} names no proxy: {why}; correct it, or turn such variables off \
             (ClientBuilder::no_proxy)"
        ))
    };
    let text = value.to_str().ok_or_else(|| told("it is not UTF-8"))?;
    Via::parse(text.trim()).map_err(|why| told(&why.discreet()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::url::UrlInput;

    fn read(variables: &[(&str, &str)]) -> Option<Environment> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Environment::read(|name| Some(variables.get(name)?.into()))
    }

    /// Which proxy a URL has by these variables.
    fn chosen(variables: &[(&str, &str)], url: &str) -> Result<Option<String>> {
        let target = UrlInput::Text(url.to_owned().into())
            .parse(None)
            .unwrap()
            .target;
        let Some(environment) = read(variables) else {
            return Ok(None);
        };
        Ok(environment.choose(&target)?.map(ToString::to_string))
    }

    #[test]
    fn which_variable_counts() {
        const HTTP: &str = "http://a.test/";
        const HTTPS: &str = "https://a.test/";
        type Row = (
            &'static [(&'static str, &'static str)],
            &'static str,
            Option<&'static str>,
        );
        let rows: &[Row] = &[
            (&[], HTTP, None),
            (&[("http_proxy", "p1")], HTTP, Some("http://p1:80")),
            (&[("http_proxy", "p1")], HTTPS, None),
            (&[("https_proxy", "p1")], HTTPS, Some("http://p1:80")),
            (&[("https_proxy", "p1")], HTTP, None),
            (&[("HTTP_PROXY", "p1")], HTTP, Some("http://p1:80")),
            (&[("HTTPS_PROXY", "p1")], HTTPS, Some("http://p1:80")),
            (&[("all_proxy", "p1")], HTTP, Some("http://p1:80")),
            (&[("all_proxy", "p1")], HTTPS, Some("http://p1:80")),
            (&[("ALL_PROXY", "p1")], HTTPS, Some("http://p1:80")),
            // Lower case wins, and a scheme's own variable over that of all.
            (
                &[("http_proxy", "p1"), ("HTTP_PROXY", "p2")],
                HTTP,
                Some("http://p1:80"),
            ),
            (
                &[("https_proxy", "p1"), ("HTTPS_PROXY", "p2")],
                HTTPS,
                Some("http://p1:80"),
            ),
            (
                &[("all_proxy", "p1"), ("ALL_PROXY", "p2")],
                HTTP,
                Some("http://p1:80"),
            ),
            (
                &[("HTTP_PROXY", "p1"), ("all_proxy", "p2")],
                HTTP,
                Some("http://p1:80"),
            ),
            (
                &[("http_proxy", "p1"), ("all_proxy", "p2")],
                HTTPS,
                Some("http://p2:80"),
            ),
            // One that is empty is not there.
            (&[("http_proxy", "")], HTTP, None),
            (
                &[("http_proxy", ""), ("HTTP_PROXY", "p2")],
                HTTP,
                Some("http://p2:80"),
            ),
            // httpoxy.
            (
                &[("HTTP_PROXY", "p1"), ("REQUEST_METHOD", "GET")],
                HTTP,
                None,
            ),
            (&[("HTTP_PROXY", "p1"), ("REQUEST_METHOD", "")], HTTP, None),
            (
                &[
                    ("HTTP_PROXY", "p1"),
                    ("REQUEST_METHOD", "GET"),
                    ("ALL_PROXY", "p2"),
                ],
                HTTP,
                Some("http://p2:80"),
            ),
            (
                &[("HTTPS_PROXY", "p1"), ("REQUEST_METHOD", "GET")],
                HTTPS,
                Some("http://p1:80"),
            ),
            #[cfg(not(windows))]
            (
                &[("http_proxy", "p1"), ("REQUEST_METHOD", "GET")],
                HTTP,
                Some("http://p1:80"),
            ),
            // Forms of a value.
            (
                &[("http_proxy", " http://p1:3128/ ")],
                HTTP,
                Some("http://p1:3128"),
            ),
            (&[("http_proxy", "p1:3128")], HTTP, Some("http://p1:3128")),
            (&[("http_proxy", "HTTP://P1")], HTTP, Some("http://p1:80")),
            (
                &[("http_proxy", "u:secret@p1:3128")],
                HTTP,
                Some("http://p1:3128"),
            ),
            // What is left out.
            (&[("http_proxy", "p1"), ("no_proxy", "a.test")], HTTP, None),
            (&[("http_proxy", "p1"), ("NO_PROXY", "a.test")], HTTP, None),
            (
                &[
                    ("http_proxy", "p1"),
                    ("no_proxy", "b.test"),
                    ("NO_PROXY", "a.test"),
                ],
                HTTP,
                Some("http://p1:80"),
            ),
            (&[("http_proxy", "p1"), ("no_proxy", "*")], HTTP, None),
            (
                &[("http_proxy", "p1"), ("no_proxy", "<local>,a.test:80")],
                HTTP,
                None,
            ),
            (&[("no_proxy", "b.test")], HTTP, None),
            (&[("all_proxy", "p1")], "http://localhost:8080/", None),
            (&[("all_proxy", "p1")], "https://127.0.0.1/", None),
            (&[("all_proxy", "p1")], "http://[::1]/", None),
        ];
        for (variables, url, expected) in rows {
            let found = chosen(variables, url).unwrap();
            assert_eq!(found.as_deref(), *expected, "{variables:?} {url}");
        }
    }

    #[test]
    fn a_mistake_concerns_the_calls_of_its_variable_and_shows_no_value() {
        for value in [
            "ftp://us3r:s3cret@p1",
            "http://us3r:s3cret@",
            "http://us3r:s3cret@p1:99999",
            "http://us3r:s3cret@p1/s3cret",
            "s3cret p1",
            "http://p1?s3cret",
            "us3r:s3/cret@p1",
        ] {
            let variables = [("HTTPS_PROXY", value), ("no_proxy", "b.test")];
            let environment = read(&variables).unwrap();
            let error = environment.check().unwrap_err();
            let shown = format!("{error} {error:?} {environment:?}");
            assert!(shown.contains("HTTPS_PROXY"), "{shown}");
            assert!(!shown.contains("s3") && !shown.contains("us3r"), "{shown}");
            assert!(chosen(&variables, "https://a.test/").is_err());
            assert_eq!(chosen(&variables, "http://a.test/").unwrap(), None);
            assert_eq!(chosen(&variables, "https://b.test/").unwrap(), None);
            assert_eq!(chosen(&variables, "https://localhost/").unwrap(), None);
        }
    }
}
