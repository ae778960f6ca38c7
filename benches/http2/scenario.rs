//! What is measured: the list of scenarios, the size of a run and the target every contender talks to.
//!
//! Not how: a turn is in `../peers/turn.rs`, the contenders are in `contenders/`. Shared by the bench and by the
//! program that counts allocations, so that both run the very same work.

use std::net::SocketAddr;

use http::Uri;

/// The error of everything here: a bench only ever reports it and stops.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The work of one measured turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A GET answered with a small body, collected.
    Get,
    /// A GET answered with a large body, read in pieces and thrown away.
    Download,
    /// A POST of a large body made of pieces, answered with a small one.
    Upload,
}

/// What the bare contender and Sockeye allow the peer to send unasked, in MiB: on a stream, and on all together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    stream: u32,
    connection: u32,
}

impl Windows {
    const fn mib(stream: u32, connection: u32) -> Self {
        Self { stream, connection }
    }

    /// Bytes on a stream.
    pub(crate) fn stream(self) -> u32 {
        self.stream * MIB as u32
    }

    /// Bytes on all streams together.
    pub(crate) fn connection(self) -> u32 {
        self.connection * MIB as u32
    }
}

/// One line of the comparison. All streams are those of one session, and the client's runtime has one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// The name that `--only` is compared with.
    pub(crate) name: &'static str,
    /// What each task does.
    pub(crate) work: Work,
    /// How many tasks do it at the same time, each on a stream.
    pub(crate) concurrent: usize,
    /// How many worker threads the client's runtime has.
    pub(crate) threads: usize,
    /// Whether a delay line lies between client and server.
    pub(crate) delayed: bool,
    /// The bare contender's windows.
    pub(crate) bare: Windows,
    /// Sockeye's.
    pub(crate) sockeye: Windows,
}

/// Every scenario, in the order of the report.
pub(crate) const SCENARIOS: [Scenario; 8] = [
    gets("get-1-stream", 1),
    gets("get-32-streams", 32),
    gets("get-64-streams", 64),
    gets("get-100-streams", 100),
    Scenario {
        bare: USUAL,
        ..large("download-bare-2m", Work::Download)
    },
    large("download-bare-4m", Work::Download),
    Scenario {
        delayed: true,
        bare: WIDE,
        sockeye: WIDE,
        ..large("download-delayed", Work::Download)
    },
    large("upload", Work::Upload),
];

/// What Sockeye has by default.
const DEFAULT: Windows = Windows::mib(4, 16);

/// What hyper has, and with it who is built on it.
const USUAL: Windows = Windows::mib(2, 5);

/// What a long way needs.
const WIDE: Windows = Windows::mib(8, 16);

const fn gets(name: &'static str, concurrent: usize) -> Scenario {
    Scenario {
        concurrent,
        ..large(name, Work::Get)
    }
}

const fn large(name: &'static str, work: Work) -> Scenario {
    Scenario {
        name,
        work,
        concurrent: 1,
        threads: 1,
        delayed: false,
        bare: DEFAULT,
        sockeye: DEFAULT,
    }
}

impl Scenario {
    /// Exchanges of each task.
    pub(crate) fn repeats(&self, amount: Amount) -> usize {
        match self.work {
            // One at a time is slow, and steady enough with a quarter as many.
            Work::Get if self.concurrent == 1 => amount.requests.div_ceil(4),
            Work::Get => amount.requests.div_ceil(self.concurrent),
            Work::Download | Work::Upload => 1,
        }
    }

    /// What each task does before anything is read, and how often.
    pub(crate) fn warm_up(&self, amount: Amount) -> (Work, usize) {
        match self.work {
            Work::Get => (Work::Get, amount.requests / 10 / self.concurrent),
            Work::Download | Work::Upload => (Work::Get, 0),
        }
    }

    /// Requests, or MiB moved.
    pub(crate) fn units(&self, amount: Amount) -> f64 {
        match self.work {
            Work::Get => (self.repeats(amount) * self.concurrent) as f64,
            Work::Download | Work::Upload => self.mib(amount) as f64,
        }
    }

    /// The size of a large body. A quarter has to do where it takes its time.
    fn mib(&self, amount: Amount) -> u64 {
        if self.delayed {
            amount.download_mib.div_ceil(4)
        } else {
            amount.download_mib
        }
    }
}

/// How much one turn does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Requests a turn, shared out over the concurrent tasks; a task alone does a quarter of them.
    pub(crate) requests: usize,
    /// The size of a download and of an upload; a quarter of it where there is a delay line.
    pub(crate) download_mib: u64,
}

/// Where the requests go, made once, before anything is measured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The server's socket address, for those who dial on their own.
    pub(crate) address: SocketAddr,
    /// The URI of the small answer.
    pub(crate) small: Uri,
    /// The URI of the large answer.
    pub(crate) big: Uri,
    /// The length of the large answer, and of the body of an upload.
    pub(crate) big_bytes: u64,
    /// The bare contender's windows.
    pub(crate) bare: Windows,
    /// Sockeye's.
    pub(crate) sockeye: Windows,
}

impl Target {
    /// The target behind `address` with a large answer of the size that `amount` says.
    pub(crate) fn new(
        address: SocketAddr,
        scenario: &Scenario,
        amount: Amount,
    ) -> Result<Self, Failure> {
        let mib = scenario.mib(amount);
        Ok(Self {
            address,
            small: format!("http://{address}{SMALL_PATH}").parse()?,
            big: format!("http://{address}{BIG_PATH}{mib}").parse()?,
            big_bytes: mib * MIB,
            bare: scenario.bare,
            sockeye: scenario.sockeye,
        })
    }

    /// The length of the answer to this work.
    pub(crate) fn length(&self, work: Work) -> u64 {
        match work {
            Work::Get | Work::Upload => SMALL_BODY.len() as u64,
            Work::Download => self.big_bytes,
        }
    }
}

/// The path of the small answer; an upload gets it, too.
pub(crate) const SMALL_PATH: &str = "/users/42";

/// The path of the large answer, up to its size in MiB.
pub(crate) const BIG_PATH: &str = "/big/";

/// The body of the small answer.
pub(crate) const SMALL_BODY: &str = concat!(
    r#"{"id":42,"name":"Sockeye Salmon","email":"sockeye@example.com","#,
    r#""active":true,"score":97.25,"tags":["a","b"]}"#
);

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1024 * 1024;

/// The first word by which the twin is asked for a turn of idle sessions; the contender, the milliseconds of
/// their rest and the addresses follow.
pub(crate) const IDLE: &str = "idle";
