//! A file as a body.
//!
//! Everything that may block (metadata, opening, reading) is done on the runtime's threads for such work. A piece is read ahead
//! while the one before it is on its way, so that disk and network work at the same time; no more than two are ever held. The
//! length that was told when the file was opened is kept: the last piece is read with a byte to spare, so that a file which has
//! grown or shrunk fails before its last piece is given away, and no peer takes a torn file for a whole one.

use std::cmp::Ordering;
use std::fmt::Display;
use std::fs::{File, Metadata, metadata};
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::blocking::Job;
use super::factory::Factory;
use super::{Body, Source, body_error};
use crate::error::{BoxFuture, Error};

impl Body {
    /// A file. It is opened when there is a connection for it, and again for each attempt; its length at that moment is the
    /// content length, and a file that has another length when its end is reached ends the call with
    /// [`ErrorKind::Body`](crate::ErrorKind::Body), as does one that cannot be opened. Reading blocks no thread that runs
    /// calls, and holds two pieces of 128 KiB in memory at most. It must be a regular file: a pipe or a device has no length
    /// to tell, see [`stream`](Self::stream).
    ///
    /// ```no_run
    /// # async fn run() -> sockeye::Result<()> {
    /// use sockeye::Body;
    ///
    /// let client = sockeye::Client::new();
    /// client.put("https://files.example.com/film").body(Body::file("film.mkv")).await?;
    /// # Ok(()) }
    /// ```
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::from_factory(Named(path.into().into()))
    }
}

/// The file of this name.
struct Named(Arc<Path>);

impl Factory for Named {
    fn make(&self) -> BoxFuture<'static, io::Result<Body>> {
        let path = Arc::clone(&self.0);
        Box::pin(async move {
            let opened = Arc::clone(&path);
            let (piece, file, len) = Job::new(move || open(&opened))
                .await
                .map_err(|error| named(&path, error.kind(), &error))?;
            // A small file is bytes: it goes out with the head.
            if piece.len() as u64 == len {
                return Ok(piece.into());
            }
            Ok(Body::from_source(Reading {
                path,
                left: len,
                state: State::Read(piece, file),
            }))
        })
    }

    fn len(&self) -> Option<u64> {
        None
    }

    fn measure(&self) -> BoxFuture<'static, io::Result<Option<u64>>> {
        let path = Arc::clone(&self.0);
        Box::pin(async move {
            let measured = Arc::clone(&path);
            Job::new(move || Ok(about(&measured)?.len()))
                .await
                .map(Some)
                .map_err(|error| named(&path, error.kind(), &error))
        })
    }
}

/// A file that is being read.
struct Reading {
    path: Arc<Path>,
    /// Bytes that were not given away yet.
    left: u64,
    state: State,
}

enum State {
    /// A piece that was read, and where the next one comes from.
    Read(Bytes, File),
    Ahead(Job<(Bytes, File)>),
    End,
}

impl Source for Reading {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let State::Ahead(job) = &mut self.state {
            self.state = match ready!(Pin::new(job).poll(cx)) {
                Ok((piece, file)) => State::Read(piece, file),
                Err(error) => {
                    let error = named(&self.path, error.kind(), &error);
                    return Poll::Ready(Some(Err(body_error(error.into()))));
                }
            };
        }
        let State::Read(piece, file) = std::mem::replace(&mut self.state, State::End) else {
            return Poll::Ready(None);
        };
        self.left = self.left.saturating_sub(piece.len() as u64);
        if self.left > 0 {
            let left = self.left;
            self.state = State::Ahead(Job::new(move || read(file, left)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn left(&self) -> Option<u64> {
        Some(self.left)
    }
}

/// Opens a file; gives its first piece and its length.
fn open(path: &Path) -> io::Result<(Bytes, File, u64)> {
    // To open a pipe would wait for whoever writes into it.
    about(path)?;
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let (piece, file) = read(file, len)?;
    Ok((piece, file, len))
}

/// What the system says of a regular file.
fn about(path: &Path) -> io::Result<Metadata> {
    let about = metadata(path)?;
    match about.is_file() {
        true => Ok(about),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "this is no regular file",
        )),
    }
}

/// Reads the next piece of a file of which `left` bytes are still to come.
fn read(mut file: File, left: u64) -> io::Result<(Bytes, File)> {
    let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let spare = usize::from(wanted as u64 == left);
    let mut piece = vec![0; wanted + spare];
    let mut filled = 0;
    while let Some(room @ [_, ..]) = piece.get_mut(filled..) {
        match file.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let change = match filled.cmp(&wanted) {
        Ordering::Equal => {
            piece.truncate(filled);
            return Ok((piece.into(), file));
        }
        Ordering::Less => "shrunk",
        Ordering::Greater => "grown",
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it has {change} since its length was told"),
    ))
}

/// An error that says which file it is about.
fn named(path: &Path, kind: io::ErrorKind, error: &dyn Display) -> io::Error {
    io::Error::new(kind, format!("the file {path:?}: {error}"))
}

/// Bytes of one read. Below 64 KiB the hops between threads begin to show; above 256 KiB nothing is gained.
const PIECE: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::task::Waker;

    use crate::error::ErrorKind;

    /// A file of the test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, len: usize) -> Self {
            let unique = format!("sockeye-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(unique);
            fs::write(&path, content(len)).unwrap();
            Self(path)
        }

        fn body(&self) -> Body {
            Body::file(&self.0)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Bytes of which no two stretches are alike.
    fn content(len: usize) -> Vec<u8> {
        let numbers = (0_u32..).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes());
        numbers.take(len).collect()
    }

    #[tokio::test]
    async fn files_of_every_size_come_whole_and_in_large_pieces() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 7] {
            let file = Scratch::new("sizes", len);
            let mut body = file.body().made().unwrap().await.unwrap();
            assert_eq!(body.left(), Some(len as u64));
            let (mut read, mut pieces) = (Vec::new(), 0);
            while let Some(frame) = body.next_frame().await {
                read.extend_from_slice(&frame.unwrap().into_data().unwrap());
                assert_eq!(body.left(), Some((len - read.len()) as u64));
                pieces += 1;
            }
            assert!(read == content(len), "{len}");
            assert_eq!(pieces, len.div_ceil(PIECE));
            assert!(file.body().is_replayable());
        }
    }

    /// Never a byte more than was told, and no last piece of a file that is torn.
    #[tokio::test]
    async fn a_file_that_changes_its_length_fails() {
        let len = 3 * PIECE + 10;
        let check = async |change: fn(&mut File), said: &str| {
            let file = Scratch::new("changes", len);
            let mut body = file.body().made().unwrap().await.unwrap();
            change(&mut fs::OpenOptions::new().append(true).open(&file.0).unwrap());
            let mut read = 0;
            let error = loop {
                match body.next_frame().await.expect("an error before the end") {
                    Ok(frame) => read += frame.into_data().unwrap().len(),
                    Err(error) => break error,
                }
            };
            assert!(read <= 3 * PIECE, "{read}");
            assert_eq!(error.kind(), ErrorKind::Body);
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.to_string().contains("changes"), "{error}");
            assert!(body.next_frame().await.is_none());
        };
        check(|file| file.write_all(b"x").unwrap(), "grown").await;
        check(|file| file.set_len(3 * PIECE as u64 + 9).unwrap(), "shrunk").await;
        check(|file| file.set_len(PIECE as u64 + 1).unwrap(), "shrunk").await;
        check(|file| file.set_len(0).unwrap(), "shrunk").await;
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_refused() {
        let missing = Body::file(
            "/no/such
file",
        )
        .made()
        .unwrap()
        .await;
        let error = missing.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(r#""/no/such\nfile""#), "{error}");
        let folder = Body::file(std::env::temp_dir()).made().unwrap().await;
        assert!(folder.unwrap_err().to_string().contains("no regular file"));
        // It would never end, and says that it is empty.
        #[cfg(unix)]
        {
            let device = Body::file("/dev/zero").made().unwrap().await;
            assert!(device.unwrap_err().to_string().contains("no regular file"));
        }
        // A file that has more than it says, as those of the kernel have.
        #[cfg(target_os = "linux")]
        {
            let kernel = Body::file("/proc/self/status").made().unwrap().await;
            assert!(kernel.unwrap_err().to_string().contains("grown"));
        }
    }

    #[test]
    fn without_a_runtime_it_is_an_error() {
        let mut body = Body::file("any");
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Err(error))) = body.poll_next(&mut cx) else {
            panic!("an error expected");
        };
        assert_eq!(error.kind(), ErrorKind::Body);
        assert!(error.to_string().contains("no reactor"), "{error}");
    }
}
