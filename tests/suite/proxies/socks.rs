//! SOCKS5: what is asked, byte by byte, and everything that a proxy can answer (RFC 1928, RFC 1929).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sockeye::{BoxFuture, Client, ErrorKind, Phase, Resolve, Resolved};

use super::{fails, through};
use crate::support::peer::{Dial, PeerConnection, World, ok, settle};

const REPLY: &[u8] = b"\x05\x00\x00\x01\0\0\0\0\0\0";

/// Says `answer` when so many bytes have come, and answers what came.
async fn turn(connection: &mut PeerConnection, wanted: usize, answer: &[u8]) -> Vec<u8> {
    let read = connection.take(wanted).await.expect("as much as that");
    connection.try_write(answer).await;
    read
}

/// Plays a proxy that takes a call without a password; answers what it was asked for.
async fn play(world: &World, request: usize) -> Vec<u8> {
    let mut connection = world.accept().await;
    assert_eq!(turn(&mut connection, 3, b"\x05\x00").await, b"\x05\x01\x00");
    let asked = turn(&mut connection, request, REPLY).await;
    let request = connection.read_request().await;
    assert!(
        request.head.starts_with("GET / HTTP/1.1\r\n"),
        "{}",
        request.head
    );
    connection.write(ok("through")).await;
    asked
}

#[tokio::test(start_paused = true)]
async fn destinations() {
    let long = "x".repeat(63);
    let long = format!("{long}.{long}.{long}.{}", &long[..61]);
    let name = |host: &str, port: u16| {
        let len = u8::try_from(host.len()).unwrap();
        [
            b"\x05\x01\x00\x03",
            &[len][..],
            host.as_bytes(),
            &port.to_be_bytes(),
        ]
        .concat()
    };
    let loopback = [&b"\x05\x01\x00\x04"[..], &[0; 15], &[1, 0x1f, 0x90]].concat();
    for (url, expected) in [
        ("http://a.test/".to_owned(), name("a.test", 80)),
        ("http://A.Test.:81/".to_owned(), name("a.test.", 81)),
        (format!("http://{long}/"), name(&long, 80)),
        (
            "http://10.1.2.3:258/".to_owned(),
            b"\x05\x01\x00\x01\x0a\x01\x02\x03\x01\x02".to_vec(),
        ),
        ("http://[::1]:8080/".to_owned(), loopback),
    ] {
        let world = World::new();
        let client = through(&world, "socks5h://proxy.test").build().unwrap();
        let call = async { client.get(&url).send().await.unwrap() };
        let (response, asked) = tokio::join!(call, play(&world, expected.len()));
        assert_eq!(asked, expected, "{url}");
        let proxy = response.connection().proxy();
        assert_eq!(proxy.as_deref(), Some("socks5h://proxy.test:1080"));
        assert_eq!(response.text().await.unwrap(), "through");
        settle(&client, &world).await;
    }
}

/// A resolver that knows three addresses of everything, and takes two seconds to find them.
struct Three;

impl Resolve for Three {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Resolved>> {
        let addresses = ["10.0.0.1", "10.0.0.2", "2001:db8::3"];
        let addresses: [IpAddr; 3] = addresses.map(|text| text.parse().unwrap());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(Resolved::new(addresses))
        })
    }
}

/// `socks5` looks names up here, and tries the next address where the proxy cannot reach one.
#[tokio::test(start_paused = true)]
async fn names_are_looked_up_here() {
    let world = World::new();
    let client = through(&world, "socks5://proxy.test")
        .resolver(Three)
        .build()
        .unwrap();
    let peer = async {
        let mut asked = Vec::new();
        for code in [4, 5, 0] {
            let mut connection = world.accept().await;
            turn(&mut connection, 3, b"\x05\x00").await;
            let mut request = connection.take(4).await.unwrap();
            let rest = if request[3] == 4 { 18 } else { 6 };
            request.extend(connection.take(rest).await.unwrap());
            asked.push(request);
            if code != 0 {
                connection.write([5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
                continue;
            }
            connection.write(REPLY).await;
            connection.read_request().await;
            connection.write(ok("through")).await;
        }
        asked
    };
    let call = async { client.get("http://a.test/").send().await.unwrap() };
    let (response, mut asked) = tokio::join!(call, peer);
    let timings = response.timings();
    assert_eq!(timings.resolve, Some(Duration::from_secs(2)));
    assert_eq!(timings.connect, Some(Duration::ZERO));
    assert_eq!(response.text().await.unwrap(), "through");
    asked.sort();
    let six = [
        b"\x05\x01\x00\x04\x20\x01\x0d\xb8",
        &[0; 11][..],
        &[3, 0, 80],
    ]
    .concat();
    assert_eq!(
        asked,
        [
            b"\x05\x01\x00\x01\x0a\0\0\x01\0\x50".to_vec(),
            b"\x05\x01\x00\x01\x0a\0\0\x02\0\x50".to_vec(),
            six
        ]
    );
    settle(&client, &world).await;
}

/// A resolver that counts, and knows another address each time.
#[derive(Clone, Default)]
struct Moving(Arc<AtomicU8>);

impl Resolve for Moving {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Resolved>> {
        let last = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move { Ok(Resolved::new([IpAddr::from([10, 0, 0, last])])) })
    }
}

/// What the proxy does not reach may have moved: the next call asks for it anew. A proxy that is not there says nothing of it.
#[tokio::test(start_paused = true)]
async fn an_address_that_the_proxy_cannot_reach_is_forgotten() {
    let (world, moving) = (World::new(), Moving::default());
    let client = through(&world, "socks5://proxy.test")
        .resolver(moving.clone())
        .build()
        .unwrap();
    for (code, expected) in [(0, 1), (4, 1), (0, 2), (5, 2), (4, 3)] {
        let peer = async {
            let mut connection = world.accept().await;
            turn(&mut connection, 3, b"\x05\x00").await;
            let answer = [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
            let asked = turn(&mut connection, 10, &answer).await;
            assert_eq!(asked[..8], [5, 1, 0, 1, 10, 0, 0, expected], "{code}");
            if code == 0 {
                connection.read_request().await;
                connection.write(ok("through")).await;
            }
        };
        let call = async {
            let outcome = client.get("http://a.test/").send().await;
            assert_eq!(outcome.is_ok(), code == 0, "{outcome:?}");
            if let Ok(response) = outcome {
                assert_eq!(response.text().await.unwrap(), "through");
            }
        };
        tokio::join!(call, peer);
        client.close_idle();
    }
    // The last one has been forgotten, and its successor is known from here on.
    world.always(Dial::Refuse);
    for _ in 0..2 {
        fails(&client, "http://a.test/").await;
    }
    assert_eq!(moving.0.load(Ordering::SeqCst), 4);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn user_and_password() {
    let world = World::new();
    let client = through(&world, "socks5h://us%40er:s3cret@proxy.test")
        .build()
        .unwrap();
    let peer = async {
        let mut connection = world.accept().await;
        assert_eq!(
            turn(&mut connection, 4, b"\x05\x02").await,
            b"\x05\x02\x00\x02"
        );
        assert_eq!(
            turn(&mut connection, 14, b"\x01\x00").await,
            b"\x01\x05us@er\x06s3cret"
        );
        // A bound address may be a name, or of IPv6; nobody needs it.
        turn(&mut connection, 13, b"\x05\x00\x00\x03\x06p.test\x12\x34").await;
        connection.read_request().await;
        connection.write(ok("one")).await;
        // One that wants no password is not told it.
        let mut connection = world.accept().await;
        turn(&mut connection, 4, b"\x05\x00").await;
        let six = [b"\x05\x00\x00\x04", &[7; 18][..]].concat();
        let asked = turn(&mut connection, 13, &six).await;
        assert_eq!(asked, b"\x05\x01\x00\x03\x06b.test\x00\x50");
        connection.read_request().await;
        connection.write(ok("two")).await;
    };
    let calls = async {
        let one = client.get("http://a.test/").send().await.unwrap();
        let two = client.get("http://b.test/").send().await.unwrap();
        (one.text().await.unwrap(), two.text().await.unwrap())
    };
    let ((one, two), ()) = tokio::join!(calls, peer);
    assert_eq!((&*one, &*two), ("one", "two"));
    settle(&client, &world).await;
}

/// The URL of a proxy with or without a password, what the proxy says in turn, and what the error says and is.
struct Case {
    login: bool,
    answers: &'static [&'static [u8]],
    expected: &'static str,
    retryable: bool,
}

async fn check(case: &Case) {
    let world = World::new();
    let url = if case.login {
        "socks5h://user:s3cret@proxy.test"
    } else {
        "socks5h://proxy.test"
    };
    let client: Client = through(&world, url).build().unwrap();
    let peer = async {
        let mut connection = world.accept().await;
        let lengths: &[usize] = if case.login { &[4, 13, 13] } else { &[3, 13] };
        for (answer, length) in case.answers.iter().zip(lengths) {
            turn(&mut connection, *length, answer).await;
        }
        connection.shutdown().await;
        connection.read_to_end().await;
    };
    let (error, ()) = tokio::join!(fails(&client, "http://a.test/"), peer);
    assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
    assert_eq!(error.phase(), Some(Phase::Connect));
    let text = error.to_string();
    assert!(text.contains("socks5h://proxy.test:1080"), "{text}");
    assert!(
        text.contains(case.expected),
        "{text} without {}",
        case.expected
    );
    assert_eq!(error.is_retryable(), case.retryable, "{text}");
    assert_eq!(error.proxy_status(), None);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_no_connection() {
    const NO_LOGIN: &[u8] = b"\x05\x00";
    let without = |answers, expected, retryable| Case {
        login: false,
        answers,
        expected,
        retryable,
    };
    let with = |answers, expected, retryable| Case {
        login: true,
        answers,
        expected,
        retryable,
    };
    for case in [
        without(&[], "closed the connection without an answer", true),
        without(&[b"\x05"], "closed the connection", true),
        without(&[b"\x04\x5a"], "version 4", false),
        without(
            &[b"HTTP/1.1 400 Bad Request\r\n\r\n"],
            "looks like HTTP",
            false,
        ),
        without(&[b"\x05\xff"], "set user and password", false),
        without(&[b"\x05\x01"], "method 1", false),
        without(&[b"\x05\x02"], "method 2, which was not offered", false),
        without(&[NO_LOGIN], "closed the connection", true),
        without(&[NO_LOGIN, b"\x05"], "closed the connection", true),
        without(
            &[NO_LOGIN, b"\x04\x00\x00\x01\0\0\0\0\0\0"],
            "version 4",
            false,
        ),
        without(
            &[NO_LOGIN, b"\x05\x01\x00\x01\0\0\0\0\0\0"],
            "code 1: general failure",
            true,
        ),
        // Some end it behind the code.
        without(&[NO_LOGIN, b"\x05\x01"], "code 1: general failure", true),
        without(
            &[NO_LOGIN, b"\x05\x02\x00\x01\0\0\0\0\0\0"],
            "code 2: its rules",
            false,
        ),
        without(
            &[NO_LOGIN, b"\x05\x03\x00\x01\0\0\0\0\0\0"],
            "code 3: the network",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\x04\x00\x01\0\0\0\0\0\0"],
            "code 4: the host",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\x05\x00\x01\0\0\0\0\0\0"],
            "code 5: the connection was refused",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\x06\x00\x01\0\0\0\0\0\0"],
            "code 6: the time",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\x07\x00\x01\0\0\0\0\0\0"],
            "code 7: it does not know CONNECT",
            false,
        ),
        without(
            &[NO_LOGIN, b"\x05\x08\x00\x01\0\0\0\0\0\0"],
            "code 8: it does not know this type",
            false,
        ),
        without(
            &[NO_LOGIN, b"\x05\x09\x00\x01\0\0\0\0\0\0"],
            "code 9: which has no meaning",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\xff\x00\x01\0\0\0\0\0\0"],
            "code 255",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\x00\x00\x02\0\0\0\0\0\0"],
            "unknown type 2",
            false,
        ),
        without(
            &[NO_LOGIN, b"\x05\x00\x00\x01\0\0\0\0\0"],
            "closed the connection",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\x00\x00\x03\x05abc"],
            "closed the connection",
            true,
        ),
        without(
            &[NO_LOGIN, b"\x05\x00\x00\x04\0\0\0\0\0\0"],
            "closed the connection",
            true,
        ),
        with(&[b"\x05\xff"], "takes neither", false),
        with(&[b"\x05\x01"], "method 1", false),
        with(
            &[b"\x05\x02", b"\x01\x01"],
            "refused user and password",
            false,
        ),
        with(
            &[b"\x05\x02", b"\x01\xff"],
            "refused user and password",
            false,
        ),
        with(&[b"\x05\x02", b"\x05\x00"], "version 5, not 1", false),
        with(&[b"\x05\x02", b"\x01"], "closed the connection", true),
        with(
            &[b"\x05\x02", b"\x01\x00", b"\x05\x05\x00\x01\0\0\0\0\0\0"],
            "code 5",
            true,
        ),
    ] {
        check(&case).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_runs_into_the_connect_limit() {
    let world = World::new();
    let client = through(&world, "socks5h://user:s3cret@proxy.test")
        .connect_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let peer = async {
        let mut connection = world.accept().await;
        connection.read_to_end().await;
    };
    let (error, ()) = tokio::join!(fails(&client, "http://a.test/"), peer);
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.phase(), Some(Phase::Connect));
    assert!(
        error.to_string().contains("socks5h://proxy.test:1080"),
        "{error}"
    );
    settle(&client, &world).await;
}
