//! Frames of RFC 9113 as bytes: written as a test likes them, and read back for it.

use std::fmt;

use super::hpack;

/// What a client sends before its first frame.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// Of RFC 7838; a client that does not know it ignores it.
pub(crate) const ALTSVC: u8 = 10;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const ENABLE_PUSH: u16 = 2;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_FRAME_SIZE: u16 = 5;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
pub(crate) const INADEQUATE_SECURITY: u32 = 12;
pub(crate) const HTTP_1_1_REQUIRED: u32 = 13;

const KINDS: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// A frame as it came.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Whether this frame is of that kind and has that flag.
    pub(crate) fn is(&self, kind: u8, flag: u8) -> bool {
        self.kind == kind && self.flags & flag == flag
    }

    /// The error code of an RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> Option<u32> {
        match self.kind {
            RST_STREAM => Some(self.number(0)),
            GOAWAY => Some(self.number(4)),
            _ => None,
        }
    }

    /// The increment of a WINDOW_UPDATE.
    pub(crate) fn increment(&self) -> i64 {
        i64::from(self.number(0) & 0x7fff_ffff)
    }

    /// The settings of a SETTINGS frame.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload.chunks_exact(6).map(|setting| {
            let name = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            (name, value)
        })
    }

    /// The payload of a frame that may be padded, without what pads it and without a priority.
    pub(crate) fn content(&self) -> &[u8] {
        let mut content = self.payload.as_slice();
        if self.flags & PADDED != 0 {
            let (padding, rest) = content.split_first().expect("a length of the padding");
            let left = rest.len().checked_sub(usize::from(*padding));
            content = &rest[..left.expect("no more padding than payload")];
        }
        if self.kind == HEADERS && self.flags & WITH_PRIORITY != 0 {
            content = &content[5..];
        }
        content
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.payload[at..at + 4].try_into().expect("four bytes");
        u32::from_be_bytes(bytes)
    }
}

/// As tests write it: `RST_STREAM 1 CANCEL`, `GOAWAY 0 NO_ERROR`, `PING`, `DATA 3 of 10 END_STREAM`.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KINDS.get(usize::from(self.kind)) {
            Some(kind) => f.write_str(kind)?,
            None => write!(f, "frame of kind {}", self.kind)?,
        }
        match self.kind {
            GOAWAY => write!(f, " {}", self.number(0))?,
            PING | SETTINGS => {}
            _ => write!(f, " {}", self.stream)?,
        }
        if let Some(code) = self.code() {
            match usize::try_from(code).ok().and_then(|code| CODES.get(code)) {
                Some(name) => write!(f, " {name}")?,
                None => write!(f, " code {code}")?,
            }
        }
        match self.kind {
            DATA => write!(f, " of {}", self.content().len())?,
            WINDOW_UPDATE => write!(f, " by {}", self.increment())?,
            _ => {}
        }
        match self.kind {
            DATA | HEADERS if self.flags & END_STREAM != 0 => f.write_str(" END_STREAM"),
            PING | SETTINGS if self.flags & ACK != 0 => f.write_str(" ACK"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes for a client, put together frame by frame. Each method appends one frame and checks nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames(pub(crate) Vec<u8>);

impl Frames {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any frame.
    pub(crate) fn frame(self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Self {
        let length = payload.as_ref().len();
        self.lying(length, kind, flags, stream, payload)
    }

    /// A frame whose length field is not its length.
    pub(crate) fn lying(
        mut self,
        length: usize,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: impl AsRef<[u8]>,
    ) -> Self {
        let length = u32::try_from(length).expect("a length of 24 bits");
        self.0.extend_from_slice(&length.to_be_bytes()[1..]);
        self.0.extend_from_slice(&[kind, flags]);
        self.0.extend_from_slice(&stream.to_be_bytes());
        self.0.extend_from_slice(payload.as_ref());
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// What `more` appends, so many times; it is told the number of each.
    pub(crate) fn times(self, count: u32, more: impl Fn(Self, u32) -> Self) -> Self {
        (0..count).fold(self, more)
    }

    pub(crate) fn settings(self, settings: &[(u16, u32)]) -> Self {
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.frame(SETTINGS, 0, 0, payload)
    }

    pub(crate) fn settings_ack(self) -> Self {
        self.frame(SETTINGS, ACK, 0, [])
    }

    /// A whole field block in one HEADERS frame.
    pub(crate) fn head(self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> Self {
        self.frame(HEADERS, END_HEADERS | flags, stream, hpack::block(fields))
    }

    /// A response of status 200 with no more fields.
    pub(crate) fn ok(self, stream: u32) -> Self {
        self.head(stream, 0, &[(":status", "200")])
    }

    pub(crate) fn data(self, stream: u32, content: impl AsRef<[u8]>) -> Self {
        self.frame(DATA, 0, stream, content)
    }

    /// The last DATA frame of a stream.
    pub(crate) fn end(self, stream: u32, content: impl AsRef<[u8]>) -> Self {
        self.frame(DATA, END_STREAM, stream, content)
    }

    pub(crate) fn rst(self, stream: u32, code: u32) -> Self {
        self.frame(RST_STREAM, 0, stream, code.to_be_bytes())
    }

    pub(crate) fn goaway(self, last: u32, code: u32) -> Self {
        self.goaway_saying(last, code, "")
    }

    /// A GOAWAY with debug data.
    pub(crate) fn goaway_saying(self, last: u32, code: u32, text: &str) -> Self {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(text.as_bytes());
        self.frame(GOAWAY, 0, 0, payload)
    }

    pub(crate) fn ping(self) -> Self {
        self.frame(PING, 0, 0, [7; 8])
    }

    pub(crate) fn window(self, stream: u32, increment: u32) -> Self {
        self.frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }
}
