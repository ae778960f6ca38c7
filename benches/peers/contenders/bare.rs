//! The floor: one kept tokio socket for each task, a request written in one piece, and just enough
//! parsing to find the body.
//!
//! Not an HTTP client: it trusts the bench's own server to spell its fields in lower case and to send a
//! Content-Length. No timeouts, no limits, no pool.

use bytes::Bytes;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Slot;
use crate::scenario::{Failure, Target};

/// A kept connection and the bytes of the three requests.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    get: Bytes,
    post: Bytes,
    download: Bytes,
    upload_head: Bytes,
    upload_bytes: u64,
    piece: Bytes,
}

/// A response head at the front of the buffer, and what came along behind it.
struct Head {
    body_start: usize,
    filled: usize,
    content_length: u64,
}

impl Socket {
    async fn exchange(&mut self, request: &Bytes) -> Result<u64, Failure> {
        self.stream.write_all(request).await?;
        self.read_small().await
    }

    async fn read_small(&mut self) -> Result<u64, Failure> {
        let head = self.read_head().await?;
        let body_end = head.body_start + usize::try_from(head.content_length)?;
        let mut filled = head.filled;
        while filled < body_end {
            let room = self
                .buffer
                .get_mut(filled..body_end)
                .ok_or("body over the buffer")?;
            filled += read_some(&mut self.stream, room).await?;
        }
        // The others hand out an owned body as well.
        let body = self
            .buffer
            .get(head.body_start..body_end)
            .ok_or("body over the buffer")?;
        Ok(Bytes::copy_from_slice(body).len() as u64)
    }

    async fn read_head(&mut self) -> Result<Head, Failure> {
        let mut filled = 0;
        loop {
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            filled += read_some(&mut self.stream, room).await?;
            let bytes = self.buffer.get(..filled).unwrap_or_default();
            if let Some(end) = memmem::find(bytes, b"\r\n\r\n") {
                let head = bytes.get(..end).unwrap_or_default();
                if !head.starts_with(b"HTTP/1.1 200 ") {
                    return Err("a status other than 200".into());
                }
                let content_length = content_length(head).ok_or("no Content-Length")?;
                return Ok(Head {
                    body_start: end + 4,
                    filled,
                    content_length,
                });
            }
        }
    }
}

impl Slot for Socket {
    type Shared = ();

    fn shared(_: &Target) -> Result<(), Failure> {
        Ok(())
    }

    async fn open((): &(), target: &Target) -> Result<Self, Failure> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            get: request("GET", &target.small, target, None),
            post: request("POST", &target.small, target, Some(&target.post_body)),
            download: request("GET", &target.big, target, None),
            upload_head: request_head("POST", &target.small, target, Some(target.big_bytes)).into(),
            upload_bytes: target.big_bytes,
            piece: target.piece.clone(),
        })
    }

    async fn get(&mut self) -> Result<u64, Failure> {
        let request = self.get.clone();
        self.exchange(&request).await
    }

    async fn post(&mut self) -> Result<u64, Failure> {
        let request = self.post.clone();
        self.exchange(&request).await
    }

    async fn download(&mut self) -> Result<u64, Failure> {
        self.stream.write_all(&self.download).await?;
        let head = self.read_head().await?;
        let mut received = (head.filled - head.body_start) as u64;
        while received < head.content_length {
            received += read_some(&mut self.stream, &mut self.buffer).await? as u64;
        }
        Ok(received)
    }

    async fn upload(&mut self) -> Result<u64, Failure> {
        self.stream.write_all(&self.upload_head).await?;
        for _ in 0..self.upload_bytes / self.piece.len() as u64 {
            self.stream.write_all(&self.piece).await?;
        }
        self.read_small().await
    }
}

/// Reads at least one byte.
async fn read_some(stream: &mut TcpStream, room: &mut [u8]) -> Result<usize, Failure> {
    match stream.read(room).await? {
        0 => Err("the connection ended, or the buffer is full".into()),
        read => Ok(read),
    }
}

/// The value of Content-Length in a head.
fn content_length(head: &[u8]) -> Option<u64> {
    let name = b"content-length: ";
    let value = head.get(memmem::find(head, name)? + name.len()..)?;
    let digits = value.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes of a request with the fields that clients send by default.
fn request(method: &str, uri: &http::Uri, target: &Target, body: Option<&Bytes>) -> Bytes {
    let length = body.map(|body| body.len() as u64);
    let mut bytes = request_head(method, uri, target, length);
    bytes.extend_from_slice(body.map_or(&[], Bytes::as_ref));
    Bytes::from(bytes)
}

fn request_head(method: &str, uri: &http::Uri, target: &Target, length: Option<u64>) -> Vec<u8> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let address = target.address;
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: bare\r\naccept: */*\r\n"
    );
    if let Some(length) = length {
        bytes.push_str(&format!("content-length: {length}\r\n"));
    }
    (bytes + "\r\n").into_bytes()
}

/// Room for a head and a small body, and for one read of a download. Smaller reads make the kernel announce
/// its receive window more often, and on a core shared with the server each announcement pulls the server's
/// sending into the client's CPU time: the floor would then lie above the clients.
const BUFFER_BYTES: usize = 512 * 1024;
