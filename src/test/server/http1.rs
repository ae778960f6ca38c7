//! The test doubles' side of HTTP/1.1: one request after the other.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::{Act, Answerer, Place, received, unless};
use crate::codec::{ChunkedDecoder, ChunkedStep};
use crate::config::Limits;
use crate::test::pipe::{Control, End};
use crate::test::received::Received;
use crate::test::reply::{Content, Fault, Reply, Stop};

/// Serves a connection until one side ends it. What is wrong with a request fails the connection with words of its own.
pub(super) async fn serve(
    mut io: End,
    control: &Control,
    place: &Place,
    answerer: &dyn Answerer,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    for served in 0_u64.. {
        let begun = unless(
            fill(&mut io, &mut buffer, 1),
            answerer.dismissal(&place.origin),
        );
        if begun.await.is_none_or(|filled| filled.is_err()) {
            return Ok(());
        }
        let mut request = match read_request(&mut io, &mut buffer, place).await {
            Ok(request) => request,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => {
                control.fail(io::ErrorKind::PermissionDenied, &error.to_string());
                return Err(error);
            }
        };
        request.reused = served > 0;
        let is_head = request.method == Method::HEAD;
        let asks_to_close = has_close(&request.headers);
        let (act, delay) = answerer.answer(place, request).await;
        if delay > Duration::ZERO {
            sleep(delay).await;
        }
        let reply = match act {
            Act::Reply(reply) => reply,
            Act::Fault(fault) => match fault.broken_reply() {
                Some(reply) => reply,
                None => return strike(io, control, fault).await,
            },
            Act::Deny(why) => {
                // What has begun to arrive is not the end of a stale connection, which would make the client try again.
                io.write_all(b"HTTP/1.1 ").await?;
                control.fail(io::ErrorKind::PermissionDenied, &why);
                return Ok(());
            }
        };
        let goes_on = write_reply(&mut io, control, &reply, is_head).await?;
        if !goes_on || asks_to_close || has_close(&reply.headers) {
            return Ok(());
        }
    }
    Ok(())
}

/// A fault in place of a reply.
async fn strike(mut io: End, control: &Control, fault: Fault) -> io::Result<()> {
    match fault {
        Fault::Stall => control.closed().await,
        Fault::ResetBeforeHead => control.reset(),
        Fault::TruncatedHead => io.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await?,
        Fault::RefusedStream | Fault::GoAway => {
            io.write_all(b"HTTP/1.1 ").await?;
            control.fail(
                io::ErrorKind::Unsupported,
                "the mock was told to refuse a stream, and HTTP/1.1 has none: let it speak HTTP/2",
            );
        }
        _ => control.close(),
    }
    Ok(())
}

/// Writes a reply; answers whether the connection goes on.
async fn write_reply(
    io: &mut End,
    control: &Control,
    reply: &Reply,
    is_head: bool,
) -> io::Result<bool> {
    let has_body = !is_head
        && !matches!(
            reply.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let is_chunked = matches!(reply.content, Content::Pieces(..));
    io.write_all(&head_of(reply, has_body || is_head)).await?;
    if has_body {
        let (pieces, every) = reply.parts();
        for piece in pieces {
            if every > Duration::ZERO {
                sleep(every).await;
            }
            write_piece(io, &piece, is_chunked).await?;
        }
    }
    match reply.cut.filter(|_| has_body).map(|cut| cut.how) {
        Some(Stop::Reset) => control.reset(),
        Some(Stop::Close) => control.close(),
        Some(Stop::Stall) => control.closed().await,
        None if has_body && is_chunked => {
            io.write_all(b"0\r\n\r\n").await?;
            return Ok(true);
        }
        None => return Ok(true),
    }
    Ok(false)
}

async fn write_piece(io: &mut End, piece: &Bytes, is_chunked: bool) -> io::Result<()> {
    if !is_chunked {
        return io.write_all(piece).await;
    }
    io.write_all(format!("{:x}\r\n", piece.len()).as_bytes())
        .await?;
    io.write_all(piece).await?;
    io.write_all(b"\r\n").await
}

fn head_of(reply: &Reply, tells_length: bool) -> Vec<u8> {
    let reason = reply.status.canonical_reason().unwrap_or("Status");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", reply.status.as_u16()).into_bytes();
    for (name, value) in &reply.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let told = [CONTENT_LENGTH, TRANSFER_ENCODING]
        .iter()
        .any(|name| reply.headers.contains_key(name));
    if tells_length && !told {
        let mut line = String::new();
        let _ = match reply.length() {
            Some(length) => write!(line, "content-length: {length}\r\n"),
            None => write!(line, "transfer-encoding: chunked\r\n"),
        };
        head.extend_from_slice(line.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Reads a whole request.
pub(in crate::test) async fn read_request(
    io: &mut End,
    buffer: &mut BytesMut,
    place: &Place,
) -> io::Result<Received> {
    let mut request = read_head(io, buffer, place).await?;
    let expects = request.headers.contains_key(EXPECT);
    if request.headers.contains_key(TRANSFER_ENCODING) {
        go_ahead(io, buffer, expects).await?;
        request.body = read_chunks(io, buffer).await?;
    } else if let Some(length) = request.headers.get(CONTENT_LENGTH) {
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(|| broken("a length that is no number"))?;
        if length > 0 {
            go_ahead(io, buffer, expects).await?;
        }
        fill(io, buffer, length).await?;
        request.body = buffer.split_to(length).freeze();
    }
    Ok(request)
}

/// Reads a request up to its empty line.
pub(in crate::test) async fn read_head(
    io: &mut End,
    buffer: &mut BytesMut,
    place: &Place,
) -> io::Result<Received> {
    let length = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        fill(io, buffer, buffer.len() + 1).await?;
    };
    let head = buffer.split_to(length);
    let mut fields =
        vec![httparse::EMPTY_HEADER; head.iter().filter(|byte| **byte == b'\n').count()];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed
        .parse(&head)
        .map_err(|error| broken(&error.to_string()))?;
    let mut headers = HeaderMap::new();
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let method = parsed.method.unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| broken("no method"))?;
    let target = parsed.path.unwrap_or_default();
    received(place, method, target, Version::HTTP_11, headers)
        .ok_or_else(|| broken("a target that makes no URL"))
}

async fn go_ahead(io: &mut End, buffer: &BytesMut, expects: bool) -> io::Result<()> {
    if expects && buffer.is_empty() {
        io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    Ok(())
}

async fn read_chunks(io: &mut End, buffer: &mut BytesMut) -> io::Result<Bytes> {
    let mut decoder = ChunkedDecoder::new(&Limits::default());
    let mut body = BytesMut::new();
    loop {
        match decoder
            .step(buffer)
            .map_err(|error| broken(&error.to_string()))?
        {
            ChunkedStep::Data { skip, len } => {
                buffer.advance(skip);
                body.extend_from_slice(&buffer.split_to(len));
            }
            ChunkedStep::NeedMore { skip } => {
                buffer.advance(skip);
                fill(io, buffer, buffer.len() + 1).await?;
            }
            ChunkedStep::End { skip, .. } => {
                buffer.advance(skip);
                return Ok(body.freeze());
            }
        }
    }
}

/// Reads until the buffer has so many bytes. Dropping it loses none.
pub(in crate::test) async fn fill(
    io: &mut End,
    buffer: &mut BytesMut,
    wanted: usize,
) -> io::Result<()> {
    while buffer.len() < wanted {
        if io.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn has_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values.into_iter().any(|value| {
        let tokens = value.to_str().unwrap_or_default().split(',');
        tokens
            .into_iter()
            .any(|token| token.trim().eq_ignore_ascii_case("close"))
    })
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the test double cannot read the request: {what}"),
    )
}
