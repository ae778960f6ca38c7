//! Finds the end of a response head, decodes it and builds the index of its fields (RFC 9112 sections 2 to 5).
//!
//! httparse reads the grammar; what it leaves open is decided here: bare LF, leading empty lines, sizes, versions, statuses
//! below 100, folded lines (spec http1 a1 and c). A head that comes whole is read by httparse at once. One that does not is scanned
//! once however it dribbles in, and read when its end is there; `head_lines` judges what is there before, and names the line
//! that httparse refuses. Interim (1xx) heads are counted and skipped. Called by `connection/http1.rs`.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use http::{StatusCode, Version};
use httparse::{Header, ParserConfig, Response};
use memchr::{memchr_iter, memmem};

use super::decode_error::{DecodeError, Rule};
use super::framing::{self, Framing, FramingFields, MethodKind, Role, is_framing_field};
use super::head_lines::{HeadLines, MAX_NAME, empty_line};
use super::reuse::{CloseReason, Reuse};
use crate::config::{HeadRules, Limits};
use crate::head::{FieldAt, ResponseHead};

/// Where the decoder stands in the head of one exchange.
#[derive(Debug, Default)]
pub(crate) struct HeadDecoder {
    /// Bytes of the buffer that hold no end of the head.
    scanned: usize,
    /// The lines among them.
    lines: HeadLines,
    /// Bytes of the interim heads before.
    interim_bytes: usize,
    interim_heads: usize,
    /// A head of this exchange needed [`HeadRules::Lenient`].
    odd: bool,
    /// The index of the decoded head; kept, so that its memory is used again.
    index: Vec<u8>,
    /// Bytes that were looked at, to hold the cost of a dribbling head by a test.
    #[cfg(test)]
    looked_at: usize,
}

/// What a look at the buffer found.
#[derive(Debug)]
pub(crate) enum HeadStep {
    /// The head is not complete.
    NeedMore,
    /// An interim response, still in the buffer; skip its bytes and look again.
    Interim(DecodedHead),
    /// The final head.
    Final(DecodedHead),
}

/// A head, still in the buffer.
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
    /// Whether there is a Content-Encoding.
    coded: bool,
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
        let allowed = limits.max_head.saturating_sub(self.interim_bytes);
        // What is over the limit is not looked at, so that the verdict is the same however the bytes come.
        let seen = buffer.get(..allowed).unwrap_or(buffer);
        let decoded = match self.decode_whole(seen, method, limits) {
            Some(decoded) => decoded,
            None => {
                let Some(end) = self.find_end(seen, limits)? else {
                    if buffer.len() >= allowed {
                        let limit = limits.max_head;
                        return Err(Rule::HeadTooLarge { limit }.into());
                    }
                    return Ok(HeadStep::NeedMore);
                };
                let head = seen.get(..end).unwrap_or_default();
                self.scanned = 0;
                self.parse(head, method, limits)
                    .map_err(|error| self.first_broken(head, limits, error))?
            }
        };
        self.lines = HeadLines::default();
        if !decoded.status.is_informational() || method.switches(decoded.status) {
            return Ok(HeadStep::Final(decoded));
        }
        if decoded.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Rule::UnaskedUpgrade.into());
        }
        self.interim_bytes += decoded.len;
        self.interim_heads += 1;
        if self.interim_heads > limits.max_informational {
            let limit = limits.max_informational;
            return Err(Rule::TooManyInformational { limit }.into());
        }
        Ok(HeadStep::Interim(decoded))
    }

    /// The error for a connection that ended here, with `got` bytes of a head.
    pub(crate) fn cut_short(&self, got: usize) -> DecodeError {
        let got = got + self.interim_bytes;
        Rule::HeadCutShort { got }.into()
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
            .coded(decoded.coded)
    }

    /// A head that is there at the first look, is good and has few fields, as most are: httparse comes to its end by itself. Of any
    /// other nothing is said here; it is looked at with care below.
    fn decode_whole(
        &mut self,
        seen: &[u8],
        method: MethodKind,
        limits: &Limits,
    ) -> Option<DecodedHead> {
        let is_new = self.scanned == 0 && seen.starts_with(PREFIX);
        if !is_new || limits.heads != HeadRules::Strict {
            return None;
        }
        let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
        let parse = Parse {
            bytes: seen,
            method,
            limit: limits.max_head_fields,
            rules: limits.heads,
            folds: false,
        };
        let decoded = self.parse_into(&parse, &mut few).ok();
        self.note_work(decoded.map_or(seen.len(), |decoded| decoded.len));
        decoded
    }

    /// The index after the first empty line behind the status line, looking at each byte once however they dribble in. While
    /// it is not there, the lines that are there are judged: a peer that cannot be understood is refused, not waited for.
    fn find_end(&mut self, seen: &[u8], limits: &Limits) -> Result<Option<usize>, DecodeError> {
        if self.scanned == 0 {
            let start = empty_line(seen, limits.heads);
            let rest = seen.get(start..).unwrap_or_default();
            check_beginning(rest, limits.heads)?;
            // Fewer bytes than `HTTP/1.` has cannot be scanned yet: the beginning would go unchecked.
            if rest.len() < PREFIX.len() {
                return Ok(None);
            }
            self.scanned = start;
        }
        // The end may have begun among the bytes that were scanned.
        let from = self.scanned.saturating_sub(END.len() - 1);
        let rest = seen.get(from..).unwrap_or_default();
        self.note_work(rest.len());
        let found = match limits.heads {
            HeadRules::Strict => END_FINDER.find(rest).map(|at| at + END.len()),
            HeadRules::Lenient => lenient_end(rest),
        };
        if let Some(end) = found {
            return Ok(Some(from + end));
        }
        self.note_work(seen.len() - self.scanned);
        self.lines.judge(seen, self.scanned, limits)?;
        self.scanned = seen.len();
        Ok(None)
    }

    /// The first bad line of a head that cannot be read decides, as it does for a head that comes in pieces.
    #[cold]
    fn first_broken(&mut self, head: &[u8], limits: &Limits, error: DecodeError) -> DecodeError {
        let judged = self.lines.judge(head, self.lines.next(), limits);
        judged.err().unwrap_or(error)
    }

    /// Most heads have few fields and no folds: the first try is for those.
    fn parse(
        &mut self,
        head: &[u8],
        method: MethodKind,
        limits: &Limits,
    ) -> Result<DecodedHead, DecodeError> {
        self.note_work(head.len());
        let limit = limits.max_head_fields;
        let mut few = [const { MaybeUninit::uninit() }; FEW_FIELDS];
        let mut parse = Parse {
            bytes: head,
            method,
            limit,
            rules: limits.heads,
            folds: false,
        };
        match self.parse_into(&parse, &mut few) {
            Err(error) if error.rule == Rule::FieldName && has_folded_line(head) => {
                parse.folds = true;
            }
            Err(error) if error.rule == (Rule::TooManyFields { limit }) && limit > FEW_FIELDS => {
                parse.folds = has_folded_line(head);
            }
            decided => return decided,
        }
        if parse.folds {
            check_folds(head, limits.heads)?;
        }
        // A field takes at least four bytes, or three without CR: no more are needed than fit the head.
        let mut many = vec![MaybeUninit::uninit(); limit.min(head.len() / 3 + 1)];
        self.parse_into(&parse, &mut many)
    }

    fn parse_into<'b>(
        &mut self,
        parse: &Parse<'b>,
        fields: &mut [MaybeUninit<Header<'b>>],
    ) -> Result<DecodedHead, DecodeError> {
        let mut response = Response::new(&mut []);
        let mut config = ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(parse.folds);
        config.allow_spaces_after_header_name_in_responses(parse.rules == HeadRules::Lenient);
        let parsed = config.parse_response_with_uninit_headers(&mut response, parse.bytes, fields);
        let parsed = parsed.map_err(|error| refuse(error, parse.limit))?;
        let head = parse.head(parsed).ok_or(Rule::BareLineFeed)?;
        if response.headers.len() > parse.limit {
            return Err(Rule::TooManyFields { limit: parse.limit }.into());
        }
        let status = response
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(Rule::Status)?;
        let version = match response.version {
            Some(0) => Version::HTTP_10,
            Some(1) => Version::HTTP_11,
            _ => return Err(Rule::Version.into()),
        };
        let facts = self.build_index(parse, head, response.headers)?;
        let verdict = facts
            .decide(parse.method, version, status, parse.rules)
            .map_err(|rule| {
                let fields = response.headers.iter();
                let fields = fields.map(|field| (field.name.as_bytes(), field.value));
                rule.broken_by(framing::blamed(rule, fields))
            })?;
        if verdict.drop_length {
            self.hide_length(head);
        }
        let mut reuse = verdict.reuse;
        if self.odd {
            reuse.refuse(CloseReason::LenientHead);
        }
        Ok(DecodedHead {
            status,
            version,
            len: head.len(),
            framing: verdict.framing,
            reuse,
            keep_alive_timeout: facts.keep_alive_timeout,
            folded: parse.folds,
            coded: facts.coded,
        })
    }

    /// Indexes the fields and collects what they say about framing. Equal Content-Length fields are shown once. httparse
    /// takes a bare LF: with strict rules, what precedes each name must be CRLF.
    fn build_index(
        &mut self,
        parse: &Parse<'_>,
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
            if before != Some(b"\r\n") && parse.rules == HeadRules::Strict {
                return Err(Rule::BareLineFeed.into());
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
        if head.len() > MAX_NAME {
            check_names(fields)?;
        }
        if parse.rules == HeadRules::Lenient {
            self.note_what_was_odd(head, fields)?;
        }
        Ok(facts)
    }

    /// What only lenient rules take: a blank before a colon, but never in a field that decides about framing, and bare LF.
    fn note_what_was_odd(&mut self, head: &[u8], fields: &[Header<'_>]) -> Result<(), DecodeError> {
        self.odd |= has_bare_line_feed(head);
        for field in fields {
            let (start, len) = span(head, field.name.as_bytes());
            if head.get(start as usize + len as usize) != Some(&b':') {
                if is_framing_field(field.name.as_bytes()) {
                    return Err(Rule::BlankBeforeColon.broken_by(field.name.as_bytes()));
                }
                self.odd = true;
            }
        }
        Ok(())
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

    #[cfg(test)]
    fn note_work(&mut self, bytes: usize) {
        self.looked_at += bytes;
    }

    #[cfg(not(test))]
    fn note_work(&self, _bytes: usize) {}
}

/// What one reading of a head goes by.
struct Parse<'b> {
    /// The head, and perhaps more.
    bytes: &'b [u8],
    method: MethodKind,
    /// Fields at most.
    limit: usize,
    rules: HeadRules,
    /// Whether lines are folded.
    folds: bool,
}

impl<'b> Parse<'b> {
    /// The head, which ends where httparse says, unless a bare line feed is what ends it: then httparse stops elsewhere than
    /// [`HeadDecoder::find_end`], or finds no end in what that has found.
    fn head(&self, parsed: httparse::Status<usize>) -> Option<&'b [u8]> {
        let httparse::Status::Complete(len) = parsed else {
            return None;
        };
        let head = self.bytes.get(..len)?;
        match self.rules {
            HeadRules::Strict => head.ends_with(END).then_some(head),
            HeadRules::Lenient => (len == self.bytes.len()).then_some(head),
        }
    }
}

/// No name may be longer than the map can hold.
#[cold]
fn check_names(fields: &[Header<'_>]) -> Result<(), DecodeError> {
    match fields.iter().find(|field| field.name.len() > MAX_NAME) {
        Some(field) => Err(Rule::FieldName.broken_by(field.name.as_bytes())),
        None => Ok(()),
    }
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
fn check_folds(head: &[u8], rules: HeadRules) -> Result<(), DecodeError> {
    if rules == HeadRules::Strict && has_bare_line_feed(head) {
        return Err(Rule::BareLineFeed.into());
    }
    let mut name: &[u8] = b"";
    for line in head.split(|byte| *byte == b'\n') {
        match line.first() {
            Some(b' ' | b'\t') if is_framing_field(name) => {
                return Err(Rule::FoldedFramingField.into());
            }
            Some(b' ' | b'\t') => {}
            _ => name = framing::trim(line.split(|byte| *byte == b':').next().unwrap_or_default()),
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

/// Whether a line feed lacks its carriage return.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|at| {
        let before = at.checked_sub(1).and_then(|before| head.get(before));
        before != Some(&b'\r')
    })
}

/// The index after the first line feed that an empty line follows, with or without its carriage return.
fn lenient_end(rest: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', rest).find_map(|at| match rest.get(at + 1..) {
        Some([b'\n', ..]) => Some(at + 2),
        Some([b'\r', b'\n', ..]) => Some(at + 3),
        _ => None,
    })
}

/// Where `part`, a slice of `head`, lies in it. A head is far smaller than 4 GiB, so the numbers fit.
fn span(head: &[u8], part: &[u8]) -> (u32, u32) {
    let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    let number = |n: usize| u32::try_from(n).unwrap_or_default();
    (number(start), number(part.len()))
}

/// Refuses at once what can never become a response, instead of waiting for 128 KiB of it.
fn check_beginning(rest: &[u8], rules: HeadRules) -> Result<(), DecodeError> {
    let looked_at = rest.len().min(PREFIX.len());
    if rest.get(..looked_at) == PREFIX.get(..looked_at) || rest == b"\r" {
        return Ok(());
    }
    if rest.starts_with(b"\r\n") || (rules == HeadRules::Lenient && rest.starts_with(b"\n")) {
        return Err(Rule::LeadingEmptyLines.into());
    }
    match rest {
        [0x14..=0x17, 3, ..] => return Err(Rule::TlsRecord.broken_by(rest)),
        // SETTINGS opens HTTP/2 and GOAWAY refuses what is not HTTP/2: types 4 and 7, a length below 64 KiB before.
        [0, _, _, 4 | 7, ..] | [b'P', b'R', b'I', b' ', ..] => {
            return Err(Rule::Http2Frame.broken_by(rest));
        }
        // These are told from garbage only once more bytes are there.
        [0x14..=0x17] | [0] | [0, _] | [0, _, _] => return Ok(()),
        [b'P'] | [b'P', b'R'] | [b'P', b'R', b'I'] => return Ok(()),
        _ => {}
    }
    let rule = if rest.starts_with(b"HTTP/") {
        Rule::Version
    } else {
        Rule::NotHttp
    };
    Err(rule.broken_by(rest))
}

#[cold]
fn refuse(error: httparse::Error, limit: usize) -> DecodeError {
    DecodeError::from(match error {
        httparse::Error::HeaderName => Rule::FieldName,
        httparse::Error::HeaderValue => Rule::FieldValue,
        httparse::Error::Status => Rule::Status,
        httparse::Error::TooManyHeaders => Rule::TooManyFields { limit },
        httparse::Error::Version => Rule::Version,
        httparse::Error::NewLine | httparse::Error::Token => Rule::Head,
    })
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
    use super::super::every_split::every_split;
    use super::*;

    /// Status, framing, reuse, and the bytes of all heads.
    type Outcome = Result<(u16, Framing, Reuse, usize), DecodeError>;

    /// Feeds `input` in the given pieces, and reads interim heads away. `None`: more is needed.
    fn feed(input: &[u8], cuts: &[usize], method: MethodKind, limits: &Limits) -> Option<Outcome> {
        let mut decoder = HeadDecoder::default();
        let mut skipped = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            // As in a connection: nothing is decoded while nothing is there.
            while skipped < end {
                match decoder.decode(&input[skipped..end], method, limits) {
                    Ok(HeadStep::NeedMore) => break,
                    Ok(HeadStep::Interim(head)) => skipped += head.len,
                    Ok(HeadStep::Final(head)) => {
                        let status = head.status.as_u16();
                        let used = skipped + head.len;
                        return Some(Ok((status, head.framing, head.reuse, used)));
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        None
    }

    fn limits(heads: HeadRules) -> Limits {
        Limits {
            heads,
            ..Limits::default()
        }
    }

    /// What cannot begin a response is shown as far as it came, which depends on the pieces; all else does not.
    fn comparable(outcome: Outcome) -> Outcome {
        outcome.map_err(|error| match error.rule {
            Rule::NotHttp | Rule::TlsRecord | Rule::Http2Frame | Rule::Version => error.rule.into(),
            _ => error,
        })
    }

    #[track_caller]
    fn read(input: &[u8], limits: &Limits) -> Option<Outcome> {
        every_split(input, |input, cuts| {
            feed(input, cuts, MethodKind::Other, limits).map(comparable)
        })
    }

    /// A head that is taken: its status, its framing, and whether the connection stays usable.
    #[track_caller]
    fn accept(rules: HeadRules, head: &str, expected: (u16, Framing, Reuse)) {
        let (status, framing, reuse) = expected;
        assert_eq!(
            read(head.as_bytes(), &limits(rules)),
            Some(Ok((status, framing, reuse, head.len()))),
            "{head:?}"
        );
    }

    #[track_caller]
    fn refused(rules: HeadRules, head: &str, expected: Rule) {
        let got = read(head.as_bytes(), &limits(rules));
        let rule = got.map(|outcome| outcome.map_err(|error| error.rule));
        assert_eq!(rule, Some(Err(expected)), "{head:?}");
    }

    const BOTH: [HeadRules; 2] = [HeadRules::Strict, HeadRules::Lenient];
    const UNTIL_CLOSE: (Framing, Reuse) = (Framing::UntilClose, Reuse::No(CloseReason::UntilClose));

    #[test]
    fn heads_that_are_accepted() {
        for rules in BOTH {
            let (framing, reuse) = UNTIL_CLOSE;
            accept(rules, "HTTP/1.1 200 OK\r\n\r\n", (200, framing, reuse));
            accept(rules, "HTTP/1.1 600\r\n\r\n", (600, framing, reuse));
            let http10 = Reuse::No(CloseReason::Http10);
            accept(rules, "HTTP/1.0 999 \u{e9}\r\n\r\n", (999, framing, http10));
            let usable = |head: &str, status, framing| {
                accept(rules, head, (status, framing, Reuse::Yes));
            };
            usable(
                "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n",
                200,
                Framing::Length(2),
            );
            usable("\r\nHTTP/1.1 204 \r\n\r\n", 204, Framing::None);
            usable(
                "HTTP/1.1 204 \u{e9}\r\nA:\r\nB:\t\u{e9} \r\n\r\n",
                204,
                Framing::None,
            );
            usable(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
                204,
                Framing::None,
            );
            usable(
                "HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nB:\r\n d\r\nContent-Length: 0\r\n\r\n",
                200,
                Framing::Length(0),
            );
        }
    }

    #[test]
    fn heads_that_are_refused() {
        for rules in BOTH {
            let refused = |head: &str, rule| refused(rules, head, rule);
            refused("\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Rule::LeadingEmptyLines);
            refused("\rHTTP/1.1 200 OK\r\n\r\n", Rule::NotHttp);
            refused(" HTTP/1.1 200 OK\r\n\r\n", Rule::NotHttp);
            refused("HTTP/1.2 200 OK\r\n\r\n", Rule::Version);
            refused("HTTP/1.01 200 OK\r\n\r\n", Rule::Version);
            refused("HTTP/1.1\t200 OK\r\n\r\n", Rule::Version);
            refused("HTTP/2.0 200 OK\r\n\r\n", Rule::Version);
            refused("HTTP/0.9 200 OK\r\n\r\n", Rule::Version);
            refused("http/1.1 200 OK\r\n\r\n", Rule::NotHttp);
            refused("<html>", Rule::NotHttp);
            refused("ICY 200 OK\r\n\r\n", Rule::NotHttp);
            refused("HTTP/1.1 099 X\r\n\r\n", Rule::Status);
            refused("HTTP/1.1 20 X\r\n\r\n", Rule::Status);
            refused("HTTP/1.1 2000 X\r\n\r\n", Rule::Status);
            refused("HTTP/1.1 2x0 X\r\n\r\n", Rule::Status);
            refused("HTTP/1.1  200 X\r\n\r\n", Rule::Status);
            refused("HTTP/1.1 200 X\0\r\n\r\n", Rule::Reason);
            refused("HTTP/1.1 200 X\rY: z\r\n\r\n", Rule::Reason);
            refused(
                "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
                Rule::BlankBeforeFirstField,
            );
            refused("HTTP/1.1 200 OK\r\n: b\r\n\r\n", Rule::FieldName);
            refused("HTTP/1.1 200 OK\r\nA(b): c\r\n\r\n", Rule::FieldName);
            refused("HTTP/1.1 200 OK\r\nA\u{e9}: c\r\n\r\n", Rule::FieldName);
            refused("HTTP/1.1 200 OK\r\nA\r\n\r\n", Rule::NoColon);
            refused("HTTP/1.1 200 OK\r\n\rA: b\r\n\r\n", Rule::FieldName);
            for control in ["\0", "\x01", "\x0b", "\x1f", "\x7f", "\rc", "\r"] {
                refused(
                    &format!("HTTP/1.1 200 OK\r\nA: b{control}\r\n\r\n"),
                    Rule::FieldValue,
                );
            }
            refused("HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", Rule::UnaskedUpgrade);
            for fold in [
                "Content-Length: 1\r\n 2",
                "content-length: 5\r\n   ",
                "Transfer-Encoding:\r\n chunked",
                "A: b\r\nconnection: a\r\n\tb",
            ] {
                let head = format!("HTTP/1.1 200 OK\r\n{fold}\r\n\r\n");
                refused(&head, Rule::FoldedFramingField);
            }
            for name in ["Content-Length ", "transfer-encoding\t", "Connection \t"] {
                let head = format!("HTTP/1.1 200 OK\r\n{name}: 5\r\n\r\n");
                refused(&head, Rule::BlankBeforeColon);
            }
            // The first bad line decides, and comes before what only the whole head shows.
            refused(
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\nA\r\nB: \0\r\n\r\n",
                Rule::NoColon,
            );
            refused(
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                Rule::ContentLength,
            );
            refused(
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Rule::TransferEncodingInHttp10,
            );
        }
    }

    /// Each of the three things that lenient rules take, and nothing else, ends the connection with the response.
    #[test]
    fn what_only_lenient_rules_take() {
        let odd = Reuse::No(CloseReason::LenientHead);
        let five = Framing::Length(5);
        for (head, expected, rule) in [
            (
                "HTTP/1.1 200 OK\nContent-Length: 5\n\n",
                five,
                Rule::BareLineFeed,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n",
                five,
                Rule::BareLineFeed,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\n",
                five,
                Rule::BareLineFeed,
            ),
            (
                "HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 5\r\n\r\n",
                five,
                Rule::BareLineFeed,
            ),
            ("\nHTTP/1.1 204 No\r\n\r\n", Framing::None, Rule::NotHttp),
            ("HTTP/1.1 204 No\n\n", Framing::None, Rule::BareLineFeed),
            (
                "HTTP/1.1 103 E\n\nHTTP/1.1 204 No\r\n\r\n",
                Framing::None,
                Rule::BareLineFeed,
            ),
            (
                "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 5\r\n\r\n",
                five,
                Rule::BlankBeforeColon,
            ),
            (
                "HTTP/1.1 200 OK\r\nA\t : b\r\n c\r\nContent-Length: 5\r\n\r\n",
                five,
                Rule::BlankBeforeColon,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\nContent-Length: 5\r\n\r\n",
                five,
                Rule::TransferEncoding,
            ),
        ] {
            let status = if expected == Framing::None { 204 } else { 200 };
            accept(HeadRules::Lenient, head, (status, expected, odd));
            refused(HeadRules::Strict, head, rule);
        }
        for (head, rule) in [
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n",
                Rule::TransferEncoding,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length: +5\n\n",
                Rule::ContentLength,
            ),
            ("HTTP/1.2 200 OK\n\n", Rule::Version),
            ("HTTP/1.1 200 OK\nA: b\0\n\n", Rule::FieldValue),
            ("HTTP/1.1 200 OK\nA: b\rC: d\n\n", Rule::FieldValue),
            (
                "HTTP/1.1 200 OK\nContent-Length: 5\n 6\n\n",
                Rule::FoldedFramingField,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length : 5\n\n",
                Rule::BlankBeforeColon,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length : 5\n 6\n\n",
                Rule::BlankBeforeColon,
            ),
            ("\n\nHTTP/1.1 200 OK\n\n", Rule::LeadingEmptyLines),
            ("\r\n\nHTTP/1.1 200 OK\n\n", Rule::LeadingEmptyLines),
        ] {
            refused(HeadRules::Lenient, head, rule);
        }
        // The first empty line ends the head, whatever ends later ones.
        let head = "HTTP/1.1 200 OK\nContent-Length: 5\n\nab\r\n\r\n";
        let read = feed(
            head.as_bytes(),
            &[],
            MethodKind::Other,
            &limits(HeadRules::Lenient),
        );
        assert_eq!(read, Some(Ok((200, five, odd, head.len() - 6))));
    }

    #[test]
    fn what_is_not_http_is_named_at_once() {
        let refuse = |input: &[u8]| {
            let read = feed(input, &[], MethodKind::Other, &Limits::default());
            read.map(|outcome| outcome.unwrap_err().to_string())
        };
        let says = |input: &[u8], text: &str| {
            let message = refuse(input).unwrap();
            assert!(message.contains(text), "{message}");
        };
        says(b"\x15\x03\x01\x00\x02", "TLS on this port; use https://");
        says(b"\x16\x03", "TLS on this port");
        says(b"\0\0\x12\x04\0\0\0\0\0", "HTTP/2 frame");
        says(b"\0\0\x08\x07", "HTTP/2 frame");
        says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 frame");
        says(
            b"SSH-2.0-x\r\n",
            "its reply begins with: \"SSH-2.0-x\\r\\n\"",
        );
        says(b"\x15\x04", "does not speak HTTP/1");
        says(b"\0\0\0\0", "does not speak HTTP/1");
        says(b"PRX", "does not speak HTTP/1");
        says(b"HTTP/3", "neither HTTP/1.0 nor HTTP/1.1");
        for more in [
            &b"H"[..],
            b"HTTP/1.",
            b"\r",
            b"\r\n",
            b"\x15",
            b"\0\0\x12",
            b"PRI",
            b"",
        ] {
            assert_eq!(refuse(more), None, "{}", more.escape_ascii());
        }
    }

    #[test]
    fn a_refusal_shows_the_bytes_and_no_value() {
        let says = |head: &str, text: &str| {
            let read = feed(head.as_bytes(), &[], MethodKind::Other, &Limits::default());
            let error = read.unwrap().unwrap_err().to_string();
            assert!(error.ends_with(text), "{error}");
            assert!(!error.contains("secret"), "{error}");
        };
        says("HTTP/1.1 2000 OK\r\n\r\n", ": \"HTTP/1.1 2000 OK\"");
        says(
            "HTTP/1.1 200 OK\r\nSet-Cookie : secret\r\n\r\n",
            ": \"Set-Cookie :\" ..",
        );
        says(
            "HTTP/1.1 200 OK\r\nSet-Cookie: secret\n\r\n\r\n",
            ": \"Set-Cookie:\" ..",
        );
        says(
            "HTTP/1.1 200 OK\r\nSet-Cookie: secret\x01\r\n\r\n",
            ": \"Set-Cookie: .. \\x01\"",
        );
        says(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nContent-Length: 6\r\n\r\n",
            ": \"6\"",
        );
        says(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            ": \"gzip, chunked\"",
        );
    }

    #[test]
    fn limits_are_exact() {
        for line_end in ["\r\n", "\n"] {
            let head = format!("HTTP/1.1 200 OK{line_end}A: b{line_end}C: d{line_end}{line_end}");
            let rules = limits(if line_end == "\n" {
                HeadRules::Lenient
            } else {
                HeadRules::Strict
            });
            let verdict = |limits: &Limits| {
                let read = read(head.as_bytes(), limits).unwrap();
                read.map(|(.., used)| used).map_err(|error| error.rule)
            };
            let limit = head.len();
            assert_eq!(verdict(&rules.clone().with_max_head(limit)), Ok(limit));
            let limit = head.len() - 1;
            assert_eq!(
                verdict(&rules.clone().with_max_head(limit)),
                Err(Rule::HeadTooLarge { limit })
            );
            assert_eq!(
                verdict(&rules.clone().with_max_head_fields(2)),
                Ok(head.len())
            );
            assert_eq!(
                verdict(&rules.with_max_head_fields(1)),
                Err(Rule::TooManyFields { limit: 1 })
            );
        }
    }

    #[test]
    fn many_fields_are_counted_with_and_without_folds() {
        for (fields, fold) in [
            (64, ""),
            (65, ""),
            (256, ""),
            (64, "\r\n x"),
            (256, "\r\n x"),
        ] {
            let lines: String = (0..fields).map(|n| format!("x{n}: y{fold}\r\n")).collect();
            let head = format!("HTTP/1.1 204 N\r\n{lines}\r\n");
            let one = |limit| {
                let limits = Limits::default().with_max_head_fields(limit);
                let single: Vec<_> = (0..head.len()).collect();
                let whole = feed(head.as_bytes(), &[], MethodKind::Other, &limits);
                assert_eq!(
                    feed(head.as_bytes(), &single, MethodKind::Other, &limits),
                    whole
                );
                whole
                    .unwrap()
                    .map(|(status, ..)| status)
                    .map_err(|error| error.rule)
            };
            assert_eq!(one(fields), Ok(204));
            assert_eq!(
                one(fields - 1),
                Err(Rule::TooManyFields { limit: fields - 1 })
            );
        }
    }

    #[test]
    fn interim_heads_share_the_limits() {
        let interim = "HTTP/1.1 103 Early\r\n\r\n";
        let reply = |count: usize| format!("{}HTTP/1.1 204 No\r\n\r\n", interim.repeat(count));
        let verdict = |count, limits: &Limits| {
            let read = feed(reply(count).as_bytes(), &[], MethodKind::Other, limits).unwrap();
            read.map(|(status, ..)| status).map_err(|error| error.rule)
        };
        let default = Limits::default();
        assert_eq!(verdict(32, &default), Ok(204));
        assert_eq!(
            verdict(33, &default),
            Err(Rule::TooManyInformational { limit: 32 })
        );
        assert_eq!(
            verdict(10_000, &default),
            Err(Rule::TooManyInformational { limit: 32 })
        );
        let limit = reply(3).len();
        assert_eq!(verdict(3, &default.clone().with_max_head(limit)), Ok(204));
        let limit = limit - 1;
        assert_eq!(
            verdict(3, &default.with_max_head(limit)),
            Err(Rule::HeadTooLarge { limit })
        );
        let over = read(reply(3).as_bytes(), &Limits::default().with_max_head(limit));
        assert!(over.unwrap().is_err());
    }

    /// The cost of a head may not depend on its pieces (spec http1 d, invariant 4): bytes are counted, not time.
    #[test]
    fn a_head_that_dribbles_in_is_read_once() {
        let work = |fields: usize, rules| {
            let head = format!(
                "HTTP/1.1 204 N\r\n{}\r\n",
                "a-name: a value of some length\r\n".repeat(fields)
            );
            let mut decoder = HeadDecoder::default();
            for end in 1..=head.len() {
                let decoded =
                    decoder.decode(&head.as_bytes()[..end], MethodKind::Other, &limits(rules));
                assert_eq!(matches!(decoded, Ok(HeadStep::Final(_))), end == head.len());
            }
            (decoder.looked_at, head.len())
        };
        for rules in BOTH {
            for fields in [4, 64, 250] {
                let (looked_at, len) = work(fields, rules);
                // Each byte once with up to three before it for the end, once for the lines, and once by httparse.
                assert!(looked_at <= 6 * len, "{looked_at} of {len}");
            }
        }
        // One endless line: none of it is judged again either.
        let mut decoder = HeadDecoder::default();
        let line = [&b"HTTP/1.1 200 OK\r\nA: "[..], &[b'x'; 50_000]].concat();
        for end in 1..=line.len() {
            let step = decoder.decode(&line[..end], MethodKind::Other, &Limits::default());
            assert!(matches!(step, Ok(HeadStep::NeedMore)));
        }
        assert!(decoder.looked_at <= 5 * line.len(), "{}", decoder.looked_at);
    }

    #[test]
    fn a_name_too_long_for_the_map_is_refused() {
        let head = format!("HTTP/1.1 204 N\r\n{}: b\r\n\r\n", "a".repeat(MAX_NAME + 1));
        for cut in [0, 100, head.len() - 1] {
            let read = feed(
                head.as_bytes(),
                &[cut],
                MethodKind::Other,
                &Limits::default(),
            );
            assert_eq!(read.unwrap().unwrap_err().rule, Rule::FieldName);
        }
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

    /// Invariants 1, 2, 6 and 8 of spec http1 d: mutated heads are read the same whole and byte by byte, without a panic.
    #[test]
    fn mutated_heads_are_read_the_same_however_they_arrive() {
        let seeds: [&[u8]; 6] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
            b"\r\nHTTP/1.0 404 \r\nTransfer-Encoding: chunked\r\nA: b\r\n\tc\r\n\r\n",
            b"HTTP/1.1 103 E\r\nLink: a\r\n\r\nHTTP/1.1 204 N\r\nKeep-Alive: timeout=5\r\n\r\n",
            b"HTTP/1.1 200\r\ncontent-length: 5, 5\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\nA : b\nTransfer-Encoding: identity\n\nrest",
            b"\0\0\x12\x04\x15\x03PRI * HTTP/2.0\r\n\r\n",
        ];
        let bytes = b"\r\n\t :,;0159aHT/\0\x7f\x80\xff";
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        for round in 0..40_000 {
            let mut input = seeds[round % seeds.len()].to_vec();
            for _ in 0..=next(3) {
                let at = next(input.len());
                match next(3) {
                    0 => input[at] = bytes[next(bytes.len())],
                    1 => input.insert(at, bytes[next(bytes.len())]),
                    _ => drop(input.remove(at)),
                }
            }
            let limits = limits(BOTH[round % 2])
                .with_max_head(70)
                .with_max_head_fields(2);
            let method = [MethodKind::Other, MethodKind::Head][round / 2 % 2];
            let whole = feed(&input, &[], method, &limits);
            let single: Vec<_> = (0..input.len()).collect();
            let by_byte = feed(&input, &single, method, &limits);
            assert_eq!(
                whole.map(comparable),
                by_byte.map(comparable),
                "{}",
                input.escape_ascii()
            );
        }
    }
}
