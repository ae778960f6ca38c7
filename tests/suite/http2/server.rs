//! The tests' own server, seen by a client that is not the library's: that of the h2 crate.

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request, Response};
use tokio::task::JoinSet;

use crate::support::faults::Faults;
use crate::support::http2::{Frames, Honest, Reply, Report};
use crate::support::peer::World;

/// A client of the h2 crate on a connection that `server` serves.
async fn connect(server: Honest, faults: Faults) -> (SendRequest<Bytes>, Report) {
    let world = World::new();
    world.faults(faults);
    let report = server.serve(&world);
    let (send, connection) = client::Builder::new()
        .initial_window_size(100_000)
        .handshake(world.stream())
        .await
        .unwrap();
    tokio::spawn(async move { connection.await.unwrap() });
    (send, report)
}

/// Sends a request and reads the response.
async fn exchange(
    send: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &[u8],
    trailers: Option<HeaderMap>,
) -> Result<(Response<()>, Vec<u8>, Option<HeaderMap>), h2::Error> {
    let ends = body.is_empty() && trailers.is_none();
    let mut ready = send.clone().ready().await?;
    let (response, mut upload) = ready.send_request(request, ends)?;
    if !ends {
        let last = trailers.is_none();
        upload.send_data(Bytes::copy_from_slice(body), last)?;
        if let Some(trailers) = trailers {
            upload.send_trailers(trailers)?;
        }
    }
    let (head, mut stream) = response.await?.into_parts();
    let mut content = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        content.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?;
    Ok((Response::from_parts(head, ()), content, trailers))
}

fn get(path: &str) -> Request<()> {
    let url = format!("http://peer.test{path}");
    Request::get(url)
        .header("x-long", "Huffman codes: ~|\\^")
        .body(())
        .unwrap()
}

/// Paths that are answered in order, each in its own stream, however the bytes are cut.
#[tokio::test(start_paused = true)]
async fn answers_and_echoes() {
    for largest_read in [None, Some(1), Some(7)] {
        let faults = Faults {
            largest_read,
            ..Faults::default()
        };
        let (mut send, report) = connect(Honest::default(), faults).await;
        for path in ["/", "/a", "/a", "/b?q=%20"] {
            let (head, content, _) = exchange(&mut send, get(path), b"", None).await.unwrap();
            assert_eq!(
                (head.status().as_u16(), content),
                (200, path.as_bytes().to_vec())
            );
        }
        let request = || Request::put("http://peer.test/put").body(()).unwrap();
        // More than the server takes at once, and more than the client does.
        let body = vec![b'x'; 300_000];
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", "after".parse().unwrap());
        let echoed = exchange(&mut send, request(), &body, Some(trailers.clone())).await;
        let (_, content, echoed) = echoed.unwrap();
        assert_eq!(content, body);
        assert_eq!(echoed, Some(trailers));

        let requests = report.requests();
        assert_eq!(requests.len(), 5);
        let streams = requests.iter().map(|request| request.head.stream);
        assert_eq!(streams.collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
        let long = requests[1].head.field("x-long");
        assert_eq!(long, Some("Huffman codes: ~|\\^"));
        assert_eq!(requests[4].head.field(":method"), Some("PUT"));
        assert_eq!(report.most(), [1]);
        report.expect_no_violation();
    }
}

/// A limit on streams, and replies in the order of their time.
#[tokio::test(start_paused = true)]
async fn holds_replies_and_counts_streams() {
    let server = Honest {
        max_streams: Some(10),
        answer: std::sync::Arc::new(|request| {
            let path = request.head.path().to_owned();
            match path.strip_prefix("/held") {
                Some(_) => Reply::new(path).held(),
                None => Reply::new(path).after(std::time::Duration::from_secs(1)),
            }
        }),
        ..Honest::default()
    };
    let (mut send, report) = connect(server, Faults::default()).await;
    exchange(&mut send, get("/first"), b"", None).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let mut send = send.clone();
        calls.spawn(async move {
            let path = format!("/held/{number}");
            let (_, content, _) = exchange(&mut send, get(&path), b"", None).await.unwrap();
            assert_eq!(content, path.as_bytes());
            number
        });
    }
    crate::support::peer::until("ten are open", || report.open(0) == 10).await;
    for number in 0..10 {
        report.release(0, 1);
        assert_eq!(calls.join_next().await.unwrap().unwrap(), number);
    }
    assert_eq!((report.most(), report.count()), (vec![10], 11));
    report.limit(0, 3);
    report.say(0, Frames::new().ping());
    let again = exchange(&mut send, get("/again"), b"", None).await;
    assert_eq!(again.unwrap().1, b"/again");
    report.expect_no_violation();
}

/// A server that goes away answers what it has taken, and nothing else.
#[tokio::test(start_paused = true)]
async fn goes_away_after_so_many() {
    let server = Honest {
        goaway_after: Some(2),
        ..Honest::default()
    };
    let (mut send, report) = connect(server, Faults::default()).await;
    for path in ["/1", "/2"] {
        let (_, content, _) = exchange(&mut send, get(path), b"", None).await.unwrap();
        assert_eq!(content, path.as_bytes());
    }
    let third = exchange(&mut send, get("/3"), b"", None).await.unwrap_err();
    assert!(third.is_go_away() && third.is_remote(), "{third}");
    crate::support::peer::until("it has closed", || report.ended(0)).await;
    assert_eq!(report.count(), 2);
}
