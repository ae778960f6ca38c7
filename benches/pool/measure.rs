//! Measuring: the processes, the clocks and the rounds of each figure, arranged for the report.
//!
//! The machine is assumed to be noisy. Every round runs every contender once, in a changing order, and ratios
//! are taken within a round. Memory is measured in a process of its own for every turn.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

use crate::burst;
use crate::callgrind;
use crate::contenders::Contender;
use crate::median::{Median, order};
use crate::options::{Figure, Sizes};
use crate::process::{ask, numbers};
use crate::report::{Column, FigureReport, Row};
use crate::requests;
use crate::scenario::{Failure, Idle, Requests};
use crate::server::Server;
use crate::turns::{Asked, IDLE, REQUESTS};

/// Measures a figure.
pub(crate) fn measure(figure: Figure, sizes: Sizes) -> Result<FigureReport, Failure> {
    match figure {
        Figure::Idle => idle(sizes),
        Figure::Origins => origins(sizes),
        Figure::Burst => bursts(sizes),
        Figure::Checkout => checkout(sizes),
    }
}

/// Bytes for each connection, beyond those before they were opened.
struct Each {
    held: f64,
    released: f64,
    rested: f64,
}

/// Bytes in the rested state, in the order of the contenders, and in the order of rounds for each.
type Series = Vec<Vec<f64>>;

fn idle(sizes: Sizes) -> Result<FigureReport, Failure> {
    allow_open_files(sizes.connections)?;
    let this = std::env::current_exe()?;
    let mut heap = Vec::new();
    for contender in Contender::ALL {
        heap.push(memory(Path::new(TWIN), contender, 1, sizes)?);
    }
    let mut in_bursts: Series = vec![Vec::new(); heap.len()];
    let mut at_once = in_bursts.clone();
    for round in 0..sizes.few_rounds {
        for position in order(round, heap.len()) {
            let Some(contender) = Contender::ALL.get(position) else {
                continue;
            };
            for (series, origins) in [(&mut in_bursts, sizes.bursts), (&mut at_once, 1)] {
                let each = memory(&this, *contender, origins, sizes)?;
                if let Some(series) = series.get_mut(position) {
                    series.push(each.rested);
                }
            }
        }
    }
    let peer_heap = heap.last().map(|each| each.rested);
    let mut rows = Vec::new();
    for (position, (contender, heap)) in Contender::ALL.iter().zip(&heap).enumerate() {
        let [own_bursts, own_at_once] = [&in_bursts, &at_once].map(|series| {
            // hyper-util is the last of all contenders.
            let own = series.get(position).map(Vec::as_slice).unwrap_or_default();
            let peer = series.last().map(Vec::as_slice).unwrap_or_default();
            (Median::of(own.iter().copied()), ratios(own, peer))
        });
        rows.push(Row {
            contender: contender.name(),
            cells: vec![
                own_bursts.0.into(),
                own_bursts.1.into(),
                own_at_once.0.into(),
                own_at_once.1.into(),
                heap.rested.into(),
                peer_heap.map(|peer| heap.rested / peer).into(),
                heap.released.into(),
                heap.held.into(),
            ],
        });
    }
    Ok(FigureReport {
        name: Figure::Idle.name(),
        title: format!(
            "{} idle connections, used in {} bursts or all at once: bytes of memory for each",
            sizes.connections, sizes.bursts
        ),
        columns: vec![
            Column::new("resident_bytes_bursts", "RSS, bursts", 0),
            Column::new("resident_bursts_to_hyper_util", "x hyper-util", 2),
            Column::new("resident_bytes_at_once", "RSS, at once", 0),
            Column::new("resident_at_once_to_hyper_util", "x hyper-util", 2),
            Column::new("heap_bytes", "heap", 0),
            Column::new("heap_to_hyper_util", "x hyper-util", 2),
            Column::new("heap_bytes_just_idle", "just idle", 0),
            Column::new("heap_bytes_in_use", "in use", 0),
        ],
        rows,
    })
}

/// Has `program` run a turn of `idle` at a server that nobody used before.
fn memory(
    program: &Path,
    contender: Contender,
    origins: usize,
    sizes: Sizes,
) -> Result<Each, Failure> {
    let server = Server::start(origins)?;
    let idle = Idle {
        addresses: server.addresses().to_vec(),
        connections: sizes.connections,
        rest: sizes.rest,
    };
    let line = ask(program, &words(&Asked::Idle(contender, idle)))?;
    let [before, held, released, rested] = numbers(&line)?;
    let each = |after: f64| (after - before) / sizes.connections as f64;
    Ok(Each {
        held: each(held),
        released: each(released),
        rested: each(rested),
    })
}

/// Lets this process, and those it starts, have a file for each connection.
fn allow_open_files(connections: usize) -> Result<(), Failure> {
    let needed = connections as u64 + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|error| {
        format!("{connections} connections need {needed} open files; raising the limit of {soft}: {error}").into()
    })
}

/// Series of microseconds of CPU time a request: one series for each kind of turn and contender.
struct Times(Vec<Vec<Vec<f64>>>);

impl Times {
    /// Runs the rounds: each has one turn of each kind for each contender.
    fn measure(kinds: &[Requests], rounds: usize) -> Result<Self, Failure> {
        let mut series = vec![vec![Vec::new(); kinds.len()]; POOLS.len()];
        let turns = POOLS.len() * kinds.len();
        for round in 0..rounds {
            for turn in order(round, turns) {
                let (position, kind) = (turn / kinds.len(), turn % kinds.len());
                let times = series
                    .get_mut(position)
                    .and_then(|kinds| kinds.get_mut(kind));
                if let (Some(contender), Some(requests), Some(times)) =
                    (POOLS.get(position), kinds.get(kind), times)
                {
                    times.push(microseconds(*contender, *requests)?);
                }
            }
        }
        Ok(Self(series))
    }

    fn of(&self, position: usize, kind: usize) -> &[f64] {
        let series = self.0.get(position).and_then(|kinds| kinds.get(kind));
        series.map(Vec::as_slice).unwrap_or_default()
    }
}

fn origins(sizes: Sizes) -> Result<FigureReport, Failure> {
    let many = sizes.origins;
    let kind = |known, used| Requests {
        known,
        used,
        count: sizes.requests,
    };
    let kinds = [kind(FEW, FEW), kind(many, many), kind(many, FEW)];
    let times = Times::measure(&kinds, sizes.rounds)?;
    let mut rows = Vec::new();
    for (position, contender) in POOLS.into_iter().enumerate() {
        let counts = instructions_of(contender, &kinds, sizes)?;
        let [few, all, few_of_many] = [0, 1, 2].map(|kind| times.of(position, kind));
        let count = |kind: usize| counts.get(kind).copied();
        let to_few = |kind| Some(count(kind)? / count(0)?);
        rows.push(Row {
            contender: contender.name(),
            cells: vec![
                ratios(all, few).into(),
                ratios(few_of_many, few).into(),
                Median::of(few.iter().copied()).into(),
                Median::of(all.iter().copied()).into(),
                to_few(1).into(),
                to_few(2).into(),
                count(0).into(),
                count(1).into(),
            ],
        });
    }
    Ok(FigureReport {
        name: Figure::Origins.name(),
        title: format!("{many} origins known against {FEW}: the cost of a request"),
        columns: vec![
            Column::new("cpu_ratio_all_in_turn", "CPU, all used", 2),
            Column::new("cpu_ratio_few_in_turn", "CPU, 10 used", 2),
            Column::new("cpu_microseconds_few", "us at 10", 2),
            Column::new("cpu_microseconds_many", "us at all", 2),
            Column::new("instruction_ratio_all_in_turn", "instr., all used", 2),
            Column::new("instruction_ratio_few_in_turn", "instr., 10 used", 2),
            Column::new("instructions_few", "instr. at 10", 0),
            Column::new("instructions_many", "instr. at all", 0),
        ],
        rows,
    })
}

fn checkout(sizes: Sizes) -> Result<FigureReport, Failure> {
    let requests = Requests {
        known: 1,
        used: 1,
        count: sizes.requests,
    };
    let times = Times::measure(&[requests], sizes.rounds)?;
    let mut counts = Vec::new();
    for contender in POOLS {
        let instructions = instructions_of(contender, &[requests], sizes)?;
        let line = ask(TWIN, &words(&Asked::Requests(contender, requests)))?;
        counts.push((instructions.first().copied(), numbers::<2>(&line)?));
    }
    // hyper-util is the last of both.
    let peer = times.of(POOLS.len() - 1, 0);
    let peer_instructions = counts.last().and_then(|(instructions, _)| *instructions);
    let mut rows = Vec::new();
    for (position, (contender, (instructions, [allocations, bytes]))) in
        POOLS.iter().zip(&counts).enumerate()
    {
        let own = times.of(position, 0);
        let to_peer = instructions
            .zip(peer_instructions)
            .map(|(own, peer)| own / peer);
        rows.push(Row {
            contender: contender.name(),
            cells: vec![
                Median::of(own.iter().copied()).into(),
                ratios(own, peer).into(),
                (*instructions).into(),
                to_peer.into(),
                (*allocations).into(),
                (*bytes).into(),
            ],
        });
    }
    Ok(FigureReport {
        name: Figure::Checkout.name(),
        title: "a whole request on an idle connection, answered at once".to_owned(),
        columns: vec![
            Column::new("cpu_microseconds", "CPU us", 2),
            Column::new("cpu_to_hyper_util", "x hyper-util", 2),
            Column::new("instructions", "instructions", 0),
            Column::new("instructions_to_hyper_util", "x hyper-util", 2),
            Column::new("allocations", "allocations", 1),
            Column::new("bytes_allocated", "bytes alloc.", 0),
        ],
        rows,
    })
}

fn bursts(sizes: Sizes) -> Result<FigureReport, Failure> {
    let server = Server::start(1)?;
    let address = *server.addresses().first().ok_or("no address to ask")?;
    let mut opened = vec![Vec::new(); POOLS.len()];
    for round in 0..sizes.few_rounds {
        for position in order(round, POOLS.len()) {
            if let (Some(contender), Some(opened)) = (POOLS.get(position), opened.get_mut(position))
            {
                opened.push(burst::run(*contender, address)?);
            }
        }
    }
    let rows = POOLS.iter().zip(&opened).map(|(contender, opened)| {
        let second = || opened.iter().map(|opened| opened.second as f64);
        Row {
            contender: contender.name(),
            cells: vec![
                Median::of(second()).into(),
                second().reduce(f64::max).into(),
                Median::of(opened.iter().map(|opened| opened.first as f64)).into(),
            ],
        }
    });
    Ok(FigureReport {
        name: Figure::Burst.name(),
        title: format!(
            "two bursts of {} requests {} ms apart, {} idle connections allowed: connections opened",
            burst::REQUESTS,
            burst::PAUSE.as_millis(),
            burst::MAX_IDLE,
        ),
        columns: vec![
            Column::new("opened_by_second", "by the second", 0),
            Column::new("opened_by_second_at_most", "at most", 0),
            Column::new("opened_by_first", "by the first", 0),
        ],
        rows: rows.collect(),
    })
}

/// CPU time of one turn, in microseconds a request.
fn microseconds(contender: Contender, requests: Requests) -> Result<f64, Failure> {
    let turn = requests::run(contender, requests, cpu_time)?;
    let spent = turn.after.saturating_sub(turn.before);
    Ok(spent.as_secs_f64() * 1e6 / requests.count as f64)
}

/// CPU time that this process has used, over all of its threads.
fn cpu_time() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let spent = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(u64::try_from(
        spent.num_microseconds(),
    )?))
}

/// Instructions a request for each kind of turn; empty where they are not counted.
fn instructions_of(
    contender: Contender,
    kinds: &[Requests],
    sizes: Sizes,
) -> Result<Vec<f64>, Failure> {
    if !sizes.instructions || !callgrind::is_installed() {
        return Ok(Vec::new());
    }
    kinds
        .iter()
        .map(|kind| instructions(contender, *kind))
        .collect()
}

/// What further requests add to the instructions of a turn, so that making the client and meeting its origins
/// do not count.
fn instructions(contender: Contender, requests: Requests) -> Result<f64, Failure> {
    let run = |count| instructions_in_all(contender, Requests { count, ..requests });
    // Counts hardly vary, and valgrind is slow.
    let base = (requests.count / 4).max(1);
    Ok((run(base * 2)? - run(base)?) / base as f64)
}

fn instructions_in_all(contender: Contender, requests: Requests) -> Result<f64, Failure> {
    callgrind::instructions(
        // In this order: the first alone would count nothing but what is to be left out.
        &[LEFT_OUT, "--collect-atstart=yes"],
        &words(&Asked::Requests(contender, requests)),
    )
}

/// The words that ask for a turn.
fn words(asked: &Asked) -> Vec<String> {
    match asked {
        Asked::Idle(contender, idle) => {
            let addresses: Vec<_> = idle.addresses.iter().map(SocketAddr::to_string).collect();
            vec![
                IDLE.to_owned(),
                contender.name().to_owned(),
                addresses.join(","),
                idle.connections.to_string(),
                idle.rest.as_millis().to_string(),
            ]
        }
        Asked::Requests(contender, Requests { known, used, count }) => {
            let mut words = vec![REQUESTS.to_owned(), contender.name().to_owned()];
            words.extend([known, used, count].map(usize::to_string));
            words
        }
    }
}

/// The median of ratios, each taken within its round.
fn ratios(of: &[f64], to: &[f64]) -> Option<Median> {
    Median::of(of.iter().zip(to).map(|(of, to)| of / to))
}

/// Those with a pool, of which hyper-util is the last.
const POOLS: [Contender; 2] = [Contender::Sockeye, Contender::HyperUtil];

/// The smaller number of origins.
const FEW: usize = 10;

/// Files that a process has open beside its connections, at most.
const OTHER_FILES: u64 = 200;

/// The twin that counts allocations.
const TWIN: &str = env!("CARGO_BIN_EXE_pool-allocations");

/// What Sockeye's reaper does for each origin with idle connections, by the clock. Under valgrind a second holds
/// fifty times fewer requests, so it would weigh fifty times more than it does; were the function renamed, it
/// would be counted again. hyper-util has nothing of the kind here: it has no timer.
const LEFT_OUT: &str = "--toggle-collect=*::Reaper::look_at_host*";
