//! The floor: tokio sockets in lists, and no more parsing than counting bytes.
//!
//! Not an HTTP client: it knows how long the answer of the bench's own server is. It takes part only where
//! memory is measured, to show how much of it is the runtime's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Uri;
use http::uri::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Pooled;
use crate::scenario::{BODY, Failure, answer};

/// The idle sockets of each origin.
#[derive(Clone, Default)]
pub(crate) struct Bare(Arc<Mutex<HashMap<Authority, Vec<TcpStream>>>>);

/// A socket with an answer on its way.
pub(crate) struct Answering {
    stream: TcpStream,
    received: usize,
    origin: Authority,
    idle: Bare,
}

impl Bare {
    fn idle(&self) -> MutexGuard<'_, HashMap<Authority, Vec<TcpStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, origin: &Authority) -> Option<TcpStream> {
        self.idle().get_mut(origin)?.pop()
    }

    fn give_back(&self, origin: Authority, stream: TcpStream) {
        self.idle().entry(origin).or_default().push(stream);
    }
}

impl Pooled for Bare {
    type Response = Answering;

    async fn begin(&self, uri: &Uri) -> Result<Answering, Failure> {
        let authority = uri.authority().ok_or("a URI without an authority")?;
        let mut stream = match self.take(authority) {
            Some(stream) => stream,
            None => TcpStream::connect(authority.as_str()).await?,
        };
        let path = uri.path();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let received = receive(&mut stream).await?;
        Ok(Answering {
            stream,
            received,
            origin: authority.clone(),
            idle: self.clone(),
        })
    }

    async fn finish(mut response: Answering) -> Result<u64, Failure> {
        let length = answer().len();
        while response.received < length {
            response.received += receive(&mut response.stream).await?;
        }
        response.idle.give_back(response.origin, response.stream);
        Ok((BODY.len() + response.received - length) as u64)
    }
}

/// Reads at least one byte and throws away what it read.
async fn receive(stream: &mut TcpStream) -> Result<usize, Failure> {
    match stream.read(&mut [0; 1024]).await? {
        0 => Err("the connection ended".into()),
        read => Ok(read),
    }
}
