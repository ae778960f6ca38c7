//! Server-sent events of a response: over every framing, cut off, stalled, refused, and as an API streams an answer.

use std::time::Duration;

use sockeye::{ErrorKind, Event, Timeouts};

use crate::support::framing::{FRAMINGS, Framing, answer, next_works};
use crate::support::peer::{World, let_others_run, reply};
use crate::support::streams::within_polls;
use crate::support::ways::ways;

const FIELDS: &str =
    "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n";

/// An answer as APIs of language models stream it: comments to keep it alive, pieces of text, usage, and a mark at its end.
const CHAT: &str = "\
: connected\n\n\
data: {\"id\":\"answer-17\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
data: {\"id\":\"answer-17\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Der L\u{e4}ufer\"}}]}\n\n\
: still thinking\n\n\
data: {\"id\":\"answer-17\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" zieht \u{265d}\\n\"}}]}\n\n\
data: {\"id\":\"answer-17\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\u{65e5}\u{672c}\"},\"finish_reason\":null}]}\n\n\
data: {\"id\":\"answer-17\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"id\":\"answer-17\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":9}}\n\n\
data: [DONE]\n\n";

fn is_done(event: &Event) -> bool {
    event.data() == "[DONE]"
}

/// The text of all deltas.
#[cfg(feature = "json")]
fn text_of(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events.iter().filter(|event| !is_done(event)) {
        let chunk: serde_json::Value = event.json().unwrap();
        text.push_str(
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default(),
        );
    }
    text
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_streamed_in_every_way_and_in_any_pieces() {
    let fields = [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
    ];
    for way in ways() {
        for piece in [CHAT.len(), 100, 7, 1] {
            let world = World::new();
            let client = way.client(&world);
            tokio::join!(way.answer(&world, &fields, CHAT.as_bytes(), piece), async {
                let request = client.post("http://peer.test/v1/chat").body("{}");
                let mut stream = request.send().await.unwrap().events().until(is_done);
                let mut events = Vec::new();
                while let Some(event) = stream.next().await {
                    events.push(event.unwrap());
                }
                assert_eq!(events.len(), 7, "{way:?} {piece}");
                assert!(events.iter().all(|event| event.event() == "message"));
                assert!(is_done(&events[6]), "the last one is given, too");
                #[cfg(feature = "json")]
                assert_eq!(
                    text_of(&events),
                    "Der L\u{e4}ufer zieht \u{265d}\n\u{65e5}\u{672c}"
                );
                assert!(stream.next().await.is_none() && stream.next().await.is_none());
            });
            way.next_works(&world, &client).await;
        }
    }
}

/// What a peer sends after the last event is not the reader's business, and the connection comes back all the same.
#[tokio::test(start_paused = true)]
async fn nothing_is_read_behind_the_last_event() {
    let world = World::new();
    let client = world.client();
    let body = format!("{CHAT}data: never\n\n");
    tokio::join!(
        answer(&world, FIELDS, body.as_bytes(), Framing::Chunked, 50),
        async {
            let mut stream = client
                .get("http://peer.test/")
                .send()
                .await
                .unwrap()
                .events()
                .until(is_done);
            while let Some(event) = stream.next().await {
                assert_ne!(event.unwrap().data(), "never");
            }
            let_others_run().await;
            drop(stream);
        }
    );
    next_works(&world, &client).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_without_the_last_event_is_an_error_only_if_there_should_be_one() {
    let half = CHAT.split("data: [DONE]").next().unwrap();
    for framing in FRAMINGS {
        for wants_last in [false, true] {
            let world = World::new();
            let client = world.client();
            tokio::join!(
                answer(&world, FIELDS, half.as_bytes(), framing, 300),
                async {
                    let mut stream = client
                        .get("http://peer.test/")
                        .send()
                        .await
                        .unwrap()
                        .events();
                    if wants_last {
                        stream = stream.until(is_done);
                    }
                    for _ in 0..6 {
                        stream.next().await.unwrap().unwrap();
                    }
                    if wants_last {
                        let error = stream.next().await.unwrap().unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Body);
                        assert_eq!(
                            error.to_string(),
                            "http://peer.test: the stream of events ended before its last event (Events::until)"
                        );
                    }
                    assert!(stream.next().await.is_none());
                    assert_eq!(stream.trailers().is_some(), framing == Framing::Chunked);
                }
            );
            next_works(&world, &client).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_off_is_an_error_wherever_it_is_cut() {
    let chunk = format!("{:x}\r\n{CHAT}\r\n", CHAT.len());
    for cut in (0..chunk.len()).step_by(37) {
        let world = World::new();
        let client = world.client();
        tokio::join!(
            async {
                let mut connection = world.accept().await;
                connection.read_request().await;
                let head = format!("HTTP/1.1 200 OK\r\n{FIELDS}transfer-encoding: chunked\r\n\r\n");
                connection.write(head).await;
                connection.write(&chunk.as_bytes()[..cut]).await;
                let_others_run().await;
            },
            async {
                let mut stream = client
                    .get("http://peer.test/")
                    .send()
                    .await
                    .unwrap()
                    .events();
                let error = loop {
                    match stream.next().await.expect("never an orderly end") {
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
                assert!(stream.next().await.is_none());
            }
        );
        next_works(&world, &client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_content_type_is_named() {
    for (field, told) in [
        ("content-type: application/json\r\n", "application/json"),
        ("content-type: text/event-streams\r\n", "text/event-streams"),
        ("", "no content type"),
    ] {
        let world = World::new();
        let client = world.client();
        world.serve(move |_| reply("200 OK", field, "data: 1\n\n"));
        let mut stream = client
            .get("http://peer.test/")
            .send()
            .await
            .unwrap()
            .events();
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert_eq!(
            error.to_string(),
            format!(
                "http://peer.test: the body of status 200 is no text/event-stream: it has {told}"
            )
        );
        assert!(stream.next().await.is_none());
        crate::support::peer::settle(&client, &world).await;
    }
    let world = World::new();
    let client = world.client();
    world.serve(|_| {
        reply(
            "200 OK",
            "content-type: Text/Event-Stream ;x\r\n",
            "data: 1\n\n",
        )
    });
    let mut stream = client
        .get("http://peer.test/")
        .send()
        .await
        .unwrap()
        .events();
    assert_eq!(stream.next().await.unwrap().unwrap().data(), "1");
}

#[tokio::test(start_paused = true)]
async fn ids_times_and_limits_are_told() {
    let body = "id: 7\nretry: 1500\nevent: tick\ndata: 1\n\nid: 8\n\ndata: 2\n\ndata: too large it is\n\ndata: 3\n\n";
    for piece in [body.len(), 1] {
        let world = World::new();
        let client = world.client();
        tokio::join!(
            answer(&world, FIELDS, body.as_bytes(), Framing::Chunked, piece),
            async {
                let response = client.get("http://peer.test/").send().await.unwrap();
                let mut stream = response.events().max_event(15);
                let event = stream.next().await.unwrap().unwrap();
                assert_eq!(
                    (event.event(), event.data(), event.id()),
                    ("tick", "1", "7")
                );
                assert_eq!(stream.last_event_id(), "7");
                assert_eq!(stream.retry(), Some(Duration::from_millis(1500)));
                let event = stream.next().await.unwrap().unwrap();
                assert_eq!((event.event(), event.id()), ("message", "8"));
                let shown = format!("{event:?}");
                assert!(
                    !shown.contains("data: ") && shown.contains("data_bytes: 1"),
                    "{shown}"
                );
                assert_eq!(event.into_data(), "2");
                let error = stream.next().await.unwrap().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TooLarge);
                let told = "event 3 of the stream is over the limit of 15 bytes (max_event)";
                assert_eq!(error.to_string(), format!("http://peer.test: {told}"));
                assert!(stream.next().await.is_none());
            }
        );
        next_works(&world, &client).await;
    }
}

/// Comments keep a stream alive; silence ends it, and a reader that does something else meanwhile does not.
#[tokio::test(start_paused = true)]
async fn silence_runs_into_the_read_limit() {
    let world = World::new();
    let timeouts = Timeouts::default().with_read(Some(Duration::from_secs(20)));
    let client = world.builder().timeouts(timeouts).build().unwrap();
    let (mut connection, response) = tokio::join!(
        async {
            let mut connection = world.accept().await;
            connection.read_request().await;
            connection
                .write(format!("HTTP/1.1 200 OK\r\n{FIELDS}\r\n"))
                .await;
            connection
        },
        client.get("http://peer.test/").send()
    );
    let mut stream = response.unwrap().events();
    for n in 0..10 {
        let (event, ()) = tokio::join!(stream.next(), async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(15)).await;
                connection.write(": here\n\n").await;
            }
            connection.write(format!("data: {n}\n\n")).await;
        });
        assert_eq!(event.unwrap().unwrap().data(), n.to_string());
        tokio::time::advance(Duration::from_secs(100)).await;
    }
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.is_timeout());
    assert!(error.to_string().contains("Timeouts::patient()"), "{error}");
    assert!(stream.next().await.is_none());
    next_works(&world, &client).await;
}

/// Nothing is lost in a select that drops what waits for an event again and again.
#[tokio::test(start_paused = true)]
async fn events_are_not_lost_when_their_futures_are_dropped() {
    let body: String = (0..50).map(|n| format!("id: {n}\ndata: {n}\n\n")).collect();
    for piece in [1, 6, 100] {
        let world = World::new();
        let client = world.client();
        tokio::join!(
            answer(&world, FIELDS, body.as_bytes(), Framing::Chunked, piece),
            async {
                let mut stream = client
                    .get("http://peer.test/")
                    .send()
                    .await
                    .unwrap()
                    .events();
                let mut read = 0;
                while read < 50 {
                    match within_polls(1, stream.next()).await {
                        Some(event) => {
                            assert_eq!(event.unwrap().unwrap().data(), read.to_string());
                            read += 1;
                        }
                        None => tokio::task::yield_now().await,
                    }
                }
            }
        );
        next_works(&world, &client).await;
    }
}

#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn a_compressed_stream_gives_its_events_as_they_are_flushed() {
    use flate2::{Compress, Compression, FlushCompress};

    let world = World::new();
    let client = world.client();
    let (mut connection, response) = tokio::join!(
        async {
            let mut connection = world.accept().await;
            connection.read_request().await;
            let head = format!("HTTP/1.1 200 OK\r\n{FIELDS}content-encoding: gzip\r\n\r\n");
            connection.write(head).await;
            connection
        },
        client.get("http://peer.test/").send()
    );
    let mut stream = response.unwrap().events();
    let mut compress = Compress::new_gzip(Compression::default(), 15);
    for n in 0..5 {
        let mut coded = Vec::with_capacity(1000);
        let event = format!("data: {n}\n\n");
        compress
            .compress_vec(event.as_bytes(), &mut coded, FlushCompress::Sync)
            .unwrap();
        connection.write(&coded).await;
        assert_eq!(stream.next().await.unwrap().unwrap().data(), n.to_string());
    }
    drop((stream, connection));
    next_works(&world, &client).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_be_dropped_between_events_and_in_one() {
    for framing in FRAMINGS {
        for read in [0, 1, 4] {
            let world = World::new();
            let client = world.client();
            tokio::join!(
                answer(&world, FIELDS, CHAT.as_bytes(), framing, 40),
                async {
                    let mut stream = client
                        .get("http://peer.test/")
                        .send()
                        .await
                        .unwrap()
                        .events();
                    for _ in 0..read {
                        stream.next().await.unwrap().unwrap();
                    }
                    drop(within_polls(1, stream.next()).await);
                }
            );
            next_works(&world, &client).await;
        }
    }
}
