//! Request bodies in a coding (features `gzip` and `zstd`): what is coded, and what goes out as it is.

use std::io;
use std::path::PathBuf;

use sockeye::{Body, Compression, ErrorKind, RequestBuilder};

use crate::support::peer::{Request, World, let_others_run, ok, settle};
use crate::support::streams::{Pieces, fed, within_polls};

const URL: &str = "http://peer.test/";

fn codings() -> Vec<(Compression, &'static str)> {
    vec![
        #[cfg(feature = "gzip")]
        (Compression::Gzip, "gzip"),
        #[cfg(feature = "zstd")]
        (Compression::Zstd, "zstd"),
    ]
}

/// The content of a request, its coding taken off.
fn decoded(request: &Request) -> Vec<u8> {
    let body = &*request.body;
    match request.field("content-encoding") {
        None => body.to_vec(),
        #[cfg(feature = "gzip")]
        Some("gzip") => {
            use std::io::Read as _;

            let mut decoded = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(body);
            decoder.read_to_end(&mut decoded).unwrap();
            assert!(decoder.into_inner().is_empty(), "nothing behind it");
            decoded
        }
        #[cfg(feature = "zstd")]
        Some("zstd") => {
            let mut decoded = Vec::with_capacity(4 * 1024 * 1024);
            zstd_safe::decompress(&mut decoded, body).unwrap();
            decoded
        }
        Some(other) => panic!("an unknown coding {other}"),
    }
}

async fn exchange(world: &World, request: RequestBuilder) -> Request {
    let call = tokio::spawn(request.send());
    let mut peer = world.accept().await;
    let request = peer.read_request().await;
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    request
}

/// A file of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn long_bodies_are_coded_and_short_ones_are_not() {
    for (coding, name) in codings() {
        for (len, coded) in [(0, false), (1023, false), (1024, true), (300_000, true)] {
            let world = World::new();
            let client = world.client();
            let body = vec![b'x'; len];
            let request = exchange(&world, client.post(URL).compress(coding).body(body)).await;
            assert_eq!(request.field("content-encoding"), coded.then_some(name));
            assert_eq!(
                request.field("content-length"),
                Some(&*request.body.len().to_string())
            );
            assert!(decoded(&request) == vec![b'x'; len], "{len}");
            assert_eq!(request.body.len() < len, coded, "{len}");
            settle(&client, &world).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_and_files_are_coded_as_they_come() {
    let file = Scratch(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compressed"));
    std::fs::write(&file.0, vec![b'x'; 500_000]).unwrap();
    for (coding, name) in codings() {
        for (body, len) in [
            (Body::stream(Pieces::new(50, 10_000).0), 500_000),
            (Body::sized_stream(2000, Pieces::new(2, 1000).0), 2000),
            (Body::file(&file.0), 500_000),
            (Body::file(&file.0).with_progress(|_, _| ()), 500_000),
            (Body::stream(Pieces::new(1, 5).0), 5),
        ] {
            let world = World::new();
            let client = world.client();
            let request = client.post(URL).body(body).compress(coding);
            let request = exchange(&world, request).await;
            assert_eq!(request.field("content-encoding"), Some(name));
            assert_eq!(request.field("transfer-encoding"), Some("chunked"));
            assert_eq!(decoded(&request), vec![b'x'; len]);
            settle(&client, &world).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_coded_already_stays_and_what_cannot_be_kept_is_refused() {
    for (coding, name) in codings() {
        let world = World::new();
        let client = world.client();
        let post = || client.post(URL).body(vec![b'x'; 5000]).compress(coding);
        let request = exchange(&world, post().header("content-encoding", "br")).await;
        assert_eq!(
            request.fields("content-encoding").collect::<Vec<_>>(),
            ["br"]
        );
        assert_eq!(request.body.len(), 5000);
        let error = post().header("content-length", "5000").send().await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("content-length"), "{error}");

        let small = client.post(URL).body("xxxxxxxxxx").compress_from(5, coding);
        let request = exchange(&world, small.try_clone().unwrap()).await;
        assert_eq!(request.field("content-encoding"), Some(name));
        // What was built is coded once.
        let built = post().build().unwrap();
        assert_eq!(built.headers()["content-encoding"], name);
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.execute(built).await }
        });
        let mut peer = world.accept().await;
        let request = peer.read_request().await;
        assert_eq!(decoded(&request), vec![b'x'; 5000]);
        peer.write(ok("")).await;
        call.await.unwrap().unwrap();
        settle(&client, &world).await;
    }
}

/// Ruling 5 (2): a coded body is sent again as it was sent first.
#[tokio::test(start_paused = true)]
async fn on_a_stale_connection_it_is_coded_again() {
    for (coding, _) in codings() {
        let world = World::new();
        let client = world.client();
        let before = tokio::spawn(client.get(URL).send());
        let mut first = world.accept().await;
        first.read_request().await;
        first.write(ok("")).await;
        before.await.unwrap().unwrap();
        let request = client.put(URL).body(vec![b'x'; 100_000]).compress(coding);
        let call = tokio::spawn(request.send());
        let sent = first.read_request().await;
        first.close();
        let mut second = world.accept().await;
        let again = second.read_request().await;
        assert_eq!(again.body, sent.body);
        assert_eq!(decoded(&again), vec![b'x'; 100_000]);
        second.write(ok("")).await;
        assert_eq!(call.await.unwrap().unwrap().attempts(), 2);
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_stream_is_the_calls() {
    for (coding, _) in codings() {
        let world = World::new();
        let client = world.client();
        let (feed, stream) = fed();
        feed.give(vec![b'x'; 2000]);
        feed.fail("the disk is gone");
        let request = client.post(URL).body(Body::stream(stream)).compress(coding);
        let call = tokio::spawn(request.send());
        let mut peer = world.accept().await;
        peer.read_head().await.unwrap();
        let sent = peer.read_to_end().await;
        assert!(!sent.ends_with(b"0\r\n\r\n"));
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Body, "{error}");
        assert!(error.to_string().contains("the disk is gone"), "{error}");
        assert_eq!(error.io_kind(), Some(io::ErrorKind::Other));
        settle(&client, &world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_coded_upload_that_is_dropped_anywhere_leaks_nothing() {
    for (coding, _) in codings() {
        for polls in 0.. {
            let world = World::new();
            world.serve(|request| ok(&decoded(request).len().to_string()));
            let client = world.client();
            let put = |stream| {
                let body = match stream {
                    true => Body::stream(Pieces::new(10, 10_000).0),
                    false => vec![b'x'; 100_000].into(),
                };
                client.put(URL).body(body).compress(coding).send()
            };
            let mut done = true;
            for stream in [true, false] {
                done &= within_polls(polls, put(stream)).await.is_some();
                let_others_run().await;
                settle(&client, &world).await;
            }
            assert_eq!(put(true).await.unwrap().text().await.unwrap(), "100000");
            settle(&client, &world).await;
            if done {
                break;
            }
        }
    }
}

/// Whether it can be done is said before a connection is used.
#[tokio::test(start_paused = true)]
async fn a_coding_that_the_build_does_not_have_is_refused() {
    let world = World::new();
    let client = world.client();
    let built: Vec<_> = codings().into_iter().map(|(coding, _)| coding).collect();
    for coding in [Compression::Gzip, Compression::Zstd] {
        let post = |len| client.post(URL).body(vec![b'x'; len]).compress(coding);
        if built.contains(&coding) {
            exchange(&world, post(2000)).await;
            continue;
        }
        let dials = world.dials();
        let error = post(2000).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("needs the feature"), "{error}");
        assert_eq!(world.dials(), dials);
        exchange(&world, post(10)).await;
    }
    settle(&client, &world).await;
}
