//! Content codings: what is asked for, what is decoded and what is left as it came (RFC 9110 section 8.4, security D2).

use sockeye::{Error, ErrorKind, Response};

#[cfg(feature = "gzip")]
use crate::support::coding as coders;
use crate::support::coding::CODINGS;
use crate::support::framing::{FRAMINGS, Framing, answer, next_works};
use crate::support::peer::{Request, World};
#[cfg(feature = "gzip")]
use crate::support::peer::{let_others_run, settle};

fn content() -> Vec<u8> {
    (0..20_000_u32)
        .flat_map(|n| (n / 3).to_le_bytes())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_coding_over_every_framing_in_any_pieces() {
    let content = content();
    for (coding, encode) in CODINGS {
        let coded = encode(&content);
        for framing in FRAMINGS {
            for piece in [coded.len(), 1000, 61] {
                let world = World::new();
                let client = world.client();
                let fields = format!("content-encoding: {coding}\r\netag: x\r\n");
                let get = client.get("http://peer.test/").send();
                let (sent, response) =
                    tokio::join!(answer(&world, &fields, &coded, framing, piece), async {
                        let response = get.await.unwrap();
                        assert_eq!(response.content_length(), None);
                        assert_eq!(response.header("content-encoding"), None);
                        assert!(!response.headers().contains_key("content-length"));
                        assert_eq!(response.header("etag"), Some("x"));
                        response.collect().await.unwrap()
                    });
                let asked = sent.field("accept-encoding").unwrap();
                assert!(asked.split(", ").any(|asked| asked == *coding), "{asked}");
                assert_eq!(response.bytes, content, "{coding} {framing:?} {piece}");
                let sum = response.trailers.map(|trailers| trailers["x-sum"].clone());
                assert_eq!(sum.is_some(), framing == Framing::Chunked);
                next_works(&world, &client).await;
            }
        }
    }
}

/// The body of one call, and the request as it was sent.
async fn call(
    build: impl FnOnce(&World) -> sockeye::RequestBuilder,
    fields: &str,
    body: &[u8],
) -> (Result<Response, Error>, Request) {
    let world = World::new();
    let request = build(&world);
    let (sent, response) = tokio::join!(
        answer(&world, fields, body, Framing::Length, body.len().max(1)),
        request.send()
    );
    (response, sent)
}

fn get(world: &World) -> sockeye::RequestBuilder {
    world.client().get("http://peer.test/")
}

#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn decoding_can_be_turned_off_for_a_client_or_a_call() {
    let coded = coders::gzip(b"content");
    let fields = "content-encoding: gzip\r\n";
    type Build = fn(&World) -> sockeye::RequestBuilder;
    let cases: [(&str, Build, Option<&str>, bool); 9] = [
        ("on", get, None, true),
        (
            "off for the call",
            |world| get(world).decompress(false),
            Some("identity"),
            false,
        ),
        (
            "own field, off",
            |world| {
                get(world)
                    .header("accept-encoding", "gzip")
                    .decompress(false)
            },
            Some("gzip"),
            false,
        ),
        (
            "own field that lists it",
            |world| get(world).header("accept-encoding", "gzip;q=0.5, dcb"),
            Some("gzip;q=0.5, dcb"),
            true,
        ),
        (
            "own field that does not",
            |world| get(world).header("accept-encoding", "dcb"),
            Some("dcb"),
            false,
        ),
        (
            "a range",
            |world| get(world).header("range", "bytes=0-5"),
            Some("identity"),
            false,
        ),
        (
            "own default",
            |world| {
                let builder = world
                    .builder()
                    .default_header("accept-encoding", "identity");
                builder.build().unwrap().get("http://peer.test/")
            },
            Some("identity"),
            false,
        ),
        (
            "off for the client",
            |world| {
                let client = world.builder().decompress(false).build().unwrap();
                client.get("http://peer.test/")
            },
            Some("absent"),
            false,
        ),
        (
            "off for the client, on for the call",
            |world| {
                let client = world.builder().decompress(false).build().unwrap();
                client.get("http://peer.test/").decompress(true)
            },
            None,
            true,
        ),
    ];
    let all = {
        let (_, sent) = call(get, "", b"").await;
        sent.field("accept-encoding").unwrap().to_owned()
    };
    assert!(all.starts_with("gzip, deflate"), "{all}");
    for (case, build, asked, decoded) in cases {
        let (response, sent) = call(build, fields, &coded).await;
        let response = response.unwrap();
        let expected = asked.unwrap_or(&all);
        let field = sent.field("accept-encoding").unwrap_or("absent");
        assert_eq!(field, expected, "{case}");
        assert_eq!(
            sent.fields("accept-encoding").count(),
            usize::from(field != "absent")
        );
        let shown = response.header("content-encoding");
        assert_eq!(shown, (!decoded).then_some("gzip"), "{case}");
        let length = response.content_length();
        assert_eq!(length, (!decoded).then_some(coded.len() as u64), "{case}");
        let body = response.bytes().await.unwrap();
        assert_eq!(
            body,
            if decoded { b"content" } else { &coded[..] },
            "{case}"
        );
    }
    // The options of a call travel with its request.
    let world = World::new();
    let client = world.builder().decompress(false).build().unwrap();
    let request = client
        .get("http://peer.test/")
        .decompress(true)
        .build()
        .unwrap();
    let (_, response) = tokio::join!(
        answer(&world, fields, &coded, Framing::Length, 1000),
        client.execute(request)
    );
    assert_eq!(response.unwrap().text().await.unwrap(), "content");
}

#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_left_as_it_came() {
    for coding in [
        "compress",
        "gzip, compress",
        "aws-chunked",
        "identity",
        "gzipped",
    ] {
        let fields = format!("content-encoding: {coding}\r\n");
        let (response, _) = call(get, &fields, b"as it is").await;
        let response = response.unwrap();
        assert_eq!(response.header("content-encoding"), Some(coding));
        assert_eq!(response.header("content-length"), Some("8"));
        assert_eq!(response.content_length(), Some(8));
        assert_eq!(response.text().await.unwrap(), "as it is");
    }
}

/// HEAD, 204, 304, 206 and a body of no bytes.
#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn a_response_without_a_whole_body_is_left_as_it_is() {
    let world = World::new();
    let client = world.client();
    let field = "content-encoding: gzip\r\n";
    world.serve(move |request| {
        let (status, rest) = match request.target() {
            "/204" => ("204 No Content", "\r\n"),
            "/304" => ("304 Not Modified", "content-length: 100\r\n\r\n"),
            "/206" => (
                "206 Partial Content",
                "content-range: bytes 0-1/9\r\ncontent-length: 2\r\n\r\n\x1f!",
            ),
            "/empty" => ("200 OK", "content-length: 0\r\n\r\n"),
            _ => ("200 OK", "content-length: 100\r\n\r\n"),
        };
        format!("HTTP/1.1 {status}\r\n{field}{rest}")
    });
    for path in ["head", "204", "304", "206", "empty"] {
        let url = format!("http://peer.test/{path}");
        let request = match path {
            "head" => client.head(url),
            _ => client.get(url),
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.header("content-encoding"), Some("gzip"), "{path}");
        let length = response.header("content-length").is_some();
        assert_eq!(length, path != "204", "{path}");
        let body = response.bytes().await.unwrap();
        assert_eq!(body, if path == "206" { "\x1f!" } else { "" }, "{path}");
    }
    assert_eq!(world.accepts(), 1);
    settle(&client, &world).await;
}

/// An empty body in chunks cannot be told from another before it is read; it is an empty body all the same.
#[tokio::test(start_paused = true)]
async fn a_body_that_turns_out_empty_is_empty() {
    for (coding, _) in CODINGS {
        let world = World::new();
        let client = world.client();
        let fields = format!("content-encoding: {coding}\r\n");
        let (_, response) = tokio::join!(
            answer(&world, &fields, b"", Framing::Chunked, 1),
            client.get("http://peer.test/").send()
        );
        assert_eq!(response.unwrap().bytes().await.unwrap(), "", "{coding}");
        next_works(&world, &client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn cut_trailing_and_broken_data_is_an_error_that_says_so() {
    let content = content();
    for (coding, encode) in CODINGS {
        let coded = encode(&content);
        let cases = [
            (
                coded[..coded.len() - 1].to_vec(),
                format!("the {coding} data is cut short"),
            ),
            (
                [&coded[..], b"!"].concat(),
                format!("bytes follow the end of the {coding} data"),
            ),
            (vec![0xff; 400], format!("the {coding} data is corrupt")),
        ];
        for (body, says) in cases {
            for framing in FRAMINGS {
                let world = World::new();
                let client = world.client();
                let fields = format!("content-encoding: {coding}\r\n");
                let (_, error) =
                    tokio::join!(answer(&world, &fields, &body, framing, 997), async {
                        let response = client.get("http://peer.test/").send().await.unwrap();
                        response.bytes().await.unwrap_err()
                    });
                assert_eq!(error.kind(), ErrorKind::Decode);
                let told = error.to_string();
                let expected = format!("GET http://peer.test: could not decode the body: {says}");
                assert!(told.starts_with(&expected), "{told}");
                next_works(&world, &client).await;
            }
        }
    }
}

#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn two_codings_are_decoded_and_three_are_an_error() {
    let twice = coders::gzip(&coders::deflate(b"content"));
    let (response, _) = call(
        get,
        "content-encoding: deflate\r\ncontent-encoding: gzip\r\n",
        &twice,
    )
    .await;
    assert_eq!(response.unwrap().text().await.unwrap(), "content");
    let fields = "content-encoding: gzip, deflate, gzip\r\n";
    let (response, _) = call(get, fields, &coders::gzip(&twice)).await;
    let error = response.unwrap().text().await.unwrap_err();
    assert!(error.is_decode());
    assert_eq!(
        error.to_string(),
        "GET http://peer.test: could not decode the body: 3 content codings are over the limit of 2"
    );
}

/// A small body that is huge when decoded: collected it ends at the limit, read piece by piece no piece is large.
#[tokio::test(start_paused = true)]
async fn a_bomb_stops_at_the_limit() {
    let size = 8 << 20;
    let zeros = vec![0; size];
    for (coding, encode) in CODINGS {
        let coded = encode(&zeros);
        assert!(coded.len() < size / 50);
        let fields = format!("content-encoding: {coding}\r\n");
        let limit = 1 << 20;
        for max_body in [limit, size - 1, size] {
            let limited = |world: &World| get(world).max_body(max_body);
            let (response, _) = call(limited, &fields, &coded).await;
            let result = response.unwrap().bytes().await;
            if max_body == size {
                assert_eq!(result.unwrap().len(), size);
                continue;
            }
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{coding}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("{max_body} bytes (max_body)")),
                "{error}"
            );
        }
        let (response, _) = call(get, &fields, &coded).await;
        let (mut response, mut read) = (response.unwrap(), 0);
        while let Some(chunk) = response.chunk().await.unwrap() {
            assert!(chunk.len() <= 64 * 1024, "{coding}: {}", chunk.len());
            read += chunk.len();
        }
        assert_eq!(read, size);
    }
}

/// A little of it is a great many empty lines, of which none is given: the thread is not kept until all of them are passed over.
#[cfg(all(feature = "gzip", feature = "json"))]
#[tokio::test(start_paused = true)]
async fn what_grows_into_nothing_does_not_keep_the_thread() {
    let coded = coders::gzip(&vec![b'\n'; 32 << 20]);
    let world = World::new();
    let client = world.client();
    let fields = "content-encoding: gzip\r\ncontent-type: text/event-stream\r\n";
    let (_, polls) = tokio::join!(
        answer(&world, fields, &coded, Framing::Length, coded.len()),
        async {
            let response = client.get("http://peer.test/").send().await.unwrap();
            let mut rows = response.ndjson::<u32>();
            let mut next = std::pin::pin!(rows.next());
            let mut polls = 0;
            let end = std::future::poll_fn(|cx| {
                polls += 1;
                next.as_mut().poll(cx)
            });
            assert!(end.await.is_none());
            polls
        }
    );
    assert!(polls >= 4, "{polls} turns for 32 MiB");
    next_works(&world, &client).await;
}

/// The peer can send only as fast as the content is taken.
#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_stops_the_peer() {
    let world = World::new();
    world.buffer(1024);
    let client = world.client();
    // Bytes without a pattern, so that coded and content are about of one size.
    let mut random = crate::support::streams::Random::new(7);
    let content: Vec<u8> = (0..1 << 20).map(|_| random.below(256) as u8).collect();
    let coded = coders::gzip(&content);
    let peer = tokio::spawn({
        let (world, coded) = (world.clone(), coded.clone());
        async move {
            let mut connection = world.accept().await;
            connection.read_request().await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                coded.len()
            );
            connection.write(head).await;
            let mut written = 0;
            for piece in coded.chunks(1024) {
                if !connection.try_write(piece).await {
                    break;
                }
                written += piece.len();
            }
            written
        }
    });
    let mut response = client.get("http://peer.test/").send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(content.starts_with(&first));
    let_others_run().await;
    assert!(!peer.is_finished(), "the peer waits");
    drop(response);
    let written = peer.await.unwrap();
    assert!(written < 600 * 1024, "{written} bytes were taken");
    next_works(&world, &client).await;
}

/// The body of an error status is decoded, too, and cut data is what came of it.
#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn the_body_of_an_error_status_is_decoded() {
    let problem = br#"{"title":"no such user"}"#;
    for (body, kept, truncated) in [
        (coders::gzip(problem), &problem[..], false),
        (coders::gzip(problem)[..20].to_vec(), b"", true),
        (coders::gzip(&vec![b' '; 70_000]), &[b' '; 64 * 1024], true),
    ] {
        for framing in [Framing::Length, Framing::Chunked] {
            let world = World::new();
            let client = world.client();
            let serving = tokio::spawn({
                let (world, body) = (world.clone(), body.clone());
                async move {
                    let mut connection = world.accept().await;
                    connection.read_request().await;
                    let head = "HTTP/1.1 404 Not Found\r\ncontent-encoding: gzip\r\n";
                    let told = match framing {
                        Framing::Length => format!("content-length: {}\r\n\r\n", body.len()),
                        _ => format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()),
                    };
                    connection.write(format!("{head}{told}")).await;
                    connection.write(&body).await;
                    if framing == Framing::Chunked {
                        connection.try_write(b"\r\n0\r\n\r\n").await;
                    }
                    connection.read_to_end().await;
                }
            });
            let error = client.get("http://peer.test/").send().await.unwrap_err();
            let status = error.status_error().unwrap();
            assert_eq!(status.truncated, truncated);
            if !truncated || !kept.is_empty() {
                assert_eq!(status.body, kept);
            }
            assert!(!status.headers.contains_key("content-encoding"));
            serving.abort();
            let _ = serving.await;
            next_works(&world, &client).await;
        }
    }
}

/// Dropped at any time, a decoded body leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_decoded_body_can_be_dropped_half_read() {
    let content = content();
    for (coding, encode) in CODINGS {
        for read in [0, 1, 2] {
            for framing in FRAMINGS {
                let world = World::new();
                let client = world.client();
                let fields = format!("content-encoding: {coding}\r\n");
                let coded = encode(&content);
                tokio::join!(answer(&world, &fields, &coded, framing, 500), async {
                    let get = client.get("http://peer.test/").send();
                    let mut response = get.await.unwrap();
                    for _ in 0..read {
                        response.chunk().await.unwrap();
                    }
                });
                next_works(&world, &client).await;
            }
        }
    }
}
