//! Walks over the frame headers of HTTP/2 as bytes pass by (RFC 9113 section 4.1). Pure: it looks, and takes nothing.
//!
//! The framing itself is the h2 crate's. What it does not tell is read off here: that the first frame is none of HTTP/2, that
//! settings or a GOAWAY have come, which requests have been written. Called by `session_io.rs`, once for each direction.

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) len: usize,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// The type of a frame (RFC 9113 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

/// ACK of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
/// END_STREAM of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 0x1;
/// PADDED and PRIORITY of HEADERS: with them, something stands before the fields.
const BEFORE_FIELDS: u8 = 0x8 | 0x20;

/// What a walk comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Frame(FrameHead),
    /// One parameter of SETTINGS.
    Setting {
        id: u16,
        value: u32,
    },
    /// The increment of a WINDOW_UPDATE for the connection.
    Window(u32),
    /// The error code of an RST_STREAM.
    Reset(u32),
    /// A head that may be an interim one: its first field is not seen, or none of the statuses that stand in HPACK's static table,
    /// of which none is interim.
    MaybeInterim,
}

/// Where the walk stands; frames may be cut anywhere.
#[derive(Debug, Default)]
pub(super) struct FrameWalk {
    /// Of a frame header, or of a part of a payload that is looked at.
    partial: [u8; FRAME_HEAD],
    have: usize,
    /// Bytes of the payload that are still to pass.
    left: usize,
    /// How the payload is looked at; `None` if it is passed over.
    part: Option<Part>,
    /// The frame that is passing, or was the last.
    last: Option<FrameHead>,
    /// Whether it is looked at what field blocks begin with.
    looks_at_heads: bool,
}

impl FrameWalk {
    /// A walk over what a server sends, which may be interim responses.
    pub(super) fn of_responses() -> Self {
        Self {
            looks_at_heads: true,
            ..Self::default()
        }
    }

    /// Looks at the next `bytes`, and tells `see` of everything that is complete with them. The first error ends the walk.
    pub(super) fn pass<E>(
        &mut self,
        mut bytes: &[u8],
        mut see: impl FnMut(Sight) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.left > 0 && self.part.is_none() {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let wanted = match self.part {
                Some(part) => part.size().min(self.left + self.have),
                None => FRAME_HEAD,
            };
            let taken = (wanted - self.have).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, b""));
            bytes = rest;
            if self.part.is_some() {
                self.left -= taken;
            }
            let partial;
            let whole = if taken == wanted {
                // Nearly all of them come whole.
                now
            } else {
                if let Some(slot) = self.partial.get_mut(self.have..self.have + taken) {
                    slot.copy_from_slice(now);
                }
                self.have += taken;
                if self.have < wanted {
                    continue;
                }
                self.have = 0;
                partial = self.partial;
                partial.get(..wanted).unwrap_or_default()
            };
            self.come_by(whole, &mut see)?;
        }
        Ok(())
    }

    /// All of a frame header is there, or of a part of a payload.
    fn come_by<E>(
        &mut self,
        whole: &[u8],
        see: &mut impl FnMut(Sight) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(part) = self.part else {
            return whole
                .first_chunk()
                .map_or(Ok(()), |head| self.begin(FrameHead::decode(*head), see));
        };
        if self.left == 0 || part == Part::FirstField {
            self.part = None;
        }
        part.decode(whole).map_or(Ok(()), see)
    }

    /// A frame begins to pass.
    fn begin<E>(
        &mut self,
        head: FrameHead,
        see: &mut impl FnMut(Sight) -> Result<(), E>,
    ) -> Result<(), E> {
        self.left = head.len;
        self.last = Some(head);
        let begins_fields =
            self.looks_at_heads && head.kind == Kind::Headers && head.flags & END_STREAM == 0;
        let is_hidden = head.len == 0 || head.flags & BEFORE_FIELDS != 0;
        self.part = match head.kind {
            _ if head.len == 0 => None,
            Kind::Settings => Some(Part::Setting),
            Kind::WindowUpdate if head.stream == 0 => Some(Part::Increment),
            Kind::RstStream => Some(Part::ErrorCode),
            Kind::Headers if begins_fields && !is_hidden => Some(Part::FirstField),
            _ => None,
        };
        see(Sight::Frame(head))?;
        if begins_fields && is_hidden {
            see(Sight::MaybeInterim)?;
        }
        Ok(())
    }
}

impl FrameWalk {
    /// Whether everything that has begun to pass is complete.
    pub(super) fn is_between_frames(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// The frame that has begun to pass and is not complete.
    pub(super) fn unfinished(&self) -> Option<FrameHead> {
        self.last.filter(|_| self.left > 0)
    }
}

/// What the payload of some frames consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// RFC 9113 section 6.5.1.
    Setting,
    /// RFC 9113 section 6.9.
    Increment,
    /// RFC 9113 section 6.4.
    ErrorCode,
    /// The first byte of HEADERS, where nothing stands before the fields.
    FirstField,
}

impl Part {
    fn size(self) -> usize {
        match self {
            Self::Setting => 6,
            Self::Increment | Self::ErrorCode => 4,
            Self::FirstField => 1,
        }
    }

    /// A payload of another length is an error that h2 finds.
    fn decode(self, bytes: &[u8]) -> Option<Sight> {
        match (self, bytes) {
            (Self::Setting, &[a, b, c, d, e, f]) => Some(Sight::Setting {
                id: u16::from_be_bytes([a, b]),
                value: u32::from_be_bytes([c, d, e, f]),
            }),
            // The highest bit is reserved and ignored.
            (Self::Increment, &[a, b, c, d]) => {
                Some(Sight::Window(u32::from_be_bytes([a & 0x7f, b, c, d])))
            }
            (Self::ErrorCode, &[a, b, c, d]) => {
                Some(Sight::Reset(u32::from_be_bytes([a, b, c, d])))
            }
            // RFC 7541 section 6.1 and appendix A.
            (Self::FirstField, &[first]) => {
                (!STATUSES.contains(&first)).then_some(Sight::MaybeInterim)
            }
            _ => None,
        }
    }
}

impl FrameHead {
    fn decode(bytes: [u8; FRAME_HEAD]) -> Self {
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = bytes;
        Self {
            len: u32::from_be_bytes([0, l1, l2, l3]) as usize,
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::Headers,
                2 => Kind::Priority,
                3 => Kind::RstStream,
                4 => Kind::Settings,
                5 => Kind::PushPromise,
                6 => Kind::Ping,
                7 => Kind::GoAway,
                8 => Kind::WindowUpdate,
                9 => Kind::Continuation,
                _ => Kind::Unknown,
            },
            flags,
            // The highest bit is reserved and ignored.
            stream: u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]),
        }
    }

    pub(super) fn is_ack(self) -> bool {
        self.flags & ACK != 0
    }
}

/// The fields of HPACK's static table that are a status, as one byte each: 200, 204, 206, 304, 400, 404 and 500.
const STATUSES: std::ops::RangeInclusive<u8> = 0x88..=0x8e;

/// Bytes of a frame header.
pub(super) const FRAME_HEAD: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn walk(pieces: &[&[u8]]) -> Vec<Sight> {
        let (mut walk, mut seen) = (FrameWalk::default(), Vec::new());
        for piece in pieces {
            let passed: Result<(), ()> = walk.pass(piece, |sight| {
                seen.push(sight);
                Ok(())
            });
            passed.unwrap();
        }
        seen
    }

    #[test]
    fn it_is_known_where_a_frame_could_be_put_in() {
        let frames = [
            frame(4, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 2, 0, 0, 0, 1]),
            frame(4, 1, 0, &[]),
            frame(1, 5, 3, b"head"),
            frame(8, 0, 0, &[0, 0, 1, 2]),
            frame(3, 0, 3, &[0, 0, 0, 5]),
            frame(0, 1, 3, &[7; 30]),
        ];
        let mut ends = vec![0];
        for frame in &frames {
            ends.extend(ends.last().map(|end| end + frame.len()));
        }
        let bytes = frames.concat();
        for at in 0..=bytes.len() {
            let mut walk = FrameWalk::default();
            let passed: Result<(), ()> = walk.pass(&bytes[..at], |_| Ok(()));
            passed.unwrap();
            assert_eq!(walk.is_between_frames(), ends.contains(&at), "{at}");
        }
    }

    #[test]
    fn frames_are_seen_however_they_are_cut() {
        let mut bytes = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 2, 0, 0, 0, 1]);
        bytes.extend(frame(4, 1, 0, &[]));
        bytes.extend(frame(1, 5, 0x8000_0003, b"head"));
        bytes.extend(frame(0, 1, 3, &[7; 300]));
        bytes.extend(frame(4, 0, 0, &[0, 3, 0, 0, 0, 100, 0]));
        bytes.extend(frame(0x42, 0, 9, b""));
        bytes.extend(frame(8, 0, 0, &[0x80, 0, 1, 2]));
        bytes.extend(frame(8, 0, 3, &[0, 0, 1, 2]));
        bytes.extend(frame(8, 0, 0, &[0, 0, 1]));
        bytes.extend(frame(3, 0, 3, &[0, 0, 0, 5]));
        bytes.extend(frame(3, 0, 3, &[0, 0, 0]));
        bytes.extend(frame(6, 1, 0, &[0; 8]));
        let whole = walk(&[&bytes]);
        let setting = |id, value| Sight::Setting { id, value };
        let head = |len, kind, flags, stream| {
            Sight::Frame(FrameHead {
                len,
                kind,
                flags,
                stream,
            })
        };
        assert_eq!(
            whole,
            [
                head(12, Kind::Settings, 0, 0),
                setting(3, 100),
                setting(2, 1),
                head(0, Kind::Settings, ACK, 0),
                head(4, Kind::Headers, 5, 3),
                head(300, Kind::Data, END_STREAM, 3),
                head(7, Kind::Settings, 0, 0),
                setting(3, 100),
                head(0, Kind::Unknown, 0, 9),
                head(4, Kind::WindowUpdate, 0, 0),
                Sight::Window(0x102),
                head(4, Kind::WindowUpdate, 0, 3),
                head(3, Kind::WindowUpdate, 0, 0),
                head(4, Kind::RstStream, 0, 3),
                Sight::Reset(5),
                head(3, Kind::RstStream, 0, 3),
                head(8, Kind::Ping, ACK, 0),
            ]
        );
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(walk(&single), whole);
        for at in 0..bytes.len() {
            assert_eq!(walk(&[&bytes[..at], &bytes[at..]]), whole, "cut at {at}");
        }
    }

    /// RFC 7541 appendix A: a status of the static table is one byte, and never an interim one.
    #[test]
    fn heads_that_may_be_interim() {
        let interim = |flags: u8, block: &[u8]| {
            let mut bytes = frame(1, flags, 1, block);
            bytes.extend(frame(6, 1, 0, &[0; 8]));
            let seen_at = |cut: usize| {
                let (mut walk, mut seen) = (FrameWalk::of_responses(), Vec::new());
                for part in [&bytes[..cut], &bytes[cut..]] {
                    let passed: Result<(), ()> = walk.pass(part, |sight| {
                        seen.push(sight);
                        Ok(())
                    });
                    passed.unwrap();
                }
                seen
            };
            let whole = seen_at(0);
            for cut in 1..bytes.len() {
                assert_eq!(seen_at(cut), whole, "cut at {cut}");
            }
            whole.contains(&Sight::MaybeInterim)
        };
        for status in 0x88..=0x8e {
            assert!(!interim(4, &[status, 0x76, 1, b'a']), "{status:x}");
        }
        // A literal, an index into the dynamic table, a change of that table's size.
        for first in [0x48, 0x08, 0x18, 0xbe, 0x3f, 0x20] {
            assert!(interim(4, &[first, 3, b'1', b'0', b'3']), "{first:x}");
        }
        // Padding and a priority stand before the fields; the fields may come in a CONTINUATION.
        assert!(interim(0x4 | 0x8, &[0x88, 0x88]));
        assert!(interim(0x4 | 0x20, &[0x88, 0, 0, 0, 0, 0x88]));
        assert!(interim(0, b""));
        // Trailers, and a response without a body.
        assert!(!interim(0x5, &[0x48, 3, b'1', b'0', b'3']));
    }

    #[test]
    fn a_frame_that_has_begun_is_known() {
        let mut walk = FrameWalk::default();
        let mut pass = |bytes: &[u8]| {
            let passed: Result<(), ()> = walk.pass(bytes, |_| Ok(()));
            passed.unwrap();
            walk.unfinished().map(|frame| (frame.kind, frame.stream))
        };
        let bytes = frame(1, 4, 5, b"head");
        assert_eq!(pass(&bytes[..8]), None, "its header is not complete");
        assert_eq!(pass(&bytes[8..10]), Some((Kind::Headers, 5)));
        assert_eq!(pass(&bytes[10..]), None);
    }

    #[test]
    fn an_error_ends_the_walk() {
        let bytes = frame(6, 0, 0, &[0; 8]);
        let mut walk = FrameWalk::default();
        assert_eq!(walk.pass(&bytes, |_| Err("no")), Err("no"));
    }
}
