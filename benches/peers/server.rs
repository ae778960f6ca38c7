//! The server, in a process of its own, so that its CPU time is never counted as a client's.
//!
//! Not an HTTP server for anybody else: it parses just enough of HTTP/1.1 to answer the contenders with
//! bytes prepared beforehand, one thread for all connections. `main.rs` starts it by running the same
//! executable again with the argument `SERVE`, and it ends when its standard input does, so that it
//! cannot outlive the bench.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{Process, end_with_input};
use crate::scenario::{BIG_PATH, Failure, MIB, SMALL_BODY};

/// The argument that turns the bench into its server.
pub(crate) const SERVE: &str = "serve";

/// The running server process; dropping it ends it.
pub(crate) struct Server {
    _process: Process,
    address: SocketAddr,
}

impl Server {
    /// Starts the process, on the cores of the calling thread, and waits until it listens.
    pub(crate) fn start() -> Result<Self, Failure> {
        let (process, address) = Process::start(&[SERVE], |line| Ok(line.parse()?))?;
        Ok(Self {
            _process: process,
            address,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The server's main function: serves until standard input ends.
pub(crate) fn serve() -> Result<(), Failure> {
    end_with_input();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?)?;
        let answers = Arc::new(Answers::new()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A client that leaves in the middle is the normal end of a turn.
            tokio::spawn(converse(stream, Arc::clone(&answers)));
        }
    })
}

/// What is sent, prepared once.
struct Answers {
    small: Vec<u8>,
    piece: Vec<u8>,
}

impl Answers {
    fn new() -> Result<Self, Failure> {
        let mut small = head(SMALL_BODY.len() as u64)?.into_bytes();
        small.extend_from_slice(SMALL_BODY.as_bytes());
        let piece = vec![b'.'; PIECE_BYTES];
        Ok(Self { small, piece })
    }
}

/// A response head with seven fields, about what an API behind a proxy sends.
fn head(content_length: u64) -> Result<String, Failure> {
    let mut head = String::from("HTTP/1.1 200 OK\r\nserver: peers\r\n");
    head.push_str("date: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: application/json\r\n");
    write!(
        head,
        "content-length: {content_length}\r\ncache-control: no-store\r\n"
    )?;
    head.push_str("x-request-id: 5f0c7a52-31d8-4d1e-9d0b-6f3f0a7c2e11\r\n");
    head.push_str("vary: origin\r\n\r\n");
    Ok(head)
}

/// Answers the requests of one connection until the client closes it.
async fn converse(mut stream: TcpStream, answers: Arc<Answers>) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut sink = None;
    let mut filled = 0;
    loop {
        let bytes = buffer.get(..filled).unwrap_or_default();
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            let room = buffer.get_mut(filled..).unwrap_or_default();
            match stream.read(room).await? {
                0 => return Ok(()),
                read => filled += read,
            }
            continue;
        };
        let request = Request::parse(bytes.get(..end).unwrap_or_default())?;
        let mut consumed = end + 4 + request.content_length;
        // A body may come in a later piece than its head; what is read of it is thrown away. No contender sends another
        // request before this one is answered, so that all that comes is of the body.
        while consumed > filled {
            consumed -= filled;
            let room = match consumed > buffer.len() {
                true => sink.get_or_insert_with(|| vec![0; SINK_BYTES]),
                false => &mut buffer,
            };
            filled = stream.read(room).await?;
            if filled == 0 {
                return Ok(());
            }
        }
        // What follows a small body is in the buffer; a large one is followed by nothing.
        if consumed < filled {
            buffer.copy_within(consumed..filled, 0);
        }
        filled -= consumed;
        match request.big_mib {
            None => stream.write_all(&answers.small).await?,
            Some(mib) => write_big(&mut stream, mib, &answers.piece).await?,
        }
    }
}

/// The little that the server wants to know of a request.
struct Request {
    big_mib: Option<u64>,
    content_length: usize,
}

impl Request {
    fn parse(head: &[u8]) -> Result<Self, Failure> {
        let text = std::str::from_utf8(head)?;
        let mut lines = text.split("\r\n");
        let target = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .ok_or("no target")?;
        let big_mib = target.strip_prefix(BIG_PATH).map(str::parse).transpose()?;
        let mut content_length = 0;
        // No contender sends a body with a GET, which spares looking for its length.
        if !text.starts_with("GET ") {
            for (name, value) in lines.filter_map(|line| line.split_once(':')) {
                if name.eq_ignore_ascii_case("content-length") {
                    content_length = value.trim().parse()?;
                }
            }
        }
        Ok(Self {
            big_mib,
            content_length,
        })
    }
}

/// Sends a large answer piece by piece.
async fn write_big(stream: &mut TcpStream, mib: u64, piece: &[u8]) -> Result<(), Failure> {
    let total = mib.checked_mul(MIB).ok_or("too many MiB")?;
    stream.write_all(head(total)?.as_bytes()).await?;
    for _ in 0..total / piece.len() as u64 {
        stream.write_all(piece).await?;
    }
    Ok(())
}

/// Room for a request head.
const BUFFER_BYTES: usize = 16 * 1024;

/// Room for what is read of a large body at a time.
const SINK_BYTES: usize = 512 * 1024;

/// One write of a large answer; divides a MiB.
const PIECE_BYTES: usize = 128 * 1024;
