//! The floor: tokio sockets in a list, and no more parsing than counting bytes.
//!
//! Not an HTTP client: it knows how long the answer of the bench's own server is. It takes part only where
//! memory is measured, to show how much of it is the runtime's.

use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Pooled;
use crate::scenario::{BODY, Failure, answer};

/// The idle sockets.
#[derive(Clone, Default)]
pub(crate) struct Bare(Arc<Mutex<Vec<TcpStream>>>);

/// A socket with an answer on its way.
pub(crate) struct Answering {
    stream: TcpStream,
    received: usize,
    idle: Bare,
}

impl Bare {
    fn take(&self) -> Option<TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, stream: TcpStream) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(stream);
    }
}

impl Pooled for Bare {
    type Response = Answering;

    async fn begin(&self, uri: &Uri) -> Result<Answering, Failure> {
        let authority = uri.authority().ok_or("a URI without an authority")?;
        let mut stream = match self.take() {
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
            idle: self.clone(),
        })
    }

    async fn finish(mut response: Answering) -> Result<u64, Failure> {
        let length = answer().len();
        while response.received < length {
            response.received += receive(&mut response.stream).await?;
        }
        response.idle.give_back(response.stream);
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
