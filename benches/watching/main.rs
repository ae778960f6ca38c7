//! `cargo bench -p sockeye-benches --bench watching`: what it costs that a plain GET is counted and could be observed.
//!
//! The other side of the comparison is a library without it, which no feature gives: the benches `peers` and `pool` are built a second
//! time with `--cfg sockeye_unwatched` (`unwatched.sh`). Then both builds do the same GETs in turn, over loopback and in memory, and the
//! ratio of their CPU time is taken pair by pair. What is looked for drowns in the noise of the kernel's part, so it is found in memory and
//! then told as a share of a GET over loopback. Valgrind counts instructions, where it is installed.

#[path = "../pool/callgrind.rs"]
mod callgrind;
#[path = "../peers/median.rs"]
mod median;

/// What the modules of the other benches take from theirs.
mod scenario {
    pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
}

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::Value;

use crate::median::{Median, order};
use crate::scenario::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("watching: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut pairs, mut requests) = (25, 20_000);
    let mut in_memory = (150, 60_000);
    let (mut builds, mut measures) = (true, true);
    for argument in &arguments {
        match argument.as_str() {
            "--quick" => (pairs, requests, in_memory) = (2, 400, (2, 4000)),
            "--build" => measures = false,
            "--built" => builds = false,
            // Cargo adds it to whatever the user gave.
            "--bench" => {}
            _ => return Err(HELP.into()),
        }
    }
    // The one without comes first: what is in the folder of all builds in the end is as everybody else builds it.
    let [unwatched, watched] = [Build::at("without")?, Build::at("with")?];
    if builds {
        unwatched.make(Some(WITHOUT))?;
        watched.make(None)?;
    }
    let builds = [watched, unwatched];
    if !measures {
        return Ok(());
    }
    let (in_memory, in_memory_requests) = in_memory;
    let (ratio, more) = compare(&builds, in_memory, |build| {
        build.microseconds_in_memory(in_memory_requests)
    })?;
    println!(
        "in memory: CPU time {} of that without, {in_memory} pairs of {in_memory_requests} requests; {} us more a request",
        words(&ratio),
        words(&more)
    );
    for scenario in ["get-1-one-thread", "get-64-one-thread"] {
        let mut whole = Vec::new();
        let (ratio, _) = compare(&builds, pairs, |build| {
            let time = build.microseconds(scenario, requests)?;
            whole.push(time);
            Ok(time)
        })?;
        let whole = Median::of(whole.into_iter()).ok_or("no pairs")?.median;
        println!(
            "{scenario}: CPU time {} of that without, {pairs} pairs of {requests} requests; of {whole:.1} us, what is more in memory is {:.2} %",
            words(&ratio),
            more.median / whole * 100.0
        );
    }
    if callgrind::is_installed() {
        let [watched, unwatched] = &builds;
        let (watched, unwatched) = (watched.instructions()?, unwatched.instructions()?);
        println!(
            "GET on an idle connection in memory: {watched:.0} instructions against {unwatched:.0} without, {:.0} more",
            watched - unwatched
        );
    }
    Ok(())
}

/// One pair after the other, the sides in turn first: the ratios of what the first took to what the second did, and the differences.
fn compare(
    builds: &[Build; 2],
    pairs: usize,
    mut microseconds: impl FnMut(&Build) -> Result<f64, Failure>,
) -> Result<(Median, Median), Failure> {
    let (mut ratios, mut differences) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let mut times = [0.0; 2];
        for side in order(pair, times.len()) {
            if let (Some(build), Some(time)) = (builds.get(side), times.get_mut(side)) {
                *time = microseconds(build)?;
            }
        }
        let [watched, unwatched] = times;
        ratios.push(watched / unwatched);
        differences.push(watched - unwatched);
    }
    let ratio = Median::of(ratios.into_iter()).ok_or("no pairs")?;
    let difference = Median::of(differences.into_iter()).ok_or("no pairs")?;
    Ok((ratio, difference))
}

fn words(of: &Median) -> String {
    format!(
        "{:.4} (quartiles {:.4} to {:.4})",
        of.median, of.lower_quartile, of.upper_quartile
    )
}

/// The two benches that do the work, built in one way. Cargo gives both builds the same names, so each is copied away.
struct Build {
    peers: PathBuf,
    pool: PathBuf,
}

impl Build {
    /// Beside the folder that this executable is in.
    fn at(name: &str) -> Result<Self, Failure> {
        let this = std::env::current_exe()?;
        let release = this.ancestors().nth(2).ok_or("no folder of builds")?;
        let folder = release.join("watching");
        Ok(Self {
            peers: folder.join(format!("peers-{name}")),
            pool: folder.join(format!("pool-{name}")),
        })
    }

    fn make(&self, wrapper: Option<&str>) -> Result<(), Failure> {
        let mut cargo = Command::new("cargo");
        cargo
            .args(["bench", "-p", "sockeye-benches"])
            .args(["--bench", "peers", "--bench", "pool"])
            .args(["--no-run", "--message-format=json-render-diagnostics"])
            .stderr(Stdio::inherit());
        if let Some(wrapper) = wrapper {
            cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        }
        let output = cargo.output()?;
        if !output.status.success() {
            return Err("the benches do not build".into());
        }
        let messages = String::from_utf8(output.stdout)?;
        for (name, to) in [("peers", &self.peers), ("pool", &self.pool)] {
            let built = executable(name, &messages)?;
            std::fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
            std::fs::copy(built, to)?;
        }
        Ok(())
    }

    /// CPU time of a request over loopback, the server in a process of its own.
    fn microseconds(&self, scenario: &str, requests: usize) -> Result<f64, Failure> {
        let json =
            std::env::temp_dir().join(format!("sockeye-watching-{}.json", std::process::id()));
        let output = Command::new(&self.peers)
            .args([
                "--contender",
                "sockeye",
                "--rounds",
                "1",
                "--only",
                scenario,
            ])
            .args(["--requests", &requests.to_string(), "--json"])
            .arg(&json)
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
        std::fs::remove_file(&json)?;
        let time = &report["scenarios"][0]["contenders"][0]["cpu_microseconds"]["median"];
        Ok(time.as_f64().ok_or("the report has no CPU time")?)
    }

    /// CPU time of a request whose answer is there at once: what further ones add to a process that did some.
    fn microseconds_in_memory(&self, requests: u32) -> Result<f64, Failure> {
        let time = |requests: u32| -> Result<f64, Failure> {
            let before = of_children()?;
            let done = Command::new(&self.pool)
                .args(in_memory(requests))
                .stdout(Stdio::null())
                .status()?;
            if !done.success() {
                return Err("the bench `pool` failed".into());
            }
            Ok(of_children()? - before)
        };
        let (few, many) = (time(FEW)?, time(FEW + requests)?);
        Ok((many - few) / f64::from(requests))
    }

    /// Instructions in user mode of a request whose answer is there at once: what further ones add.
    fn instructions(&self) -> Result<f64, Failure> {
        let count =
            |requests: u32| callgrind::instructions_of(&self.pool, &[], &in_memory(requests));
        let (few, many) = (count(FEW)?, count(FEW + MORE)?);
        Ok((many - few) / f64::from(MORE))
    }
}

/// What `pool` is told to do that many GETs in memory.
fn in_memory(requests: u32) -> [String; 5] {
    ["requests", "sockeye", "1", "1", &requests.to_string()].map(str::to_owned)
}

/// The CPU time, in microseconds, of all processes that were started here and have ended.
fn of_children() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64)
}

/// The executable of a bench, as cargo has told it.
fn executable(name: &str, messages: &str) -> Result<PathBuf, Failure> {
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line)?;
        let path = message["executable"].as_str();
        if let Some(path) = path.filter(|_| message["target"]["name"] == name) {
            return Ok(Path::new(path).to_owned());
        }
    }
    Err(format!("cargo named no executable of the bench {name}").into())
}

/// More than the requests that a turn warms up with.
const FEW: u32 = 2000;

const MORE: u32 = 10_000;

const WITHOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/watching/unwatched.sh");

const HELP: &str = "\
usage: cargo bench -p sockeye-benches --bench watching -- [flags]

  --quick   a smoke run: 2 pairs of 400 requests, and of 4,000 in memory
  --build   only the two builds, which take long
  --built   only the measurement, of what was built before";
