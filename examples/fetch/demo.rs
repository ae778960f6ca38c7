//! The show: one client, two servers, thousands of requests at once, one error of each common sort, and the statistics.
//!
//! Everything that is shown is checked as well: what differs from what is expected is told and fails the command.

use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use sockeye::stats::{HostStats, Rates, Stats};
use sockeye::{BoxError, Client, ErrorKind, Phase, StatusCode, Timeouts, TlsConfig, Uri};
use tokio::task::JoinSet;

use crate::draw;
use crate::failure::{Exit, Failure};
use crate::server::{Server, TEXT};

/// Runs the show. Fails with what was not as expected.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut checks = Checks::default();
    if let Err(error) = show(&mut checks).await {
        // The reader of the show went away; any other failure is one that nobody expected.
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Err(Failure::told(Exit::Write));
            }
        }
        checks.differed.push(error.to_string());
    }
    if checks.differed.is_empty() {
        return Ok(());
    }
    let differed = checks.differed.join("\n  ");
    Err(Failure::new(
        Exit::Differed,
        format!("not as expected:\n  {differed}"),
    ))
}

async fn show(checks: &mut Checks) -> Result<(), BoxError> {
    let plain = Server::plain().await?;
    let (secure, ca) = Server::tls().await?;
    // One client for everything: it trusts the CA of the second server besides those of the Web, and keeps all else as
    // it is by default.
    let tls = TlsConfig::builder().add_root_pem(ca.as_bytes())?.build()?;
    let client = Client::builder().tls(tls).build()?;

    let mut out = io::stdout();
    writeln!(
        out,
        "{REQUESTS} requests to each of two servers on this machine, {CONCURRENT} at a time:\n"
    )?;
    let mut rates = Vec::new();
    for server in [&plain, &secure] {
        rates.push(load(&client, &server.url).await?);
    }
    let json = show_json(&client, &plain).await?;
    let status = show_status_error(&client, &plain, checks).await?;
    let timeout = show_timeout(&client, &plain, checks).await?;

    let stats = client.stats();
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    let mut extra = EXTRA;
    for (server, rates) in [&plain, &secure].into_iter().zip(&rates) {
        let host = host(&stats, server)?;
        rows.push(row(server, host, rates));
        check_host(checks, server, host, REQUESTS as u64 + extra);
        extra = 0;
    }
    check_errors(checks, host(&stats, &plain)?, host(&stats, &secure)?);
    writeln!(out, "{}", draw::table(&rows))?;
    for part in [json, status, timeout] {
        writeln!(out, "{part}\n")?;
    }
    writeln!(out, "What client.stats() prints:\n{stats}\n")?;

    let closed = client.close(Duration::from_secs(5)).await;
    checks.equal("connections cut by close", closed.cut, 0);
    writeln!(
        out,
        "client.close() closed {} connections.",
        closed.finished
    )?;
    Ok(())
}

/// Many tasks that share one client: each has its own clone, which costs a counter, and they all use one pool.
async fn load(client: &Client, url: &str) -> Result<Rates, BoxError> {
    // Parsed once. Text would do as well, but would be parsed for each request.
    let url: Uri = format!("{url}/").parse()?;
    let before = client.stats();
    let begun = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..CONCURRENT {
        let (client, url, begun) = (client.clone(), url.clone(), Arc::clone(&begun));
        tasks.spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                let text = client.get(&url).send().await?.text().await?;
                if text != TEXT {
                    return Err(BoxError::from(format!(
                        "{url} answered another text: {text:?}"
                    )));
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(client.stats().since(&before))
}

/// A JSON body becomes a value of one's own.
async fn show_json(client: &Client, server: &Server) -> Result<String, BoxError> {
    let url = format!("{}/json", server.url);
    let body: Greeting = client.get(&url).send().await?.json().await?;
    Ok(format!(
        "A JSON body: {url} says {:?}, as greeting.",
        body.greeting
    ))
}

/// A status of 400 or more is an error, which still has the fields and the body of the response.
async fn show_status_error(
    client: &Client,
    server: &Server,
    checks: &mut Checks,
) -> Result<String, BoxError> {
    let Err(error) = client.get(format!("{}/missing", server.url)).send().await else {
        return Err("a status of 404 was no error".into());
    };
    checks.equal(
        "the status of the error",
        error.status(),
        Some(StatusCode::NOT_FOUND),
    );
    let Some(status) = error.status_error() else {
        return Err(error.into());
    };
    let problem: Problem = status.json()?;
    checks.equal("the problem's title", &*problem.title, "no such page");
    Ok(format!(
        "A status error: {error}\n  its JSON body says {:?}: {}",
        problem.title, problem.detail
    ))
}

/// A limit that strikes says which one it was, and how to change it.
async fn show_timeout(
    client: &Client,
    server: &Server,
    checks: &mut Checks,
) -> Result<String, BoxError> {
    let short = Timeouts::default().with_head(Some(Duration::from_millis(250)));
    let request = client.get(format!("{}/slow", server.url)).timeouts(short);
    let Err(error) = request.send().await else {
        return Err("a page that is never answered was answered".into());
    };
    checks.equal("is_timeout of the timeout", error.is_timeout(), true);
    checks.equal("the phase of the timeout", error.phase(), Some(Phase::Head));
    Ok(format!("A timeout: {error}"))
}

#[derive(Deserialize)]
struct Greeting {
    greeting: String,
}

/// The members of RFC 9457 that are of use here.
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: String,
}

/// The part of the statistics that is about one server.
fn host<'a>(stats: &'a Stats, server: &Server) -> Result<&'a HostStats, BoxError> {
    stats
        .hosts
        .iter()
        .find(|(origin, _)| origin.to_string() == server.url)
        .map(|(_, host)| host)
        .ok_or_else(|| format!("the statistics lack {}", server.url).into())
}

/// The line of one server, in the order of [`HEADINGS`]. Latencies and rate are those of the load, without what followed.
fn row(server: &Server, host: &HostStats, rates: &Rates) -> Vec<String> {
    let errors: Vec<_> = host
        .errors
        .iter()
        .map(|(kind, count)| format!("{kind:?} {count}"))
        .collect();
    vec![
        server.url.clone(),
        host.requests_total.to_string(),
        host.connections_opened.to_string(),
        host.connections_reused.to_string(),
        draw::millis(rates.p50),
        draw::millis(rates.p95),
        draw::millis(rates.p99),
        format!("{:.0}", rates.requests_per_second),
        if errors.is_empty() {
            "none".to_owned()
        } else {
            errors.join(", ")
        },
    ]
}

const HEADINGS: [&str; 9] = [
    "server",
    "requests",
    "opened",
    "reused",
    "p50",
    "p95",
    "p99",
    "requests/s",
    "errors",
];

fn check_host(checks: &mut Checks, server: &Server, host: &HostStats, requests: u64) {
    let url = &server.url;
    checks.equal(&format!("{url}: requests"), host.requests_total, requests);
    checks.equal(
        &format!("{url}: requests that the server read"),
        server.requests(),
        requests,
    );
    // A task needs one connection at most, and each of the single requests may find none that is still open.
    let most = CONCURRENT as u64 + EXTRA;
    if host.connections_opened > most {
        let opened = host.connections_opened;
        checks.differed.push(format!(
            "{url}: {opened} connections opened, at most {most} are needed"
        ));
    }
    // A connection may be made and never used, because another one became free before it was ready; so this is no equality.
    if host.connections_opened + host.connections_reused < requests {
        checks.differed.push(format!(
            "{url}: {} connections opened and {} reused are too few for {requests} requests",
            host.connections_opened, host.connections_reused
        ));
    }
}

/// The plain server saw one error of each sort, the other one none.
fn check_errors(checks: &mut Checks, plain: &HostStats, secure: &HostStats) {
    for (what, got, expected) in [
        ("status errors", plain.errors.get(ErrorKind::Status), 1),
        ("timeouts", plain.errors.get(ErrorKind::Timeout), 1),
        ("timeouts in the head", plain.timeouts.get(Phase::Head), 1),
        ("errors of the plain server", plain.errors.total(), 2),
        ("errors of the TLS server", secure.errors.total(), 0),
    ] {
        checks.equal(what, got, expected);
    }
}

/// What was not as expected, in sentences.
#[derive(Default)]
struct Checks {
    differed: Vec<String>,
}

impl Checks {
    fn equal<T: PartialEq + Debug>(&mut self, what: &str, got: T, expected: T) {
        if got != expected {
            self.differed
                .push(format!("{what}: {got:?}, expected {expected:?}"));
        }
    }
}

/// Requests to each server, and how many of them at a time.
const REQUESTS: usize = 5_000;
const CONCURRENT: usize = 64;

/// Single requests to the plain server after the load: JSON, a status error, a timeout.
const EXTRA: u64 = 3;
