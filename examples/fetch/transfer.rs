//! Fetches URLs: makes the request, streams the response, and tells what is known of both.
//!
//! Files, stdin and stdout are read and written in the blocking way, as this command has nothing else to do meanwhile. In
//! a server use `tokio::fs` and `tokio::io`.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use sockeye::http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use sockeye::http::{self, header};
use sockeye::stats::Timings;
use sockeye::{Body, Client, Response, Timeouts, TlsConfig};

use crate::args::{Data, Options};
use crate::draw::{self, Progress};
use crate::failure::{Exit, Failure};

/// Fetches one URL after the other with one client. The first failure decides how the command ends; the others are told.
pub(crate) async fn fetch(options: &Options) -> Result<(), Failure> {
    let client = client(options)?;
    let data = read_data(&options.data)?;
    let mut ended = Ok(());
    for url in &options.urls {
        let Err(failure) = transfer(&client, options, url, data.as_deref()).await else {
            continue;
        };
        failure.tell();
        let exit = failure.exit;
        ended = ended.and(Err(Failure::told(exit)));
        if exit == Exit::Write {
            break;
        }
    }
    ended
}

/// A client is made once and kept: its connections live as long as it does.
fn client(options: &Options) -> Result<Client, Failure> {
    let mut timeouts = match options.max_time {
        // Whoever gives a limit for everything wants a slow answer to have all of that time.
        Some(limit) => Timeouts::none()
            .with_connect(Timeouts::default().connect)
            .with_total(Some(limit)),
        None => Timeouts::default(),
    };
    if options.connect_timeout.is_some() {
        timeouts.connect = options.connect_timeout;
    }
    let client = Client::builder()
        .user_agent(USER_AGENT)
        .timeouts(timeouts)
        // The usual way is to leave the status to the library, as `demo.rs` does: 400 or more is then an error with the
        // first 64 KiB of its body. This command is to show all of that body, so it asks for the error after reading it.
        .error_for_status(false)
        .tls(tls(options)?);
    Ok(client.build()?)
}

fn tls(options: &Options) -> Result<TlsConfig, Failure> {
    let mut tls = TlsConfig::builder().danger_accept_invalid_certs(options.insecure);
    if let Some(path) = &options.ca_file {
        let unusable = |error: &dyn std::fmt::Display| {
            Failure::new(
                Exit::CaFile,
                format!("--cacert {}: {error}", path.display()),
            )
        };
        let pem = fs::read(path).map_err(|error| unusable(&error))?;
        tls = tls.only_roots(pem);
        return tls.build().map_err(|error| unusable(&error));
    }
    Ok(tls.build()?)
}

/// The parts of the body, joined by `&`. It is read into memory first, so that it can be sent again to the next URL.
fn read_data(parts: &[Data]) -> Result<Option<Vec<u8>>, Failure> {
    let mut read = Vec::with_capacity(parts.len());
    for part in parts {
        let unreadable = |name: &Path, error| {
            Failure::new(Exit::Read, format!("-d @{}: {error}", name.display()))
        };
        read.push(match part {
            Data::Text(text) => text.clone().into_bytes(),
            Data::File(path) => fs::read(path).map_err(|error| unreadable(path, error))?,
            Data::Stdin => {
                let mut bytes = Vec::new();
                let whole = io::stdin().read_to_end(&mut bytes);
                whole.map_err(|error| unreadable(Path::new("-"), error))?;
                bytes
            }
        });
    }
    Ok((!read.is_empty()).then(|| read.join(&b'&')))
}

/// One request and its response.
async fn transfer(
    client: &Client,
    options: &Options,
    url: &str,
    data: Option<&[u8]>,
) -> Result<(), Failure> {
    let request = request(client, options, url, data)?;
    if options.verbose {
        tell_request(&request, data)?;
    }
    let begun = Instant::now();
    let mut response = client.execute(request).await?;
    let head_took = begun.elapsed();
    if options.verbose {
        tell_connection(&response)?;
        write_head(&mut io::stderr(), "< ", "\n", &response)?;
    }
    let received = receive(&mut response, options).await;
    if options.waterfall {
        let steps = steps(
            &response.timings(),
            head_took,
            begun.elapsed() - head_took,
            response.attempts(),
        );
        io::stderr().write_all(draw::waterfall(&steps).as_bytes())?;
    }
    received?;
    response.error_for_status().await?;
    Ok(())
}

/// The request. `build` checks it without sending it; the flags were checked before, so what it refuses is the URL.
fn request(
    client: &Client,
    options: &Options,
    url: &str,
    data: Option<&[u8]>,
) -> Result<http::Request<Body>, Failure> {
    let mut request = client.request(options.method.clone(), url);
    for (name, value) in &options.headers {
        request = request.header(name, value);
    }
    if let Some(data) = data {
        request = request.body(data.to_vec());
    }
    request
        .build()
        .map_err(|error| Failure::new(Exit::BadUrl, error))
}

/// Writes the body piece by piece to where it belongs, so that its length does not matter for the memory that it takes.
async fn receive(response: &mut Response, options: &Options) -> Result<(), Failure> {
    // An error page must not overwrite the file that a success would have filled.
    let file = options
        .output
        .as_ref()
        .filter(|_| response.status().as_u16() < 400);
    let mut output: Box<dyn Write> = match file {
        Some(path) => Box::new(File::create(path).map_err(|error| {
            Failure::new(
                Exit::Write,
                format!("cannot write {}: {error}", path.display()),
            )
        })?),
        None => Box::new(io::stdout()),
    };
    if options.include {
        write_head(&mut output, "", "\r\n", response)?;
        output.write_all(b"\r\n")?;
    }
    let to_terminal = file.is_none() && io::stdout().is_terminal();
    let mut progress = Progress::new(response.content_length(), to_terminal);
    let written = write_body(response, &mut output, &mut progress).await;
    progress.finish();
    written?;
    if options.verbose {
        // They come after the body, and only if it was read.
        if let Some(trailers) = response.trailers().await? {
            write_fields(&mut io::stderr(), "< ", "\n", &trailers)?;
        }
    }
    Ok(())
}

async fn write_body(
    response: &mut Response,
    output: &mut dyn Write,
    progress: &mut Progress,
) -> Result<(), Failure> {
    while let Some(chunk) = response.chunk().await? {
        output.write_all(&chunk)?;
        // A server that sends a line a second wants each of them to be seen at once.
        output.flush()?;
        progress.add(chunk.len());
    }
    Ok(())
}

/// What goes out: the library adds host, user-agent, accept and the length to what the flags say.
fn tell_request(request: &http::Request<Body>, data: Option<&[u8]>) -> io::Result<()> {
    let mut stderr = io::stderr();
    let (uri, own) = (request.uri(), request.headers());
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut fields = HeaderMap::new();
    if let Some(host) = uri.authority() {
        let host = HeaderValue::from_str(host.as_str()).map_err(io::Error::other)?;
        fields.insert(header::HOST, host);
    }
    fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if let Some(data) = data {
        fields.insert(header::CONTENT_LENGTH, data.len().into());
    }
    // What the user sets takes the place of a default of the same name.
    fields.extend(own.clone());
    writeln!(stderr, "> {} {target} HTTP/1.1", request.method())?;
    write_fields(&mut stderr, "> ", "\n", &fields)
}

/// Which connection answered, and how it is secured.
fn tell_connection(response: &Response) -> io::Result<()> {
    let connection = response.connection();
    let mut line = format!("* connection {}", connection.id);
    line.push_str(if response.reused() {
        " (reused)"
    } else {
        " (new)"
    });
    if let (Some(local), Some(remote)) = (connection.local_addr, connection.remote_addr) {
        line.push_str(&format!(" from {local} to {remote}"));
    }
    match &connection.tls {
        Some(tls) => line.push_str(&format!(", {} {}", tls.version(), tls.cipher_suite())),
        None => line.push_str(", not encrypted"),
    }
    if connection.tls.as_ref().is_some_and(|tls| tls.resumed()) {
        line.push_str(", session resumed");
    }
    if response.attempts() > 1 {
        line.push_str(&format!(", attempt {}", response.attempts()));
    }
    writeln!(io::stderr(), "{line}")
}

fn write_head(
    output: &mut dyn Write,
    lead: &str,
    end: &str,
    response: &Response,
) -> io::Result<()> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let line = format!("{:?} {} {reason}", response.version(), status.as_u16());
    write!(output, "{lead}{}{end}", line.trim_end())?;
    write_fields(output, lead, end, response.headers())
}

/// Fields as they are, but for the secrets of a request: what is told ends up in logs and bug reports.
fn write_fields(
    output: &mut dyn Write,
    lead: &str,
    end: &str,
    fields: &HeaderMap,
) -> io::Result<()> {
    for (name, value) in fields {
        let text = if is_secret(name) {
            "(not shown)".into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        write!(output, "{lead}{name}: {text}{end}")?;
    }
    Ok(())
}

fn is_secret(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, header::PROXY_AUTHORIZATION].contains(name)
}

/// The steps one after the other, so that they can be drawn.
fn steps(
    timings: &Timings,
    head_took: Duration,
    body_took: Duration,
    attempts: u32,
) -> Vec<(&'static str, Duration)> {
    let waited = timings.pool_wait.unwrap_or_default();
    let dial = [timings.resolve, timings.connect, timings.tls];
    let dialled: Duration = dial.iter().flatten().sum();
    let head = timings.head.unwrap_or_default();
    let mut steps = Vec::new();
    if attempts > 1 {
        // The timings are those of the last attempt; what came before it is the rest.
        steps.push(("before", head_took.saturating_sub(waited + head)));
    }
    if timings.pool_wait.is_some() {
        // The wait for a connection includes the time in which it was made.
        steps.push(("pool wait", waited.saturating_sub(dialled)));
    }
    for (name, took) in ["dns", "connect", "tls"].into_iter().zip(dial) {
        steps.extend(took.map(|took| (name, took)));
    }
    steps.push(("head", head));
    steps.push(("body", body_took));
    steps
}

const USER_AGENT: &str = concat!("sockeye-fetch/", env!("CARGO_PKG_VERSION"));
