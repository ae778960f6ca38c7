//! Responses whose connection ends after every one of their bytes: what the caller gets, and what the pool makes of it.
//!
//! Rules: spec http1 a1 (the end of the connection in a head), a2 (in a body), a5 and rulings 5 and 20. An end is orderly (end of
//! the stream; over TLS with close_notify) or abrupt (a reset; over TLS the end of the stream without close_notify). After
//! each cut the next call works on a new connection, nothing is left in the pool, and no time has passed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sockeye::{Client, Error, ErrorKind, Phase, RequestBuilder, Sent};
use tokio::time::Instant;

use crate::support::faults::Faults;
use crate::support::peer::{PeerConnection, World, ok, reply, settle, until};

/// A response in pieces of which it is known what they are.
struct Whole {
    framing: Framing,
    pieces: &'static [Piece],
    /// The value of the trailer field `sum`.
    trailer: Option<&'static str>,
}

/// What marks the end of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// A run of bytes of a response.
#[derive(Clone, Copy)]
enum Piece {
    /// A whole 1xx response.
    Interim(&'static str),
    /// The head of the final response.
    Head(&'static str),
    /// Content.
    Data(&'static str),
    /// Chunk sizes, line ends and trailers.
    Frame(&'static str),
}

const LENGTH: Whole = Whole {
    framing: Framing::Length,
    pieces: &[
        Piece::Head("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n"),
        Piece::Data("hello world"),
    ],
    trailer: None,
};

const CHUNKED: Whole = Whole {
    framing: Framing::Chunked,
    pieces: &[
        Piece::Head("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        Piece::Frame("5;name=value\r\n"),
        Piece::Data("hello"),
        Piece::Frame("\r\n006 ;q=\"a b\"\r\n"),
        Piece::Data(" world"),
        Piece::Frame("\r\n0\r\nsum: 11\r\n\r\n"),
    ],
    trailer: Some("11"),
};

const INTERIMS: Whole = Whole {
    framing: Framing::Length,
    pieces: &[
        Piece::Interim("HTTP/1.1 102 Processing\r\n\r\n"),
        Piece::Interim("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        Piece::Head("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
        Piece::Data("ok"),
    ],
    trailer: None,
};

const UNTIL_CLOSE: Whole = Whole {
    framing: Framing::UntilClose,
    pieces: &[
        Piece::Head("HTTP/1.1 200 OK\r\nserver: x\r\n\r\n"),
        Piece::Data("as much as comes"),
    ],
    trailer: None,
};

const ALL: [Whole; 4] = [LENGTH, CHUNKED, INTERIMS, UNTIL_CLOSE];

impl Piece {
    fn text(self) -> &'static str {
        match self {
            Self::Interim(text) | Self::Head(text) | Self::Data(text) | Self::Frame(text) => text,
        }
    }
}

impl Whole {
    fn wire(&self) -> String {
        self.pieces.iter().map(|piece| piece.text()).collect()
    }

    /// Where the final head ends.
    fn head_end(&self) -> usize {
        self.pieces
            .iter()
            .take_while(|piece| matches!(piece, Piece::Interim(_) | Piece::Head(_)))
            .map(|piece| piece.text().len())
            .sum()
    }

    /// The content within the first `cut` bytes.
    fn data(&self, cut: usize) -> String {
        let mut at = 0;
        let mut data = String::new();
        for piece in self.pieces {
            let text = piece.text();
            if let Piece::Data(text) = piece {
                data.push_str(&text[..cut.saturating_sub(at).min(text.len())]);
            }
            at += text.len();
        }
        data
    }

    /// How many interim responses are whole within the first `cut` bytes.
    fn interims(&self, cut: usize) -> usize {
        let mut at = 0;
        let ends = self.pieces.iter().map_while(|piece| match piece {
            Piece::Interim(text) => {
                at += text.len();
                Some(at)
            }
            _ => None,
        });
        ends.filter(|end| *end <= cut).count()
    }
}

/// Plain connections in memory, or TLS in memory.
#[derive(Clone, Default)]
struct Stage {
    #[cfg(feature = "rustls")]
    tls: Option<(sockeye::TlsConfig, Arc<tokio_rustls::rustls::ServerConfig>)>,
}

impl Stage {
    #[cfg(feature = "rustls")]
    fn secure(versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion]) -> Self {
        let authority = crate::support::server::Authority::new();
        let server = authority.issue(&["peer.test"], 4000).server(versions);
        let client = sockeye::TlsConfig::builder()
            .only_roots(authority.pem())
            .build()
            .unwrap();
        Self {
            tls: Some((client, server)),
        }
    }

    #[cfg(feature = "rustls")]
    fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "rustls"))]
    fn is_secure(&self) -> bool {
        false
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.is_secure() { "https" } else { "http" };
        format!("{scheme}://peer.test{path}")
    }

    fn client(&self, world: &World) -> Client {
        #[cfg(feature = "rustls")]
        if let Some((tls, _)) = &self.tls {
            return world.builder().tls(tls.clone()).build().unwrap();
        }
        world.client()
    }

    #[cfg(feature = "rustls")]
    async fn accept(&self, world: &World) -> PeerConnection {
        let connection = world.accept().await;
        match &self.tls {
            Some((_, server)) => connection.secure(Arc::clone(server)).await.unwrap(),
            None => connection,
        }
    }

    #[cfg(not(feature = "rustls"))]
    async fn accept(&self, world: &World) -> PeerConnection {
        world.accept().await
    }
}

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Orderly,
    Abrupt,
}

/// How the response is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Written at once, read piece by piece.
    Pieces,
    /// Written byte by byte, read piece by piece.
    Slowly,
    /// Written at once, asked for as a whole.
    Collected,
}

/// One cut.
struct Case<'a> {
    stage: &'a Stage,
    /// A world and a client without connections; other cases may have used them.
    world: &'a World,
    client: &'a Client,
    whole: &'a Whole,
    ending: Ending,
    manner: Manner,
    cut: usize,
}

/// What the caller got.
#[derive(Default)]
struct Got {
    interims: usize,
    /// Attempts and reuse, if there was a response.
    response: Option<(u32, bool)>,
    data: String,
    trailer: Option<String>,
    error: Option<Error>,
}

/// The error that a cut must give.
struct Expected {
    kind: ErrorKind,
    phase: Phase,
    io_kind: io::ErrorKind,
    says: String,
}

impl Case<'_> {
    fn shown(&self) -> String {
        let wire = self.whole.wire();
        format!(
            "cut after {:?}, {:?}, {:?}, secure: {}",
            &wire[..self.cut],
            self.ending,
            self.manner,
            self.stage.is_secure()
        )
    }

    /// What the rules say; `None` is a response that is complete.
    fn expected(&self) -> Option<Expected> {
        let (cut, length) = (self.cut, self.whole.wire().len());
        let framing = self.whole.framing;
        let in_head = cut < self.whole.head_end();
        let phase = if in_head { Phase::Head } else { Phase::Read };
        if cut == length && framing != Framing::UntilClose {
            return None;
        }
        if self.ending == Ending::Abrupt && !self.stage.is_secure() {
            return Some(Expected {
                kind: ErrorKind::Io,
                phase,
                io_kind: io::ErrorKind::ConnectionReset,
                says: "reset".to_owned(),
            });
        }
        let (kind, says) = if cut == 0 {
            (ErrorKind::Io, "closed the connection".to_owned())
        } else if in_head {
            let says = format!("ended after {cut} bytes of the response head");
            (ErrorKind::Protocol, says)
        } else {
            let says = match (framing, self.ending) {
                (Framing::Length, _) => {
                    format!("ended {} bytes before the end of the body", length - cut)
                }
                (Framing::Chunked, _) => "ended before the last chunk".to_owned(),
                (Framing::UntilClose, Ending::Abrupt) => "without TLS close_notify".to_owned(),
                (Framing::UntilClose, Ending::Orderly) => return None,
            };
            (ErrorKind::Protocol, says)
        };
        Some(Expected {
            kind,
            phase,
            io_kind: io::ErrorKind::UnexpectedEof,
            says,
        })
    }

    /// Writes as much of the response as comes, and ends the connection. It is returned as long as something holds it open.
    async fn respond(&self, mut connection: PeerConnection) -> Option<PeerConnection> {
        let wire = self.whole.wire();
        let part = &wire.as_bytes()[..self.cut];
        let taken = match self.manner {
            Manner::Slowly => connection.write_slowly(part).await,
            Manner::Pieces | Manner::Collected => connection.try_write(part).await,
        };
        assert!(taken, "the client reads on: {}", self.shown());
        match (self.ending, self.stage.is_secure()) {
            // TLS says goodbye here, and then ends the stream.
            (Ending::Orderly, _) => connection.shutdown().await,
            (Ending::Abrupt, true) => {
                connection.close();
                return None;
            }
            // The client's end of the connection fails by itself.
            (Ending::Abrupt, false) => {}
        }
        Some(connection)
    }

    async fn call(&self, request: RequestBuilder) -> Got {
        let interims = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&interims);
        let request = request.on_informational(move |_| {
            told.fetch_add(1, Ordering::SeqCst);
        });
        let mut got = Got::default();
        got.error = read(request, self.manner, &mut got).await.err();
        got.interims = interims.load(Ordering::SeqCst);
        got
    }

    fn check(&self, got: &Got) {
        let shown = self.shown();
        assert_eq!(got.interims, self.whole.interims(self.cut), "{shown}");
        let has_head = self.cut >= self.whole.head_end();
        assert_eq!(got.response, has_head.then_some((1, false)), "{shown}");
        let error = match (&got.error, self.expected()) {
            (None, None) => {
                assert_eq!(got.data, self.whole.data(self.cut), "{shown}");
                assert_eq!(got.trailer.as_deref(), self.whole.trailer, "{shown}");
                return;
            }
            (Some(error), Some(expected)) => {
                assert_eq!(error.kind(), expected.kind, "{error}: {shown}");
                assert_eq!(error.phase(), Some(expected.phase), "{error}: {shown}");
                assert_eq!(error.io_kind(), Some(expected.io_kind), "{error}: {shown}");
                let line = error.to_string();
                assert!(line.contains(&expected.says), "{line}: {shown}");
                error
            }
            (None, Some(_)) => panic!("taken for complete: {shown}"),
            (Some(error), None) => panic!("{error}: {shown}"),
        };
        assert_eq!(error.sent(), Sent::All, "{error}: {shown}");
        if !has_head {
            assert_eq!(error.attempts(), 1, "{error}: {shown}");
        }
        // What came before the cut is good, and is all there.
        if self.manner != Manner::Collected {
            assert_eq!(got.data, self.whole.data(self.cut), "{shown}");
        }
    }

    /// A first call on a fresh connection that is cut, and a second call.
    async fn on_a_fresh_connection(&self) {
        let (world, client) = (self.world, self.client);
        let began = Instant::now();
        let dials = world.dials();
        if self.ending == Ending::Abrupt && !self.stage.is_secure() {
            world.faults(Faults {
                reset_after_reading: Some(self.cut),
                ..Faults::default()
            });
        }
        let serving = async {
            let mut connection = self.stage.accept(world).await;
            connection.read_request().await;
            self.respond(connection).await
        };
        let request = client.get(self.stage.url("/cut"));
        let (got, connection) = tokio::join!(self.call(request), serving);
        self.check(&got);
        if got.error.is_some() {
            until("the connection is closed", || world.open() == 0).await;
        }
        drop(connection);
        world.faults(Faults::default());
        // Nothing was tried a second time, and the connection is not lent again.
        assert_eq!(world.dials(), dials + 1, "{}", self.shown());
        self.next_call_works(world, client).await;
        assert_eq!(world.dials(), dials + 2, "{}", self.shown());
        assert_eq!(began.elapsed().as_nanos(), 0, "{}", self.shown());
    }

    /// The same for the second call on a connection, which may be replayed.
    async fn on_a_reused_connection(&self) {
        let (world, client) = (self.world, self.client);
        let dials = world.dials();
        let serving = async {
            let mut connection = self.stage.accept(world).await;
            connection.read_request().await;
            connection.write(ok("first")).await;
            connection.read_request().await;
            let cut = self.respond(connection).await;
            if self.cut > 0 {
                return (cut, None);
            }
            let mut fresh = self.stage.accept(world).await;
            let request = fresh.read_request().await;
            assert_eq!(request.target(), "/cut");
            fresh.write(last("replayed")).await;
            (cut, Some(fresh))
        };
        let calling = async {
            let first = client.get(self.stage.url("/")).send().await.unwrap();
            assert_eq!(first.text().await.unwrap(), "first");
            self.call(client.get(self.stage.url("/cut"))).await
        };
        let (got, connections) = tokio::join!(calling, serving);
        if self.cut == 0 {
            assert!(got.error.is_none(), "{:?}: {}", got.error, self.shown());
            assert_eq!(got.response, Some((2, false)), "{}", self.shown());
            assert_eq!(got.data, "replayed", "{}", self.shown());
            settle(client, world).await;
            assert_eq!(world.open(), 0, "{}", self.shown());
            drop(connections);
            assert_eq!(world.dials(), dials + 2, "{}", self.shown());
            return;
        }
        let has_head = self.cut >= self.whole.head_end();
        assert_eq!(got.response, has_head.then_some((1, true)));
        assert_eq!(
            got.error.map(|error| (error.kind(), error.phase())),
            self.expected()
                .map(|expected| (expected.kind, Some(expected.phase))),
            "{}",
            self.shown()
        );
        drop(connections);
        assert_eq!(world.dials(), dials + 1, "tried again: {}", self.shown());
        self.next_call_works(world, client).await;
        assert_eq!(world.dials(), dials + 2, "{}", self.shown());
    }

    async fn next_call_works(&self, world: &World, client: &Client) {
        let serving = async {
            let mut connection = self.stage.accept(world).await;
            let request = connection.read_request().await;
            assert_eq!(request.target(), "/next");
            connection.write(last("next")).await;
            connection
        };
        let calling = async {
            let request = client.get(self.stage.url("/next"));
            let response = request.send().await.unwrap();
            assert_eq!((response.attempts(), response.reused()), (1, false));
            assert_eq!(response.text().await.unwrap(), "next");
        };
        let ((), connection) = tokio::join!(calling, serving);
        settle(client, world).await;
        assert_eq!(world.open(), 0, "{}", self.shown());
        drop(connection);
    }
}

/// A response behind which the connection is closed, so that each case begins without one.
fn last(body: &str) -> String {
    reply("200 OK", "connection: close\r\n", body)
}

/// Notes everything that comes before the error.
async fn read(request: RequestBuilder, manner: Manner, got: &mut Got) -> Result<(), Error> {
    let mut response = request.send().await?;
    got.response = Some((response.attempts(), response.reused()));
    let trailers = if manner == Manner::Collected {
        let collected = response.collect().await?;
        got.data = String::from_utf8(collected.bytes.to_vec()).unwrap();
        collected.trailers
    } else {
        while let Some(chunk) = response.chunk().await? {
            got.data.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        response.trailers().await?
    };
    let sum = trailers.as_ref().and_then(|trailers| trailers.get("sum"));
    got.trailer = sum.map(|sum| sum.to_str().unwrap().to_owned());
    Ok(())
}

/// Cuts a response after each of its bytes, and before the first.
async fn cut_everywhere(stage: &Stage, whole: &Whole, ending: Ending, manner: Manner) {
    let world = World::new();
    let client = stage.client(&world);
    for cut in 0..=whole.wire().len() {
        let case = Case {
            stage,
            world: &world,
            client: &client,
            whole,
            ending,
            manner,
            cut,
        };
        case.on_a_fresh_connection().await;
    }
}

async fn cut_everywhere_in_all_manners(whole: &Whole) {
    for (ending, manner) in [
        (Ending::Orderly, Manner::Pieces),
        (Ending::Orderly, Manner::Slowly),
        (Ending::Orderly, Manner::Collected),
        (Ending::Abrupt, Manner::Pieces),
    ] {
        cut_everywhere(&Stage::default(), whole, ending, manner).await;
    }
}

/// The pieces are what they say they are: a response that is complete is read as such by the rest of the suite.
#[test]
fn the_pieces_are_counted_right() {
    let wire = INTERIMS.wire();
    let ends: Vec<_> = wire
        .match_indices("\r\n\r\n")
        .map(|(at, _)| at + 4)
        .collect();
    assert_eq!(INTERIMS.head_end(), ends[2]);
    assert_eq!(INTERIMS.interims(ends[0] - 1), 0);
    assert_eq!(INTERIMS.interims(ends[0]), 1);
    assert_eq!(INTERIMS.interims(ends[1]), 2);
    assert_eq!(INTERIMS.interims(wire.len()), 2);
    assert_eq!(CHUNKED.data(CHUNKED.wire().len()), "hello world");
    assert_eq!(CHUNKED.data(CHUNKED.wire().find("llo").unwrap()), "he");
}

#[tokio::test(start_paused = true)]
async fn a_body_with_a_length() {
    cut_everywhere_in_all_manners(&LENGTH).await;
}

#[tokio::test(start_paused = true)]
async fn a_chunked_body() {
    cut_everywhere_in_all_manners(&CHUNKED).await;
}

#[tokio::test(start_paused = true)]
async fn two_interim_responses() {
    cut_everywhere_in_all_manners(&INTERIMS).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_up_to_the_end_of_the_connection() {
    cut_everywhere_in_all_manners(&UNTIL_CLOSE).await;
}

/// Ruling 5 (2): one byte of the response, of an interim one too, and the request is not sent again.
#[tokio::test(start_paused = true)]
async fn only_a_cut_before_the_first_byte_is_replayed() {
    let stage = Stage::default();
    let world = World::new();
    let client = stage.client(&world);
    for whole in &ALL {
        for cut in 0..=whole.wire().len() {
            let case = Case {
                stage: &stage,
                world: &world,
                client: &client,
                whole,
                ending: Ending::Orderly,
                manner: Manner::Pieces,
                cut,
            };
            case.on_a_reused_connection().await;
        }
    }
}

/// `Error::attempts` is how often the request was tried, 0 only if it never got that far.
#[tokio::test(start_paused = true)]
async fn an_error_in_a_body_says_what_was_tried() {
    let stage = Stage::default();
    let world = World::new();
    let client = stage.client(&world);
    let case = Case {
        stage: &stage,
        world: &world,
        client: &client,
        whole: &LENGTH,
        ending: Ending::Orderly,
        manner: Manner::Pieces,
        cut: LENGTH.wire().len() - 1,
    };
    let serving = async {
        let mut connection = world.accept().await;
        connection.read_request().await;
        case.respond(connection).await
    };
    let (got, _) = tokio::join!(case.call(client.get(stage.url("/cut"))), serving);
    settle(&client, &world).await;
    let error = got.error.unwrap();
    assert_eq!(error.phase(), Some(Phase::Read));
    assert_eq!(error.attempts(), 1, "{error}");
    assert_eq!(error.method().map(|method| method.as_str()), Some("GET"));
}

/// The same inside TLS, where only close_notify makes the end orderly.
#[cfg(feature = "rustls")]
mod secure {
    use super::*;
    use crate::support::server::{TLS12, TLS13};

    async fn cut_everywhere_inside_tls(whole: &Whole) {
        let stage = Stage::secure(TLS13);
        for ending in [Ending::Orderly, Ending::Abrupt] {
            cut_everywhere(&stage, whole, ending, Manner::Pieces).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_with_a_length() {
        cut_everywhere_inside_tls(&LENGTH).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunked_body() {
        cut_everywhere_inside_tls(&CHUNKED).await;
    }

    #[tokio::test(start_paused = true)]
    async fn two_interim_responses() {
        cut_everywhere_inside_tls(&INTERIMS).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_up_to_the_end_of_the_connection() {
        cut_everywhere_inside_tls(&UNTIL_CLOSE).await;
    }

    /// Each byte in a record of its own.
    #[tokio::test(start_paused = true)]
    async fn byte_by_byte() {
        let stage = Stage::secure(TLS12);
        for ending in [Ending::Orderly, Ending::Abrupt] {
            cut_everywhere(&stage, &UNTIL_CLOSE, ending, Manner::Slowly).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_cut_before_the_first_byte_is_replayed() {
        let stage = Stage::secure(TLS13);
        let world = World::new();
        let client = stage.client(&world);
        for ending in [Ending::Orderly, Ending::Abrupt] {
            for cut in 0..=LENGTH.wire().len() {
                let case = Case {
                    stage: &stage,
                    world: &world,
                    client: &client,
                    whole: &LENGTH,
                    ending,
                    manner: Manner::Pieces,
                    cut,
                };
                case.on_a_reused_connection().await;
            }
        }
    }
}
