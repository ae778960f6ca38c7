//! One connection of a client that speaks HTTP/2, in the hands of a test.
//!
//! What is sent goes out in order and never waits for the client; what the client sends is read frame by frame and kept. By
//! default SETTINGS and PING are acknowledged, as every test but a few needs it; all else is the test's to say.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::frames::{ACK, WINDOW_UPDATE};
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, PING, PREFACE, SETTINGS,
};
use super::hpack::Decoder;
use crate::support::peer::{PeerConnection, PeerReader, PeerWriter, World};

/// The server's end of a connection. Dropping it closes it, when what was sent is written.
pub(crate) struct Session {
    reader: PeerReader,
    read: BytesMut,
    writer: mpsc::UnboundedSender<Write>,
    hpack: Decoder,
    log: Log,
    acknowledges: bool,
    /// SETTINGS to be acknowledged behind the first bytes: ours come first.
    owed: AtomicUsize,
    begun: AtomicBool,
    /// The number of the connection among those of its world, from 0.
    pub(crate) number: usize,
}

/// Every frame that a client has sent on a connection.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Frame>>>);

impl Log {
    /// The frames so far.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        self.0.lock().unwrap().clone()
    }

    /// What the client said of its own accord, in words: all frames but those of requests, SETTINGS, acknowledgements
    /// and WINDOW_UPDATE.
    pub(crate) fn said(&self) -> Vec<String> {
        let said = self.frames().into_iter().filter(|frame| {
            let usual = [DATA, HEADERS, CONTINUATION, SETTINGS, WINDOW_UPDATE];
            !usual.contains(&frame.kind) && !frame.is(PING, ACK)
        });
        said.map(|frame| frame.to_string()).collect()
    }

    /// How many frames of this kind there were, acknowledgements aside.
    pub(crate) fn count(&self, kind: u8) -> usize {
        let acknowledges =
            |frame: &Frame| [PING, SETTINGS].contains(&kind) && frame.flags & ACK != 0;
        let frames = self.frames();
        let of_the_kind = frames.iter().filter(|frame| frame.kind == kind);
        of_the_kind.filter(|frame| !acknowledges(frame)).count()
    }
}

enum Write {
    Bytes(Vec<u8>),
    Shutdown,
    Reset,
}

/// A field block of a client: a request's head, or its trailers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: u32,
    pub(crate) fields: Vec<(String, String)>,
    /// Whether nothing follows.
    pub(crate) end: bool,
}

impl Head {
    /// The value of the first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.field(":path").unwrap_or_default()
    }
}

impl Session {
    /// The next connection, up to its preface. Nothing is sent yet.
    pub(crate) async fn accept(world: &World) -> Self {
        Self::new(world.accept().await).await
    }

    /// A connection on which the client begins with its preface. Nothing is sent yet.
    pub(crate) async fn new(connection: PeerConnection) -> Self {
        let session = Self::try_new(connection).await;
        session.expect("a client that begins")
    }

    /// As [`Session::new`]; `None` if the client ends before it has begun.
    pub(crate) async fn try_new(connection: PeerConnection) -> Option<Self> {
        let number = connection.number;
        let (reader, writer, read) = connection.into_parts();
        let (sender, writes) = mpsc::unbounded_channel();
        tokio::spawn(write_all(writer, writes));
        let mut session = Self {
            reader,
            read: BytesMut::from(read.as_slice()),
            writer: sender,
            hpack: Decoder::new(),
            log: Log::default(),
            acknowledges: true,
            owed: AtomicUsize::new(0),
            begun: AtomicBool::new(false),
            number,
        };
        while session.read.len() < PREFACE.len() {
            session.read_more().await?;
        }
        let begun = session.read.split_to(PREFACE.len());
        let text = String::from_utf8_lossy(&begun);
        assert_eq!(text, String::from_utf8_lossy(PREFACE), "the preface");
        Some(session)
    }

    /// As [`Session::accept`], and sends SETTINGS that change nothing.
    pub(crate) async fn begin(world: &World) -> Self {
        let session = Self::accept(world).await;
        session.send(Frames::new().settings(&[]));
        session
    }

    /// Stops acknowledging SETTINGS and PING.
    pub(crate) fn silent(mut self) -> Self {
        self.acknowledges = false;
        self
    }

    /// Whether SETTINGS and PING are acknowledged from now on.
    pub(crate) fn acknowledge(&mut self, does: bool) {
        self.acknowledges = does;
    }

    /// What the client has sent.
    pub(crate) fn log(&self) -> Log {
        self.log.clone()
    }

    /// Sends. It does not wait, and nothing happens if the client is gone.
    pub(crate) fn send(&self, frames: Frames) {
        let _ = self.writer.send(Write::Bytes(frames.0));
        self.begun.store(true, Ordering::Relaxed);
        for _ in 0..self.owed.swap(0, Ordering::Relaxed) {
            self.send(Frames::new().settings_ack());
        }
    }

    /// Ends this direction behind what was sent; reading goes on.
    pub(crate) fn shutdown(&self) {
        let _ = self.writer.send(Write::Shutdown);
    }

    /// Resets the connection behind what was sent.
    pub(crate) fn reset(self) {
        let _ = self.writer.send(Write::Reset);
    }

    /// The next frame; `None` at the end of what the client sends. It may be dropped and called again.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let frame = loop {
            if let Some(frame) = self.buffered() {
                break frame;
            }
            self.read_more().await?;
        };
        self.log.0.lock().unwrap().push(frame.clone());
        if self.acknowledges && frame.flags & ACK == 0 {
            match frame.kind {
                PING => self.send(Frames::new().frame(PING, ACK, 0, &frame.payload)),
                SETTINGS if self.begun.load(Ordering::Relaxed) => {
                    self.send(Frames::new().settings_ack());
                }
                SETTINGS => drop(self.owed.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
        }
        Some(frame)
    }

    /// A frame that has come whole.
    fn buffered(&mut self) -> Option<Frame> {
        let head = self.read.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let length = usize::try_from(length).expect("24 bits");
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if self.read.len() < 9 + length {
            return None;
        }
        let payload = self.read.split_to(9 + length)[9..].to_vec();
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    async fn read_more(&mut self) -> Option<()> {
        let read = self.reader.read_buf(&mut self.read).await.ok()?;
        (read > 0).then_some(())
    }

    /// The frames that have come by now, without waiting.
    pub(crate) async fn frames_by_now(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let mut next = pin!(self.frame());
            match poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
                Poll::Ready(Some(frame)) => frames.push(frame),
                Poll::Ready(None) | Poll::Pending => return frames,
            }
        }
    }

    /// The next frame of a kind; those before it are passed over. Panics if the client ends before.
    pub(crate) async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await;
            let frame =
                frame.unwrap_or_else(|| panic!("no frame of kind {kind}: {:?}", self.log.frames()));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The next field block of any stream. Panics if the client ends before.
    pub(crate) async fn head(&mut self) -> Head {
        let head = self.next_head().await;
        head.unwrap_or_else(|| panic!("no head: {:?}", self.log.frames()))
    }

    /// The next field block of any stream; `None` if the client ends before.
    pub(crate) async fn next_head(&mut self) -> Option<Head> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == HEADERS {
                return self.head_of(frame).await;
            }
        }
    }

    /// The field block that a frame begins; `None` if the client ends in it.
    pub(crate) async fn head_of(&mut self, first: Frame) -> Option<Head> {
        let mut block = first.content().to_vec();
        let mut last = first.flags & END_HEADERS != 0;
        while !last {
            let next = self.frame().await?;
            assert_eq!((next.kind, next.stream), (CONTINUATION, first.stream));
            block.extend_from_slice(next.content());
            last = next.flags & END_HEADERS != 0;
        }
        Some(Head {
            stream: first.stream,
            fields: self.hpack.decode(&block),
            end: first.flags & END_STREAM != 0,
        })
    }

    /// Reads DATA of a stream to its end. Trailers are read and dropped.
    pub(crate) async fn content(&mut self, stream: u32) -> Vec<u8> {
        let mut content = Vec::new();
        loop {
            let frame = self.frame().await.expect("more of the body");
            if frame.stream != stream {
                continue;
            }
            let ends = frame.flags & END_STREAM != 0;
            match frame.kind {
                DATA => content.extend_from_slice(frame.content()),
                HEADERS => drop(self.head_of(frame).await),
                _ => continue,
            }
            if ends {
                return content;
            }
        }
    }

    /// Reads until the client ends the connection, and answers with what it [said](Log::said) in its life.
    pub(crate) async fn ended(&mut self) -> Vec<String> {
        while self.frame().await.is_some() {}
        self.log.said()
    }

    /// Ends this direction behind what was sent, and reads until the client ends the other.
    pub(crate) async fn shutdown_and_drain(mut self) {
        self.shutdown();
        while self.frame().await.is_some() {}
    }
}

async fn write_all(mut writer: PeerWriter, mut writes: mpsc::UnboundedReceiver<Write>) {
    while let Some(write) = writes.recv().await {
        let written = match write {
            Write::Bytes(bytes) => writer.write_all(&bytes).await,
            Write::Shutdown => writer.shutdown().await,
            Write::Reset => return writer.reset(),
        };
        if written.is_err() {
            return;
        }
    }
}
