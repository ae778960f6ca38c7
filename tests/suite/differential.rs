//! The same bytes through Sockeye, through hyper's client, and through a slow reading of the rules by lines.
//!
//! The streams are the replies of the transcripts, the seeds of the `exchange` fuzz target, and mutations of both that are the
//! same in every run. With the slow reading there must be no difference at all; hyper may differ where a reason is listed.
//! hyper parses heads with httparse, too, so that a head that both misread would pass here: the slow reading is for that.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use sockeye::test::fuzz::Random;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};

use crate::support::peer::World;

/// A response that was read to its end, or `None` for one that was refused.
type Verdict = Option<(u16, Vec<u8>)>;

/// A reason for a difference, and the streams for which it holds.
type Reason = (&'static str, fn(&Stream) -> bool);

/// Why hyper may take a stream that is refused here, or read it otherwise.
const ONLY_HYPER: &[Reason] = &[
    ("bare LF ends lines of its heads (http1 a1)", |stream| {
        stream.heads().contains("\n") && has_bare_line_feed(&stream.heads())
    }),
    (
        "it skips any number of empty lines before a status line (ruling 10)",
        |stream| stream.text().starts_with("\r\n\r\n") || stream.text().starts_with('\n'),
    ),
    (
        "it hands on a 101 that nobody asked for (http1 a4)",
        |stream| stream.heads().contains("HTTP/1.1 101") || stream.heads().contains("HTTP/1.0 101"),
    ),
    (
        "it takes any number of interim responses (http1 a4)",
        |stream| stream.heads().matches("HTTP/1.").count() > 33,
    ),
    (
        "it takes codings that were not asked for, and hands them on as they are (http1 a2)",
        |stream| {
            stream
                .field("transfer-encoding")
                .is_some_and(|coding| coding != "chunked")
        },
    ),
    (
        "it takes any number of leading zeros in a chunk size (http1 a3)",
        |stream| {
            let hexadecimal = |one: char| one.is_ascii_hexdigit();
            let body = stream.body();
            body.split(|one| !hexadecimal(one))
                .any(|digits| digits.len() > 16)
        },
    ),
    (
        "it takes any number of blanks behind a chunk size (http1 a3)",
        |stream| stream.body().contains(&" ".repeat(17)),
    ),
    (
        "it takes control characters in chunk extensions (http1 a3)",
        |stream| {
            let lines = stream.body();
            let mut extensions = lines.split("\r\n").filter_map(|line| line.split_once(';'));
            extensions
                .any(|(_, extension)| extension.contains(|one: char| one < ' ' && one != '\t'))
        },
    ),
    ("bare LF ends lines of its trailers (http1 a3)", |stream| {
        has_bare_line_feed(&stream.body())
    }),
];

/// Why hyper may refuse a stream that is taken here.
const ONLY_SOCKEYE: &[Reason] = &[
    ("it refuses folded lines (ruling 10)", |stream| {
        stream.heads().contains("\n ") || stream.heads().contains("\n\t")
    }),
    ("it refuses folded trailers, too (http1 a3)", |stream| {
        stream.body().contains("\n ") || stream.body().contains("\n\t")
    }),
    ("it takes 100 fields at most (README: 256)", |stream| {
        stream.heads().lines().count() > 102
    }),
];

/// What a peer says to a GET before it closes the connection.
struct Stream {
    bytes: Vec<u8>,
}

impl Stream {
    fn text(&self) -> String {
        self.bytes.iter().map(|byte| char::from(*byte)).collect()
    }

    /// All interim heads and the final one, whatever ends their lines.
    fn heads(&self) -> String {
        let text = self.text();
        let mut from = 0;
        loop {
            let ends = ["\n\n", "\n\r\n"]
                .map(|end| text[from..].find(end).map(|at| from + at + end.len()));
            let Some(end) = ends.into_iter().flatten().min() else {
                return text;
            };
            let head = text[from..end].trim_start();
            let interim = ["HTTP/1.1 1", "HTTP/1.0 1"]
                .iter()
                .any(|start| head.starts_with(start));
            if !interim && !head.is_empty() {
                return text[..end].to_owned();
            }
            from = end;
        }
    }

    /// What stands behind the heads.
    fn body(&self) -> String {
        self.text().split_off(self.heads().len())
    }

    /// The values of a field of the heads, in lower case and joined.
    fn field(&self, name: &str) -> Option<String> {
        let heads = self.heads().to_ascii_lowercase();
        let lines = heads.split('\n').filter_map(|line| line.split_once(':'));
        let values: Vec<_> = lines
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value.trim_matches(['\r', ' ', '\t']).to_owned())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

fn has_bare_line_feed(text: &str) -> bool {
    text.split_inclusive('\n')
        .any(|line| line.ends_with('\n') && !line.ends_with("\r\n"))
}

#[tokio::test(start_paused = true)]
async fn sockeye_hyper_and_the_rules_agree() {
    let mut failures = Vec::new();
    let mut counts = [0; 2];
    let mut met = Vec::new();
    for stream in streams() {
        let ours = sockeye(&stream.bytes).await;
        let ruled = ruled(&stream.bytes);
        if ours != ruled {
            failures.push(format!(
                "rules: {} ours {ours:?} ruled {ruled:?}",
                stream.bytes.escape_ascii()
            ));
        }
        let hyper = hyper(&stream.bytes).await;
        let (list, which) = match (&ours, &hyper) {
            _ if ours == hyper => continue,
            (Some(_), None) => (ONLY_SOCKEYE, 1),
            _ => (ONLY_HYPER, 0),
        };
        counts[which] += 1;
        let reasons: Vec<_> = list
            .iter()
            .filter(|(_, holds)| holds(&stream))
            .map(|(reason, _)| *reason)
            .collect();
        if reasons.is_empty() {
            failures.push(format!(
                "hyper: {} ours {ours:?} hyper {hyper:?}",
                stream.bytes.escape_ascii()
            ));
        }
        met.extend(reasons);
    }
    println!("only hyper takes {}, only Sockeye {}", counts[0], counts[1]);
    let total = failures.len();
    failures.truncate(40);
    assert!(
        failures.is_empty(),
        "{total} differences:\n{}",
        failures.join("\n")
    );
    for (reason, _) in [ONLY_HYPER, ONLY_SOCKEYE].into_iter().flatten() {
        assert!(met.contains(reason), "no longer different: {reason}");
    }
}

/// All streams, each once.
fn streams() -> Vec<Stream> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources: Vec<Vec<u8>> = Vec::new();
    let mut files: Vec<_> = fs::read_dir(root.join("tests/transcripts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "txt"))
        .collect();
    files.sort();
    for file in files {
        sources.push(crate::transcripts::reply(&file));
    }
    let mut seeds: Vec<_> = fs::read_dir(root.join("fuzz/seeds/exchange"))
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    seeds.sort();
    sources.extend(
        seeds
            .into_iter()
            .map(|seed| seed.get(1..).unwrap_or_default().to_vec()),
    );
    sources.retain(|source| source.len() < 4096);
    let mut random = Random::new(7);
    let mut streams: Vec<_> = sources.clone();
    for _ in 0..MUTATIONS {
        streams.extend(sources.iter().map(|source| random.mutate(source)));
    }
    streams.sort();
    streams.dedup();
    streams.into_iter().map(|bytes| Stream { bytes }).collect()
}

/// Mutations of each reply.
const MUTATIONS: usize = 6;

async fn sockeye(bytes: &[u8]) -> Verdict {
    let world = World::new();
    let client = world
        .builder()
        .error_for_status(false)
        .max_body(usize::MAX)
        .build()
        .unwrap();
    let reply = bytes.to_vec();
    let peer = world.clone();
    let serving = tokio::spawn(async move {
        let mut connection = peer.accept().await;
        connection.read_request().await;
        connection.try_write(&reply).await;
    });
    let verdict = async {
        let response = client.get("http://peer.test/").send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.bytes().await.ok()?.to_vec()))
    };
    let verdict = verdict.await;
    serving.await.unwrap();
    verdict
}

async fn hyper(bytes: &[u8]) -> Verdict {
    let (ours, mut theirs) = duplex(64 * 1024);
    let reply = bytes.to_vec();
    let serving = tokio::spawn(async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            theirs.read_buf(&mut request).await.unwrap();
        }
        // The client may have closed already when it does not like what it reads.
        let _ = theirs.write_all(&reply).await;
    });
    let (mut sender, connection) = http1::handshake(Io(ours)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::get("/")
        .header("host", "peer.test")
        .body(NoBody)
        .unwrap();
    let verdict = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let mut incoming = pin!(response.into_body());
        let mut body = Vec::new();
        while let Some(frame) = poll_fn(|cx| incoming.as_mut().poll_frame(cx)).await {
            if let Ok(data) = frame.ok()?.into_data() {
                body.extend_from_slice(&data);
            }
        }
        Some((status, body))
    };
    let verdict = verdict.await;
    drop(sender);
    let _ = driver.await.unwrap();
    serving.await.unwrap();
    verdict
}

/// A request without a body.
struct NoBody;

impl http_body::Body for NoBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// What hyper reads from and writes to.
struct Io(DuplexStream);

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let room = buf.remaining().min(bytes.len());
        let mut read = ReadBuf::new(&mut bytes[..room]);
        std::task::ready!(Pin::new(&mut self.0).poll_read(cx, &mut read))?;
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The rules of spec http1 a1 to a4 for the reply to a GET whose connection closes behind it. Each byte is a character, so
/// that lines and words can be taken apart with what strings offer.
fn ruled(bytes: &[u8]) -> Verdict {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let mut rest = text.as_str();
    let mut interims = 0;
    let (version, status, fields) = loop {
        rest = rest.strip_prefix("\r\n").unwrap_or(rest);
        let lines;
        (lines, rest) = section(rest)?;
        let (first, lines) = lines.split_first()?;
        let (version, status) = status_line(first)?;
        let fields = fields(lines, 256)?;
        match status {
            101 => return None,
            100..=199 if interims == 32 => return None,
            100..=199 => interims += 1,
            _ => break (version, status, fields),
        }
    };
    let list = |name: &str| -> Option<Vec<String>> {
        let values: Vec<_> = fields.iter().filter(|(known, _)| known == name).collect();
        let members = values.iter().flat_map(|(_, value)| value.split(','));
        let members = members.map(|member| member.trim_matches(BLANKS).to_ascii_lowercase());
        (!values.is_empty()).then(|| members.collect())
    };
    let body = match (list("transfer-encoding"), list("content-length")) {
        _ if status == 204 || status == 304 => "",
        (Some(codings), _) if codings == ["chunked"] && version == '1' => {
            return Some((status, chunks(rest)?));
        }
        (Some(_), _) => return None,
        (None, Some(lengths)) => {
            let lengths: Option<Vec<i64>> = lengths
                .iter()
                .map(|length| {
                    let digits =
                        !length.is_empty() && length.chars().all(|one| one.is_ascii_digit());
                    digits.then(|| length.parse().ok())?
                })
                .collect();
            let lengths = lengths?;
            let length = *lengths.first()?;
            if lengths.iter().any(|other| *other != length) {
                return None;
            }
            // Each character is a byte of the stream, and one or two of the string.
            let body: Vec<u8> = latin(rest)
                .into_iter()
                .take(usize::try_from(length).ok()?)
                .collect();
            return (body.len() as u64 == length as u64).then_some((status, body));
        }
        (None, None) => rest,
    };
    Some((status, latin(body)))
}

const BLANKS: [char; 2] = [' ', '\t'];

/// The lines up to the empty one, and what stands behind it. CR and LF stand nowhere but at the ends.
fn section(text: &str) -> Option<(Vec<&str>, &str)> {
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        let line;
        (line, rest) = rest.split_once("\r\n")?;
        if line.contains(['\r', '\n']) {
            return None;
        }
        if line.is_empty() {
            return Some((lines, rest));
        }
        lines.push(line);
    }
}

fn status_line(line: &str) -> Option<(char, u16)> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let version = rest
        .chars()
        .next()
        .filter(|version| ['0', '1'].contains(version))?;
    let rest = rest[1..].strip_prefix(' ')?;
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let digits = status.len() == 3 && status.chars().all(|digit| digit.is_ascii_digit());
    let status = status
        .parse()
        .ok()
        .filter(|status| digits && *status >= 100)?;
    is_text(reason).then_some((version, status))
}

/// Names in lower case, and values with their folds undone.
fn fields(lines: &[&str], most: usize) -> Option<Vec<(String, String)>> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if !is_text(line) {
            return None;
        }
        if line.starts_with(BLANKS) {
            let (name, value) = fields.last_mut()?;
            if ["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
                return None;
            }
            value.push(' ');
            value.push_str(line.trim_matches(BLANKS));
            continue;
        }
        let (name, value) = line.split_once(':')?;
        let token = |one: char| one.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(one);
        if name.is_empty() || !name.chars().all(token) {
            return None;
        }
        fields.push((
            name.to_ascii_lowercase(),
            value.trim_matches(BLANKS).to_owned(),
        ));
    }
    (fields.len() <= most).then_some(fields)
}

fn is_text(text: &str) -> bool {
    let control = |one: char| (one < ' ' && one != '\t') || one == '\x7f';
    !text.contains(control)
}

fn chunks(text: &str) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let mut rest = text;
    loop {
        let line;
        (line, rest) = rest.split_once("\r\n")?;
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let digits = size.trim_end_matches(BLANKS);
        let hexadecimal = digits.chars().all(|digit| digit.is_ascii_hexdigit());
        let lengths = (1..=16).contains(&digits.len()) && size.len() - digits.len() <= 16;
        if !is_text(extension) || !hexadecimal || !lengths {
            return None;
        }
        let size = usize::try_from(i64::from_str_radix(digits, 16).ok()?).ok()?;
        if size == 0 {
            let (lines, _) = section(rest)?;
            fields(&lines, 100)?;
            return Some(data);
        }
        let mut characters = rest.chars();
        for _ in 0..size {
            data.push(u8::try_from(characters.next()?).ok()?);
        }
        rest = characters.as_str().strip_prefix("\r\n")?;
    }
}

fn latin(text: &str) -> Vec<u8> {
    text.chars()
        .filter_map(|one| u8::try_from(one).ok())
        .collect()
}
