//! Finds the end of a response head, decodes it and builds the index of its fields (RFC 9112 sections 2 to 5).
//!
//! httparse reads the grammar; what it leaves open is decided here: bare LF, leading empty lines, sizes, versions, statuses
//! below 100, folded lines (spec http1 a1 and c). The head is scanned once however it dribbles in, and httparse runs once,
//! when the end is there. Interim (1xx) heads are counted and skipped. Called by `connection/http1.rs`.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use http::{StatusCode, Version};
use httparse::{Header, ParserConfig, Response};
use memchr::{memchr_iter, memmem};

use super::decode_error::DecodeError;
use super::framing::{Framing, FramingFields, MethodKind, Role, is_framing_field};
use super::reuse::Reuse;
use crate::config::Limits;
use crate::head::{FieldAt, ResponseHead};

/// Where the decoder stands in the head of one exchange.
#[derive(Debug, Default)]
pub(crate) struct HeadDecoder {
    /// Bytes of the buffer that hold no end of the head.
    scanned: usize,
    /// Bytes of the interim heads before.
    interim_bytes: usize,
    interim_heads: usize,
    /// The index of the decoded head; kept, so that its memory is used again.
    index: Vec<u8>,
}

/// What a look at the buffer found.
#[derive(Debug)]
pub(crate) enum HeadStep {
    /// The head is not complete.
    NeedMore,
    /// An interim response of so many bytes; skip them and look again.
    Interim { len: usize },
    /// The final head.
    Final(DecodedHead),
}

/// The final head, still in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodedHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    /// Its bytes at the front of the buffer, the empty line included.
    pub(crate) len: usize,
    pub(crate) framing: Framing,
    pub(crate) reuse: Reuse,
    /// Seconds of `Keep-Alive: timeout=N`.
    pub(crate) keep_alive_timeout: Option<u64>,
    folded: bool,
}

impl HeadDecoder {
    /// Prepares for the next exchange; the index keeps its memory.
    pub(crate) fn reset(&mut self) {
        let index = std::mem::take(&mut self.index);
        *self = Self {
            index,
            ..Self::default()
        };
    }

    /// Looks for a head at the front of `buffer`. The same bytes, grown at the end, are passed until it is there.
    pub(crate) fn decode(
        &mut self,
        buffer: &[u8],
        method: MethodKind,
        limits: &Limits,
    ) -> Result<HeadStep, DecodeError> {
        if self.scanned == 0 {
            // An empty line before the status line is a known bug of servers; one is skipped, by httparse below.
            let start = if buffer.starts_with(b"\r\n") { 2 } else { 0 };
            let rest = buffer.get(start..).unwrap_or_default();
            check_beginning(rest)?;
            // Fewer bytes than `HTTP/1.` has cannot be scanned yet: the beginning would go unchecked.
            if rest.len() < PREFIX.len() {
                return Ok(HeadStep::NeedMore);
            }
            self.scanned = start;
        }
        let allowed = limits.max_head.saturating_sub(self.interim_bytes);
        let Some(end) = self.find_end(buffer)? else {
            return if buffer.len() >= allowed {
                Err(DecodeError::HeadTooLarge {
                    limit: limits.max_head,
                })
            } else {
                Ok(HeadStep::NeedMore)
            };
        };
        if end > allowed {
            return Err(DecodeError::HeadTooLarge {
                limit: limits.max_head,
            });
        }
        let head = buffer.get(..end).unwrap_or_default();
        self.scanned = 0;
        let decoded = self.parse(head, method, limits).map_err(|error| {
            // The same bytes in more pieces would have been refused for this, so it comes before all else.
            if has_bare_line_feed(head, 0) {
                DecodeError::BareLineFeed
            } else {
                error
            }
        })?;
        if !decoded.status.is_informational() {
            return Ok(HeadStep::Final(decoded));
        }
        if decoded.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(DecodeError::UnaskedUpgrade);
        }
        self.interim_bytes += end;
        self.interim_heads += 1;
        if self.interim_heads > limits.max_informational {
            return Err(DecodeError::TooManyInformational {
                limit: limits.max_informational,
            });
        }
        Ok(HeadStep::Interim { len: end })
    }

    /// The error for a connection that ended here, with `got` bytes of a head.
    pub(crate) fn cut_short(&self, got: usize) -> DecodeError {
        DecodeError::HeadCutShort {
            got: got + self.interim_bytes,
        }
    }

    /// Copies head, index and `body` into one exact allocation, unfolding folded lines (RFC 9112 section 5.2).
    pub(crate) fn keep(
        &mut self,
        decoded: &DecodedHead,
        buffer: &[u8],
        body: &[u8],
    ) -> ResponseHead {
        let head = buffer.get(..decoded.len).unwrap_or_default();
        let mut message = BytesMut::with_capacity(head.len() + self.index.len() + body.len());
        message.put_slice(head);
        if decoded.folded {
            unfold(&mut message, &mut self.index);
        }
        message.put_slice(&self.index);
        message.put_slice(body);
        let message: Bytes = message.freeze();
        let index_at = decoded.len;
        let body_at = index_at + self.index.len();
        ResponseHead::new(decoded.status, decoded.version, message, index_at, body_at)
    }

    /// The index after the first empty line, looking at each byte once however they dribble in.
    ///
    /// While the end is not there, each line that is must end in CRLF: a peer that ends its lines in LF alone never sends
    /// the end that is looked for, and is refused at once instead of being waited for.
    fn find_end(&mut self, buffer: &[u8]) -> Result<Option<usize>, DecodeError> {
        let from = self.scanned.saturating_sub(END.len() - 1);
        if let Some(found) = buffer.get(from..).and_then(|rest| END_FINDER.find(rest)) {
            return Ok(Some(from + found + END.len()));
        }
        if has_bare_line_feed(buffer, self.scanned) {
            return Err(DecodeError::BareLineFeed);
        }
        self.scanned = buffer.len();
        Ok(None)
    }

    /// Most heads have few fields and no folds: the first try is for those.
    fn parse(
        &mut self,
        head: &[u8],
        method: MethodKind,
        limits: &Limits,
    ) -> Result<DecodedHead, DecodeError> {
        let limit = limits.max_head_fields;
        let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
        let mut parse = Parse {
            head,
            method,
            limit,
            folds: false,
        };
        match self.parse_into(&parse, &mut few) {
            Err(DecodeError::BadFieldName) if has_folded_line(head) => parse.folds = true,
            Err(DecodeError::TooManyFields { .. }) if limit > FEW_FIELDS => {
                parse.folds = has_folded_line(head);
            }
            decided => return decided,
        }
        if parse.folds {
            check_folds(head)?;
        }
        // A field takes at least four bytes: no more are needed than fit the head.
        let mut many = vec![MaybeUninit::uninit(); limit.min(head.len() / 4 + 1)];
        self.parse_into(&parse, &mut many)
    }

    fn parse_into<'b>(
        &mut self,
        parse: &Parse<'b>,
        fields: &mut [MaybeUninit<Header<'b>>],
    ) -> Result<DecodedHead, DecodeError> {
        let head = parse.head;
        let mut response = Response::new(&mut []);
        let mut config = ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(parse.folds);
        match config.parse_response_with_uninit_headers(&mut response, head, fields) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            // The scan above found the end where httparse does; anything else is a head that neither can read.
            Ok(_) => return Err(DecodeError::BadStatusLine),
            Err(error) => return Err(refuse(error, parse.limit)),
        }
        if response.headers.len() > parse.limit {
            return Err(DecodeError::TooManyFields { limit: parse.limit });
        }
        let status = response
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(DecodeError::BadStatus)?;
        let version = match response.version {
            Some(0) => Version::HTTP_10,
            Some(1) => Version::HTTP_11,
            _ => return Err(DecodeError::BadVersion),
        };
        let facts = self.build_index(head, response.headers)?;
        let verdict = facts.decide(parse.method, version, status)?;
        if verdict.drop_length {
            self.hide_length(head);
        }
        Ok(DecodedHead {
            status,
            version,
            len: head.len(),
            framing: verdict.framing,
            reuse: verdict.reuse,
            keep_alive_timeout: facts.keep_alive_timeout,
            folded: parse.folds,
        })
    }

    /// Indexes the fields and collects what they say about framing. Equal Content-Length fields are shown once. What
    /// precedes each name must be CRLF: httparse would take a bare LF.
    fn build_index(
        &mut self,
        head: &[u8],
        fields: &[Header<'_>],
    ) -> Result<FramingFields, DecodeError> {
        self.index.clear();
        self.index.reserve(fields.len() * FieldAt::SIZE);
        let mut facts = FramingFields::default();
        let mut length_shown = false;
        for field in fields {
            let name = span(head, field.name.as_bytes());
            let before = (name.0 as usize)
                .checked_sub(2)
                .and_then(|start| head.get(start..start + 2));
            if before != Some(b"\r\n") {
                return Err(DecodeError::BareLineFeed);
            }
            let mut value = field.value;
            if facts.add(field.name.as_bytes(), value) == Role::Length {
                if std::mem::replace(&mut length_shown, true) {
                    continue;
                }
                value = first_member(value);
            }
            let entry = FieldAt {
                name,
                value: span(head, value),
            };
            self.index.extend_from_slice(&entry.to_bytes());
        }
        Ok(facts)
    }

    /// Takes a Content-Length that lost to Transfer-Encoding out of the index.
    fn hide_length(&mut self, head: &[u8]) {
        let mut kept = Vec::with_capacity(self.index.len());
        for entry in self.index.chunks_exact(FieldAt::SIZE) {
            let (start, len) = FieldAt::from_bytes(entry).name;
            let name = head.get(start as usize..start as usize + len as usize);
            if !name.is_some_and(|name| name.eq_ignore_ascii_case(b"content-length")) {
                kept.extend_from_slice(entry);
            }
        }
        self.index = kept;
    }
}

/// What one reading of a head goes by.
struct Parse<'b> {
    head: &'b [u8],
    method: MethodKind,
    /// Fields at most.
    limit: usize,
    /// Whether lines are folded.
    folds: bool,
}

/// The first of several equal members of a list.
fn first_member(list: &[u8]) -> &[u8] {
    list.split(|byte| *byte == b',')
        .next()
        .unwrap_or(list)
        .trim_ascii()
}

/// Whether a line continues the one above it.
fn has_folded_line(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|at| matches!(head.get(at + 1), Some(b' ' | b'\t')))
}

/// A folded line continues the field above it. Framing fields must not be folded: httparse trims a fold at the edge of a
/// value away, so that other readers of the same bytes may see another value.
fn check_folds(head: &[u8]) -> Result<(), DecodeError> {
    if has_bare_line_feed(head, 0) {
        return Err(DecodeError::BareLineFeed);
    }
    let mut name: &[u8] = b"";
    for line in head.split(|byte| *byte == b'\n') {
        match line.first() {
            Some(b' ' | b'\t') if is_framing_field(name) => {
                return Err(DecodeError::FoldedFramingField);
            }
            Some(b' ' | b'\t') => {}
            _ => name = line.split(|byte| *byte == b':').next().unwrap_or_default(),
        }
    }
    Ok(())
}

/// Replaces each fold in a value by one blank and shortens the value to what is left (RFC 9112 section 5.2).
fn unfold(head: &mut [u8], index: &mut [u8]) {
    for entry in index.chunks_exact_mut(FieldAt::SIZE) {
        let mut at = FieldAt::from_bytes(entry);
        let start = at.value.0 as usize;
        let Some(value) = head.get_mut(start..start + at.value.1 as usize) else {
            continue;
        };
        let mut kept = 0_usize;
        let mut in_fold = false;
        for read in 0..value.len() {
            let Some(&byte) = value.get(read) else { break };
            match byte {
                b'\r' | b'\n' => in_fold = true,
                b' ' | b'\t' if in_fold => {}
                _ => {
                    let blank = std::mem::take(&mut in_fold).then_some(b' ');
                    for byte in blank.into_iter().chain([byte]) {
                        if let Some(slot) = value.get_mut(kept) {
                            *slot = byte;
                            kept += 1;
                        }
                    }
                }
            }
        }
        at.value.1 = u32::try_from(kept).unwrap_or_default();
        entry.copy_from_slice(&at.to_bytes());
    }
}

/// Whether a line feed from `start` on lacks its carriage return.
fn has_bare_line_feed(buffer: &[u8], start: usize) -> bool {
    memchr_iter(b'\n', buffer.get(start..).unwrap_or_default()).any(|at| {
        let before = (start + at)
            .checked_sub(1)
            .and_then(|before| buffer.get(before));
        before != Some(&b'\r')
    })
}

/// Where `part`, a slice of `head`, lies in it. A head is far smaller than 4 GiB, so the numbers fit.
fn span(head: &[u8], part: &[u8]) -> (u32, u32) {
    let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    let number = |n: usize| u32::try_from(n).unwrap_or_default();
    (number(start), number(part.len()))
}

/// Refuses at once what can never become a response, instead of waiting for 128 KiB of it.
fn check_beginning(buffer: &[u8]) -> Result<(), DecodeError> {
    let looked_at = buffer.len().min(PREFIX.len());
    if buffer.get(..looked_at) == PREFIX.get(..looked_at) {
        return Ok(());
    }
    if buffer.starts_with(b"\r\n") {
        return Err(DecodeError::LeadingEmptyLines);
    }
    if buffer == b"\r" {
        return Ok(());
    }
    if matches!(buffer, [0x14..=0x17, 3, ..]) {
        return Err(DecodeError::TlsRecord);
    }
    // The SETTINGS frame that opens HTTP/2: a length below 64 KiB, type 4.
    if matches!(buffer, [0, _, _, 4, ..]) {
        return Err(DecodeError::Http2Frame);
    }
    // A record or a frame is only told from garbage once its first bytes are there.
    if matches!(buffer, [0x14..=0x17] | [0] | [0, _] | [0, _, _]) {
        return Ok(());
    }
    if buffer.starts_with(b"HTTP/") {
        return Err(DecodeError::BadVersion);
    }
    let mut first = [0; 8];
    for (slot, byte) in first.iter_mut().zip(buffer) {
        *slot = *byte;
    }
    let len = buffer.len().min(8) as u8;
    Err(DecodeError::NotHttp { first, len })
}

fn refuse(error: httparse::Error, limit: usize) -> DecodeError {
    match error {
        httparse::Error::HeaderName => DecodeError::BadFieldName,
        httparse::Error::HeaderValue => DecodeError::BadFieldValue,
        httparse::Error::Status => DecodeError::BadStatus,
        httparse::Error::TooManyHeaders => DecodeError::TooManyFields { limit },
        httparse::Error::Version => DecodeError::BadVersion,
        httparse::Error::NewLine | httparse::Error::Token => DecodeError::BadStatusLine,
    }
}

/// How every head ends.
const END: &[u8] = b"\r\n\r\n";

/// Its search, prepared once.
static END_FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(END));

/// How every response that is accepted begins.
const PREFIX: &[u8] = b"HTTP/1.";

/// Fields that fit on the stack; a head with more costs one allocation.
const FEW_FIELDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(u16, Framing, usize), DecodeError>;

    /// Feeds `input` in the given pieces, and reads interim heads away.
    fn feed(input: &[u8], cuts: &[usize], limits: &Limits) -> Option<Outcome> {
        let mut decoder = HeadDecoder::default();
        let mut skipped = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            loop {
                match decoder.decode(&input[skipped..end], MethodKind::Other, limits) {
                    Ok(HeadStep::NeedMore) => break,
                    Ok(HeadStep::Interim { len }) => skipped += len,
                    Ok(HeadStep::Final(head)) => {
                        return Some(Ok((
                            head.status.as_u16(),
                            head.framing,
                            input.len() - skipped - head.len,
                        )));
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        None
    }

    /// Whole, byte by byte, and at each two-part split: always the same.
    fn every_split(input: &[u8], limits: &Limits, expected: Option<Outcome>) {
        let shown = input.escape_ascii();
        assert_eq!(feed(input, &[], limits), expected, "whole: {shown}");
        let single: Vec<_> = (0..input.len()).collect();
        let by_byte = feed(input, &single, limits);
        // Fed byte by byte nothing follows the head, and garbage is refused at its first telling byte.
        match (&by_byte, &expected) {
            (Some(Ok((status, framing, _))), Some(Ok((s, f, _)))) => {
                assert_eq!((status, framing), (s, f), "{shown}")
            }
            (Some(Err(DecodeError::NotHttp { .. })), Some(Err(DecodeError::NotHttp { .. }))) => {}
            _ => assert_eq!(by_byte, expected, "byte by byte: {shown}"),
        }
        for cut in 0..input.len() {
            let got = feed(input, &[cut], limits);
            assert_eq!(got.is_some(), expected.is_some(), "cut at {cut}: {shown}");
            assert_eq!(
                got.map(|got| got.is_ok()),
                expected.map(|expected| expected.is_ok()),
                "cut at {cut}: {shown}"
            );
        }
    }

    fn check(input: &str, expected: Result<(u16, Framing, usize), DecodeError>) {
        every_split(input.as_bytes(), &Limits::default(), Some(expected));
    }

    #[test]
    fn heads_that_are_accepted() {
        check("HTTP/1.1 200 OK\r\n\r\n", Ok((200, Framing::UntilClose, 0)));
        check(
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
            Ok((200, Framing::Length(2), 2)),
        );
        check("\r\nHTTP/1.1 204 \r\n\r\n", Ok((204, Framing::None, 0)));
        check(
            "HTTP/1.0 999 \u{e9}\r\n\r\n",
            Ok((999, Framing::UntilClose, 0)),
        );
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
            Ok((204, Framing::None, 0)),
        );
        check(
            "HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nContent-Length: 0\r\n\r\n",
            Ok((200, Framing::Length(0), 0)),
        );
    }

    #[test]
    fn heads_that_are_refused() {
        use DecodeError as E;
        check("HTTP/1.1 200 OK\n\n", Err(E::BareLineFeed));
        check(
            "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            Err(E::BareLineFeed),
        );
        check("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Err(E::LeadingEmptyLines));
        check("HTTP/1.2 200 OK\r\n\r\n", Err(E::BadVersion));
        check("HTTP/2.0 200 OK\r\n\r\n", Err(E::BadVersion));
        check(
            "http/1.1 200 OK\r\n\r\n",
            Err(E::NotHttp {
                first: *b"http/1.1",
                len: 8,
            }),
        );
        check("HTTP/1.1 099 X\r\n\r\n", Err(E::BadStatus));
        check("HTTP/1.1 20 X\r\n\r\n", Err(E::BadStatus));
        check("HTTP/1.1 2000 X\r\n\r\n", Err(E::BadStatus));
        check("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Err(E::BadFieldName));
        check("HTTP/1.1 200 OK\r\n A: b\r\n\r\n", Err(E::BadFieldName));
        check("HTTP/1.1 200 OK\r\n: b\r\n\r\n", Err(E::BadFieldName));
        check("HTTP/1.1 200 OK\r\nA\r\n\r\n", Err(E::BadFieldName));
        check("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", Err(E::BadFieldValue));
        check("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", Err(E::BadFieldValue));
        check(
            "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",
            Err(E::UnaskedUpgrade),
        );
        for fold in [
            "Content-Length: 1\r\n 2",
            "content-length: 5\r\n   ",
            "Transfer-Encoding:\r\n chunked",
            "connection: a\r\n\tb",
        ] {
            check(
                &format!("HTTP/1.1 200 OK\r\n{fold}\r\n\r\n"),
                Err(E::FoldedFramingField),
            );
        }
    }

    #[test]
    fn what_is_not_http_is_named_at_once() {
        let refuse = |input: &[u8]| feed(input, &[], &Limits::default());
        assert_eq!(
            refuse(b"\x15\x03\x01\x00\x02"),
            Some(Err(DecodeError::TlsRecord))
        );
        assert_eq!(
            refuse(b"\0\0\x12\x04\0\0\0\0\0"),
            Some(Err(DecodeError::Http2Frame))
        );
        assert_eq!(
            refuse(b"SSH-2.0-x"),
            Some(Err(DecodeError::NotHttp {
                first: *b"SSH-2.0-",
                len: 8
            }))
        );
        assert_eq!(refuse(b"H"), None);
        assert_eq!(refuse(b""), None);
    }

    #[test]
    fn limits_are_exact() {
        let head = "HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
        let limits = Limits::default().with_max_head(head.len());
        every_split(
            head.as_bytes(),
            &limits,
            Some(Ok((200, Framing::UntilClose, 0))),
        );
        let less = limits.with_max_head(head.len() - 1);
        let over = DecodeError::HeadTooLarge {
            limit: head.len() - 1,
        };
        assert_eq!(feed(head.as_bytes(), &[], &less), Some(Err(over)));
        let fields = |n| {
            feed(
                head.as_bytes(),
                &[],
                &Limits::default().with_max_head_fields(n),
            )
        };
        assert!(matches!(fields(2), Some(Ok(_))));
        assert_eq!(
            fields(1),
            Some(Err(DecodeError::TooManyFields { limit: 1 }))
        );
        let many: String = (0..300).map(|n| format!("x{n}: y\r\n")).collect();
        let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
        assert_eq!(
            feed(many.as_bytes(), &[], &Limits::default()),
            Some(Err(DecodeError::TooManyFields { limit: 256 }))
        );
        assert!(matches!(
            feed(
                many.as_bytes(),
                &[],
                &Limits::default().with_max_head_fields(300)
            ),
            Some(Ok(_))
        ));
    }

    #[test]
    fn interim_heads_share_the_limits() {
        let interim = "HTTP/1.1 103 Early\r\n\r\n".repeat(33);
        let reply = format!("{interim}HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(
            feed(reply.as_bytes(), &[], &Limits::default()),
            Some(Err(DecodeError::TooManyInformational { limit: 32 }))
        );
        let large = format!("HTTP/1.1 103 E\r\nA: {}\r\n\r\n", "x".repeat(100)).repeat(3);
        let limits = Limits::default().with_max_head(300);
        assert_eq!(
            feed(large.as_bytes(), &[], &limits),
            Some(Err(DecodeError::HeadTooLarge { limit: 300 }))
        );
    }

    #[test]
    fn folds_become_blanks_and_a_length_is_shown_once() {
        let head =
            b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nContent-Length: 4\r\ncontent-length: 4\r\n\r\nbody";
        let mut decoder = HeadDecoder::default();
        let Ok(HeadStep::Final(decoded)) =
            decoder.decode(head, MethodKind::Other, &Limits::default())
        else {
            panic!("not decoded");
        };
        let kept = decoder.keep(&decoded, head, &head[decoded.len..]);
        assert_eq!(kept.first("a"), Some(&b"b c"[..]));
        assert_eq!(kept.fields().count(), 2);
        assert_eq!(kept.into_kept_body(), "body");
    }

    /// Invariants 1, 2 and 6 of spec http1 d: mutated heads are read the same whole and byte by byte, without a panic.
    #[test]
    fn mutated_heads_are_read_the_same_however_they_arrive() {
        let seeds: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
            b"\r\nHTTP/1.0 404 \r\nTransfer-Encoding: chunked\r\nA: b\r\n\tc\r\n\r\n",
            b"HTTP/1.1 103 E\r\nLink: a\r\n\r\nHTTP/1.1 204 N\r\nKeep-Alive: timeout=5\r\n\r\n",
            b"HTTP/1.1 200\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\n",
        ];
        let bytes = b"\r\n\t :,;0159aHT/\0\x7f\x80\xff";
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        for round in 0..20_000 {
            let mut input = seeds[round % seeds.len()].to_vec();
            for _ in 0..=next(3) {
                let at = next(input.len());
                match next(3) {
                    0 => input[at] = bytes[next(bytes.len())],
                    1 => input.insert(at, bytes[next(bytes.len())]),
                    _ => drop(input.remove(at)),
                }
            }
            let limits = Limits::default();
            let whole = feed(&input, &[], &limits);
            let single: Vec<_> = (0..input.len()).collect();
            let by_byte = feed(&input, &single, &limits);
            let verdict = |outcome: &Option<Outcome>| match outcome {
                Some(Ok((status, framing, _))) => Ok(Some((*status, *framing))),
                Some(Err(error)) => Err(error.is_size()),
                None => Ok(None),
            };
            assert_eq!(
                verdict(&whole),
                verdict(&by_byte),
                "{}",
                input.escape_ascii()
            );
        }
    }
}
