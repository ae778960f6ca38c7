//! Frames of a random number generator with a seed, and writes that are taken in crumbs.
//!
//! Whatever comes, a call ends within its limits, nothing panics, and the next call works.

use sockeye::Timeouts;
use tokio::time::Instant;

use super::{SECOND, URL, builder, client, read};
use crate::support::faults::Faults;
use crate::support::http2::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PADDED};
use crate::support::http2::{Frames, Honest, Session, hpack};
use crate::support::peer::{World, settle};
use crate::support::streams::Random;

/// A number below `bound`, as a byte.
fn byte(random: &mut Random, bound: u64) -> u8 {
    u8::try_from(random.below(bound)).expect("a byte")
}

fn bytes(random: &mut Random, most: u64) -> Vec<u8> {
    let length = random.below(most);
    (0..length).map(|_| byte(random, 256)).collect()
}

/// A frame that is right, or nearly, or not at all.
fn frame(random: &mut Random, frames: Frames) -> Frames {
    let stream = [1, 1, 1, 1, 3, 0, 2][random.below(7) as usize];
    match random.below(14) {
        0 | 1 => frames.ok(stream),
        2 => frames.head(stream, END_STREAM, &[(":status", "204"), ("x", "y")]),
        3 => frames.head(stream, 0, &[(":status", "103"), ("link", "</a>")]),
        4 | 5 => frames.data(stream, bytes(random, 300)),
        6 => frames.end(stream, bytes(random, 300)),
        7 => frames.window(
            stream,
            u32::try_from(random.below(1 << 31)).expect("31 bits"),
        ),
        8 => frames.ping(),
        9 => {
            let name = u16::try_from(random.below(8)).expect("a name");
            frames.settings(&[(name, u32::try_from(random.below(1 << 17)).expect("17 bits"))])
        }
        10 => frames.rst(stream, u32::try_from(random.below(16)).expect("a code")),
        11 => frames.goaway(stream, u32::try_from(random.below(16)).expect("a code")),
        12 => {
            let mut block = hpack::block(&[(":status", "200")]);
            let at = random.below(block.len() as u64) as usize;
            block[at] = byte(random, 256);
            frames.frame(HEADERS, END_HEADERS, stream, block)
        }
        _ => {
            let (kind, flags) = (byte(random, 12), byte(random, 64));
            frames.frame(kind, flags, stream, bytes(random, 40))
        }
    }
}

/// Frames at random behind an ordinary beginning, for hundreds of seeds.
#[tokio::test(start_paused = true)]
async fn random_frames() {
    let (mut answered, mut failed) = (0, 0);
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let world = World::new();
        world.faults(Faults {
            largest_read: [None, Some(1), Some(5)][random.below(3) as usize],
            ..Faults::default()
        });
        let timeouts = Timeouts::all(SECOND).with_total(Some(5 * SECOND));
        let client = builder(&world).timeouts(timeouts).build().unwrap();
        let request = match random.below(2) {
            0 => client.get(URL),
            _ => client.post(URL).body(vec![b'x'; 100_000]),
        };
        let started = Instant::now();
        let call = tokio::spawn(read(request));
        let mut session = Session::begin(&world).await;
        session.head().await;
        let count = random.below(12);
        session.send((0..count).fold(Frames::new(), |frames, _| frame(&mut random, frames)));
        let report = Honest::default().serve(&world);
        match random.below(3) {
            0 => drop(session),
            _ => drop(tokio::spawn(Honest::default().go_on(session, report))),
        }
        match call
            .await
            .unwrap_or_else(|panic| panic!("seed {seed}: {panic}"))
        {
            Ok(_) => answered += 1,
            Err(_) => failed += 1,
        }
        assert!(
            started.elapsed() <= 5 * SECOND,
            "seed {seed}: {:?}",
            started.elapsed()
        );
        // What the noise has left of the first session may spoil one more call, and no third one.
        let mut next = read(client.get(URL)).await;
        if next.is_err() {
            next = read(client.get(URL)).await;
        }
        let next = next.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(next.status >= 200, "seed {seed}");
        drop(client);
    }
    assert!(
        answered > 10 && failed > 100,
        "{answered} answered, {failed} failed"
    );
}

/// Requests and their frames are written in crumbs, and read in crumbs; a small buffer lies between.
#[tokio::test(start_paused = true)]
async fn crumbs_both_ways() {
    for crumb in [1, 3, 100] {
        let world = World::new();
        world.buffer(64);
        world.faults(Faults {
            largest_write: Some(crumb),
            largest_read: Some(crumb),
            ..Faults::default()
        });
        let client = client(&world);
        let report = Honest::default().serve(&world);
        let calls: Vec<_> = (0..10)
            .map(|number| {
                let body = vec![b'a' + number; 3000];
                let request = client.put(URL).body(body.clone());
                tokio::spawn(async move { (read(request).await, body) })
            })
            .collect();
        for call in calls {
            let (answer, body) = call.await.unwrap();
            assert_eq!(answer.unwrap().body, body);
        }
        assert_eq!((report.count(), world.accepts()), (10, 1));
        report.expect_no_violation();
        settle(&client, &world).await;
    }
}

/// Padding, and frames of every small size, are put together to what was sent.
#[tokio::test(start_paused = true)]
async fn bodies_in_frames_of_every_size() {
    let mut random = Random::new(11);
    for _ in 0..50 {
        let world = World::new();
        let client = client(&world);
        let call = tokio::spawn(read(client.get(URL)));
        let mut session = Session::begin(&world).await;
        session.head().await;
        let (mut frames, mut sent) = (Frames::new().ok(1), Vec::new());
        for _ in 0..random.below(40) {
            let content = bytes(&mut random, 600);
            sent.extend_from_slice(&content);
            frames = match random.below(3) {
                0 => {
                    let padding = byte(&mut random, 256);
                    let mut payload = vec![padding];
                    payload.extend(&content);
                    payload.extend(vec![0; usize::from(padding)]);
                    frames.frame(DATA, PADDED, 1, payload)
                }
                1 => frames.ping().data(1, content),
                _ => frames.data(1, content),
            };
        }
        session.send(frames.end(1, ""));
        assert_eq!(call.await.unwrap().unwrap().body, sent);
        tokio::spawn(async move { session.ended().await });
        settle(&client, &world).await;
    }
}
