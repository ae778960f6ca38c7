//! Sending on a stream of h2: what the server and the bare contender both do.

use bytes::Bytes;
use h2::SendStream;

use crate::scenario::Failure;

/// Sends a piece as the peer's windows allow.
pub(crate) async fn send_piece(
    stream: &mut SendStream<Bytes>,
    mut piece: Bytes,
    is_last: bool,
) -> Result<(), Failure> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let now = piece.split_to(room.ok_or("the stream has ended")??.min(piece.len()));
        stream.send_data(now, is_last && piece.is_empty())?;
    }
    Ok(())
}
