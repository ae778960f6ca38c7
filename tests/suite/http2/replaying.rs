//! What is sent again when a session that has served before ends: ruling 5 for HTTP/2.

use sockeye::{Body, Client, ErrorKind, Phase, RequestBuilder, Sent};

use super::{Answer, URL, client, read, served};
use crate::support::http2::frames::{CANCEL, INTERNAL_ERROR, NO_ERROR};
use crate::support::http2::{Frames, Honest, Session};
use crate::support::peer::{World, let_others_run, settle};
use crate::support::streams::Pieces;

/// How the session ends when the second request has come on it, as stream 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Without a word.
    Closes,
    Resets,
    /// With an interim response of it, and then without a word.
    Begun,
    /// With GOAWAY(1): the second request was not processed.
    Unprocessed,
    /// With GOAWAY(3): it may have been.
    Processed,
    /// The stream alone, which the server reset with CANCEL.
    Cancels,
}

/// What comes of a request on a session that has served one before, and how many sessions there were.
async fn second(
    ends: Ends,
    request: fn(&Client) -> RequestBuilder,
) -> (sockeye::Result<Answer>, usize) {
    let world = World::new();
    let client = client(&world);
    let mut session = served(&client, &world).await;
    let call = tokio::spawn(read(request(&client)));
    let head = session.head().await;
    assert_eq!(head.stream, 3);
    if !head.end {
        session.content(3).await;
    }
    let report = Honest::default().serve(&world);
    session.send(match ends {
        Ends::Closes | Ends::Resets => Frames::new(),
        Ends::Begun => Frames::new().head(3, 0, &[(":status", "103")]),
        Ends::Unprocessed => Frames::new().goaway(1, INTERNAL_ERROR),
        Ends::Processed => Frames::new().goaway(3, NO_ERROR),
        Ends::Cancels => Frames::new().rst(3, CANCEL),
    });
    match ends {
        Ends::Cancels => drop(tokio::spawn(Honest::default().go_on(session, report))),
        Ends::Resets => session.reset(),
        _ => drop(session),
    }
    let outcome = call.await.unwrap();
    let_others_run().await;
    let sessions = world.accepts();
    let next = read(client.get(URL)).await;
    assert!(next.is_ok(), "{ends:?}: {next:?}");
    settle(&client, &world).await;
    (outcome, sessions)
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again() {
    let get: fn(&Client) -> RequestBuilder = |client| client.get(URL);
    let put: fn(&Client) -> RequestBuilder = |client| client.put(URL).body("put");
    let post: fn(&Client) -> RequestBuilder = |client| client.post(URL).body("posted");
    let keyed: fn(&Client) -> RequestBuilder = |client| {
        client
            .post(URL)
            .body("posted")
            .header("idempotency-key", "7")
    };
    let marked: fn(&Client) -> RequestBuilder =
        |client| client.post(URL).body("posted").idempotent(true);
    let once: fn(&Client) -> RequestBuilder =
        |client| client.put(URL).body(Body::stream(Pieces::new(1, 3).0));
    let mut wrong = Vec::new();
    for ends in [
        Ends::Closes,
        Ends::Resets,
        Ends::Begun,
        Ends::Unprocessed,
        Ends::Processed,
        Ends::Cancels,
    ] {
        for (name, request, idempotent, replayable) in [
            ("GET", get, true, true),
            ("PUT", put, true, true),
            ("POST", post, false, true),
            ("POST with a key", keyed, true, true),
            ("POST said to be idempotent", marked, true, true),
            ("PUT of a stream", once, true, false),
        ] {
            let again = match ends {
                Ends::Unprocessed => replayable,
                Ends::Closes | Ends::Resets | Ends::Processed => idempotent && replayable,
                Ends::Begun | Ends::Cancels => false,
            };
            let (outcome, sessions) = second(ends, request).await;
            let right = match &outcome {
                Ok(answer) => again && (answer.status, sessions) == (200, 2),
                Err(error) => {
                    let kind = match ends {
                        Ends::Begun => ErrorKind::Protocol,
                        _ => ErrorKind::Io,
                    };
                    let found = (error.kind(), error.phase(), error.sent(), error.attempts());
                    !again && found == (kind, Some(Phase::Head), Sent::All, 1)
                }
            };
            if !right {
                wrong.push(format!(
                    "{name}, {ends:?}, {sessions} sessions: {outcome:?}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A server that takes back what it has begun to answer does not make it safe to ask again.
#[tokio::test(start_paused = true)]
async fn a_goaway_below_an_answer() {
    let world = World::new();
    let client = client(&world);
    let call = tokio::spawn(read(client.post(URL).body("posted")));
    let mut session = Session::begin(&world).await;
    session.content(1).await;
    session.send(Frames::new().ok(1).data(1, "do").goaway(0, NO_ERROR));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.phase(), error.is_retryable()),
        (ErrorKind::Io, Some(Phase::Read), false),
        "{error}"
    );
    drop(session);
    settle(&client, &world).await;
}
