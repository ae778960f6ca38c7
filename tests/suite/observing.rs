//! Observers: each event is told when it should be and no more often, in pairs of start and end, whatever happens in between.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sockeye::stats::Event;
use sockeye::{
    CircuitBreaker, Client, ErrorKind, EventMask, Limits, Observer, RateLimit, Resolve, Resolved,
    Retry, Timeouts,
};
use tokio::time::sleep;

use crate::support::peer::{Dial, World, let_others_run, ok, reply, settle};
use crate::support::recorder::Recorder;
use crate::support::server::{Server, honest, within};
use crate::support::streams::within_polls;

const URL: &str = "http://peer.test/a?token=s3cret";
const SECOND: Duration = Duration::from_secs(1);

fn watched(world: &World) -> (Client, Recorder) {
    let told = Recorder::default();
    let client = world.builder().observer(told.clone()).build().unwrap();
    (client, told)
}

/// The end of a test: nothing is left, and everything has ended.
async fn end(client: Client, world: &World, told: &Recorder) {
    settle(&client, world).await;
    drop(client);
    let_others_run().await;
    told.expect_all_closed();
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_new_connection_and_on_a_kept_one() {
    let world = World::new();
    world.serve(|_| ok("body"));
    let (client, told) = watched(&world);
    client.get(URL).await.unwrap().bytes().await.unwrap();
    assert_eq!(
        told.take(),
        [
            "CallStart GET http://peer.test",
            "AttemptStart 1 GET http://peer.test",
            "QueueStart",
            "DialStart",
            "ConnectStart",
            "ConnectEnd",
            "DialEnd HTTP/1.1",
            "QueueEnd served",
            "ConnectionAcquired new",
            "RequestSent",
            "ResponseHead 200",
            "BodyEnd 4",
            "ConnectionReleased",
            "AttemptEnd 1 200",
            "CallEnd 200 1",
        ]
    );
    client.post(URL).body("upload").await.unwrap();
    assert_eq!(
        told.take(),
        [
            "CallStart POST http://peer.test",
            "AttemptStart 1 POST http://peer.test",
            "ConnectionAcquired reused",
            "RequestSent",
            "ResponseHead 200",
            "BodyEnd 4",
            "ConnectionReleased",
            "AttemptEnd 1 200",
            "CallEnd 200 1",
        ]
    );
    client.close_idle();
    assert_eq!(told.take(), ["ConnectionClosed PoolClosed"]);
    end(client, &world, &told).await;
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn a_session_of_http2_is_closed_once_and_lent_often() {
    use crate::support::http2::Honest;
    use sockeye::HttpVersions;

    let world = World::new();
    let report = Honest::default().serve(&world);
    let told = Recorder::default();
    let client = world
        .builder()
        .http_versions(HttpVersions::Http2PriorKnowledge)
        .observer(told.clone())
        .build()
        .unwrap();
    client.get(URL).await.unwrap().bytes().await.unwrap();
    let first = told.take();
    for expected in [
        "DialEnd HTTP/2.0",
        "ConnectionAcquired new",
        "RequestSent",
        "ResponseHead 200",
        "ConnectionReleased",
        "CallEnd 200 1",
    ] {
        assert!(first.iter().any(|label| label == expected), "{first:?}");
    }
    let (one, two) = tokio::join!(client.post(URL).body("four").send(), client.get(URL).send());
    assert_eq!(one.unwrap().text().await.unwrap(), "four");
    // Dropped unread, or complete already.
    drop(two.unwrap());
    assert_eq!(told.count("ConnectionAcquired reused"), 2);
    assert_eq!(told.count("RequestSent"), 2);
    assert_eq!(told.count("BodyEnd 4"), 1);
    assert_eq!(told.count("ConnectionReleased"), 2);
    assert_eq!(told.count("DialStart"), 0);
    report.expect_no_violation();
    client.close_idle();
    let_others_run().await;
    assert_eq!(told.count("ConnectionClosed PoolClosed"), 1);
    end(client, &world, &told).await;
}

#[tokio::test(start_paused = true)]
async fn redirects_are_told_between_their_hops() {
    let world = World::new();
    world.serve(|request| match request.target() {
        "/a?token=s3cret" => reply("302 Found", "location: http://other.test/b\r\n", ""),
        _ => reply("404 Not Found", "", "none"),
    });
    let (client, told) = watched(&world);
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Status);
    let labels = told.take();
    let of_call: Vec<_> = labels
        .iter()
        .filter(|label| {
            let groups = ["Call", "Attempt", "Redirected"];
            groups.iter().any(|group| label.starts_with(group))
        })
        .collect();
    assert_eq!(
        of_call,
        [
            "CallStart GET http://peer.test",
            "AttemptStart 1 GET http://peer.test",
            "AttemptEnd 1 302",
            "Redirected 302 http://peer.test http://other.test",
            "AttemptStart 2 GET http://other.test",
            "AttemptEnd 2 404",
            // The error comes of this response.
            "CallEnd 404 2",
        ]
    );
    end(client, &world, &told).await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_connection_is_closed_and_the_request_sent_again() {
    let world = World::new();
    let (client, told) = watched(&world);
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    connection.write(ok("one")).await;
    call.await.unwrap().unwrap();
    told.take();
    let call = tokio::spawn(client.get(URL).send());
    connection.read_request().await;
    connection.close();
    let mut fresh = world.accept().await;
    fresh.read_request().await;
    fresh.write(ok("two")).await;
    call.await.unwrap().unwrap();
    assert_eq!(
        told.take(),
        [
            "CallStart GET http://peer.test",
            "AttemptStart 1 GET http://peer.test",
            "ConnectionAcquired reused",
            "RequestSent",
            "ConnectionReleased",
            "ConnectionClosed Error",
            "AttemptFailed 1 Io",
            "Retry Stale 0ns",
            "AttemptStart 2 GET http://peer.test",
            "QueueStart",
            "DialStart",
            "ConnectStart",
            "ConnectEnd",
            "DialEnd HTTP/1.1",
            "QueueEnd served",
            "ConnectionAcquired new",
            "RequestSent",
            "ResponseHead 200",
            "BodyEnd 3",
            "ConnectionReleased",
            "AttemptEnd 2 200",
            "CallEnd 200 2",
        ]
    );
    end(client, &world, &told).await;
}

/// The labels of these beginnings, in order.
fn only(labels: Vec<String>, beginnings: &[&str]) -> Vec<String> {
    let mut labels = labels;
    labels.retain(|label| beginnings.iter().any(|start| label.starts_with(start)));
    labels
}

#[tokio::test(start_paused = true)]
async fn policies_tell_what_they_decide() {
    let world = World::new();
    world.serve(|_| reply("503 Busy", "retry-after: 3\r\n", ""));
    let told = Recorder::default();
    let breaker = CircuitBreaker::default()
        .with_consecutive(NonZeroU32::new(3))
        .with_open(10 * SECOND);
    let client = world
        .builder()
        .retry(Retry::default().with_max_attempts(2))
        .circuit_breaker(breaker)
        .rate_limit(RateLimit::default())
        .observer(told.clone())
        .build()
        .unwrap();
    let policies = [
        "Retry",
        "NoRetry",
        "Breaker",
        "Rate",
        "CallFailed",
        "CallEnd",
    ];
    client.get(URL).await.unwrap_err();
    let labels = only(told.take(), &policies);
    assert_eq!(labels[0], "RateGate 3s");
    assert!(labels[1].starts_with("Retry Throttled 3"), "{labels:?}");
    assert_eq!(
        labels[2..],
        ["RateGate 3s", "NoRetry Attempts", "CallEnd 503 2"]
    );
    // The gate is closed; the third failure opens the breaker, which keeps the fourth attempt away.
    client.get(URL).await.unwrap_err();
    assert_eq!(
        only(told.take(), &policies),
        [
            "RateWaitStart",
            "RateWaitEnd",
            "RateGate 3s",
            "BreakerChange Open",
            "NoRetry Circuit",
            "CallEnd 503 1",
        ]
    );
    let error = client.get(URL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!(only(told.take(), &policies), ["CallFailed CircuitOpen 0"]);
    sleep(60 * SECOND).await;
    client.get(URL).retry(Retry::none()).await.unwrap_err();
    assert_eq!(
        only(told.take(), &policies),
        [
            "BreakerChange HalfOpen",
            "RateGate 3s",
            "BreakerChange Open",
            "NoRetry Attempts",
            "CallEnd 503 1",
        ]
    );
    let circuit = client.circuit_breaker(URL).unwrap();
    circuit.close();
    circuit.isolate();
    circuit.isolate();
    circuit.close();
    assert_eq!(
        told.take()
            .into_iter()
            .filter(|label| label.starts_with("Breaker"))
            .collect::<Vec<_>>(),
        [
            "BreakerChange Closed",
            "BreakerChange Isolated",
            "BreakerChange Isolated",
            "BreakerChange Closed"
        ]
    );
    drop(circuit);
    end(client, &world, &told).await;
}

#[tokio::test(start_paused = true)]
async fn dials_that_fail_hang_or_are_given_up() {
    let world = World::new();
    let (client, told) = watched(&world);
    world.plan(Dial::Refuse);
    client.get(URL).await.unwrap_err();
    assert_eq!(
        told.take(),
        [
            "CallStart GET http://peer.test",
            "AttemptStart 1 GET http://peer.test",
            "QueueStart",
            "DialStart",
            "ConnectStart",
            "ConnectFailed Some(ConnectionRefused)",
            "DialFailed Some(Connect)",
            "QueueEnd in vain",
            "AttemptFailed 1 Connect",
            "CallFailed Connect 1",
        ]
    );
    world.plan(Dial::Hang);
    client.get(URL).await.unwrap_err();
    // The dial has a limit of its own, which strikes at the same moment.
    let_others_run().await;
    assert_eq!(
        only(told.take(), &["Connect", "Dial", "Queue", "CallFailed"]),
        [
            "QueueStart",
            "DialStart",
            "ConnectStart",
            "QueueEnd in vain",
            "CallFailed Timeout 1",
            "ConnectFailed None",
            "DialFailed Some(Timeout)",
        ]
    );
    world.always(Dial::Hang);
    assert!(within_polls(1, client.get(URL).send()).await.is_none());
    let_others_run().await;
    // The dial goes on without its call, to the end of its client.
    assert_eq!(
        only(told.take(), &["Dial", "Queue", "Call", "Attempt"]),
        [
            "CallStart GET http://peer.test",
            "AttemptStart 1 GET http://peer.test",
            "QueueStart",
            "DialStart",
            "QueueEnd in vain",
            "AttemptCancelled 1",
            "CallCancelled 1",
        ]
    );
    drop(client);
    let_others_run().await;
    assert_eq!(told.take(), ["ConnectFailed None", "DialFailed None"]);
    told.expect_all_closed();
}

/// Answers with addresses of which the first refuses.
struct Book(Vec<std::net::SocketAddr>);

impl Resolve for Book {
    fn resolve<'a>(&'a self, host: &'a str) -> sockeye::BoxFuture<'a, std::io::Result<Resolved>> {
        Box::pin(async move {
            match host {
                "two.test" => {
                    let mut found = Resolved::new([]);
                    found.addrs.clone_from(&self.0);
                    Ok(found)
                }
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        })
    }
}

#[tokio::test]
async fn names_and_every_address_are_told() {
    within(async {
        let server = Server::plain(honest);
        // Nobody listens there any more.
        let gone = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let refuses = gone.local_addr().unwrap();
        drop(gone);
        let told = Recorder::default();
        let client = Client::builder()
            .resolver(Book(vec![refuses, server.address()]))
            .observer(told.clone())
            .build()
            .unwrap();
        client.get("http://two.test/").await.unwrap();
        assert_eq!(
            only(told.take(), &["Dns", "Connect", "Dial"]),
            [
                "DialStart",
                "DnsStart",
                "DnsEnd 2",
                "ConnectStart",
                "ConnectFailed Some(ConnectionRefused)",
                "ConnectStart",
                "ConnectEnd",
                "DialEnd HTTP/1.1",
                "ConnectionAcquired new",
                "ConnectionReleased",
            ]
        );
        let error = client.get("http://none.test/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Resolve);
        assert_eq!(
            only(told.take(), &["Dns", "Connect", "Dial"]),
            [
                "DialStart",
                "DnsStart",
                "DnsFailed Some(NotFound)",
                "DialFailed Some(Resolve)"
            ]
        );
        drop(client);
        let_others_run().await;
        told.expect_all_closed();
    })
    .await;
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn handshakes_are_told_good_and_bad() {
    use crate::support::server::{Authority, TLS13};
    use sockeye::TlsConfig;

    within(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let tls = TlsConfig::builder()
            .add_root_pem(authority.pem().as_bytes())
            .unwrap()
            .build()
            .unwrap();
        let told = Recorder::default();
        let client = Client::builder()
            .tls(tls)
            .observer(told.clone())
            .build()
            .unwrap();
        let good = Server::tls(authority.local().server(TLS13), honest);
        client.get(good.url("/")).await.unwrap();
        let labels = only(told.take(), &["Tls", "Dial"]);
        assert_eq!(labels[0..2], ["DialStart", "TlsStart"]);
        assert!(labels[2].starts_with("TlsEnd TLSv1.3"), "{labels:?}");
        assert_eq!(labels[3], "DialEnd HTTP/1.1");
        let bad = Server::tls(stranger.local().server(TLS13), honest);
        let error = client.get(bad.url("/")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert_eq!(
            only(told.take(), &["Tls", "Dial", "AttemptFailed"]),
            [
                "DialStart",
                "TlsStart",
                "TlsFailed true",
                "DialFailed Some(Tls)",
                "AttemptFailed 1 Tls"
            ]
        );
        drop(client);
        let_others_run().await;
        told.expect_all_closed();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bodies_end_fail_or_are_dropped() {
    let world = World::new();
    let (client, told) = watched(&world);
    let answered = |bytes: &'static str| {
        let (world, call) = (world.clone(), tokio::spawn(client.get(URL).send()));
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection.write(bytes).await;
            (connection, call.await.unwrap().unwrap())
        }
    };
    let messages = [
        "ResponseHead",
        "Body",
        "ConnectionReleased",
        "ConnectionClosed",
    ];
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";

    let (mut connection, response) = answered(begun).await;
    connection.write("half").await;
    assert_eq!(response.text().await.unwrap(), "halfhalf");
    assert_eq!(
        only(told.take(), &messages),
        ["ResponseHead 200", "BodyEnd 8", "ConnectionReleased"]
    );
    client.close_idle();
    told.take();

    let (connection, response) = answered(begun).await;
    connection.close();
    response.text().await.unwrap_err();
    assert_eq!(
        only(told.take(), &messages),
        [
            "ResponseHead 200",
            "BodyFailed 4 Protocol",
            "ConnectionReleased",
            "ConnectionClosed Error"
        ]
    );

    let (connection, mut response) =
        answered("HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\nhalf").await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
    drop(response);
    assert_eq!(
        only(told.take(), &messages),
        [
            "ResponseHead 200",
            "BodyDropped 4",
            "ConnectionReleased",
            "ConnectionClosed DrainGaveUp"
        ]
    );
    drop(connection);
    end(client, &world, &told).await;
}

#[tokio::test(start_paused = true)]
async fn a_switched_connection_ends_its_body_and_its_loan() {
    let world = World::new();
    let (client, told) = watched(&world);
    let call = tokio::spawn(client.get(URL).upgrade("echo").send());
    let mut connection = world.accept().await;
    connection.read_request().await;
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    connection.write(switching).await;
    let upgraded = call.await.unwrap().unwrap().upgrade().unwrap();
    assert_eq!(
        only(
            told.take(),
            &[
                "ResponseHead",
                "Body",
                "ConnectionReleased",
                "ConnectionClosed",
                "CallEnd"
            ]
        ),
        [
            "ResponseHead 101",
            "BodyEnd 0",
            "ConnectionReleased",
            "ConnectionClosed Upgraded",
            "CallEnd 101 1"
        ]
    );
    drop(upgraded);
    end(client, &world, &told).await;
}

/// An upload that the server does not wait for is told as sent once it is, or never.
#[tokio::test(start_paused = true)]
async fn a_request_counts_as_sent_when_all_of_it_is() {
    let world = World::new();
    world.buffer(64 * 1024);
    let (client, told) = watched(&world);
    let call = tokio::spawn(client.put(URL).body(vec![b'x'; 300_000]).send());
    let mut connection = world.accept().await;
    let_others_run().await;
    assert_eq!(told.count("RequestSent"), 0);
    connection.read_request().await;
    let_others_run().await;
    assert_eq!(told.count("RequestSent"), 1);
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    told.take();
    let call = tokio::spawn(client.put(URL).body(vec![b'x'; 300_000]).send());
    connection.read_head().await.unwrap();
    connection.write(reply("413 Too Large", "", "")).await;
    call.await.unwrap().unwrap_err();
    assert_eq!(told.count("RequestSent"), 0);
    assert_eq!(told.count("ResponseHead 413"), 1);
    drop(connection);
    end(client, &world, &told).await;
}

/// Whatever a future waits for when it is dropped, every start has its end.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_is_balanced() {
    let mut ended = 0;
    for polls in 1..120 {
        let world = World::new();
        world.plan(Dial::Refuse);
        world.plan(Dial::Delay(SECOND));
        world.buffer(64);
        let served = Arc::new(Mutex::new(0));
        world.serve(move |request| {
            let mut served = served.lock().unwrap();
            *served += 1;
            match (*served, request.target()) {
                (1, _) => reply("503 Busy", "retry-after: 2\r\n", ""),
                (_, "/a?token=s3cret") => reply("307 Moved", "location: http://b.test/b\r\n", ""),
                _ => ok("0123456789012345678901234567890123456789"),
            }
        });
        let told = Recorder::default();
        let client = world
            .builder()
            .limits(Limits::default().with_max_connections(NonZeroUsize::new(1)))
            .retry(Retry::default().with_max_attempts(5))
            .rate_limit(RateLimit::default())
            .observer(told.clone())
            .build()
            .unwrap();
        let call = async {
            let upload = vec![b'x'; 100];
            let response = client.put(URL).body(upload).send().await.unwrap();
            response.bytes().await.unwrap()
        };
        if within_polls(polls, call).await.is_some() {
            ended += 1;
            assert_eq!(told.count("CallEnd 200"), 1);
        } else {
            let labels = told.count("CallCancelled") + told.count("CallEnd");
            assert_eq!(labels, 1, "{polls} polls");
        }
        sleep(20 * SECOND).await;
        end(client, &world, &told).await;
    }
    assert!(ended > 0, "some call comes to its end");
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn a_call_over_http2_dropped_at_any_await_is_balanced() {
    use crate::support::http2::Honest;
    use sockeye::HttpVersions;

    let mut ended = 0;
    for polls in 1..40 {
        let world = World::new();
        let server = Honest {
            goaway_after: Some(1),
            window: Some(40),
            ..Honest::default()
        };
        server.serve(&world);
        let told = Recorder::default();
        let client = world
            .builder()
            .http_versions(HttpVersions::Http2PriorKnowledge)
            .observer(told.clone())
            .build()
            .unwrap();
        let call = async {
            for _ in 0..2 {
                let upload = sockeye::Body::from(vec![b'x'; 200]);
                let response = client.put(URL).body(upload).send().await.unwrap();
                assert_eq!(response.bytes().await.unwrap().len(), 200);
            }
        };
        if within_polls(polls, call).await.is_some() {
            ended += 1;
        }
        let_others_run().await;
        client.close_idle();
        sleep(40 * SECOND).await;
        end(client, &world, &told).await;
    }
    assert!(ended > 0, "some calls come to their end");
}

/// Panics at every event, and asks the client things meanwhile.
struct Rude {
    client: OnceLock<Client>,
}

impl Observer for Rude {
    fn interest(&self) -> EventMask {
        EventMask::ALL
    }

    fn on(&self, _: &Event<'_>) {
        if let Some(client) = self.client.get() {
            let _ = client.stats();
            client.close_idle();
        }
        std::panic::resume_unwind(Box::new("rude"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_changes_nothing() {
    let world = World::new();
    world.serve(|request| match request.target() {
        "/a?token=s3cret" => ok("fine"),
        _ => reply("302 Found", "location: /a?token=s3cret\r\n", ""),
    });
    let (rude, told) = (
        Arc::new(Rude {
            client: OnceLock::new(),
        }),
        Recorder::default(),
    );
    let client = world
        .builder()
        .observer(Arc::clone(&rude))
        .observer(told.clone())
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(client.get(URL).await.unwrap().text().await.unwrap(), "fine");
        let moved = client.get("http://peer.test/moved").await.unwrap();
        assert_eq!(moved.text().await.unwrap(), "fine");
        assert!(
            within_polls(1, client.get("http://c.test/").send())
                .await
                .is_none()
        );
    }
    let_others_run().await;
    let labels = told.take();
    let stats = client.stats();
    assert_eq!(stats.observer_panics, labels.len() as u64);
    assert!(labels.len() > 60, "{}", labels.len());
    // It may ask the client whatever it wants, which holds no lock.
    assert!(rude.client.set(client.clone()).is_ok());
    assert_eq!(client.get(URL).await.unwrap().text().await.unwrap(), "fine");
    settle(&client, &world).await;
    told.expect_balance();
}

#[tokio::test(start_paused = true)]
async fn observers_get_the_groups_they_want() {
    let world = World::new();
    world.serve(|_| ok("body"));
    let (calls, dials) = (
        Recorder::of(EventMask::CALLS),
        Recorder::of(EventMask::DIALS),
    );
    let client = world
        .builder()
        .observer(calls.clone())
        .observer(dials.clone())
        .build()
        .unwrap();
    client.get(URL).await.unwrap();
    assert_eq!(
        calls.take(),
        ["CallStart GET http://peer.test", "CallEnd 200 1"]
    );
    assert_eq!(
        dials.take(),
        [
            "DialStart",
            "ConnectStart",
            "ConnectEnd",
            "DialEnd HTTP/1.1"
        ]
    );
    settle(&client, &world).await;
}

/// A redirect after a second, an attempt of two that is made again after three, and an answer after four.
#[tokio::test(start_paused = true)]
async fn timings_tell_of_redirects_and_of_earlier_attempts() {
    let world = World::new();
    let client = world.builder().retry(Retry::default()).build().unwrap();
    let call = tokio::spawn(client.get(URL).send());
    let mut connection = world.accept().await;
    for (seconds, answer) in [
        (1, reply("302 Found", "location: /b\r\n", "")),
        (2, reply("503 Busy", "retry-after: 3\r\n", "")),
        (4, ok("")),
    ] {
        connection.read_request().await;
        sleep(seconds * SECOND).await;
        connection.write(answer).await;
    }
    let timings = call.await.unwrap().unwrap().timings();
    let earlier = timings.earlier.unwrap();
    assert_eq!(timings.redirects, Some(SECOND));
    // The wait has some jitter.
    assert!((5 * SECOND..6 * SECOND).contains(&earlier), "{timings}");
    assert_eq!((timings.pool_wait, timings.head), (None, Some(4 * SECOND)));
    assert_eq!(timings.total, Some(5 * SECOND + earlier));
    // One that is answered at once has nothing of the kind.
    let call = tokio::spawn(client.get(URL).send());
    connection.read_request().await;
    connection.write(ok("")).await;
    let timings = call.await.unwrap().unwrap().timings();
    assert_eq!((timings.redirects, timings.earlier), (None, None));
    assert_eq!(timings.total, timings.head);
    settle(&client, &world).await;
}

/// Whatever fails a call is told as its end, with or without an attempt.
#[tokio::test(start_paused = true)]
async fn calls_that_fail_before_an_attempt_or_in_line() {
    let world = World::new();
    world.always(Dial::Hang);
    let told = Recorder::default();
    let timeouts = Timeouts::default()
        .with_pool(Some(SECOND))
        .with_connect(None);
    let client = world
        .builder()
        .limits(Limits::default().with_max_connections(NonZeroUsize::new(1)))
        .timeouts(timeouts)
        .observer(told.clone())
        .build()
        .unwrap();
    let refused = client.get(URL).header("transfer-encoding", "chunked");
    refused.await.unwrap_err();
    let labels = told.take();
    assert_eq!(
        labels,
        [
            "CallStart GET http://peer.test",
            "CallFailed InvalidRequest 0"
        ]
    );
    let first = tokio::spawn(client.get(URL).send());
    let_others_run().await;
    let error = client.get("http://other.test/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    first.abort();
    let_others_run().await;
    assert_eq!(
        only(told.take(), &["Call", "Queue"]),
        [
            "CallStart GET http://peer.test",
            "QueueStart",
            "CallStart GET http://other.test",
            "QueueStart",
            "QueueEnd in vain",
            "CallFailed Timeout 1",
            "QueueEnd in vain",
            "CallCancelled 1",
        ]
    );
    drop(client);
    let_others_run().await;
    told.expect_all_closed();
}
