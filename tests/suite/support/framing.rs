//! One body over every framing of HTTP/1.1, in pieces of any size.

use sockeye::Client;

use super::peer::{Request, World, let_others_run, ok, settle};

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    UntilClose,
}

pub(crate) const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::UntilClose];

/// Answers the next request with this body, in pieces of so many bytes, and returns the request.
pub(crate) async fn answer(
    world: &World,
    fields: &str,
    body: &[u8],
    framing: Framing,
    piece: usize,
) -> Request {
    let mut connection = world.accept().await;
    let request = connection.read_request().await;
    let told = match framing {
        Framing::Length => format!("content-length: {}\r\n", body.len()),
        Framing::Chunked => "transfer-encoding: chunked\r\ntrailer: x-sum\r\n".to_owned(),
        Framing::UntilClose => String::new(),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{fields}{told}\r\n");
    // A client that does not like what it reads may close.
    let mut there = connection.try_write(head.as_bytes()).await;
    for piece in body.chunks(piece) {
        let bytes = match framing {
            Framing::Chunked => {
                [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
            }
            _ => piece.to_vec(),
        };
        there = there && connection.try_write(&bytes).await;
        let_others_run().await;
    }
    if framing == Framing::Chunked {
        connection.try_write(b"0\r\nx-sum: 7\r\n\r\n").await;
    }
    if framing != Framing::UntilClose {
        // The connection stays, and serves whatever comes next.
        tokio::spawn(async move {
            while connection.next_request().await.is_some() {
                if !connection.try_write(ok("next").as_bytes()).await {
                    break;
                }
            }
        });
    }
    request
}

/// Whatever came before, the next request works.
pub(crate) async fn next_works(world: &World, client: &Client) {
    world.serve(|_| ok("next"));
    let next = client.get("http://peer.test/next").send().await.unwrap();
    assert_eq!(next.text().await.unwrap(), "next");
    settle(client, world).await;
}
