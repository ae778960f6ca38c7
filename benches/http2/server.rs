//! The server, in a process of its own, so that its CPU time is never counted as a client's.
//!
//! On the h2 crate, with room for everything: a client is never held up by the server's windows or its limit
//! on streams, and nothing is written in small pieces (`outbox.rs`). One thread serves all connections; the delay line in front of it has threads of its own, on
//! the same core.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use tokio::net::{TcpListener, TcpStream};

use crate::delay;
use crate::outbox::Gathering;
use crate::process::{Process, end_with_input};
use crate::scenario::{BIG_PATH, Failure, MIB, SMALL_BODY};
use crate::sending::send_piece;

/// The argument that turns the bench into its server.
pub(crate) const SERVE: &str = "serve";

/// The running server process; dropping it ends it.
pub(crate) struct Server {
    _process: Process,
    /// Where it listens, the delay line last.
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts the process, on the cores of the calling thread, and waits until it listens at `count` addresses;
    /// with an `outside` server there is only the delay line in front of that. It closes connections that are
    /// older than `keep`.
    pub(crate) fn start(
        count: usize,
        outside: Option<SocketAddr>,
        keep: Option<Duration>,
    ) -> Result<Self, Failure> {
        let words = [
            count.to_string(),
            outside.map_or_else(String::new, |outside| outside.to_string()),
            keep.unwrap_or(FOREVER).as_millis().to_string(),
        ];
        let [count, server, keep] = words.each_ref().map(String::as_str);
        let (process, addresses) = Process::start(&[SERVE, count, server, keep], |line| {
            line.split(',')
                .map(|address| Ok(address.parse()?))
                .collect()
        })?;
        Ok(Self {
            _process: process,
            addresses,
        })
    }

    /// Where it listens without a delay.
    pub(crate) fn direct(&self) -> &[SocketAddr] {
        let all = self.addresses.split_last();
        all.map_or(&[], |(_, direct)| direct)
    }

    /// Where the delay line does.
    pub(crate) fn delayed(&self) -> Result<SocketAddr, Failure> {
        Ok(*self.addresses.last().ok_or("no address to ask")?)
    }
}

/// The server's main function: listens, prints where, and serves until standard input ends.
pub(crate) fn serve(count: &str, outside: &str, keep: &str) -> Result<(), Failure> {
    end_with_input();
    let keep = Duration::from_millis(keep.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let mut listeners = Vec::new();
        if outside.is_empty() {
            for _ in 0..count.parse()? {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                addresses.push(listener.local_addr()?);
                listeners.push(tokio::spawn(listen(listener, keep)));
            }
        } else {
            addresses.push(outside.parse()?);
        }
        let first = *addresses.first().ok_or("no address to listen at")?;
        addresses.push(delay::start(first)?);
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        writeln!(io::stdout(), "{}", addresses.join(","))?;
        for listener in listeners {
            listener.await??;
        }
        std::future::pending().await
    })
}

/// Serves what connects to one address.
async fn listen(listener: TcpListener, keep: Duration) -> Result<(), Failure> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A client that leaves in the middle is the normal end of a turn.
        tokio::spawn(tokio::time::timeout(keep, converse(stream)));
    }
}

/// Answers the requests of one connection until the client closes it. Those that have come together are answered
/// together.
async fn converse(stream: TcpStream) -> Result<(), Failure> {
    let (stream, outbox) = Gathering::new(stream);
    let mut connection = Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 4)
        .max_concurrent_streams(STREAMS)
        .max_send_buffer_size(4 * PIECE)
        .handshake::<_, Bytes>(stream)
        .await?;
    let answers = Answers::new();
    let mut come = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    come.push(request);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Failure::from(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if come.is_empty() => {}
                Poll::Pending => {
                    for (request, respond) in come.drain(..) {
                        answers.give(request, respond)?;
                    }
                    continue;
                }
            }
            ready!(outbox.poll_send(cx))?;
            return Poll::Pending;
        }
    })
    .await
}

/// What is sent, prepared once for a connection.
struct Answers {
    fields: HeaderMap,
    piece: Bytes,
}

impl Answers {
    fn new() -> Self {
        let fields = [
            (header::SERVER, "http2"),
            (header::DATE, "Thu, 01 Jan 2026 00:00:00 GMT"),
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-store"),
            (
                HeaderName::from_static("x-request-id"),
                "5f0c7a52-31d8-4d1e-9d0b-6f3f0a7c2e11",
            ),
            (header::VARY, "origin"),
        ];
        Self {
            fields: fields
                .map(|(name, value)| (name, HeaderValue::from_static(value)))
                .into_iter()
                .collect(),
            piece: Bytes::from(vec![b'.'; PIECE]),
        }
    }

    /// A response head with seven fields, about what an API behind a proxy sends.
    fn head(&self, length: u64) -> Response<()> {
        let mut response = Response::new(());
        let fields = response.headers_mut();
        fields.clone_from(&self.fields);
        fields.insert(header::CONTENT_LENGTH, length.into());
        response
    }

    fn give(
        &self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Result<(), Failure> {
        let Some(mib) = big_mib(&request) else {
            let head = self.head(SMALL_BODY.len() as u64);
            if request.body().is_end_stream() {
                return send_small(respond, head);
            }
            tokio::spawn(take_upload(respond, head, request.into_body()));
            return Ok(());
        };
        let head = self.head(mib.checked_mul(MIB).ok_or("too many MiB")?);
        tokio::spawn(send_big(respond, head, mib, self.piece.clone()));
        Ok(())
    }
}

/// The size of the large answer that is asked for.
fn big_mib(request: &Request<RecvStream>) -> Option<u64> {
    request.uri().path().strip_prefix(BIG_PATH)?.parse().ok()
}

fn send_small(mut respond: SendResponse<Bytes>, response: Response<()>) -> Result<(), Failure> {
    let body = Bytes::from_static(SMALL_BODY.as_bytes());
    Ok(respond
        .send_response(response, false)?
        .send_data(body, true)?)
}

/// Sends a large answer piece by piece.
async fn send_big(
    mut respond: SendResponse<Bytes>,
    response: Response<()>,
    mib: u64,
    piece: Bytes,
) -> Result<(), Failure> {
    let mut stream = respond.send_response(response, false)?;
    let pieces = mib * MIB / piece.len() as u64;
    for sent in 1..=pieces {
        send_piece(&mut stream, piece.clone(), sent == pieces).await?;
    }
    Ok(())
}

/// Throws a body away, and answers.
async fn take_upload(
    respond: SendResponse<Bytes>,
    response: Response<()>,
    mut body: RecvStream,
) -> Result<(), Failure> {
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    send_small(respond, response)
}

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client may send unasked on a stream.
const WINDOW: u32 = 16 * 1024 * 1024;

/// Streams at once.
const STREAMS: u32 = 1000;

/// What is handed to h2 at once of a large answer; divides a MiB.
const PIECE: usize = 128 * 1024;
