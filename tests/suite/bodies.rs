//! Request bodies that are made when they are sent: by a function, or of a file.

use std::fs::File;
use std::future::pending;
#[cfg(target_os = "linux")]
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sockeye::{Body, Client, ErrorKind, Phase, RequestBuilder, Sent, Timeouts};
#[cfg(target_os = "linux")]
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::faults::Faults;
use crate::support::peer::{Request, World, let_others_run, ok, reply, settle};
use crate::support::streams::{Pieces, fed, within_polls};

const URL: &str = "http://peer.test/";

/// A body that counts how often it was made, and says so in its bytes.
fn counted() -> (Body, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let body = Body::replay(move || {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            tokio::task::yield_now().await;
            let (feed, stream) = fed();
            feed.give(format!("body {number}, "));
            feed.give("to its end");
            Ok(Body::stream(stream))
        })
    });
    (body, made)
}

/// The request as the peer saw it, and what the call was told.
async fn exchange(world: &World, request: RequestBuilder) -> Request {
    let call = tokio::spawn(request.send());
    let mut peer = world.accept().await;
    let request = peer.read_request().await;
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    request
}

#[tokio::test(start_paused = true)]
async fn what_the_function_gives_is_framed_as_itself() {
    let stream = || Body::stream(Pieces::new(3, 4).0);
    let make = |body: fn() -> Body| Body::replay(move || Box::pin(async move { Ok(body()) }));
    for (body, length, content) in [
        (make(|| "hello".into()), Some("5"), "hello"),
        (make(Body::empty), Some("0"), ""),
        (
            make(|| Body::stream(Pieces::new(3, 4).0)),
            None,
            "xxxxxxxxxxxx",
        ),
        (
            make(|| Body::sized_stream(12, Pieces::new(3, 4).0)),
            Some("12"),
            "xxxxxxxxxxxx",
        ),
        (
            Body::replay_sized(12, move || Box::pin(async move { Ok(stream()) })),
            Some("12"),
            "xxxxxxxxxxxx",
        ),
    ] {
        let world = World::new();
        let client = world.client();
        let request = exchange(&world, client.post(URL).body(body)).await;
        assert_eq!(request.field("content-length"), length);
        let chunked = request.field("transfer-encoding").is_some();
        assert_eq!(chunked, length.is_none(), "{}", request.head);
        assert_eq!(String::from_utf8_lossy(&request.body), content);
        settle(&client, &world).await;
    }
}

/// Ruling 5 (2): a kept connection that is dead costs the request nothing, its body included.
#[tokio::test(start_paused = true)]
async fn on_a_stale_connection_the_body_is_made_and_sent_again_whole() {
    let world = World::new();
    let client = world.client();
    let before = tokio::spawn(client.get(URL).send());
    let mut first = world.accept().await;
    first.read_request().await;
    first.write(ok("")).await;
    before.await.unwrap().unwrap();

    let (body, made) = counted();
    let call = tokio::spawn(client.put(URL).body(body).send());
    first.read_head().await.unwrap();
    for piece in ["body 1, ", "to its end"] {
        assert_eq!(first.read_chunk().await.unwrap(), piece.as_bytes());
    }
    first.close();
    let mut second = world.accept().await;
    let request = second.read_request().await;
    assert_eq!(request.body, b"body 2, to its end");
    second.write(ok("")).await;
    assert_eq!(call.await.unwrap().unwrap().attempts(), 2);
    assert_eq!(made.load(Ordering::SeqCst), 2);
    settle(&client, &world).await;
}

/// Ruling 5 (1): of which nothing was written, that is tried again whatever the method.
#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_made_for_each_attempt() {
    let world = World::new();
    world.faults(Faults {
        break_after_writing: Some(0),
        ..Faults::default()
    });
    let client = world.client();
    let (body, made) = counted();
    let call = tokio::spawn(client.post(URL).body(body).send());
    for _ in 0..3 {
        let peer = world.accept().await;
        // The client has tried to write by then.
        let_others_run().await;
        peer.close();
    }
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.sent(), Sent::Nothing, "{error}");
    assert_eq!((error.attempts(), made.load(Ordering::SeqCst)), (3, 3));
    settle(&client, &world).await;
}

/// http1 a4: the body that waited is the one of the first try; the second makes its own.
#[tokio::test(start_paused = true)]
async fn after_417_the_body_is_made_once_more() {
    let world = World::new();
    let client = world.client();
    let (body, made) = counted();
    let request = client.post(URL).body(body).expect_continue(true);
    let call = tokio::spawn(request.send());
    let mut peer = world.accept().await;
    peer.read_head().await.unwrap();
    peer.write(reply("417 Expectation Failed", "", "")).await;
    let mut peer = world.accept().await;
    assert_eq!(peer.read_request().await.body, b"body 2, to its end");
    peer.write(ok("")).await;
    assert_eq!(call.await.unwrap().unwrap().attempts(), 2);
    assert_eq!(made.load(Ordering::SeqCst), 2);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_with_such_a_body_can_be_cloned() {
    let world = World::new();
    let client = world.client();
    let (body, made) = counted();
    let request = client.post(URL).body(body);
    let copy = request.try_clone().unwrap();
    drop(request);
    assert_eq!(made.load(Ordering::SeqCst), 0);
    let request = exchange(&world, copy).await;
    assert_eq!(request.body, b"body 1, to its end");
    let (_feed, stream) = fed();
    assert!(
        client
            .post(URL)
            .body(Body::stream(stream))
            .try_clone()
            .is_none()
    );
    settle(&client, &world).await;
}

/// The function fails before a byte is written, so that the connection can be used by the next call.
#[tokio::test(start_paused = true)]
async fn an_error_of_the_function_costs_no_connection() {
    let world = World::new();
    let client = world.client();
    let gone = || Body::replay(|| Box::pin(async { Err(io::ErrorKind::NotFound.into()) }));
    let wrong = || Body::replay_sized(4, || Box::pin(async { Ok("hello".into()) }));
    for (body, said) in [(gone(), "not found"), (wrong(), "one of 5 bytes was made")] {
        let error = client.post(URL).body(body).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
        assert_eq!(error.phase(), Some(Phase::Prepare));
        assert_eq!(error.sent(), Sent::Nothing);
        assert_eq!(error.attempts(), 1);
        assert!(error.to_string().contains(said), "{error}");
    }
    settle(&client, &world).await;
    exchange(&world, client.get(URL)).await;
    assert_eq!(world.dials(), 1, "one connection served all three");
    settle(&client, &world).await;
}

/// A stream that fails or is cut in the middle takes its connection with it, and no last chunk vouches for it.
#[tokio::test(start_paused = true)]
async fn an_error_in_what_the_function_gave_closes_the_connection() {
    let world = World::new();
    let client = world.client();
    let body = Body::replay(|| {
        let (feed, stream) = fed();
        feed.give("some");
        feed.fail("the disk is gone");
        Box::pin(async { Ok(Body::stream(stream)) })
    });
    let call = tokio::spawn(client.put(URL).body(body).send());
    let mut peer = world.accept().await;
    peer.read_head().await.unwrap();
    let sent = peer.read_to_end().await;
    assert!(!sent.ends_with(b"0\r\n\r\n"));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Body, 1));
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(!error.is_retryable());
    settle(&client, &world).await;
}

/// Ruling 18: no step's own limit counts while the caller makes his body; those of the attempt and of the call do.
#[tokio::test(start_paused = true)]
async fn the_limits_of_the_whole_strike_while_a_body_is_made() {
    let world = World::new();
    let client = world.client();
    let total = Timeouts::default().with_total(Some(Duration::from_secs(30)));
    let attempt = Timeouts::default().with_attempt(Some(Duration::from_secs(30)));
    for timeouts in [total, attempt] {
        let begun = Instant::now();
        let never = Body::replay(|| Box::pin(pending()));
        let call = client.put(URL).timeouts(timeouts).body(never).send();
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.phase(), Some(Phase::Prepare));
        assert_eq!(error.sent(), Sent::Nothing);
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
    }
    settle(&client, &world).await;
    assert_eq!(world.dials(), 1);

    let slow = Body::replay(|| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            Ok("late".into())
        })
    });
    let call = tokio::spawn(client.put(URL).body(slow).send());
    let mut peer = world.accept().await;
    assert_eq!(peer.read_request().await.body, b"late");
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
}

/// RFC 9112 section 7.1 and ruling 14: what was made has a length, so a peer of the last century can have it.
#[tokio::test(start_paused = true)]
async fn a_body_that_has_a_length_once_it_is_made_goes_to_http_1_0() {
    let world = World::new();
    let client = world.client();
    let sized = Body::replay(|| Box::pin(async { Ok("hello".into()) }));
    for request in [client.get(URL), client.post(URL).body(sized)] {
        let call = tokio::spawn(request.send());
        let mut peer = world.accept().await;
        let request = peer.read_request().await;
        assert!(request.field("transfer-encoding").is_none());
        assert_eq!(
            request.body.len(),
            if request.method() == "GET" { 0 } else { 5 }
        );
        let answer = ok("").replace("HTTP/1.1", "HTTP/1.0");
        peer.write(answer).await;
        call.await.unwrap().unwrap();
    }
    let (body, _) = counted();
    let error = client.post(URL).body(body).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert!(error.to_string().contains("HTTP/1.0"), "{error}");
    settle(&client, &world).await;
}

/// Dropped after every number of polls, a call with such a body leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_anywhere_leaks_nothing() {
    fn put(client: &Client, body: Body) -> RequestBuilder {
        client.put(URL).body(body)
    }
    for warm in [false, true] {
        for polls in 0.. {
            let world = World::new();
            world.serve(|request| ok(&request.body.len().to_string()));
            let client = world.client();
            if warm {
                client.get(URL).send().await.unwrap();
            }
            let (body, _) = counted();
            let outcome = within_polls(polls, put(&client, body).send()).await;
            let done = outcome.is_some();
            if let Some(response) = outcome {
                assert_eq!(response.unwrap().text().await.unwrap(), "18");
            }
            let_others_run().await;
            settle(&client, &world).await;
            // The next call works.
            let (body, _) = counted();
            let response = put(&client, body).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), "18");
            settle(&client, &world).await;
            if done {
                break;
            }
        }
    }
}

// ---- files

/// A file of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, len: usize) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut file = BufWriter::new(File::create(&path).unwrap());
        Pattern::default().write(len, &mut file);
        file.flush().unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bytes of which no two stretches are alike.
#[derive(Default)]
struct Pattern(u64);

impl Pattern {
    fn write(&mut self, len: usize, to: &mut impl Write) {
        let mut left = len;
        while left > 0 {
            self.0 += 1;
            let bytes = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            let count = left.min(bytes.len());
            to.write_all(&bytes[..count]).unwrap();
            left -= count;
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        Self::default().write(len, &mut bytes);
        bytes
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_sent_with_its_length() {
    for len in [0, 10, 100_000, 3 * 1024 * 1024 + 7] {
        let file = Scratch::new("sent", len);
        let world = World::new();
        world.buffer(50_000);
        let client = world.client();
        let request = client.post(URL).body(Body::file(&file.0));
        assert!(request.try_clone().is_some());
        let request = exchange(&world, request).await;
        assert_eq!(request.field("content-length"), Some(&*len.to_string()));
        assert!(request.body == Pattern::bytes(len), "{len}");
        settle(&client, &world).await;
    }
}

/// Each attempt opens the file anew and sends it from its first byte.
#[tokio::test(start_paused = true)]
async fn on_a_stale_connection_a_file_is_sent_again_whole() {
    let len = 1_000_000;
    let file = Scratch::new("stale", len);
    let world = World::new();
    world.buffer(50_000);
    let client = world.client();
    let before = tokio::spawn(client.get(URL).send());
    let mut first = world.accept().await;
    first.read_request().await;
    first.write(ok("")).await;
    before.await.unwrap().unwrap();

    let call = tokio::spawn(client.put(URL).body(Body::file(&file.0)).send());
    first.read_head().await.unwrap();
    assert!(first.take(400_000).await.unwrap() == Pattern::bytes(400_000));
    first.close();
    let mut second = world.accept().await;
    let request = second.read_request().await;
    assert!(request.body == Pattern::bytes(len));
    second.write(ok("")).await;
    assert_eq!(call.await.unwrap().unwrap().attempts(), 2);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_not_there_costs_no_connection() {
    let world = World::new();
    let client = world.client();
    let error = client
        .put(URL)
        .body(Body::file("/no/such/file"))
        .send()
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
    assert_eq!(error.sent(), Sent::Nothing);
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    settle(&client, &world).await;
    exchange(&world, client.get(URL)).await;
    assert_eq!(world.dials(), 1);
    settle(&client, &world).await;
}

/// The connection closes before the last piece, so that the peer cannot take what it got for the file.
#[tokio::test(start_paused = true)]
async fn a_file_that_changes_while_it_is_sent_is_never_whole() {
    for longer in [true, false] {
        let len = 1_000_000;
        let file = Scratch::new(if longer { "longer" } else { "shorter" }, len);
        let world = World::new();
        world.buffer(50_000);
        let client = world.client();
        let call = tokio::spawn(client.put(URL).body(Body::file(&file.0)).send());
        let mut peer = world.accept().await;
        peer.read_head().await.unwrap();
        peer.take(1000).await.unwrap();
        let change = File::options().append(true).open(&file.0).unwrap();
        change
            .set_len(if longer { len + 1 } else { len - 1 } as u64)
            .unwrap();
        let rest = peer.read_to_end().await;
        assert!(rest.len() + 1000 < len, "{}", rest.len());
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body, "{error}");
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_a_file_that_is_dropped_anywhere_leaks_nothing() {
    let file = Scratch::new("dropped", 300_000);
    for polls in 0.. {
        let world = World::new();
        world.buffer(50_000);
        world.serve(|request| ok(&request.body.len().to_string()));
        let client = world.client();
        let put = || client.put(URL).body(Body::file(&file.0)).send();
        let done = within_polls(polls, put()).await.is_some();
        let_others_run().await;
        settle(&client, &world).await;
        assert_eq!(put().await.unwrap().text().await.unwrap(), "300000");
        settle(&client, &world).await;
        if done {
            break;
        }
    }
}

// ---- progress

/// What a body is does not change because it is watched; an upload that begins anew is told from its beginning.
#[tokio::test(start_paused = true)]
async fn progress_is_told_of_each_attempt() {
    const LEN: usize = 300_000;
    let file = Scratch::new("watched", LEN);
    let bodies: [fn(&Path) -> Body; 2] = [|path| Body::file(path), |_| Pattern::bytes(LEN).into()];
    for make in bodies {
        let world = World::new();
        world.buffer(10_000);
        let client = world.client();
        let before = tokio::spawn(client.get(URL).send());
        let mut first = world.accept().await;
        first.read_request().await;
        first.write(ok("")).await;
        before.await.unwrap().unwrap();

        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let body = make(&file.0).with_progress(move |sent, total| {
            assert_eq!(total, Some(LEN as u64));
            tell.lock().unwrap().push(sent);
        });
        let call = tokio::spawn(client.put(URL).body(body).send());
        first.read_head().await.unwrap();
        first.take(100_000).await.unwrap();
        let_others_run().await;
        let before = std::mem::take(&mut *told.lock().unwrap());
        let sent = before.last().copied().unwrap();
        assert!((100_000..=200_000).contains(&sent), "{sent} told of 100000");
        first.close();
        let mut second = world.accept().await;
        let request = second.read_request().await;
        assert!(request.body == Pattern::bytes(LEN));
        second.write(ok("")).await;
        call.await.unwrap().unwrap();
        let after = std::mem::take(&mut *told.lock().unwrap());
        assert!(after.is_sorted() && after[0] <= 64 * 1024, "{after:?}");
        assert_eq!(after.last(), Some(&(LEN as u64)));
        settle(&client, &world).await;
    }
}

/// The resident memory of this process, in KiB.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "writes and sends a file of 1 GiB; run with the interop tests"]
async fn interop_a_file_of_a_gibibyte_is_sent_in_constant_memory() {
    const LEN: usize = 1 << 30;
    const MOST_KIB: u64 = 16 * 1024;

    // The memory is that of the process, so that it must have one of its own.
    if std::env::var_os("ALONE").is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--test-threads=1"])
            .arg("bodies::interop_a_file_of_a_gibibyte_is_sent_in_constant_memory")
            .env("ALONE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }

    /// Hashes what is written to it.
    #[derive(Debug, Default)]
    struct Hashed(DefaultHasher);

    impl Write for Hashed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let file = Scratch::new("gibibyte", LEN);
    let mut expected = BufWriter::new(Hashed::default());
    Pattern::default().write(LEN, &mut expected);
    let expected = expected.into_inner().unwrap().0.finish();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let before = resident();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let (mut hash, mut read, mut most) = (Hashed::default(), 0, 0);
        let mut in_body = false;
        while read < LEN {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "cut short at {read}");
            let mut data = &buffer[..count];
            if !in_body {
                // The head comes in one read on loopback.
                let end = data.windows(4).position(|window| window == b"\r\n\r\n");
                data = &data[end.unwrap() + 4..];
                in_body = true;
            }
            hash.write_all(data).unwrap();
            if (read + data.len()) >> 20 != read >> 20 {
                most = most.max(resident());
            }
            read += data.len();
        }
        stream.write_all(ok("").as_bytes()).await.unwrap();
        (hash.0.finish(), most)
    });
    let client = Client::new();
    client
        .put(url)
        .body(Body::file(&file.0))
        .send()
        .await
        .unwrap();
    let (hash, most) = server.await.unwrap();
    assert_eq!(hash, expected);
    assert!(
        most < before + MOST_KIB,
        "{before} KiB before, {most} in it"
    );
    sockeye::test::at_rest(&client);
}
