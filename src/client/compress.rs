//! Requests whose body is compressed.

use super::RequestBuilder;
use crate::body::Compression;

impl RequestBuilder {
    /// Compresses the body and says so in `content-encoding` (RFC 9110 section 8.4), for a server that is known to take it: there
    /// is no way to ask beforehand, and one that does not take it answers 415. A body that is known to be shorter than
    /// 1 KiB goes out as it is, as does an empty one, and one of a request that has a `content-encoding`. Bytes are
    /// compressed whole, off the threads that run calls if they are many, and sent with their length; streams and files are
    /// compressed as they are read, and sent in chunks; a coding holds back what it may still find the like of, so that a
    /// stream whose pieces must arrive at once is better left as it is. The body can be sent again if it could before. A `content-length` of
    /// one's own is a mistake, because the length is not known before.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// use sockeye::Compression;
    ///
    /// let client = sockeye::Client::new();
    /// let lines = "a line like the others\n".repeat(1000);
    /// client.post("https://logs.example.com/").body(lines).compress(Compression::Gzip).await?;
    /// # Ok(()) }
    /// ```
    pub fn compress(self, coding: Compression) -> Self {
        self.compress_from(MIN_COMPRESSED, coding)
    }

    /// As [`compress`](Self::compress), for bodies that are not known to be shorter than `bytes`.
    ///
    /// ```no_run
    /// # async fn run(reading: String) -> sockeye::Result<()> {
    /// use sockeye::Compression;
    ///
    /// let client = sockeye::Client::new();
    /// let request = client.post("https://meters.example.com/").body(reading);
    /// request.compress_from(200, Compression::Gzip).await?;
    /// # Ok(()) }
    /// ```
    pub fn compress_from(mut self, bytes: u64, coding: Compression) -> Self {
        self.set_compression(bytes, coding);
        self
    }
}

/// Below this, what the coding adds and both ends do for it outweighs what is saved; it fits into one packet either way.
const MIN_COMPRESSED: u64 = 1024;
