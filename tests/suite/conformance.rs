//! Replays conformance cases of others: replies that curl's and llhttp's own suites hold, and raw probes.
//!
//! The cases are no part of this repository. They are looked for in the folder that `SOCKEYE_CONFORMANCE` names, or in a
//! folder of conformance cases beside the repository; where neither is there, these tests say so and pass. Each reply is
//! written whole, in pieces of 20 bytes and byte by byte. Where the outcome differs from what the case expects, the
//! difference must be listed here with its reason, and a listed difference that is gone fails as well.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sockeye::{Body, Client, ErrorKind, Method, RequestBuilder};

use crate::support::peer::World;
use crate::support::reply::{Outcome, Pace, Reply, exchange};
use crate::support::streams::fed;

/// Cases whose outcome is not the one of the suite that they come from, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "curl 24",
        "curl ends at the status; the body of the error, which never ends, runs into the read limit here",
    ),
    (
        "curl 158",
        "an interim response alone is a reply that was begun and cut short (ruling 20)",
    ),
    (
        "curl 1147",
        "the field name begins with a blank: it is refused and not repaired",
    ),
    (
        "curl 1290",
        "the URL has brackets in its path: it is refused and not repaired (design D10)",
    ),
    (
        "curl 2093",
        "a length above max_body is refused before the body is read",
    ),
    ("curl 3228", "the http crate has no field names of 300 KB"),
    ("llhttp HTTP version 0.9", "there is no HTTP/0.9 (http1 a1)"),
    ("llhttp ICE response", "llhttp reads ICE and RTSP as well"),
    (
        "llhttp Only LFs present and no body (lenient)",
        "a case for llhttp's lenient flags; `lenient_heads` takes it",
    ),
    (
        "llhttp Trailing space on chunked body",
        "blanks behind a chunk size are taken (http1 a3)",
    ),
    (
        "llhttp request fixture: Space after chunk header",
        "blanks behind a chunk size are taken (http1 a3)",
    ),
    (
        "llhttp request fixture: Spaces before headers",
        "a folded line is unfolded, as a user agent must (ruling 10)",
    ),
    (
        "probe empty-close",
        "an end before any byte is the connection's failure, not the protocol's (ruling 20)",
    ),
];

/// The port that stands for the server's in curl's cases.
const ORIGIN: &str = "http://127.0.0.1:47111";

#[tokio::test(start_paused = true)]
async fn curl_cases() {
    let Some(cases) = cases("curl_cases.jsonl") else {
        return;
    };
    let mut ledger = Ledger::default();
    let mut skipped = 0;
    for case in &cases {
        let name = format!("curl {}", case["id"]);
        // A case that needs more than one request and one response is none for the codec.
        let needs = strings(&case["needs"]);
        if needs.iter().any(|need| need != "fail") || case["replies"].as_array().unwrap().len() > 1
        {
            skipped += 1;
            continue;
        }
        let reply = &case["replies"][0];
        let closes = reply["close"] == true;
        let repaired = reply
            .get("crlf_base64")
            .filter(|repaired| !repaired.is_null());
        let strict = if strings(&case["strict_reject_crlf"]).is_empty() {
            expected_of_curl(&case["expect"])
        } else {
            refusal(&case["expect"]["error"])
        };
        let bytes = decode(repaired.unwrap_or(&reply["base64"]));
        for outcome in every_pace(case, &bytes, closes, false).await {
            ledger.compare(&name, &strict, &verdict_for_curl(case, &outcome));
            if let Some(sent) = &outcome.sent {
                let request = &case["request"];
                let line = format!("{} {}", text(&request["method"]), text(&request["target"]));
                ledger.compare(
                    &name,
                    &line,
                    &format!("{} {}", sent.method(), sent.target()),
                );
                for field in request["headers"].as_array().unwrap() {
                    let (known, value) = (text(&field[0]).to_lowercase(), text(&field[1]));
                    let found = sent.fields(&known).any(|found| found == value);
                    ledger.compare(
                        &name,
                        &format!("{known} sent"),
                        &format!("{known} {}", if found { "sent" } else { "not sent" }),
                    );
                }
                let body = String::from_utf8_lossy(&sent.body).into_owned();
                let expected =
                    String::from_utf8_lossy(&decode(&request["body_base64"])).into_owned();
                ledger.compare(&name, &expected, &body);
            }
        }
        // As curl's suite has it, with bare line feeds: refused, and taken by lenient rules as the repaired one is.
        if repaired.is_some() {
            let bytes = decode(&reply["base64"]);
            let lenient = if strings(&case["strict_reject"]).is_empty() {
                &strict
            } else {
                "refused"
            };
            for outcome in every_pace(case, &bytes, closes, true).await {
                ledger.compare(&name, lenient, &verdict_for_curl(case, &outcome));
            }
        }
    }
    println!(
        "curl: {} cases, {skipped} of them need more than the codec",
        cases.len()
    );
    ledger.settle("curl");
}

#[tokio::test(start_paused = true)]
async fn llhttp_cases() {
    let Some(cases) = cases("llhttp_cases.jsonl") else {
        return;
    };
    let mut ledger = Ledger::default();
    for case in &cases {
        let name = format!("llhttp {}", text(&case["name"]));
        let bytes = decode(&case["input_base64"]);
        let messages = case["messages"].as_array().unwrap();
        // The first message that is no interim one answers our request; later ones were not asked for.
        let last = messages
            .iter()
            .find(|message| message["status"].as_u64() >= Some(200));
        let strict = case["strict_ok"] == true;
        let expected = match last {
            Some(message) if message["complete"] == true => accepted(message),
            // A body up to the end of the connection: nothing says how long it is.
            Some(message) if strict && !has_length(message) => accepted(message),
            _ => "refused".to_owned(),
        };
        for outcome in every_pace(case, &bytes, true, false).await {
            ledger.compare(&name, &expected, &verdict(&outcome));
            if let (Ok(answer), Some(message)) = (&outcome.result, last) {
                ledger.compare(&name, &fields_of(message), &fields_of_map(&answer.headers));
            }
        }
    }
    println!("llhttp: {} cases", cases.len());
    ledger.settle("llhttp");
}

#[tokio::test(start_paused = true)]
async fn raw_probes() {
    let Some(cases) = cases("h1_probes.jsonl") else {
        return;
    };
    let mut ledger = Ledger::default();
    for case in &cases {
        let name = format!("probe {}", text(&case["name"]));
        let bytes = decode(&case["reply_base64"]);
        let closes = case["close_after"] == true;
        let recommended = &case["recommended"];
        let accepts = recommended["outcome"] == "accept";
        let expected = if accepts {
            format!("{} {:?}", recommended["status"], text(&recommended["body"]))
        } else {
            refusal(&recommended["error"])
        };
        let reuse = |reused: bool| if reused { "reused" } else { "not reused" };
        for outcome in every_pace(case, &bytes, closes, false).await {
            ledger.compare(&name, &expected, &verdict(&outcome));
            ledger.compare(
                &name,
                reuse(recommended["reuse"] == true),
                reuse(outcome.reused),
            );
        }
        if recommended.get("lenient").is_some() {
            for outcome in every_pace(case, &bytes, closes, true).await {
                let name = format!("{name} lenient");
                ledger.compare(&name, "200 \"hello\"", &verdict(&outcome));
                ledger.compare(&name, "not reused", reuse(outcome.reused));
            }
        }
    }
    println!("probes: {} cases", cases.len());
    ledger.settle("probe");
}

/// What differed, by case.
#[derive(Default)]
struct Ledger {
    differences: BTreeMap<String, String>,
}

impl Ledger {
    fn compare(&mut self, case: &str, expected: &str, got: &str) {
        if expected != got {
            let told = format!("expected {expected}, got {got}");
            self.differences.entry(case.to_owned()).or_insert(told);
        }
    }

    /// Exactly the listed differences are left.
    #[track_caller]
    fn settle(mut self, suite: &str) {
        let mut gone = Vec::new();
        for (case, reason) in DIFFERENCES
            .iter()
            .filter(|(case, _)| case.starts_with(suite))
        {
            match self.differences.remove(*case) {
                Some(told) => println!("{case}: {told}: {reason}"),
                None => gone.push(case),
            }
        }
        assert!(gone.is_empty(), "no longer different: {gone:?}");
        assert!(self.differences.is_empty(), "{:#?}", self.differences);
    }
}

/// The lines of a file of cases; `None`, and a message, where it is not there.
fn cases(file: &str) -> Option<Vec<Value>> {
    let folder = env::var_os("SOCKEYE_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance"),
        PathBuf::from,
    );
    let Ok(lines) = fs::read_to_string(folder.join(file)) else {
        println!("skipped: there is no folder of conformance cases with {file} in it");
        return None;
    };
    let cases: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a case a line"))
        .collect();
    assert!(!cases.is_empty(), "{file} holds no case");
    Some(cases)
}

/// Runs a case with its reply whole, in pieces of 20 bytes, and byte by byte unless that takes too long.
async fn every_pace(case: &Value, bytes: &[u8], closes: bool, lenient: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for pace in [Pace::Whole, Pace::Pieces(20), Pace::Pieces(1)] {
        if matches!(pace, Pace::Pieces(1)) && bytes.len() > 200_000 {
            continue;
        }
        let world = World::new();
        let client = world
            .builder()
            .error_for_status(false)
            .lenient_heads(lenient)
            .build()
            .unwrap();
        let request = request(&client, case);
        let reply = Reply {
            bytes: bytes.to_vec(),
            closes,
            pace,
        };
        outcomes.push(exchange(&world, &client, request, ORIGIN, reply).await);
    }
    outcomes
}

/// The request of a case: curl's have one, the others are a plain GET or HEAD.
fn request(client: &Client, case: &Value) -> RequestBuilder {
    let asked = &case["request"];
    let method = asked["method"].as_str().or(case["method"].as_str());
    let method = Method::from_bytes(method.unwrap_or("GET").as_bytes()).unwrap();
    let target = asked["target"].as_str().unwrap_or("/");
    let mut request = client.request(method, format!("{ORIGIN}{target}"));
    for field in asked["headers"].as_array().into_iter().flatten() {
        request = request.header(text(&field[0]), text(&field[1]));
    }
    match asked["body_mode"].as_str() {
        Some("length") => request.body(decode(&asked["body_base64"])),
        Some("chunked") => {
            let (feed, fed) = fed();
            feed.give(decode(&asked["body_base64"]));
            request.body(Body::stream(fed))
        }
        _ => request,
    }
}

/// A refused reply is one outcome; how it is refused is compared where the case says it.
fn verdict(outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(answer) => format!("{} {:?}", answer.status, lossy(&answer.body)),
        Err(error) => match error.kind() {
            // A reply that was never begun is the connection's failure and not the protocol's.
            ErrorKind::Protocol => "refused".to_owned(),
            ErrorKind::Io => "no reply".to_owned(),
            ErrorKind::TooLarge => "too large".to_owned(),
            _ => error.to_string(),
        },
    }
}

fn refusal(error: &Value) -> String {
    match error.as_str() {
        Some("empty_reply") => "no reply",
        Some("limit") => "too large",
        _ => "refused",
    }
    .to_owned()
}

/// A status that fails curl's command is a response like any other here, whose body curl does not show.
fn verdict_for_curl(case: &Value, outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(answer) if case["expect"]["error"] == "http_status" => answer.status.to_string(),
        _ => verdict(outcome),
    }
}

/// What curl makes of a reply.
fn expected_of_curl(expect: &Value) -> String {
    if expect["error"] == "http_status" {
        expect["status"].to_string()
    } else if expect["ok"] == true {
        format!(
            "{} {:?}",
            expect["status"],
            lossy(&decode(&expect["body_base64"]))
        )
    } else {
        refusal(&expect["error"])
    }
}

fn accepted(message: &Value) -> String {
    format!(
        "{} {:?}",
        message["status"],
        lossy(&decode(&message["body_base64"]))
    )
}

fn has_length(message: &Value) -> bool {
    let framing = ["content-length", "transfer-encoding"];
    message["headers"].as_array().unwrap().iter().any(|field| {
        let name = text(&field[0]).to_lowercase();
        framing.contains(&name.as_str())
    })
}

/// Names and values, sorted by name, as the case has them.
fn fields_of(message: &Value) -> String {
    let fields = message["headers"].as_array().unwrap().iter();
    let mut fields: Vec<_> = fields
        .map(|field| {
            format!(
                "{}: {}",
                text(&field[0]).to_lowercase(),
                text(&field[1]).trim()
            )
        })
        .collect();
    fields.sort();
    fields.join(", ")
}

fn fields_of_map(headers: &http::HeaderMap) -> String {
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", lossy(value.as_bytes())))
        .collect();
    fields.sort();
    fields.join(", ")
}

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values.map(|value| text(value).to_owned()).collect()
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn decode(value: &Value) -> Vec<u8> {
    STANDARD.decode(text(value)).expect("base64")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
