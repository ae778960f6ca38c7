//! Takes any response body apart: none, a known length, chunks, or everything until the connection ends.
//!
//! Answers ranges of the caller's buffer, so that data is never copied here. Called by `connection/http1.rs`.

use http::HeaderMap;

use super::chunked::{ChunkedDecoder, ChunkedStep};
use super::decode_error::{DecodeError, Rule};
use super::framing::Framing;
use crate::config::Limits;

/// A response body being read.
#[derive(Debug)]
pub(crate) enum BodyDecoder {
    /// So many bytes are still to come; zero is the end.
    Length(u64),
    /// Chunks.
    Chunked(Box<ChunkedDecoder>),
    /// Everything, until the connection ends.
    UntilClose,
}

/// What the front of the input is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyStep {
    /// After `skip` bytes of framing, `len` bytes of data.
    Data { skip: usize, len: usize },
    /// `skip` bytes of framing, and then nothing yet.
    NeedMore { skip: usize },
    /// After `skip` bytes of framing, the end.
    End {
        skip: usize,
        trailers: Option<Box<HeaderMap>>,
    },
}

impl BodyDecoder {
    pub(crate) fn new(framing: Framing, limits: &Limits) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(ChunkedDecoder::new(limits))),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Reads on at the front of `input`.
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<BodyStep, DecodeError> {
        match self {
            Self::Length(0) => Ok(BodyStep::End {
                skip: 0,
                trailers: None,
            }),
            Self::Length(_) | Self::UntilClose if input.is_empty() => {
                Ok(BodyStep::NeedMore { skip: 0 })
            }
            Self::Length(left) => {
                let len = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= len as u64;
                Ok(BodyStep::Data { skip: 0, len })
            }
            Self::Chunked(chunked) => Ok(match chunked.step(input)? {
                ChunkedStep::Data { skip, len } => BodyStep::Data { skip, len },
                ChunkedStep::NeedMore { skip } => BodyStep::NeedMore { skip },
                ChunkedStep::End { skip, trailers } => BodyStep::End { skip, trailers },
            }),
            Self::UntilClose => Ok(BodyStep::Data {
                skip: 0,
                len: input.len(),
            }),
        }
    }

    /// Whether the end was read.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }

    /// What the end of the connection means here.
    pub(crate) fn end_of_connection(&self) -> Result<(), DecodeError> {
        match self {
            Self::Length(0) | Self::UntilClose => Ok(()),
            Self::Length(missing) => Err(Rule::BodyCutShort { missing: *missing }.into()),
            Self::Chunked(chunked) if chunked.is_done() => Ok(()),
            Self::Chunked(_) => Err(Rule::ChunkedCutShort.into()),
        }
    }

    /// Bytes of data that are still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::every_split::every_split;
    use super::*;

    /// Feeds the pieces between the cuts; answers the data and the bytes used. `None`: more is needed.
    fn read(framing: Framing, input: &[u8], cuts: &[usize]) -> Option<(Vec<u8>, usize)> {
        let mut body = BodyDecoder::new(framing, &Limits::default());
        let mut data = Vec::new();
        let mut at = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            loop {
                match body.step(&input[at..end]).unwrap() {
                    BodyStep::Data { skip, len } => {
                        data.extend_from_slice(&input[at + skip..at + skip + len]);
                        at += skip + len;
                    }
                    BodyStep::NeedMore { skip } => {
                        at += skip;
                        break;
                    }
                    BodyStep::End { skip, .. } => {
                        assert!(body.is_done());
                        return Some((data, at + skip));
                    }
                }
            }
        }
        assert!(!body.is_done());
        None
    }

    #[test]
    fn bodies_are_the_same_in_any_pieces_and_end_where_they_end() {
        let check = |framing, input: &[u8], expected: Option<&[u8]>| {
            let read = every_split(input, |input, cuts| read(framing, input, cuts));
            assert_eq!(read, expected.map(|data| (data.to_vec(), input.len())));
        };
        check(Framing::None, b"", Some(b""));
        check(Framing::Length(0), b"", Some(b""));
        check(Framing::Length(5), b"a\r\nbc", Some(b"a\r\nbc"));
        check(Framing::Length(5), b"abcd", None);
        check(Framing::Length(u64::MAX), b"abcd", None);
        check(
            Framing::Chunked,
            b"2\r\nab\r\n0\r\nA: b\r\n\r\n",
            Some(b"ab"),
        );
        check(Framing::Chunked, b"2\r\nab\r\n0\r\nA: b\r\n", None);
        check(Framing::UntilClose, b"0\r\n\r\n", None);
    }

    #[test]
    fn a_known_length_ends_by_itself_and_not_earlier() {
        let mut body = BodyDecoder::new(Framing::Length(5), &Limits::default());
        assert_eq!(body.step(b""), Ok(BodyStep::NeedMore { skip: 0 }));
        assert_eq!(body.step(b"abc"), Ok(BodyStep::Data { skip: 0, len: 3 }));
        assert_eq!(
            body.end_of_connection(),
            Err(Rule::BodyCutShort { missing: 2 }.into())
        );
        assert_eq!(
            body.step(b"deEXTRA"),
            Ok(BodyStep::Data { skip: 0, len: 2 })
        );
        assert!(body.is_done());
        assert_eq!(
            body.step(b"EXTRA"),
            Ok(BodyStep::End {
                skip: 0,
                trailers: None
            })
        );
    }

    #[test]
    fn until_close_ends_only_with_the_connection() {
        let mut body = BodyDecoder::new(Framing::UntilClose, &Limits::default());
        assert_eq!(body.step(b"abc"), Ok(BodyStep::Data { skip: 0, len: 3 }));
        assert!(!body.is_done());
        assert_eq!(body.end_of_connection(), Ok(()));
    }

    #[test]
    fn a_chunked_body_cut_short_is_an_error() {
        let mut body = BodyDecoder::new(Framing::Chunked, &Limits::default());
        assert_eq!(body.step(b"0\r\n"), Ok(BodyStep::NeedMore { skip: 3 }));
        assert_eq!(body.end_of_connection(), Err(Rule::ChunkedCutShort.into()));
    }
}
