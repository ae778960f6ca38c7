//! The server, in a process of its own, so that its memory and time are never counted as a client's.
//!
//! Not an HTTP server for anybody else. Whoever asks for `TOGETHER` and a number gets a head and half a body,
//! and the other half when that many such requests have arrived; whoever asks for anything else gets the
//! counts of connections. `main.rs` starts it by running the same executable again with the argument
//! `SERVE`, and it ends when its standard input does, so that it cannot outlive the bench.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Barrier;

use crate::process::{Process, end_with_input};
use crate::scenario::{BODY, Failure, TOGETHER, addresses, answer};

/// The running server process; dropping it ends it.
pub(crate) struct Server {
    _process: Process,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts the process and waits until it listens at `count` addresses.
    pub(crate) fn start(count: usize) -> Result<Self, Failure> {
        let (process, addresses) = Process::start(&[SERVE, &count.to_string()], addresses)?;
        Ok(Self {
            _process: process,
            addresses,
        })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// What the connections share.
#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// Where requests wait for each other, by how many they are.
    barriers: Mutex<HashMap<usize, Arc<Barrier>>>,
}

impl Shared {
    fn barrier(&self, count: usize) -> Arc<Barrier> {
        let mut barriers = self.barriers.lock().unwrap_or_else(PoisonError::into_inner);
        let barrier = barriers
            .entry(count)
            .or_insert_with(|| Arc::new(Barrier::new(count)));
        Arc::clone(barrier)
    }
}

/// The server's main function: listens at `count` addresses, prints them and serves until standard input ends.
pub(crate) fn serve(count: usize) -> Result<(), Failure> {
    end_with_input();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shared = Arc::new(Shared::default());
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for _ in 0..count {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            let listener = socket.listen(BACKLOG)?;
            addresses.push(listener.local_addr()?.to_string());
            listeners.push(tokio::spawn(listen(listener, Arc::clone(&shared))));
        }
        writeln!(io::stdout(), "{}", addresses.join(","))?;
        for listener in listeners {
            listener.await??;
        }
        Ok(())
    })
}

/// Serves what connects to one address.
async fn listen(listener: TcpListener, shared: Arc<Shared>) -> Result<(), Failure> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let shared = Arc::clone(&shared);
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        shared.open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // A client that leaves is the normal end of a turn.
            let _ = converse(stream, &shared).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Answers the requests of one connection until the client closes it.
async fn converse(mut stream: TcpStream, shared: &Shared) -> Result<(), Failure> {
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let text = std::str::from_utf8(&request)?;
        let path = text.split(' ').nth(1).ok_or("no target")?;
        let Some(count) = path.strip_prefix(TOGETHER) else {
            let accepted = shared.accepted.fetch_sub(1, Ordering::Relaxed) - 1;
            let open = shared.open.load(Ordering::Relaxed) - 1;
            stream
                .write_all(format!("{accepted} {open}").as_bytes())
                .await?;
            return Ok(());
        };
        let barrier = shared.barrier(count.parse()?);
        let answer = answer();
        let (now, later) = answer.split_at(answer.len() - BODY.len() / 2);
        stream.write_all(now.as_bytes()).await?;
        barrier.wait().await;
        stream.write_all(later.as_bytes()).await?;
    }
}

/// The argument that turns the bench into its server.
pub(crate) const SERVE: &str = "serve";

/// Connections that may wait to be accepted: more than a burst, or the kernel drops some and their clients wait
/// a second before they try again.
const BACKLOG: u32 = 4096;
