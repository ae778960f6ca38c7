//! The figure `idle`: sessions that have been used once and rest, each to an origin of its own.
//!
//! What an origin takes, its statistics say, is no session's; so the heap is read a second time when the server
//! has closed them all, and everything else is still there.
//! The twin runs it, with its counting allocator; the bench asks for it and divides.

use std::net::SocketAddr;
use std::time::Duration;

use crate::contenders::{Bare, Contender, Legacy, Reqwest, Slot, Sockeye};
use crate::scenario::{Amount, Failure, SCENARIOS, Target};

/// Opens a session to each address and lets them rest; gives the heap after the rest, and after the server, which
/// keeps connections for a second longer, has closed them.
pub(crate) fn run(
    contender: Contender,
    addresses: &[SocketAddr],
    rest: Duration,
    heap: fn() -> Result<u64, Failure>,
) -> Result<(u64, u64), Failure> {
    let turn = match contender {
        Contender::Bare => turn::<Bare>,
        Contender::Sockeye => turn::<Sockeye>,
        Contender::HyperUtil => turn::<Legacy>,
        Contender::Reqwest => turn::<Reqwest>,
    };
    // What the bare contender's slots share is a session; a client finds the origin's own.
    turn(addresses, contender != Contender::Bare, rest, heap)
}

fn turn<S: Slot>(
    addresses: &[SocketAddr],
    is_client: bool,
    rest: Duration,
    heap: fn() -> Result<u64, Failure>,
) -> Result<(u64, u64), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let [scenario, ..] = &SCENARIOS;
    let amount = Amount {
        requests: 1,
        download_mib: 1,
    };
    let targets: Vec<Target> = addresses
        .iter()
        .map(|&address| Target::new(address, scenario, amount))
        .collect::<Result<_, _>>()?;
    let first = targets.first().ok_or("no address to ask")?;
    runtime.block_on(async {
        let client = S::shared(first)?;
        let mut sessions = Vec::with_capacity(targets.len());
        for target in &targets {
            let own;
            let shared = if is_client {
                &client
            } else {
                own = S::shared(target)?;
                &own
            };
            let mut session = S::open(shared, target).await?;
            session.get().await?;
            sessions.push(session);
        }
        tokio::time::sleep(rest).await;
        let (rested, open) = (heap()?, open_sockets()?);
        if open < targets.len() {
            return Err(format!("only {open} of {} sessions rest", targets.len()).into());
        }
        tokio::time::sleep(CLOSING).await;
        // A handle of h2 keeps the streams of its session; the client is still there.
        drop(sessions);
        Ok((rested, heap()?))
    })
}

/// Sockets of this process; as many as are wanted where the system does not tell.
fn open_sockets() -> Result<usize, Failure> {
    let Ok(files) = std::fs::read_dir("/proc/self/fd") else {
        return Ok(usize::MAX);
    };
    let mut sockets = 0;
    for file in files {
        // The folder itself is among them, and gone.
        let Ok(target) = std::fs::read_link(file?.path()) else {
            continue;
        };
        sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok(sockets)
}

/// Within this time the server closes what has rested.
const CLOSING: Duration = Duration::from_secs(2);
