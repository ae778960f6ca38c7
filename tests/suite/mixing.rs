//! Calls, cancellations and all kinds of answers, mixed at random: whoever gets a response gets his own (spec http1 d10).
//!
//! A peer that answers in every way that HTTP/1.1 knows, and in some that it forbids, says what must hold of its connections:
//! after an answer that leaves a doubt none of them sees another request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sockeye::{Client, ErrorKind, Limits};
use tokio::task::{JoinSet, yield_now};

use crate::support::peer::{PeerConnection, World, settle};
use crate::support::streams::{Random, within_polls};

/// The body that belongs to a target, long enough to come in several pieces.
fn body(target: &str) -> String {
    format!("{target} ").repeat(40)
}

/// What a connection is good for after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Another,
    Nothing,
}

/// Answers one request in one of many ways.
async fn answer(peer: &mut PeerConnection, target: &str, random: &mut Random) -> After {
    let body = body(target);
    let length = body.len();
    let plain = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for piece in body.as_bytes().chunks(100) {
        let piece = std::str::from_utf8(piece).unwrap();
        chunked += &format!("{:x};a=b\r\n{piece}\r\n", piece.len());
    }
    let (bytes, after) = match random.below(11) {
        0 | 1 => (plain, After::Another),
        2 => (chunked + "0\r\n\r\n", After::Another),
        3 => (chunked + "0\r\nx-sum: 1\r\n\r\n", After::Another),
        4 => (
            format!("HTTP/1.1 103 Hints\r\nlink: </a>\r\n\r\n{plain}"),
            After::Another,
        ),
        5 => (format!("HTTP/1.1 200 OK\r\n\r\n{body}"), After::Nothing),
        6 => (
            format!("{plain}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"),
            After::Nothing,
        ),
        7 => (
            plain[..plain.len() - 1 - pick(random, length)].to_owned(),
            After::Nothing,
        ),
        8 => (
            plain.replacen("content-length", "connection: close\r\ncontent-length", 1),
            After::Nothing,
        ),
        9 => (
            chunked.replacen("transfer", "content-length: 3\r\ntransfer", 1) + "0\r\n\r\n",
            After::Nothing,
        ),
        _ => (String::new(), After::Nothing),
    };
    // What follows a response is written with its end: if it came later, it could be the answer to a request that has been
    // sent meanwhile, and no client can tell (a response carries no name; spec http1 a5).
    let together = match bytes.find("HTTP/1.1 200 OK\r\ncontent-length: 6") {
        Some(poison) => bytes.len() - poison + 1,
        None => 0,
    };
    let mut rest = bytes.as_bytes();
    while !rest.is_empty() {
        let mut len = rest.len().min(1 + pick(random, 400));
        if rest.len() - len < together {
            len = rest.len();
        }
        let (piece, behind) = rest.split_at(len);
        if !peer.try_write(piece).await {
            return After::Nothing;
        }
        rest = behind;
        for _ in 0..random.below(4) {
            yield_now().await;
        }
    }
    after
}

/// A number below `bound`.
fn pick(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap()
}

/// Serves connections; counts requests that came where none should.
fn serve(world: &World, seed: u64, astray: &Arc<AtomicUsize>) {
    let (world, astray) = (world.clone(), Arc::clone(astray));
    tokio::spawn(async move {
        for connection in 0.. {
            let mut peer = world.accept().await;
            let mut random = Random::new(seed * 1000 + connection);
            let astray = Arc::clone(&astray);
            tokio::spawn(async move {
                while let Some(request) = peer.next_request().await {
                    let target = request.target().to_owned();
                    if answer(&mut peer, &target, &mut random).await == After::Nothing {
                        peer.shutdown().await;
                        let more = peer.read_to_end().await;
                        astray.fetch_add(usize::from(!more.is_empty()), Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
    });
}

/// One caller: a few calls, some of them cut short at a random moment. Answers how many got their response.
async fn call(client: Client, caller: usize, mut random: Random) -> usize {
    let mut whole = 0;
    for number in 0..8 {
        let target = format!("/{caller}/{number}");
        let url = format!("http://peer.test{target}");
        let request = match random.below(3) {
            0 => client.post(url).body(vec![b'x'; pick(&mut random, 3000)]),
            _ => client.get(url),
        };
        let polls = match random.below(3) {
            0 => 1 + pick(&mut random, 6),
            _ => usize::MAX,
        };
        let Some(outcome) = within_polls(polls, request.send()).await else {
            continue;
        };
        let read = match outcome {
            Err(error) => Err(error),
            Ok(response) if random.below(6) == 0 => {
                drop(response);
                continue;
            }
            Ok(response) => match within_polls(polls, response.bytes()).await {
                None => continue,
                Some(read) => read,
            },
        };
        match read {
            Ok(bytes) => {
                // One that ends with its connection may be cut by nobody's fault but the peer's; it is still his own.
                assert_eq!(bytes, body(&target), "the response of another call");
                whole += 1;
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Io | ErrorKind::Protocol),
                "{error}"
            ),
        }
    }
    whole
}

/// spec http1 d10: response k belongs to request k, a connection in doubt is never used again, every call ends once.
#[tokio::test(start_paused = true)]
async fn every_call_gets_its_own_response() {
    let mut whole = 0;
    for seed in 0..60 {
        let world = World::new();
        let astray = Arc::new(AtomicUsize::new(0));
        serve(&world, seed, &astray);
        let limits = Limits::default().with_max_connections(std::num::NonZeroUsize::new(3));
        let client = world.builder().limits(limits).build().unwrap();
        let mut callers = JoinSet::new();
        for caller in 0..6 {
            let random = Random::new(seed * 100 + caller as u64);
            callers.spawn(call(client.clone(), caller, random));
        }
        while let Some(done) = callers.join_next().await {
            whole += done.unwrap();
        }
        // What was dropped half read is given up in time.
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.close_idle();
        settle(&client, &world).await;
        assert_eq!(
            astray.load(Ordering::SeqCst),
            0,
            "seed {seed}: requests on a doubtful connection"
        );
    }
    assert!(whole > 500, "only {whole} calls got a response");
}
