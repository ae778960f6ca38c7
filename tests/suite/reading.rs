//! What a response can be turned into: text, JSON, a stream, a reader, lines and files, over every framing.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use sockeye::{Client, ErrorKind, Response, Timeouts};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::framing::{FRAMINGS, Framing, answer, next_works};
use crate::support::peer::{World, let_others_run, ok, reply};
use crate::support::streams::within_polls;

/// Reads a body with `read` over every framing and in several pieces; the next request works each time.
async fn over_every_framing(fields: &str, body: &[u8], read: impl AsyncFn(Response, Framing)) {
    for framing in FRAMINGS {
        for piece in [body.len(), 7, 1] {
            let world = World::new();
            let client = world.client();
            tokio::join!(answer(&world, fields, body, framing, piece), async {
                let response = client.get("http://peer.test/").send().await.unwrap();
                read(response, framing).await;
            });
            next_works(&world, &client).await;
        }
    }
}

/// Reads a body that is cut off after half of it.
async fn cut_off(read: impl AsyncFn(Response)) {
    for framing in [Framing::Length, Framing::Chunked] {
        let world = World::new();
        let client = world.client();
        let told = match framing {
            Framing::Length => "content-length: 20\r\n\r\none\ntwo\n",
            _ => "transfer-encoding: chunked\r\n\r\n8\r\none\ntwo\n\r\n8\r\nth",
        };
        tokio::join!(
            async {
                let mut connection = world.accept().await;
                connection.read_request().await;
                connection.write(format!("HTTP/1.1 200 OK\r\n{told}")).await;
                let_others_run().await;
            },
            async {
                let response = client.get("http://peer.test/").send().await.unwrap();
                read(response).await;
            }
        );
        next_works(&world, &client).await;
    }
}

async fn next_of<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

const LINES: &[u8] = "\u{feff}one\r\n\ntw\u{f6}\nlast".as_bytes();

#[tokio::test(start_paused = true)]
async fn a_stream_gives_all_pieces_and_then_the_trailers() {
    over_every_framing("", LINES, async |response, framing| {
        let mut stream = response.bytes_stream();
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece: Bytes = piece.unwrap();
            assert!(!piece.is_empty());
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, LINES);
        assert!(stream.next().await.is_none() && next_of(&mut stream).await.is_none());
        let sum = stream.trailers().map(|trailers| &trailers["x-sum"]);
        assert_eq!(sum.is_some(), framing == Framing::Chunked);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_reads_and_has_the_trailers_in_the_end() {
    over_every_framing("", LINES, async |response, framing| {
        let mut reader = response.into_reader();
        let mut start = [0; 5];
        reader.read_exact(&mut start).await.unwrap();
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).await.unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert_eq!([&start[..], &line, &rest].concat(), LINES);
        assert_eq!(reader.trailers().is_some(), framing == Framing::Chunked);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn lines_come_without_their_ends() {
    over_every_framing("", LINES, async |response, framing| {
        let mut lines = response.lines();
        for expected in ["one", "", "tw\u{f6}"] {
            assert_eq!(lines.next().await.unwrap().unwrap(), expected);
        }
        assert_eq!(next_of(&mut lines).await.unwrap().unwrap(), "last");
        assert!(lines.next().await.is_none() && lines.next().await.is_none());
        assert_eq!(lines.trailers().is_some(), framing == Framing::Chunked);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_not_utf8_fails_alone_and_one_that_is_too_long_ends_it() {
    over_every_framing(
        "",
        b"good\nb\xffd\ngood again\ntoo long it is\nnever",
        async |response, _| {
            let mut lines = response.lines().max_line(10);
            assert_eq!(lines.next().await.unwrap().unwrap(), "good");
            let error = lines.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
            let told = error.to_string();
            assert_eq!(
                told,
                "http://peer.test: line 2 of the body is not UTF-8 at byte 1"
            );
            assert_eq!(lines.next().await.unwrap().unwrap(), "good again");
            let error = lines.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            let told = "a line of the body is over the limit of 10 bytes (max_line)";
            assert_eq!(error.to_string(), format!("http://peer.test: {told}"));
            assert!(lines.next().await.is_none());
        },
    )
    .await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn ndjson_names_the_line_that_is_not_the_expected_json() {
    let body = b"[1]\r\n\n \t\n[2, 3]\n[4, \"x\"]\n[5]";
    over_every_framing("", body, async |response, framing| {
        let mut rows = response.ndjson::<Vec<u32>>();
        assert_eq!(rows.next().await.unwrap().unwrap(), [1]);
        assert_eq!(rows.next().await.unwrap().unwrap(), [2, 3]);
        let error = rows.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        let told = error.to_string();
        assert!(
            told.contains("line 5 of the body is not the expected JSON"),
            "{told}"
        );
        assert!(told.contains("column 7") && told.contains("[4, "), "{told}");
        assert_eq!(next_of(&mut rows).await.unwrap().unwrap(), [5]);
        assert!(rows.next().await.is_none());
        assert_eq!(rows.trailers().is_some(), framing == Framing::Chunked);
    })
    .await;
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn json_says_what_came_instead() {
    let html = b"<html>\n<h1>oops</h1>";
    over_every_framing(
        "content-type: text/html; charset=x\r\n",
        html,
        async |response, _| {
            let error = response.json::<Vec<u32>>().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
            assert_eq!(
                error.to_string(),
                "http://peer.test: the body of status 200 (text/html) is not the expected JSON: \
             expected value at line 1 column 1, near \"<html>\\n<h1>oops</h1>\""
            );
        },
    )
    .await;
    over_every_framing("", b"\xef\xbb\xbf[1, 2]", async |response, _| {
        assert_eq!(response.json::<Vec<u32>>().await.unwrap(), [1, 2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn text_is_what_the_content_type_says() {
    let cases: [(&str, &[u8], Result<&str, &str>); 6] = [
        ("text/plain", b"gr\xc3\xbcn", Ok("gr\u{fc}n")),
        ("text/plain", b"\xef\xbb\xbfx", Ok("x")),
        (
            "text/plain; charset=utf-8",
            b"gr\xfcn",
            Err("not UTF-8 at byte 2"),
        ),
        (
            "text/plain; charset=klingon",
            b"gr\xfcn",
            Err("\"klingon\""),
        ),
        #[cfg(feature = "charset")]
        (
            "text/plain; charset=\"ISO-8859-1\"",
            b"gr\xfcn",
            Ok("gr\u{fc}n"),
        ),
        #[cfg(not(feature = "charset"))]
        (
            "text/plain; charset=\"ISO-8859-1\"",
            b"gr\xfcn",
            Err("\"ISO-8859-1\""),
        ),
        #[cfg(feature = "charset")]
        (
            "text/plain; charset=euc-jp",
            b"\xff",
            Err("is not EUC-JP, which its content type names"),
        ),
        #[cfg(not(feature = "charset"))]
        ("text/plain; charset=euc-jp", b"\xff", Err("\"euc-jp\"")),
    ];
    for (content_type, body, expected) in cases {
        let fields = format!("content-type: {content_type}\r\n");
        over_every_framing(&fields, body, async |response, _| {
            match (response.text().await, expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(expected)) => {
                    assert_eq!(error.kind(), ErrorKind::Decode);
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (text, _) => panic!("{content_type}: {text:?}"),
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_copied_to_a_writer_and_its_trailers_stay() {
    over_every_framing("", LINES, async |mut response, framing| {
        let mut copy = Vec::new();
        let size = response.copy_to(&mut copy).await.unwrap();
        assert_eq!((size, &copy[..]), (LINES.len() as u64, LINES));
        assert_eq!(response.copy_to(&mut copy).await.unwrap(), 0);
        let trailers = response.trailers().await.unwrap();
        assert_eq!(trailers.is_some(), framing == Framing::Chunked);
    })
    .await;
}

/// A writer that takes so many bytes and then fails.
struct Full(usize);

impl AsyncWrite for Full {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        std::task::Poll::Ready(match taken {
            0 => Err(std::io::ErrorKind::StorageFull.into()),
            taken => Ok(taken),
        })
    }

    fn poll_flush(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_fails_is_the_callers_own_failure() {
    over_every_framing("", LINES, async |mut response, _| {
        let error = response.copy_to(&mut Full(5)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
        let told = error.to_string();
        assert!(
            told.contains("could not write what was received: "),
            "{told}"
        );
    })
    .await;
}

/// A file of this test that is gone when the test is.
struct TestFile(std::path::PathBuf);

impl TestFile {
    fn new(name: &str) -> Self {
        let name = format!("sockeye-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_saved_with_progress() {
    let file = TestFile::new("saved");
    std::fs::write(&file.0, vec![b'x'; 1000]).unwrap();
    over_every_framing("", LINES, async |mut response, framing| {
        let (mut told, mut last) = (0, 0);
        let total = (framing == Framing::Length).then_some(LINES.len() as u64);
        let progress = |progress: sockeye::Progress| {
            assert!(progress.written > last);
            assert_eq!(progress.total, total);
            last = progress.written;
            told += 1;
        };
        let size = response.save_with(&file.0, progress).await.unwrap();
        assert_eq!(size, LINES.len() as u64);
        assert!(told > 0 && last == size);
        assert_eq!(
            std::fs::read(&file.0).unwrap(),
            LINES,
            "what was there is gone"
        );
        let trailers = response.trailers().await.unwrap();
        assert_eq!(trailers.is_some(), framing == Framing::Chunked);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_made_is_named() {
    let path = std::env::temp_dir().join("sockeye/there is no such folder/file");
    over_every_framing("", LINES, async |mut response, _| {
        let error = response.save(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body);
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::NotFound));
        assert!(
            error.to_string().contains("there is no such folder/file: "),
            "{error}"
        );
        assert!(
            response.copy_to(&mut Vec::new()).await.is_ok(),
            "the body is still there"
        );
    })
    .await;
}

/// Every adapter tells an end that is none; what came before it was given.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_off_is_an_error_of_every_adapter() {
    fn check(error: &sockeye::Error) {
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
    cut_off(async |response| check(&response.text().await.unwrap_err())).await;
    cut_off(async |response| {
        let mut stream = response.bytes_stream();
        loop {
            match stream.next().await.unwrap() {
                Ok(piece) => assert!(!piece.is_empty()),
                Err(error) => break check(&error),
            }
        }
        assert!(stream.next().await.is_none());
    })
    .await;
    cut_off(async |response| {
        let mut lines = response.lines();
        assert_eq!(lines.next().await.unwrap().unwrap(), "one");
        assert_eq!(lines.next().await.unwrap().unwrap(), "two");
        check(&lines.next().await.unwrap().unwrap_err());
        assert!(lines.next().await.is_none(), "half a line is none");
    })
    .await;
    cut_off(async |response| {
        let mut all = Vec::new();
        let error = response
            .into_reader()
            .read_to_end(&mut all)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        check(error.get_ref().unwrap().downcast_ref().unwrap());
        assert!(all.starts_with(b"one\ntwo\n"));
    })
    .await;
    let file = TestFile::new("cut");
    cut_off(async |mut response| {
        check(&response.save(&file.0).await.unwrap_err());
        assert!(std::fs::read(&file.0).unwrap().starts_with(b"one\ntwo\n"));
    })
    .await;
    #[cfg(feature = "json")]
    cut_off(async |response| {
        let mut rows = response.ndjson::<String>();
        assert!(rows.next().await.unwrap().unwrap_err().is_decode());
        assert!(rows.next().await.unwrap().unwrap_err().is_decode());
        check(&rows.next().await.unwrap().unwrap_err());
        assert!(rows.next().await.is_none());
    })
    .await;
}

/// The limit of a read counts for every adapter, while it is waited and not between.
#[tokio::test(start_paused = true)]
async fn a_stalled_body_runs_into_the_read_limit_only_while_somebody_waits() {
    let world = World::new();
    let timeouts = Timeouts::default().with_read(Some(Duration::from_secs(3)));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let (mut connection, response) = tokio::join!(
        async {
            let mut connection = world.accept().await;
            connection.read_request().await;
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\none\ntw";
            connection.write(head).await;
            connection
        },
        client.get("http://peer.test/").send()
    );
    let mut lines = response.unwrap().lines();
    assert_eq!(lines.next().await.unwrap().unwrap(), "one");
    for _ in 0..5 {
        let waited = tokio::time::timeout(Duration::from_secs(2), lines.next()).await;
        assert!(waited.is_err(), "nothing came");
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    connection.write("o\nthr").await;
    assert_eq!(
        lines.next().await.unwrap().unwrap(),
        "two",
        "nothing was lost"
    );
    let error = lines.next().await.unwrap().unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(error.to_string().contains("Timeouts::patient()"), "{error}");
    assert!(lines.next().await.is_none());
    next_works(&world, &client).await;
}

/// Dropping what waits for an item loses none, however often it happens.
#[tokio::test(start_paused = true)]
async fn items_are_not_lost_when_their_futures_are_dropped() {
    let world = World::new();
    let client = world.client();
    let body: String = (0..50).map(|n| format!("\"{n}\"\n")).collect();
    for piece in [1, 5, 64] {
        tokio::join!(
            answer(&world, "", body.as_bytes(), Framing::Chunked, piece),
            async {
                let mut lines = client
                    .get("http://peer.test/")
                    .send()
                    .await
                    .unwrap()
                    .lines();
                let (mut read, mut dropped) = (0, 0);
                while read < 50 {
                    match within_polls(1, lines.next()).await {
                        Some(line) => {
                            assert_eq!(line.unwrap().unwrap(), format!("\"{read}\""));
                            read += 1;
                        }
                        None => {
                            dropped += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                }
                assert!(dropped > 0);
                assert!(lines.next().await.is_none());
            }
        );
        client.close_idle();
    }
    next_works(&world, &client).await;
}

/// Each way to read half a body and stop.
async fn stop_half_way(response: Response, how: usize) {
    let mut response = response;
    match how {
        0 => drop(response.bytes_stream().next().await),
        1 => drop(response.lines().next().await),
        2 => drop(response.into_reader().read_u8().await),
        3 => drop(within_polls(2, response.text()).await),
        4 => drop(within_polls(2, response.copy_to(&mut tokio::io::sink())).await),
        5 => {
            let file = TestFile::new("dropped");
            drop(within_polls(4, response.save(&file.0)).await);
        }
        _ => drop(response.bytes_stream()),
    }
}

#[tokio::test(start_paused = true)]
async fn every_adapter_can_be_dropped_half_read() {
    let body: Vec<u8> = (0..3000)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    for framing in FRAMINGS {
        for how in 0..7 {
            let world = World::new();
            let client = world.client();
            tokio::join!(answer(&world, "", &body, framing, 1000), async {
                let response = client.get("http://peer.test/").send().await.unwrap();
                stop_half_way(response, how).await;
            });
            next_works(&world, &client).await;
        }
    }
}

/// What is over a limit is over it in the whole body, however it is read.
#[tokio::test(start_paused = true)]
async fn the_limit_of_a_call_goes_before_that_of_the_client() {
    let world = World::new();
    let client: Client = world.builder().max_body(3).build().unwrap();
    world.serve(|_| ok("four"));
    let get = || client.get("http://peer.test/");
    let error = get().send().await.unwrap().text().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let text = get()
        .max_body(4)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(text, "four");
    let mut lines = get().send().await.unwrap().lines();
    assert_eq!(
        lines.next().await.unwrap().unwrap(),
        "four",
        "what is read in pieces has none"
    );
    drop(lines);
    crate::support::peer::settle(&client, &world).await;
}

/// Trailers that were read with the last piece are those of the body, whatever is made of the response then.
#[tokio::test(start_paused = true)]
async fn trailers_stay_when_the_body_was_read() {
    for small in [true, false] {
        let world = World::new();
        let client = world.client();
        let body = vec![b'x'; if small { 5 } else { 100_000 }];
        for how in 0..4 {
            tokio::join!(answer(&world, "", &body, Framing::Chunked, 50_000), async {
                let mut response = client.get("http://peer.test/").send().await.unwrap();
                while response.chunk().await.unwrap().is_some() {}
                let trailers = match how {
                    0 => response.trailers().await.unwrap(),
                    1 => response.collect().await.unwrap().trailers,
                    2 => response.into_body().collect().await.unwrap().trailers,
                    _ => {
                        let mut stream = response.bytes_stream();
                        assert!(stream.next().await.is_none());
                        stream.trailers().cloned()
                    }
                };
                let sum = trailers.map(|trailers| trailers["x-sum"].clone());
                assert_eq!(sum.unwrap(), "7", "{small} {how}");
            });
            client.close_idle();
        }
        next_works(&world, &client).await;
    }
}

/// Two halves of one program: a download that goes into an upload.
#[tokio::test(start_paused = true)]
async fn a_stream_can_be_the_body_of_another_request() {
    let world = World::new();
    let client = world.client();
    world.serve(|request| match request.method() {
        "GET" => ok("from here to there"),
        _ => reply("200 OK", "", std::str::from_utf8(&request.body).unwrap()),
    });
    let stream = client
        .get("http://from.test/")
        .send()
        .await
        .unwrap()
        .bytes_stream();
    let body = sockeye::Body::stream(stream);
    let echo = client
        .post("http://to.test/")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(echo.text().await.unwrap(), "from here to there");
    let mut sink = tokio::io::sink();
    sink.flush().await.unwrap();
    crate::support::peer::settle(&client, &world).await;
}
