//! How a stream of TLS can end in or behind a response, and what each end is worth (spec security section 3, F15): cut short must never look like an
//! end, and a connection that ended oddly is not used again.
//!
//! `cuts` cuts at every byte of the content; here the ends are those that lie below the content.

use std::sync::Arc;
use std::time::Duration;

use sockeye::test::at_rest;
use sockeye::{Client, ErrorKind, Limits, Phase, TlsConfig};
use tokio::sync::Notify;
use tokio_rustls::rustls::ServerConfig;

use crate::support::server::{Authority, Peer, Server, TLS12, TLS13, honest, until, within};

/// How a body says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// What the server has sent before the end comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing of the response.
    Nothing,
    /// The head and half the body.
    Half,
    /// All of the response; a body up to the end has none of its own.
    All,
}

/// The end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it should be: a close_notify, and the end of the TCP connection.
    CloseNotify,
    /// The end of the TCP connection alone.
    Fin,
    /// Half a record more, and the end of the TCP connection.
    HalfARecord,
    /// A record that nobody with the keys has made.
    GarbageRecord,
    /// Bytes that are no record.
    Garbage,
    /// An alert in the clear that says close_notify.
    ForgedCloseNotify,
    /// An alert in the clear that says that something is wrong.
    ForgedAlert,
}

/// One row.
#[derive(Clone, Copy, Debug)]
struct Case(Framing, Stage, End);

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::UntilClose];
const STAGES: [Stage; 3] = [Stage::Nothing, Stage::Half, Stage::All];
const ENDS: [End; 7] = [
    End::CloseNotify,
    End::Fin,
    End::HalfARecord,
    End::GarbageRecord,
    End::Garbage,
    End::ForgedCloseNotify,
    End::ForgedAlert,
];

impl Framing {
    fn sent(self, stage: Stage) -> &'static str {
        let [half, all] = match self {
            Self::Length => [
                "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf",
                "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalfhalf",
            ],
            Self::Chunked => [
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalfhalf\r\n0\r\n\r\n",
            ],
            Self::UntilClose => [
                "HTTP/1.1 200 OK\r\n\r\nhalf",
                "HTTP/1.1 200 OK\r\n\r\nhalfhalf",
            ],
        };
        match stage {
            Stage::Nothing => "",
            Stage::Half => half,
            Stage::All => all,
        }
    }

    /// What the half record holds the beginning of.
    fn rest(self) -> &'static str {
        match self {
            Self::Chunked => "4\r\nhalf\r\n0\r\n\r\n",
            Self::Length | Self::UntilClose => "half",
        }
    }
}

impl End {
    async fn act(self, mut peer: Peer, framing: Framing) {
        match self {
            Self::CloseNotify => return peer.close().await,
            Self::Fin => return,
            Self::HalfARecord => {
                let record = peer.record(framing.rest());
                return peer.send_below(&record[..record.len() / 2]).await;
            }
            _ => peer.send_below(self.bytes()).await,
        }
        // The client is the one who ends it.
        peer.end().await;
    }

    /// What is sent below TLS.
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::CloseNotify | Self::Fin | Self::HalfARecord => Vec::new(),
            Self::GarbageRecord => {
                let mut record = vec![0x17, 3, 3, 0, 40];
                record.extend([0x5a; 40]);
                record
            }
            Self::Garbage => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
            Self::ForgedCloseNotify => vec![0x15, 3, 3, 0, 2, 1, 0],
            Self::ForgedAlert => vec![0x15, 3, 3, 0, 2, 2, 40],
        }
    }

    /// Whether this is the end of the stream, rather than something that is no TLS.
    fn is_end(self) -> bool {
        matches!(self, Self::CloseNotify | Self::Fin | Self::HalfARecord)
    }

    /// What the caller is told, if not the body.
    fn expected(self, framing: Framing, stage: Stage) -> Option<(ErrorKind, Phase)> {
        let phase = match stage {
            Stage::Nothing => Phase::Head,
            Stage::Half | Stage::All => Phase::Read,
        };
        let is_whole = stage == Stage::All && framing != Framing::UntilClose;
        let is_until_close = framing == Framing::UntilClose && stage != Stage::Nothing;
        match self {
            _ if is_whole => None,
            Self::CloseNotify if is_until_close => None,
            _ if !self.is_end() => Some((ErrorKind::Tls, phase)),
            _ if stage == Stage::Nothing => Some((ErrorKind::Io, phase)),
            _ => Some((ErrorKind::Protocol, phase)),
        }
    }
}

fn client(authority: &Authority) -> Client {
    let tls = TlsConfig::builder().only_roots(authority.pem());
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    let builder = Client::builder().tls(tls.build().unwrap()).limits(limits);
    builder.build().unwrap()
}

/// A server whose first connection answers so many requests as it should before the end; those that come later are honest. What has
/// been sent of the response is read by the client before the end comes, which it says by `read`.
fn server(config: &Arc<ServerConfig>, before: usize, case: Case, read: &Arc<Notify>) -> Server {
    let Case(framing, stage, end) = case;
    let read = Arc::clone(read);
    Server::tls(Arc::clone(config), move |mut peer: Peer| {
        let read = Arc::clone(&read);
        async move {
            if peer.number > 0 {
                return honest(peer).await;
            }
            for _ in 0..before {
                peer.request().await;
                peer.answer("before").await;
            }
            peer.request().await;
            if stage != Stage::Nothing {
                peer.send(framing.sent(stage)).await;
                read.notified().await;
            }
            end.act(peer, framing).await;
        }
    })
}

#[tokio::test]
async fn every_end_of_every_framing() {
    for versions in [TLS12, TLS13] {
        let authority = Authority::new();
        let config = authority.local().server(versions);
        for framing in FRAMINGS {
            for stage in STAGES {
                for end in ENDS {
                    let case = Case(framing, stage, end);
                    let read = Arc::default();
                    let server = server(&config, 0, case, &read);
                    let client = client(&authority);
                    let what = format!("{versions:?} {case:?}");
                    within(check(&client, &server, case, &read, &what)).await;
                }
            }
        }
    }
}

async fn check(client: &Client, server: &Server, case: Case, read: &Notify, what: &str) {
    let Case(framing, stage, end) = case;
    let outcome = match client.get(server.url("/first")).send().await {
        Ok(response) => {
            // All of the record that came was read with the head.
            read.notify_one();
            response.text().await
        }
        Err(error) => Err(error),
    };
    match (outcome, end.expected(framing, stage)) {
        (Ok(text), None) => assert_eq!(
            text,
            if stage == Stage::Half {
                "half"
            } else {
                "halfhalf"
            },
            "{what}"
        ),
        (Err(error), Some(expected)) => {
            let got = error.phase().map(|phase| (error.kind(), phase));
            assert_eq!(got, Some(expected), "{what}: {error}");
            assert_eq!(error.attempts(), 1, "{what}: {error}");
            let is_unsaid = framing == Framing::UntilClose && stage != Stage::Nothing;
            if is_unsaid && end.is_end() {
                assert!(
                    error.to_string().contains("close_notify"),
                    "{what}: {error}"
                );
            }
        }
        (outcome, expected) => panic!("{what}: {outcome:?} instead of {expected:?}"),
    }
    expect_another(client, server, what).await;
}

/// Nothing is left of the first connection: the next call has one of its own, and its own answer.
async fn expect_another(client: &Client, server: &Server, what: &str) {
    until(what, || client.stats().total.connections_idle == 0).await;
    let response = client.get(server.url("/second")).send().await;
    let response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(!response.reused(), "{what}");
    assert_eq!(response.text().await.unwrap(), "GET /second ", "{what}");
    assert_eq!(server.accepted(), 2, "{what}");
    at_rest(client);
}

/// What is no TLS behind a whole response, in the same segment: the response is not believed either, since nothing of it was read
/// before.
#[tokio::test]
async fn in_one_segment_with_the_response() {
    for versions in [TLS12, TLS13] {
        let authority = Authority::new();
        let config = authority.local().server(versions);
        for framing in FRAMINGS {
            for end in ENDS.into_iter().filter(|end| !end.is_end()) {
                let what = format!("{versions:?} {framing:?} {end:?}");
                let server = Server::tls(Arc::clone(&config), move |mut peer: Peer| async move {
                    if peer.number > 0 {
                        return honest(peer).await;
                    }
                    peer.request().await;
                    let mut bytes = peer.record(framing.sent(Stage::All));
                    bytes.extend(end.bytes());
                    peer.send_below(bytes).await;
                    peer.end().await;
                });
                let client = client(&authority);
                within(async {
                    let error = client.get(server.url("/")).send().await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Tls, "{what}: {error}");
                    assert_eq!(error.phase(), Some(Phase::Head), "{what}: {error}");
                    assert_eq!(error.attempts(), 1, "{what}: {error}");
                    expect_another(&client, &server, &what).await;
                })
                .await;
            }
        }
    }
}

/// On a connection that has served before, the end of the stream is the stale race, and a GET is sent again; what is no TLS is
/// the work of somebody, and nothing is.
#[tokio::test]
async fn only_an_end_is_a_reason_to_send_again() {
    for versions in [TLS12, TLS13] {
        let authority = Authority::new();
        let config = authority.local().server(versions);
        for end in ENDS {
            let what = format!("{versions:?} {end:?}");
            let case = Case(Framing::Length, Stage::Nothing, end);
            let server = server(&config, 1, case, &Arc::default());
            let client = client(&authority);
            within(async {
                let first = client.get(server.url("/first")).send().await.unwrap();
                assert_eq!(first.text().await.unwrap(), "before");
                match client.get(server.url("/second")).send().await {
                    Ok(response) => {
                        assert!(end.is_end(), "{what}");
                        assert_eq!(response.attempts(), 2, "{what}");
                        assert_eq!(response.text().await.unwrap(), "GET /second ");
                    }
                    Err(error) => {
                        assert!(!end.is_end(), "{what}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Tls, "{what}: {error}");
                        assert_eq!(error.attempts(), 1, "{what}: {error}");
                        assert_eq!(server.accepted(), 1, "{what}");
                    }
                }
                at_rest(&client);
            })
            .await;
        }
    }
}
