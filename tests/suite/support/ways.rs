//! One body over every way in which a body comes: each framing of HTTP/1.1, and HTTP/2 with and without a length and trailers.

use sockeye::Client;

use super::framing::{self, FRAMINGS, Framing};
#[cfg(feature = "http2")]
use super::http2::frames::{DATA, END_STREAM};
#[cfg(feature = "http2")]
use super::http2::{Frames, Honest, Report, Session};
use super::peer::{World, let_others_run};

/// How a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Http1(Framing),
    #[cfg(feature = "http2")]
    Http2 {
        length: bool,
        trailers: bool,
    },
}

/// Every way that this build has.
pub(crate) fn ways() -> Vec<Way> {
    let ways = FRAMINGS.into_iter().map(Way::Http1);
    #[cfg(feature = "http2")]
    let ways = {
        let http2 = [(true, false), (false, false), (true, true), (false, true)];
        ways.chain(http2.map(|(length, trailers)| Way::Http2 { length, trailers }))
    };
    ways.collect()
}

impl Way {
    /// A client that is answered this way.
    pub(crate) fn client(self, world: &World) -> Client {
        let builder = world.builder();
        let builder = match self {
            Self::Http1(_) => builder,
            #[cfg(feature = "http2")]
            Self::Http2 { .. } => builder.http_versions(sockeye::HttpVersions::Http2PriorKnowledge),
        };
        builder.build().unwrap()
    }

    /// Whether `x-sum: 7` comes behind the body.
    pub(crate) fn has_trailers(self) -> bool {
        match self {
            Self::Http1(framing) => framing == Framing::Chunked,
            #[cfg(feature = "http2")]
            Self::Http2 { trailers, .. } => trailers,
        }
    }

    /// Whether the head says how long the body is.
    #[cfg(feature = "http2")]
    fn has_length(self) -> bool {
        match self {
            Self::Http1(framing) => framing == Framing::Length,
            #[cfg(feature = "http2")]
            Self::Http2 { length, .. } => length,
        }
    }

    /// Whether it can be seen that the end of the connection is not that of the body.
    pub(crate) fn shows_its_end(self) -> bool {
        self != Self::Http1(Framing::UntilClose)
    }

    /// Answers the next request with these fields and this body, in pieces of so many bytes that are read one by one.
    pub(crate) async fn answer(
        self,
        world: &World,
        fields: &[(&str, &str)],
        body: &[u8],
        piece: usize,
    ) {
        match self {
            Self::Http1(framing) => {
                let fields = lines(fields);
                framing::answer(world, &fields, body, framing, piece.max(1)).await;
            }
            #[cfg(feature = "http2")]
            Self::Http2 { trailers, .. } => {
                let (session, stream) = self.begin_http2(world, fields, body.len()).await;
                let mut pieces = body.chunks(piece.clamp(1, 16_384)).peekable();
                while let Some(piece) = pieces.next() {
                    let ends = pieces.peek().is_none() && !trailers;
                    let flags = if ends { END_STREAM } else { 0 };
                    session.send(Frames::new().frame(DATA, flags, stream, piece));
                    let_others_run().await;
                }
                if trailers {
                    session.send(Frames::new().head(stream, END_STREAM, &[("x-sum", "7")]));
                } else if body.is_empty() {
                    session.send(Frames::new().end(stream, ""));
                }
                tokio::spawn(Honest::default().go_on(session, Report::default()));
            }
        }
    }

    /// Answers the next request with the beginning of a body that is longer by a byte, and cuts the connection.
    pub(crate) async fn cut(self, world: &World, fields: &[(&str, &str)], body: &[u8]) {
        match self {
            Self::Http1(framing) => {
                let told = match framing {
                    Framing::Length => format!("content-length: {}\r\n\r\n", body.len() + 1),
                    Framing::Chunked => {
                        format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len() + 1)
                    }
                    Framing::UntilClose => panic!("nobody sees a cut there"),
                };
                let mut connection = world.accept().await;
                connection.read_request().await;
                let head = format!("HTTP/1.1 200 OK\r\n{}{told}", lines(fields));
                connection.try_write(head.as_bytes()).await;
                connection.try_write(body).await;
                let_others_run().await;
            }
            #[cfg(feature = "http2")]
            Self::Http2 { .. } => {
                let (session, stream) = self.begin_http2(world, fields, body.len() + 1).await;
                for piece in body.chunks(10_000) {
                    session.send(Frames::new().data(stream, piece));
                }
                let_others_run().await;
                session.shutdown_and_drain().await;
            }
        }
    }

    /// Whatever came before, the next request works.
    pub(crate) async fn next_works(self, world: &World, client: &Client) {
        match self {
            Self::Http1(_) => framing::next_works(world, client).await,
            #[cfg(feature = "http2")]
            Self::Http2 { .. } => {
                let _ = Honest::default().serve(world);
                let next = client.get("http://peer.test/next").send().await.unwrap();
                assert_eq!(next.text().await.unwrap(), "/next");
                super::peer::settle(client, world).await;
            }
        }
    }

    #[cfg(feature = "http2")]
    async fn begin_http2(
        self,
        world: &World,
        fields: &[(&str, &str)],
        len: usize,
    ) -> (Session, u32) {
        let mut session = Session::begin(world).await;
        let head = session.head().await;
        if !head.end {
            session.content(head.stream).await;
        }
        let len = len.to_string();
        let mut all = vec![(":status", "200")];
        all.extend_from_slice(fields);
        if self.has_length() {
            all.push(("content-length", &len));
        }
        session.send(Frames::new().head(head.stream, 0, &all));
        (session, head.stream)
    }
}

/// Fields as HTTP/1.1 writes them.
fn lines(fields: &[(&str, &str)]) -> String {
    let lines = fields.iter();
    lines
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect()
}
