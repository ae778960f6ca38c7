//! Multipart forms (feature `multipart`): what another parser makes of what is sent.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use sockeye::{Body, Client, ErrorKind, Multipart, Part, RequestBuilder, Sent};

use crate::support::peer::{Request, World, let_others_run, ok, settle};
use crate::support::streams::{Hesitant, Random, fed, within_polls};

const URL: &str = "http://peer.test/";

/// Bytes that are there already, as a stream.
struct Ready(VecDeque<Bytes>);

impl Ready {
    fn new(bytes: &[u8], size: usize) -> Self {
        Self(bytes.chunks(size).map(Bytes::copy_from_slice).collect())
    }
}

impl Stream for Ready {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// A part as a server sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
    note: Option<String>,
    content: Vec<u8>,
}

/// What the other parser makes of a request.
async fn parsed(request: &Request) -> Vec<Seen> {
    let boundary = multer::parse_boundary(request.field("content-type").unwrap()).unwrap();
    let mut form = multer::Multipart::new(Ready::new(&request.body, 1000), boundary);
    let mut parts = Vec::new();
    while let Some(part) = form.next_field().await.unwrap() {
        let field = |name| {
            let value = part.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        parts.push(Seen {
            name: part.name().unwrap().to_owned(),
            file_name: part.file_name().map(str::to_owned),
            content_type: field("content-type"),
            note: field("x-note"),
            content: part.bytes().await.unwrap().to_vec(),
        });
    }
    parts
}

async fn exchange(world: &World, request: RequestBuilder) -> Request {
    let call = tokio::spawn(request.send());
    let mut peer = world.accept().await;
    let request = peer.read_request().await;
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    request
}

/// A name of characters that mean something to somebody.
fn name(random: &mut Random) -> String {
    const TELLING: &[char] = &[
        'a', 'Z', '9', ' ', '-', '"', '\r', '\n', ';', '=', ':', '%', '\'', '*', '/', '<', 'é',
        '€', '😀', '\t',
    ];
    let len = 1 + random.below(12);
    let pick = |_| TELLING[usize::try_from(random.below(TELLING.len() as u64)).unwrap()];
    // A blank at an edge is trimmed by some.
    format!("n{}n", (0..len).map(pick).collect::<String>())
}

/// What a browser makes of a name.
fn escaped(name: &str) -> String {
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Content that looks like what stands between parts.
fn content(random: &mut Random) -> Vec<u8> {
    const PIECES: &[&[u8]] = &[
        b"\r\n",
        b"--",
        b"--sockeye-",
        b"\0",
        b"\xff",
        b"text",
        b"\n",
        b"\r",
    ];
    let len = match random.below(6) {
        0 => 0,
        1 => 20_000,
        _ => random.below(200),
    };
    let pick = |_| PIECES[usize::try_from(random.below(PIECES.len() as u64)).unwrap()];
    (0..len).flat_map(pick).copied().collect()
}

/// A file of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn another_parser_reads_what_was_put_in() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let (mut form, mut expected, mut files) = (Multipart::new(), Vec::new(), Vec::new());
        let mut unsized_parts = 0;
        for number in 0..random.below(8) {
            let mut seen = Seen {
                name: name(&mut random),
                file_name: (random.below(2) == 0).then(|| name(&mut random)),
                content_type: (random.below(3) == 0).then(|| "text/x-test; a=b".to_owned()),
                note: (random.below(4) == 0).then(|| "kept".to_owned()),
                content: content(&mut random),
            };
            let body = match random.below(4) {
                0 => Body::from(seen.content.clone()),
                1 => {
                    unsized_parts += 1;
                    Body::stream(Ready::new(&seen.content, 700))
                }
                2 => {
                    let stream = Ready::new(&seen.content, 7000);
                    Body::sized_stream(seen.content.len() as u64, stream)
                }
                _ => {
                    files.push(Scratch::new(
                        &format!("form-{seed}-{number}"),
                        &seen.content,
                    ));
                    Body::file(&files.last().unwrap().0)
                }
            };
            let mut part = Part::new(body);
            if let Some(file_name) = &seen.file_name {
                part = part.file_name(file_name);
            }
            if let Some(content_type) = &seen.content_type {
                part = part.content_type(content_type.as_str());
            }
            if let Some(note) = &seen.note {
                part = part.header("x-note", note.as_str());
            }
            form = form.part(&seen.name, part);
            if seen.file_name.is_some() {
                let octets = || "application/octet-stream".to_owned();
                seen.content_type.get_or_insert_with(octets);
            }
            seen.name = escaped(&seen.name);
            seen.file_name = seen.file_name.as_deref().map(escaped);
            expected.push(seen);
        }
        let world = World::new();
        world.buffer(30_000);
        let client = world.client();
        let request = exchange(&world, client.post(URL).multipart(form)).await;
        assert_eq!(
            request.field("content-length").is_some(),
            unsized_parts == 0,
            "seed {seed}"
        );
        let parts = parsed(&request).await;
        assert!(
            parts == expected,
            "seed {seed}: {parts:?}, not {expected:?}"
        );
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_type_names_the_boundary_and_is_the_forms_own() {
    let world = World::new();
    let client = world.client();
    let form = || Multipart::new().text("a", "1");
    let request = exchange(&world, client.post(URL).body("x").multipart(form())).await;
    let types: Vec<_> = request.fields("content-type").collect();
    let [content_type] = types[..] else {
        panic!("{types:?}");
    };
    let boundary = content_type
        .strip_prefix("multipart/form-data; boundary=")
        .unwrap();
    assert!(boundary.len() >= 32 && boundary.len() <= 70);
    assert!(
        request
            .body
            .starts_with(format!("--{boundary}\r\n").as_bytes())
    );

    // A type of one's own cannot name it, wherever it is given.
    let own =
        |request: RequestBuilder| request.header("content-type", "multipart/form-data; boundary=x");
    for request in [
        own(client.post(URL)).multipart(form()),
        own(client.post(URL).multipart(form())),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("boundary"), "{error}");
    }
    // What was built has the type, and goes through.
    let built = client.post(URL).multipart(form()).build().unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.execute(built).await }
    });
    let mut peer = world.accept().await;
    assert_eq!(parsed(&peer.read_request().await).await.len(), 1);
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_a_part_is_told_before_a_connection_is_used() {
    let world = World::new();
    let client = world.client();
    let form = Multipart::new().part("a", Part::new("").header("x", "1\r\ny: 2"));
    let error = client.post(URL).multipart(form).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert_eq!(world.dials(), 0);
    let form = Multipart::new().file("a", "/no/such/file");
    let error = client.post(URL).multipart(form).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert_eq!(error.sent(), Sent::Nothing);
    assert!(error.to_string().contains("/no/such/file"), "{error}");
    settle(&client, &world).await;
}

/// Ruling 5 (2) for a form: its file is read again from the start; a form with a stream in it cannot be sent twice.
#[tokio::test(start_paused = true)]
async fn on_a_stale_connection_a_form_is_sent_again_whole() {
    let content = vec![b'x'; 300_000];
    let file = Scratch::new("form-stale", &content);
    for replayable in [true, false] {
        let world = World::new();
        world.buffer(20_000);
        let client = world.client();
        let before = tokio::spawn(client.get(URL).send());
        let mut first = world.accept().await;
        first.read_request().await;
        first.write(ok("")).await;
        before.await.unwrap().unwrap();

        let mut form = Multipart::new().text("a", "1").file("b", &file.0);
        if !replayable {
            form = form.part("c", Part::new(Body::stream(Ready::new(b"once", 1))));
        }
        let request = client.put(URL).multipart(form);
        assert_eq!(request.try_clone().is_some(), replayable);
        let call = tokio::spawn(request.send());
        first.read_head().await.unwrap();
        first.take(100_000).await.unwrap();
        first.close();
        if !replayable {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.attempts()), (ErrorKind::Io, 1));
            settle(&client, &world).await;
            continue;
        }
        let mut second = world.accept().await;
        let parts = parsed(&second.read_request().await).await;
        assert_eq!(parts[0].content, b"1");
        assert_eq!(parts[1].file_name.as_deref(), Some("form-stale"));
        assert!(parts[1].content == content);
        second.write(ok("")).await;
        assert_eq!(call.await.unwrap().unwrap().attempts(), 2);
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_part_ends_the_call_without_an_end_of_the_form() {
    let world = World::new();
    let client = world.client();
    let (feed, stream) = fed();
    feed.give("some");
    feed.fail("the disk is gone");
    let form = Multipart::new().part("a", Part::new(Body::stream(stream)));
    let call = tokio::spawn(client.post(URL).multipart(form).send());
    let mut peer = world.accept().await;
    peer.read_head().await.unwrap();
    let sent = String::from_utf8(peer.read_to_end().await).unwrap();
    assert!(
        !sent.contains("--\r\n") && !sent.contains("0\r\n\r\n"),
        "{sent}"
    );
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Body);
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    settle(&client, &world).await;
}

/// Dropped after every number of polls, a call with a form leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_form_that_is_dropped_anywhere_leaks_nothing() {
    let file = Scratch::new("form-dropped", &vec![b'x'; 200_000]);
    let post = |client: &Client| {
        let stream = Body::stream(Hesitant::new(5, 100));
        let form = Multipart::new().text("a", "1").file("b", &file.0);
        let form = form.part("c", Part::new(stream));
        client.post(URL).multipart(form).send()
    };
    for polls in 0.. {
        let world = World::new();
        world.buffer(40_000);
        world.serve(|request| {
            ok(if request.body.len() > 200_500 {
                "all"
            } else {
                ""
            })
        });
        let client = world.client();
        let done = within_polls(polls, post(&client)).await.is_some();
        let_others_run().await;
        settle(&client, &world).await;
        assert_eq!(post(&client).await.unwrap().text().await.unwrap(), "all");
        settle(&client, &world).await;
        if done {
            break;
        }
    }
}
