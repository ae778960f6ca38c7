//! What a response can be turned into: text, a stream, a reader, lines, or the content of a file.
//!
//! Everything here reads the decoded body, and nothing but the whole text has a limit of its own. The adapters are in `body/`.

use std::path::Path;

use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};

use super::Response;
use crate::body::{BodyReader, BytesStream, Lines, Pieces, decode_text};
use crate::error::{Error, ErrorKind, Phase, Result, Sent};

impl Response {
    /// The whole body as text, in the charset that its content type names (feature `charset`), else in UTF-8. A mark (BOM) of
    /// UTF-8 or UTF-16 goes before both and is no part of the text. Bytes that are not of the charset fail with
    /// [`ErrorKind::Decode`]: nothing is replaced. Limited as [`bytes`](Self::bytes) is.
    pub async fn text(self) -> Result<String> {
        let (status, origin) = (self.status(), self.target.origin());
        let content_type = self.header("content-type").map(str::to_owned);
        let bytes = self.bytes().await?;
        decode_text(content_type.as_deref(), bytes).map_err(|error| {
            Error::new(ErrorKind::Decode, Some(Phase::Read), Sent::All)
                .saying(format!("the body of status {} is {error}", status.as_u16()))
                .at(&origin)
        })
    }

    /// The data as a [`Stream`](futures_core::Stream) of pieces as they arrive, without a limit to how many there are.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let response = sockeye::Client::new().get("https://example.com/").send().await?;
    /// let mut stream = response.bytes_stream();
    /// while let Some(piece) = stream.next().await {
    ///     println!("{} bytes", piece?.len());
    /// }
    /// println!("{:?}", stream.trailers());
    /// # Ok(()) }
    /// ```
    pub fn bytes_stream(self) -> BytesStream {
        BytesStream::new(self.into_pieces())
    }

    /// The data as an [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncBufRead`](tokio::io::AsyncBufRead).
    ///
    /// ```no_run
    /// use tokio::io::AsyncReadExt;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let response = sockeye::Client::new().get("https://example.com/").send().await?;
    /// let mut start = [0; 16];
    /// response.into_reader().read_exact(&mut start).await?;
    /// # Ok(()) }
    /// ```
    pub fn into_reader(self) -> BodyReader {
        BodyReader::new(self.into_pieces())
    }

    /// The lines of a text in UTF-8 as they arrive, without their ends (LF or CRLF), without a limit to how many there are; one
    /// line may have a megabyte: see [`Lines`].
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let mut lines = sockeye::Client::new().get("https://example.com/log").send().await?.lines();
    /// while let Some(line) = lines.next().await {
    ///     println!("{}", line?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn lines(self) -> Lines {
        Lines::new(self.into_pieces())
    }

    /// Writes what is left of the body to `writer`, flushes it, and answers how many bytes that were. Trailers are there
    /// afterwards. A `writer` that fails gives [`ErrorKind::Body`].
    ///
    /// When the future is dropped, what was read so far has been written but for up to one piece, of which a part may have
    /// been; the body can be read on behind that piece.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let mut response = sockeye::Client::new().get("https://example.com/").send().await?;
    /// response.copy_to(&mut tokio::io::sink()).await?;
    /// println!("{:?}", response.trailers().await?);
    /// # Ok(()) }
    /// ```
    pub async fn copy_to<W: AsyncWrite + Unpin + ?Sized>(&mut self, writer: &mut W) -> Result<u64> {
        self.copy(writer, |_| {}, "could not write what was received")
            .await
    }

    /// Writes what is left of the body to a file, which is made, or emptied first, and answers how many bytes that were.
    ///
    /// The file is written in place and as the body arrives. When this fails, or its future is dropped, the file stays with what
    /// was written so far: whoever must never see half a file saves beside it and renames. The data is with the system in
    /// the end, not surely on the disk. A file that cannot be written gives [`ErrorKind::Body`].
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let mut response = sockeye::Client::new().get("https://example.com/large").send().await?;
    /// let size = response.save("large.part").await?;
    /// println!("{size} bytes");
    /// # Ok(()) }
    /// ```
    pub async fn save(&mut self, path: impl AsRef<Path>) -> Result<u64> {
        self.save_with(path, |_| {}).await
    }

    /// As [`save`](Self::save), and calls `progress` after each piece. It runs inside the call, so it must not block.
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// let mut response = sockeye::Client::new().get("https://example.com/large").send().await?;
    /// let told = |progress: sockeye::Progress| println!("{} of {:?}", progress.written, progress.total);
    /// response.save_with("large.part", told).await?;
    /// # Ok(()) }
    /// ```
    pub async fn save_with(
        &mut self,
        path: impl AsRef<Path>,
        progress: impl FnMut(Progress),
    ) -> Result<u64> {
        let path = path.as_ref();
        let problem = format!("could not write to {}", path.display());
        let file = match tokio::fs::File::create(path).await {
            Ok(file) => file,
            Err(error) => return Err(self.not_written(problem, error)),
        };
        // A write to a file is a task of its own; a few large ones cost less than many small ones.
        let mut writer = BufWriter::with_capacity(FILE_BUFFER, file);
        self.copy(&mut writer, progress, &problem).await
    }

    async fn copy<W: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        writer: &mut W,
        mut progress: impl FnMut(Progress),
        problem: &str,
    ) -> Result<u64> {
        let total = self.left();
        let mut written = 0;
        let copied = loop {
            match self.chunk().await {
                Ok(Some(piece)) => {
                    if let Err(error) = writer.write_all(&piece).await {
                        return Err(self.not_written(problem.to_owned(), error));
                    }
                    written += piece.len() as u64;
                    progress(Progress { written, total });
                }
                Ok(None) => break Ok(written),
                Err(error) => break Err(error),
            }
        };
        // What came before an error is written as well.
        match writer.flush().await {
            Ok(()) => copied,
            Err(error) => copied.and(Err(self.not_written(problem.to_owned(), error))),
        }
    }

    fn not_written(&self, problem: String, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Body, Some(Phase::Read), Sent::All)
            .saying(problem)
            .because(error)
            .at(&self.target.origin())
    }

    /// The body for an adapter.
    pub(crate) fn into_pieces(self) -> Pieces {
        let origin = self.target.origin();
        Pieces::new(self.into_body(), origin)
    }

    /// Type and subtype without parameters, cut to what is worth showing in an error.
    #[cfg_attr(
        not(any(feature = "json", feature = "sse")),
        expect(dead_code, reason = "only features read by content type")
    )]
    pub(crate) fn media_type(&self) -> String {
        let Some(value) = self.header("content-type") else {
            return "no content type".to_owned();
        };
        let essence = value.split(';').next().unwrap_or_default().trim();
        let shown: String = essence.chars().take(MAX_SHOWN).collect();
        shown.escape_debug().to_string()
    }
}

/// How far a body was written to a file: see [`Response::save_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes so far.
    pub written: u64,
    /// Bytes in all, where that is known; it is not of a body that is decoded.
    pub total: Option<u64>,
}

/// Bytes that are written to a file at a time.
const FILE_BUFFER: usize = 128 * 1024;

/// Characters of a content type that an error shows.
const MAX_SHOWN: usize = 64;
