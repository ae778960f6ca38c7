//! Reads the command line. It touches neither files nor the network: what it answers is what was asked for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use sockeye::Method;
use sockeye::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

pub(crate) const HELP: &str = "\
Usage: fetch [FLAG]... URL...
       fetch                    shows the client under load against servers of its own

Request:
  -X, --request METHOD          the method; otherwise GET, HEAD with -I, POST with -d
  -H, --header 'NAME: VALUE'    adds a field; may be repeated
  -d, --data DATA               the body: DATA itself, @FILE or @- for stdin, sent as it is; may be repeated, joined by &.
                                content-type is application/x-www-form-urlencoded unless -H says otherwise
  -I, --head                    asks for the head only, and writes it
Output:
  -o, --output FILE             writes the body to FILE; the body of an error status goes to stdout all the same
  -i, --include                 writes the response head before the body
  -v, --verbose                 tells on stderr what is sent, over which connection, and what head comes back
  -w, --waterfall               draws on stderr where the time went
Connection:
      --cacert FILE             trusts the certificates of this PEM file and no others
  -k, --insecure                trusts any certificate: for tests
      --connect-timeout SECONDS the limit of resolving, connecting and the TLS handshake together; otherwise 10
  -m, --max-time SECONDS        the limit of the whole transfer, in place of the 10 s that each other step may take
  -h, --help                    this text

Several URLs are fetched one after the other with one client, so that connections are reused. The first failure decides
the exit code: 2 usage, 3 bad URL, 6 name not resolved, 7 not connected, 18 body cut short, 22 status of 400 or more,
23 output not written, 26 data not read, 28 timeout, 35 TLS handshake, 52 empty reply, 55 not sent, 56 not received,
60 certificate not trusted, 77 CA file not usable. Without a URL: 1 if something was not as expected.
";

/// What to do.
#[derive(Debug)]
pub(crate) enum Task {
    Help,
    Demo,
    Fetch(Options),
}

/// How to fetch.
#[derive(Debug)]
pub(crate) struct Options {
    /// At least one.
    pub(crate) urls: Vec<String>,
    pub(crate) method: Method,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The parts of the body; none is no body.
    pub(crate) data: Vec<Data>,
    pub(crate) output: Option<PathBuf>,
    pub(crate) include: bool,
    pub(crate) verbose: bool,
    pub(crate) waterfall: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) insecure: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) max_time: Option<Duration>,
}

/// Where a part of the body comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Text(String),
    File(PathBuf),
    Stdin,
}

/// Reads the words after the command's name. A mistake is told in a sentence that names the flag.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Task, String> {
    let words: Result<Vec<String>, OsString> = words.map(OsString::into_string).collect();
    let words = words.map_err(|word| format!("{} is not valid UTF-8", word.to_string_lossy()))?;
    if words.is_empty() {
        return Ok(Task::Demo);
    }
    let mut parser = Parser {
        words: words.into_iter(),
        seen: Seen::default(),
    };
    parser.read()?;
    parser.seen.into_task()
}

struct Parser {
    words: std::vec::IntoIter<String>,
    seen: Seen,
}

/// What the flags said so far.
#[derive(Default)]
struct Seen {
    help: bool,
    urls: Vec<String>,
    method: Option<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
    data: Vec<Data>,
    head: bool,
    output: Option<PathBuf>,
    include: bool,
    verbose: bool,
    waterfall: bool,
    ca_file: Option<PathBuf>,
    insecure: bool,
    connect_timeout: Option<Duration>,
    max_time: Option<Duration>,
}

impl Parser {
    fn read(&mut self) -> Result<(), String> {
        while let Some(word) = self.words.next() {
            if word == "--" {
                self.seen.urls.extend(self.words.by_ref());
            } else if word.starts_with("--") {
                self.long(&word)?;
            } else if let Some(letters) = word.strip_prefix('-') {
                self.short(letters)?;
            } else {
                self.seen.urls.push(word);
            }
        }
        Ok(())
    }

    /// `--flag`, `--flag value` or `--flag=value`.
    fn long(&mut self, word: &str) -> Result<(), String> {
        let (flag, attached) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (word, None),
        };
        if takes_value(flag) {
            let value = self.value(flag, attached)?;
            return self.seen.set(flag, value);
        }
        self.seen.switch_on(flag)?;
        match attached {
            Some(_) => Err(format!("{flag} takes no value")),
            None => Ok(()),
        }
    }

    /// `-v`, several at once as in `-vk`, and a value that may be attached as in `-m5`.
    fn short(&mut self, letters: &str) -> Result<(), String> {
        if letters.is_empty() {
            return Err("- alone is no URL".to_owned());
        }
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            let flag = format!("-{letter}");
            if takes_value(&flag) {
                let rest = letters.as_str();
                let attached = (!rest.is_empty()).then(|| rest.to_owned());
                let value = self.value(&flag, attached)?;
                return self.seen.set(&flag, value);
            }
            self.seen.switch_on(&flag)?;
        }
        Ok(())
    }

    fn value(&mut self, flag: &str, attached: Option<String>) -> Result<String, String> {
        attached
            .or_else(|| self.words.next())
            .ok_or_else(|| format!("{flag} needs a value"))
    }
}

fn takes_value(flag: &str) -> bool {
    let long = ["--request", "--header", "--data", "--output", "--max-time"];
    let only_long = ["--cacert", "--connect-timeout"];
    let short = ["-X", "-H", "-d", "-o", "-m"];
    long.contains(&flag) || only_long.contains(&flag) || short.contains(&flag)
}

impl Seen {
    fn switch_on(&mut self, flag: &str) -> Result<(), String> {
        let switch = match flag {
            "-h" | "--help" => &mut self.help,
            "-I" | "--head" => &mut self.head,
            "-i" | "--include" => &mut self.include,
            "-v" | "--verbose" => &mut self.verbose,
            "-w" | "--waterfall" => &mut self.waterfall,
            "-k" | "--insecure" => &mut self.insecure,
            _ => return Err(format!("there is no flag {flag}")),
        };
        *switch = true;
        Ok(())
    }

    fn set(&mut self, flag: &str, value: String) -> Result<(), String> {
        match flag {
            "-X" | "--request" => {
                let method = Method::from_bytes(value.as_bytes());
                self.method = Some(method.map_err(|_| format!("{flag}: {value:?} is no method"))?);
            }
            "-H" | "--header" => self.headers.push(header(flag, &value)?),
            "-d" | "--data" => self.data.push(match value.strip_prefix('@') {
                Some("-") => Data::Stdin,
                Some(path) => Data::File(path.into()),
                None => Data::Text(value),
            }),
            "-o" | "--output" => self.output = (value != "-").then(|| value.into()),
            "--cacert" => self.ca_file = Some(value.into()),
            "--connect-timeout" => self.connect_timeout = Some(seconds(flag, &value)?),
            "-m" | "--max-time" => self.max_time = Some(seconds(flag, &value)?),
            _ => return Err(format!("there is no flag {flag}")),
        }
        Ok(())
    }

    fn into_task(mut self) -> Result<Task, String> {
        if self.help {
            return Ok(Task::Help);
        }
        if self.urls.is_empty() {
            return Err("a URL is missing".to_owned());
        }
        if self.head && !self.data.is_empty() {
            return Err("-I and -d exclude each other".to_owned());
        }
        if self.output.is_some() && self.urls.len() > 1 {
            return Err("-o takes one URL only: the second would overwrite the first".to_owned());
        }
        if !self.data.is_empty() && !self.headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            self.headers.push((CONTENT_TYPE, form));
        }
        let usual = match (self.head, self.data.is_empty()) {
            (true, _) => Method::HEAD,
            (false, true) => Method::GET,
            (false, false) => Method::POST,
        };
        Ok(Task::Fetch(Options {
            urls: self.urls,
            method: self.method.unwrap_or(usual),
            headers: self.headers,
            data: self.data,
            output: self.output,
            include: self.include || self.head,
            verbose: self.verbose,
            waterfall: self.waterfall,
            ca_file: self.ca_file,
            insecure: self.insecure,
            connect_timeout: self.connect_timeout,
            max_time: self.max_time,
        }))
    }
}

/// `Name: value`. The value may be a secret, so that a mistake in it is told without showing it.
fn header(flag: &str, text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Some((name, value)) = text.split_once(':') else {
        return Err(format!(
            "{flag} wants 'Name: value'; there is no colon in it"
        ));
    };
    let Ok(parsed) = HeaderName::try_from(name) else {
        return Err(format!("{flag}: {name:?} is no field name"));
    };
    match HeaderValue::from_bytes(value.trim().as_bytes()) {
        Ok(value) => Ok((parsed, value)),
        Err(_) => Err(format!(
            "{flag}: the value of {name} holds a control character"
        )),
    }
}

/// Seconds, decimals allowed. Zero would let nothing succeed.
fn seconds(flag: &str, text: &str) -> Result<Duration, String> {
    let number = text.parse().ok();
    number
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|limit| !limit.is_zero())
        .ok_or_else(|| format!("{flag} wants a number of seconds such as 5 or 0.25, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Task::Fetch(options) => Ok(options),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn flags_stand_alone_in_clusters_and_with_attached_values() {
        let options = fetch("-vkm0.5 -XPURGE http://a --cacert=ca.pem -d a=1 -d @- -- -x").unwrap();
        assert!(options.verbose && options.insecure && !options.include);
        assert_eq!(options.max_time, Some(Duration::from_millis(500)));
        assert_eq!(options.method.as_str(), "PURGE");
        assert_eq!(options.ca_file, Some(PathBuf::from("ca.pem")));
        assert_eq!(options.data, [Data::Text("a=1".to_owned()), Data::Stdin]);
        assert_eq!(options.urls, ["http://a", "-x"]);
        assert_eq!(
            options.headers.first().map(|(name, _)| name),
            Some(&CONTENT_TYPE)
        );
    }

    #[test]
    fn the_method_follows_the_flags() {
        for (line, method) in [
            ("u", Method::GET),
            ("-I u", Method::HEAD),
            ("-d x u", Method::POST),
            ("-d x -X PUT u", Method::PUT),
        ] {
            assert_eq!(fetch(line).unwrap().method, method, "{line}");
        }
    }

    #[test]
    fn mistakes_name_the_flag() {
        for (line, expected) in [
            ("-v", "a URL is missing"),
            ("--nothing u", "there is no flag --nothing"),
            ("-vz u", "there is no flag -z"),
            ("u -m", "-m needs a value"),
            (
                "-m soon u",
                "-m wants a number of seconds such as 5 or 0.25, not \"soon\"",
            ),
            (
                "-m 0 u",
                "-m wants a number of seconds such as 5 or 0.25, not \"0\"",
            ),
            (
                "--max-time nan u",
                "--max-time wants a number of seconds such as 5 or 0.25, not \"nan\"",
            ),
            ("--verbose=1 u", "--verbose takes no value"),
            (
                "-H nocolon u",
                "-H wants 'Name: value'; there is no colon in it",
            ),
            ("-H a@b:c u", "-H: \"a@b\" is no field name"),
            ("-X a(b u", "-X: \"a(b\" is no method"),
            ("-I -d x u", "-I and -d exclude each other"),
        ] {
            assert_eq!(fetch(line).unwrap_err(), expected, "{line}");
        }
    }
}
