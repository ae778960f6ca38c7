//! What leaves together at the end of a TLS handshake: the client's last flight and its first request, in one piece.
//!
//! The server drives rustls by hand on the runtime of the test, so that it knows what each single read has brought. A client
//! that has no request after all must finish the handshake nevertheless.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sockeye::test::at_rest;
use sockeye::{Client, Limits, TlsConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::{Error, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

use crate::support::server::{Authority, TLS12, TLS13, until, within};

/// One connection of a server.
struct ByHand {
    tcp: TcpStream,
    session: ServerConnection,
}

/// What one read has brought.
#[derive(Debug, Default, PartialEq, Eq)]
struct Brought {
    /// The handshake is over.
    shaken: bool,
    content: String,
    /// A close_notify.
    closed: bool,
}

impl ByHand {
    async fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> Self {
        let (tcp, _) = listener.accept().await.unwrap();
        let session = ServerConnection::new(Arc::clone(config)).unwrap();
        Self { tcp, session }
    }

    /// Reads once, all that is there.
    async fn read(&mut self) -> Result<Brought, Error> {
        let mut bytes = vec![0; 64 * 1024];
        let length = loop {
            self.tcp.readable().await.unwrap();
            match self.tcp.try_read(&mut bytes) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        };
        let mut unread = &bytes[..length];
        let mut brought = Brought::default();
        while !unread.is_empty() {
            self.session.read_tls(&mut unread).unwrap();
            brought.closed = self.session.process_new_packets()?.peer_has_closed();
        }
        let mut content = Vec::new();
        match self.session.reader().read_to_end(&mut content) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        brought.content = String::from_utf8_lossy(&content).into_owned();
        brought.shaken = !self.session.is_handshaking();
        Ok(brought)
    }

    /// Sends what the session has to say.
    async fn send(&mut self) {
        let mut bytes = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut bytes).unwrap();
        }
        self.tcp.write_all(&bytes).await.unwrap();
    }

    async fn answer(&mut self) {
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        io::Write::write_all(&mut self.session.writer(), response).unwrap();
        self.send().await;
    }
}

/// A server that listens, what it speaks TLS with, and a client that trusts it.
async fn scene(
    versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion],
) -> (TcpListener, Arc<ServerConfig>, Client, String) {
    let authority = Authority::new();
    let config = authority.local().server(versions);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = TlsConfig::builder().only_roots(authority.pem());
    let limits = Limits::default().with_idle_timeout(Duration::from_secs(600));
    let client = Client::builder().tls(tls.build().unwrap()).limits(limits);
    let url = format!("https://{}/", listener.local_addr().unwrap());
    (listener, config, client.build().unwrap(), url)
}

#[tokio::test]
async fn the_last_flight_and_the_request_leave_together() {
    for versions in [TLS13, TLS12] {
        within(async {
            let (listener, config, client, url) = scene(versions).await;
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let call = async {
                    let response = client.get(&url).send().await.unwrap();
                    assert_eq!(response.text().await.unwrap(), "ok");
                    client.close_idle();
                };
                let serve = async {
                    let mut peer = ByHand::accept(&listener, &config).await;
                    assert_eq!(peer.read().await, Ok(Brought::default()));
                    peer.send().await;
                    let brought = peer.read().await.unwrap();
                    let answers_last = kind == HandshakeKind::Full
                        && peer.session.protocol_version() == Some(ProtocolVersion::TLSv1_2);
                    let brought = match answers_last {
                        // The server's own flight comes after the client's.
                        true => {
                            assert_eq!(brought.content, "");
                            peer.send().await;
                            peer.read().await.unwrap()
                        }
                        false => brought,
                    };
                    assert!(brought.shaken);
                    assert_eq!(peer.session.handshake_kind(), Some(kind));
                    assert!(brought.content.starts_with("GET / HTTP/1.1\r\n"));
                    assert!(brought.content.ends_with("\r\n\r\n"), "{brought:?}");
                    peer.answer().await;
                    assert!(peer.read().await.unwrap().closed);
                };
                tokio::join!(call, serve);
            }
            at_rest(&client);
        })
        .await;
    }
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn the_last_flight_and_the_preface_leave_together() {
    within(async {
        let (listener, config, client, url) = scene(TLS13).await;
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        let call = client.get(&url).send();
        let serve = async {
            let mut peer = ByHand::accept(&listener, &config).await;
            peer.read().await.unwrap();
            peer.send().await;
            let brought = peer.read().await.unwrap();
            assert!(brought.shaken);
            assert!(brought.content.starts_with("PRI * HTTP/2.0\r\n"));
        };
        let (answer, ()) = tokio::join!(call, serve);
        // The server is gone then.
        assert!(answer.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_dial_that_nobody_waits_for_any_more_finishes_its_handshake() {
    for versions in [TLS13, TLS12] {
        within(async {
            let (listener, config, client, url) = scene(versions).await;
            let mut peer = {
                let mut call = pin!(client.get(&url).send());
                let hello = async {
                    let mut peer = ByHand::accept(&listener, &config).await;
                    peer.read().await.unwrap();
                    peer
                };
                tokio::select! {
                    _ = &mut call => unreachable!("nothing has answered"),
                    peer = hello => peer,
                }
            };
            while peer.session.is_handshaking() {
                peer.send().await;
                assert_eq!(peer.read().await.unwrap().content, "");
            }
            // The tickets, or the last word of an older handshake.
            peer.send().await;
            until("it is idle", || client.stats().total.connections_idle == 1).await;
            let (response, ()) = tokio::join!(client.get(&url).send(), async {
                assert!(peer.read().await.unwrap().content.starts_with("GET / "));
                peer.answer().await;
            });
            assert_eq!(response.unwrap().text().await.unwrap(), "ok");
        })
        .await;
    }
}

/// The connection was given to a call that is dropped before it looks.
#[tokio::test]
async fn a_connection_that_goes_to_rest_unused_finishes_its_handshake() {
    for closes in [false, true] {
        within(async {
            let (listener, config, client, url) = scene(TLS13).await;
            let mut peer = {
                let mut call = pin!(client.get(&url).send());
                poll_fn(|cx| {
                    assert!(call.as_mut().poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                let mut peer = ByHand::accept(&listener, &config).await;
                peer.read().await.unwrap();
                peer.send().await;
                // Nobody polls the call, whose task is this one.
                let is_open = || client.stats().total.connections_opened == 1;
                until("the connection is there", is_open).await;
                peer
            };
            if closes {
                client.close_idle();
            }
            let expected = Brought {
                shaken: true,
                content: String::new(),
                closed: false,
            };
            let mut brought = peer.read().await.unwrap();
            // The close_notify is a write of its own.
            if closes && !brought.closed {
                brought.closed = peer.read().await.unwrap().closed;
            }
            assert_eq!(
                brought,
                Brought {
                    closed: closes,
                    ..expected
                }
            );
            at_rest(&client);
        })
        .await;
    }
}

#[tokio::test]
async fn the_alert_of_a_handshake_that_fails_is_sent() {
    for versions in [TLS13, TLS12] {
        within(async {
            let (listener, config, _, url) = scene(versions).await;
            let tls = TlsConfig::builder().only_roots(Authority::new().pem());
            let client = Client::builder().tls(tls.build().unwrap()).build().unwrap();
            let serve = async {
                let mut peer = ByHand::accept(&listener, &config).await;
                peer.read().await.unwrap();
                peer.send().await;
                peer.read().await
            };
            let (answer, last) = tokio::join!(client.get(&url).send(), serve);
            assert!(answer.unwrap_err().is_tls());
            assert!(matches!(last, Err(Error::AlertReceived(_))), "{last:?}");
            at_rest(&client);
        })
        .await;
    }
}
