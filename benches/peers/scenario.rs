//! What is measured: the list of scenarios, the size of a run and the target every contender talks to.
//!
//! Not how: a turn is in `turn.rs`, the contenders are in `contenders/`. Shared by the bench and by the
//! program that counts allocations, so that both run the very same work.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Uri;

/// The error of everything here: a bench only ever reports it and stops.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The work of one measured turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A GET answered with a small body, collected.
    Get,
    /// The same with a POST of a small body.
    Post,
    /// A GET answered with a large body, read in pieces and thrown away.
    Download,
    /// A POST of a large body of known length that is made piece by piece, answered with the small body.
    Upload,
}

/// One line of the comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// The name that `--only` is compared with.
    pub(crate) name: &'static str,
    /// What each task does.
    pub(crate) work: Work,
    /// How many tasks do it at the same time.
    pub(crate) concurrent: usize,
    /// How many worker threads the client's runtime has.
    pub(crate) threads: usize,
}

/// Every scenario, in the order of the report.
pub(crate) const SCENARIOS: [Scenario; 10] = [
    scenario("get-1-one-thread", Work::Get, 1, 1),
    scenario("get-64-one-thread", Work::Get, 64, 1),
    scenario("post-1-one-thread", Work::Post, 1, 1),
    scenario("post-64-one-thread", Work::Post, 64, 1),
    scenario("get-1-two-threads", Work::Get, 1, 2),
    scenario("get-64-two-threads", Work::Get, 64, 2),
    scenario("post-1-two-threads", Work::Post, 1, 2),
    scenario("post-64-two-threads", Work::Post, 64, 2),
    scenario("download-one-thread", Work::Download, 1, 1),
    scenario("upload-one-thread", Work::Upload, 1, 1),
];

const fn scenario(name: &'static str, work: Work, concurrent: usize, threads: usize) -> Scenario {
    Scenario {
        name,
        work,
        concurrent,
        threads,
    }
}

impl Scenario {
    /// Exchanges of each task.
    pub(crate) fn repeats(&self, amount: Amount) -> usize {
        match self.work {
            // One at a time is slow, and steady enough with half as many.
            Work::Get | Work::Post if self.concurrent == 1 => amount.requests.div_ceil(2),
            Work::Get | Work::Post => amount.requests.div_ceil(self.concurrent),
            Work::Download | Work::Upload => 1,
        }
    }

    /// What each task does before anything is read, and how often.
    pub(crate) fn warm_up(&self, amount: Amount) -> (Work, usize) {
        match self.work {
            Work::Get | Work::Post => (self.work, amount.requests / 10 / self.concurrent),
            Work::Download => (Work::Get, 0),
            Work::Upload => (Work::Post, 0),
        }
    }

    /// Requests, or MiB moved.
    pub(crate) fn units(&self, amount: Amount) -> f64 {
        match self.work {
            Work::Get | Work::Post => (self.repeats(amount) * self.concurrent) as f64,
            Work::Download | Work::Upload => amount.download_mib as f64,
        }
    }
}

/// How much one turn does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Requests a turn, shared out over the concurrent tasks; a task alone does half of them.
    pub(crate) requests: usize,
    /// The size of a download and of an upload.
    pub(crate) download_mib: u64,
}

/// Where the requests go, in the forms the contenders need; made once, before anything is measured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The server's socket address, for those who dial on their own.
    pub(crate) address: SocketAddr,
    /// The URI of the small answer.
    pub(crate) small: Uri,
    /// The URI of the large answer.
    pub(crate) big: Uri,
    /// The length of the large answer, and of the large body.
    pub(crate) big_bytes: u64,
    /// The body of every POST.
    pub(crate) post_body: Bytes,
    /// What the large body is made of.
    pub(crate) piece: Bytes,
}

impl Target {
    /// The target behind `address` with a large answer of the size that `amount` says.
    pub(crate) fn new(
        address: SocketAddr,
        _scenario: &Scenario,
        amount: Amount,
    ) -> Result<Self, Failure> {
        let download_mib = amount.download_mib;
        Ok(Self {
            address,
            small: format!("http://{address}{SMALL_PATH}").parse()?,
            big: format!("http://{address}{BIG_PATH}{download_mib}").parse()?,
            big_bytes: download_mib * MIB,
            post_body: Bytes::from(vec![b'x'; POST_BODY_BYTES]),
            piece: Bytes::from(vec![b'x'; UPLOAD_PIECE_BYTES]),
        })
    }

    /// The length of the answer to this work.
    pub(crate) fn length(&self, work: Work) -> u64 {
        match work {
            Work::Get | Work::Post | Work::Upload => SMALL_BODY.len() as u64,
            Work::Download => self.big_bytes,
        }
    }
}

/// The path of the small answer; GET and POST are answered alike.
pub(crate) const SMALL_PATH: &str = "/users/42";

/// The path of the large answer, up to its size in MiB.
pub(crate) const BIG_PATH: &str = "/big?mib=";

/// The body of the small answer.
pub(crate) const SMALL_BODY: &str = concat!(
    r#"{"id":42,"name":"Sockeye Salmon","email":"sockeye@example.com","#,
    r#""active":true,"score":97.25,"tags":["a","b"]}"#
);

/// The length of the body of every POST.
const POST_BODY_BYTES: usize = 256;

/// A piece of the large body, which it is a multiple of: what programs read of a file at a time.
const UPLOAD_PIECE_BYTES: usize = 64 * 1024;

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1024 * 1024;
