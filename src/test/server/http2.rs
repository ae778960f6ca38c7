//! The test doubles' side of HTTP/2, by the h2 crate: a task for each stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::time::sleep;

use super::{Act, Answerer, Place, received, unless};
use crate::test::pipe::{Control, End};
use crate::test::reply::{Fault, Reply, Stop};

/// Serves a session until one side ends it.
pub(super) async fn serve(
    io: End,
    control: &Control,
    place: Place,
    answerer: Arc<dyn Answerer>,
) -> io::Result<()> {
    let mut session = h2::server::handshake(io).await.map_err(io::Error::other)?;
    let mut streams = 0_u64;
    loop {
        let next = unless(session.accept(), answerer.dismissal(&place.origin)).await;
        let Some(next) = next else {
            session.graceful_shutdown();
            while let Some(Ok(_)) = session.accept().await {}
            return Ok(());
        };
        let Some(Ok((request, respond))) = next else {
            return Ok(());
        };
        let stream = Stream {
            respond,
            control: control.clone(),
            place: place.clone(),
            answerer: Arc::clone(&answerer),
            is_first: streams == 0,
        };
        streams += 1;
        tokio::spawn(stream.run(request));
    }
}

struct Stream {
    respond: SendResponse<Bytes>,
    control: Control,
    place: Place,
    answerer: Arc<dyn Answerer>,
    is_first: bool,
}

impl Stream {
    async fn run(mut self, request: Request<RecvStream>) -> Result<(), h2::Error> {
        let (head, body) = request.into_parts();
        let target = head.uri.to_string();
        let is_head = head.method == Method::HEAD;
        let id = body.stream_id().into();
        let Some(mut request) = received(
            &self.place,
            head.method,
            &target,
            Version::HTTP_2,
            head.headers,
        ) else {
            self.respond.send_reset(Reason::PROTOCOL_ERROR);
            return Ok(());
        };
        request.body = collect(body).await?;
        request.reused = !self.is_first;
        let (act, delay) = self.answerer.answer(&self.place, request).await;
        if delay > Duration::ZERO {
            sleep(delay).await;
        }
        match act {
            Act::Reply(reply) => self.reply(&reply, is_head).await,
            Act::Fault(fault) => match fault.broken_reply() {
                Some(reply) => self.reply(&reply, is_head).await,
                None => self.strike(fault, id).await,
            },
            Act::Deny(why) => {
                self.control.fail(io::ErrorKind::PermissionDenied, &why);
                Ok(())
            }
        }
    }

    async fn strike(mut self, fault: Fault, id: u32) -> Result<(), h2::Error> {
        match fault {
            Fault::Stall => {
                std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await?;
            }
            Fault::ResetBeforeHead => self.control.reset(),
            Fault::RefusedStream => self.respond.send_reset(Reason::REFUSED_STREAM),
            Fault::GoAway => {
                self.control.inject(&go_away(id.saturating_sub(2)));
                self.control.closed().await;
            }
            _ => self.control.close(),
        }
        Ok(())
    }

    async fn reply(mut self, reply: &Reply, is_head: bool) -> Result<(), h2::Error> {
        let mut head = Response::builder().status(reply.status);
        if let Some(headers) = head.headers_mut() {
            *headers = reply.headers.clone();
            if let Some(length) = reply.length().filter(|_| has_length(reply)) {
                headers.insert(http::header::CONTENT_LENGTH, length.into());
            }
        }
        let Ok(head) = head.body(()) else {
            return Ok(());
        };
        let (pieces, every) = reply.parts();
        let is_whole = is_head || (pieces.is_empty() && reply.cut.is_none());
        let before = self.control.received();
        let mut stream = self.respond.send_response(head, is_whole)?;
        if is_whole {
            return Ok(());
        }
        let mut bytes = 0;
        for piece in pieces {
            if every > Duration::ZERO {
                sleep(every).await;
            }
            bytes += piece.len() as u64 + FRAME_HEAD;
            stream.send_data(piece, false)?;
        }
        let Some(cut) = reply.cut else {
            return stream.send_data(Bytes::new(), true);
        };
        // What was handed to h2 is to be on its way before the connection ends.
        self.control
            .has_written(before + FRAME_HEAD + 1 + bytes)
            .await;
        self.stop(stream, cut.how).await
    }

    async fn stop(self, mut stream: SendStream<Bytes>, how: Stop) -> Result<(), h2::Error> {
        match how {
            Stop::Reset => self.control.reset(),
            Stop::Close => self.control.close(),
            Stop::Stall => {
                std::future::poll_fn(|cx| stream.poll_reset(cx)).await?;
            }
        }
        Ok(())
    }
}

async fn collect(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut content = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        content.extend_from_slice(&piece);
    }
    Ok(content.freeze())
}

fn has_length(reply: &Reply) -> bool {
    let has_none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&reply.status);
    !has_none && !reply.headers.contains_key(http::header::CONTENT_LENGTH)
}

/// A GOAWAY frame with REFUSED_STREAM's meaning for every stream above `last` (RFC 9113 section 6.8), with NO_ERROR.
fn go_away(last: u32) -> [u8; 17] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (place, byte) in frame.iter_mut().skip(9).zip(last.to_be_bytes()) {
        *place = byte;
    }
    frame
}

/// Bytes of the head of a frame.
const FRAME_HEAD: u64 = 9;
