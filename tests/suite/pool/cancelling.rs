//! Calls that are dropped at any point: whatever was sent then, the next response is the right one.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sockeye::test::at_rest;
use sockeye::{Body, Client, ClientBuilder, ErrorKind, RequestBuilder};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::{MILLI, SECOND, URL, at_most, limited, serve_after, text};
use crate::support::peer::{Dial, PeerConnection, World, ok, settle, until};
use crate::support::streams::{Hesitant, Random, within_polls};

/// What of a scene is done before the call that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing: the call has to dial.
    Nothing,
    /// Another call, so that there is a connection.
    ACall,
    /// Another call that is not answered yet, so that this one waits in line.
    AHeldCall,
}

/// How much of its answer the call that is cut takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Head,
    Bytes,
    Chunks,
}

/// A call that is dropped after every number of polls.
#[derive(Clone)]
struct Scene {
    before: Before,
    takes: Takes,
    request: fn(&Client, &str) -> RequestBuilder,
    /// What the server answers: with a length, or in chunks of so many bytes.
    chunks: Option<usize>,
}

const SCENE: Scene = Scene {
    before: Before::Nothing,
    takes: Takes::Head,
    request: get_it,
    chunks: None,
};

fn get_it(client: &Client, url: &str) -> RequestBuilder {
    client.get(url)
}

fn post_it(client: &Client, url: &str) -> RequestBuilder {
    client.post(url).body(vec![b'x'; 200])
}

fn stream_it(client: &Client, url: &str) -> RequestBuilder {
    client.put(url).body(Body::stream(Hesitant::new(12, 10)))
}

/// Where a scene takes place: over plain connections in memory, or over TLS in memory.
#[derive(Clone)]
struct Stage {
    scheme: &'static str,
    client: fn(&World) -> ClientBuilder,
    #[cfg(feature = "rustls")]
    tls: Option<(sockeye::TlsConfig, Arc<tokio_rustls::rustls::ServerConfig>)>,
}

impl Stage {
    fn plain() -> Self {
        Self {
            scheme: "http",
            client: World::builder,
            #[cfg(feature = "rustls")]
            tls: None,
        }
    }

    #[cfg(feature = "rustls")]
    fn secure() -> Self {
        let authority = crate::support::server::Authority::new();
        let server = authority
            .issue(&["peer.test"], 4000)
            .server(crate::support::server::TLS13);
        let client = sockeye::TlsConfig::builder()
            .only_roots(authority.pem())
            .build()
            .unwrap();
        Self {
            scheme: "https",
            tls: Some((client, server)),
            ..Self::plain()
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}://peer.test{path}", self.scheme)
    }

    fn client(&self, world: &World) -> Client {
        let builder = (self.client)(world).limits(at_most(1));
        #[cfg(feature = "rustls")]
        if let Some((tls, _)) = &self.tls {
            return builder.tls(tls.clone()).build().unwrap();
        }
        builder.build().unwrap()
    }

    #[cfg(feature = "rustls")]
    async fn accept(&self, connection: PeerConnection) -> Option<PeerConnection> {
        match &self.tls {
            Some((_, server)) => connection.secure(Arc::clone(server)).await,
            None => Some(connection),
        }
    }

    #[cfg(not(feature = "rustls"))]
    async fn accept(&self, connection: PeerConnection) -> Option<PeerConnection> {
        Some(connection)
    }
}

/// What the server has seen: the targets of the requests that were complete, by connection.
type Seen = Arc<Mutex<Vec<Vec<String>>>>;

fn answer_to(method: &str, target: &str, body: usize) -> String {
    format!("{method} {target} {body} {}", "z".repeat(30))
}

/// Answers by and by, with what was asked for.
fn serve_scene(world: &World, stage: &Stage, chunks: Option<usize>) -> Seen {
    let seen = Seen::default();
    let (world, stage, seen_by) = (world.clone(), stage.clone(), Arc::clone(&seen));
    tokio::spawn(async move {
        loop {
            let connection = world.accept().await;
            let number = {
                let mut seen = seen_by.lock().unwrap();
                seen.push(Vec::new());
                seen.len() - 1
            };
            let (stage, seen) = (stage.clone(), Arc::clone(&seen_by));
            tokio::spawn(async move {
                let Some(mut connection) = stage.accept(connection).await else {
                    return;
                };
                while let Some(request) = connection.next_request().await {
                    seen.lock().unwrap()[number].push(request.target().to_owned());
                    if request.target() == "/held" {
                        sleep(SECOND).await;
                    }
                    let text = answer_to(request.method(), request.target(), request.body.len());
                    let reply = match chunks {
                        Some(size) => in_chunks(&text, size),
                        None => ok(&text),
                    };
                    for piece in reply.as_bytes().chunks(3) {
                        if !connection.try_write(piece).await {
                            return;
                        }
                        yield_now().await;
                        yield_now().await;
                    }
                }
            });
        }
    });
    seen
}

fn in_chunks(text: &str, size: usize) -> String {
    let mut reply = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for chunk in text.as_bytes().chunks(size) {
        let chunk = std::str::from_utf8(chunk).unwrap();
        reply.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    reply + "0\r\n\r\n"
}

/// Drops the call of a scene after one poll, after two, and so on until it comes to its end. Each time the next calls get
/// their own answers, the pool is at rest, and a connection on which something was sent and not answered is not used again.
/// Answers how many polls the call takes.
async fn cut_after_every_poll(stage: &Stage, scene: &Scene) -> usize {
    for polls in 1.. {
        let world = World::new();
        // Narrow, so that a call takes many polls.
        world.buffer(32);
        world.always(Dial::Delay(MILLI));
        let client = stage.client(&world);
        let seen = serve_scene(&world, stage, scene.chunks);
        let simple = |path: &'static str| {
            let sent = client.get(stage.url(path)).send();
            async move { assert_eq!(text(sent.await).await, answer_to("GET", path, 0)) }
        };
        let held = match scene.before {
            Before::Nothing => None,
            Before::ACall => {
                simple("/before").await;
                None
            }
            Before::AHeldCall => {
                // It holds the connection for a second from its arrival on.
                let sent = client.get(stage.url("/held")).send();
                let held = tokio::spawn(async move { text(sent.await).await });
                until("the call is held", || {
                    seen.lock()
                        .unwrap()
                        .iter()
                        .flatten()
                        .any(|target| target == "/held")
                        || client.stats().total.connections_connecting > 0
                })
                .await;
                Some(held)
            }
        };
        let takes = scene.takes;
        let request = (scene.request)(&client, &stage.url("/cut"));
        let call = async move {
            let mut response = request.send().await.unwrap();
            match takes {
                Takes::Head => drop(response),
                Takes::Bytes => {
                    let body = response.bytes().await.unwrap();
                    assert!(
                        body.ends_with(b" zzz") || body.ends_with(b"zzzz"),
                        "{body:?}"
                    );
                }
                Takes::Chunks => {
                    let mut body = Vec::new();
                    while let Some(chunk) = response.chunk().await.unwrap() {
                        body.extend_from_slice(&chunk);
                    }
                    assert!(body.ends_with(b"zzzz"));
                }
            }
        };
        let done = within_polls(polls, call).await.is_some();
        for _ in 0..2 {
            let next = timeout(60 * SECOND, simple("/next")).await;
            assert!(next.is_ok(), "no answer after {polls} polls");
        }
        if let Some(held) = held {
            assert_eq!(held.await.unwrap(), answer_to("GET", "/held", 0));
        }
        settle(&client, &world).await;
        assert!(world.open() <= 1);
        if !done && takes == Takes::Head {
            let reused = |targets: &Vec<String>| {
                let cut = targets.iter().position(|target| target == "/cut");
                cut.is_some_and(|at| at + 1 < targets.len())
            };
            let seen = seen.lock().unwrap();
            assert!(
                !seen.iter().any(reused),
                "used again although the answer was not read, after {polls} polls: {seen:?}"
            );
        }
        if done {
            return polls;
        }
    }
    unreachable!("a call ends")
}

/// 28, R-OBJ-5 and R-LIFE-6: a call that has to dial.
#[tokio::test(start_paused = true)]
async fn t28_dirty_by_default_fresh() {
    for (request, at_least) in [
        (get_it as fn(&_, &_) -> _, 10),
        (post_it, 15),
        (stream_it, 15),
    ] {
        let scene = Scene { request, ..SCENE };
        let polls = cut_after_every_poll(&Stage::plain(), &scene).await;
        assert!(polls >= at_least, "only {polls} polls");
    }
}

/// 28: a call on a connection that has served before.
#[tokio::test(start_paused = true)]
async fn t28_dirty_by_default_reused() {
    for (request, at_least) in [
        (get_it as fn(&_, &_) -> _, 10),
        (post_it, 15),
        (stream_it, 15),
    ] {
        let scene = Scene {
            before: Before::ACall,
            request,
            ..SCENE
        };
        let polls = cut_after_every_poll(&Stage::plain(), &scene).await;
        assert!(polls >= at_least, "only {polls} polls");
    }
}

/// 28: a call that waits in line first.
#[tokio::test(start_paused = true)]
async fn t28_dirty_by_default_waiting() {
    for request in [get_it as fn(&_, &_) -> _, post_it] {
        let scene = Scene {
            before: Before::AHeldCall,
            request,
            ..SCENE
        };
        let polls = cut_after_every_poll(&Stage::plain(), &scene).await;
        assert!(polls >= 10, "only {polls} polls");
    }
}

/// 28: a response that is being read, with its length or in chunks.
#[tokio::test(start_paused = true)]
async fn t28_dirty_by_default_reading() {
    for before in [Before::Nothing, Before::ACall] {
        for (takes, chunks) in [
            (Takes::Bytes, None),
            (Takes::Bytes, Some(7)),
            (Takes::Chunks, None),
            (Takes::Chunks, Some(1)),
            (Takes::Chunks, Some(13)),
        ] {
            let scene = Scene {
                before,
                takes,
                chunks,
                ..SCENE
            };
            let polls = cut_after_every_poll(&Stage::plain(), &scene).await;
            assert!(polls >= 25, "only {polls} polls");
        }
    }
}

/// 28 over TLS, whose records end elsewhere than the messages.
#[cfg(feature = "rustls")]
#[tokio::test(start_paused = true)]
async fn t28_dirty_by_default_secure() {
    let stage = Stage::secure();
    for before in [Before::Nothing, Before::ACall, Before::AHeldCall] {
        for (request, takes) in [
            (get_it as fn(&_, &_) -> _, Takes::Head),
            (post_it, Takes::Head),
            (stream_it, Takes::Head),
            (get_it, Takes::Chunks),
        ] {
            let scene = Scene {
                before,
                takes,
                request,
                chunks: Some(13),
            };
            let polls = cut_after_every_poll(&stage, &scene).await;
            assert!(polls >= 10, "only {polls} polls");
        }
    }
}

/// The same for calls that wait in line and for dials that take time.
#[tokio::test(start_paused = true)]
async fn calls_dropped_at_any_poll_leave_nothing_behind() {
    for polls in 1..=20 {
        let world = World::new();
        world.always(Dial::Delay(MILLI));
        serve_after(&world, MILLI);
        let client = limited(&world, at_most(1));
        let mut calls = JoinSet::new();
        for number in 0..5 {
            let sent = client.get(format!("http://peer.test/{number}")).send();
            calls.spawn(async move {
                let cut = if number % 2 == 0 { polls } else { usize::MAX };
                if let Some(response) = within_polls(cut, sent).await {
                    assert_eq!(text(response).await, format!("/{number}"));
                }
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        assert_eq!(text(client.get(URL).send().await).await, "/");
        settle(&client, &world).await;
        assert!(world.open() <= 1);
    }
}

/// How a call of the storm comes to its end.
async fn storm_call(
    client: &Client,
    random: &mut Random,
    path: &str,
) -> Option<sockeye::Result<Vec<u8>>> {
    let host = ["a", "b", "c"][random.below(3) as usize];
    let url = format!("http://{host}.test{path}");
    let request = match random.below(3) {
        0 => client.get(&url),
        1 => client.post(&url).body(vec![b'x'; 500]),
        _ => client.put(&url).body(Body::stream(Hesitant::new(5, 100))),
    };
    let reads = random.below(8);
    let call = async move {
        let mut response = request.send().await?;
        let mut body = Vec::new();
        // Some give up in the middle of the body.
        for _ in 0..if reads < 2 { reads } else { u64::MAX } {
            let Some(chunk) = response.chunk().await? else {
                return Ok(body);
            };
            body.extend_from_slice(&chunk);
        }
        Ok(path.as_bytes().to_vec())
    };
    match random.below(4) {
        0 => Some(call.await),
        1 => timeout(MILLI * u32::try_from(random.below(12)).unwrap(), call)
            .await
            .ok(),
        _ => within_polls(1 + random.below(15) as usize, call).await,
    }
}

/// A server of the storm: slow, sometimes silent, sometimes closing.
fn serve_storm(world: &World, seed: u64) {
    let world = world.clone();
    tokio::spawn(async move {
        let mut random = Random::new(seed);
        loop {
            let mut connection = world.accept().await;
            let mut random = Random::new(random.below(1 << 40));
            tokio::spawn(async move {
                let mut left = 1 + random.below(40);
                while let Some(request) = connection.next_request().await {
                    sleep(MILLI * u32::try_from(random.below(6)).unwrap()).await;
                    let body = format!("{}{}", request.target(), "z".repeat(600));
                    let reply = match random.below(3) {
                        0 => in_chunks(&body, 100),
                        _ => ok(&body),
                    };
                    let (now, later) = reply.split_at(random.below(reply.len() as u64) as usize);
                    if !connection.try_write(now.as_bytes()).await {
                        return;
                    }
                    sleep(MILLI * u32::try_from(random.below(3)).unwrap()).await;
                    left -= 1;
                    if left == 0 || !connection.try_write(later.as_bytes()).await {
                        return;
                    }
                }
            });
        }
    });
}

/// 11, R-OBJ-4 and R-OBJ-6: ten seconds of real time, several threads, 200 tasks on ten connections, calls that are dropped at any await. At the end
/// nothing is held, a later call succeeds, and a closed client has no connection left (the outages of httpcore issue 1093).
#[test]
fn t11_cancel_storm_in_real_time() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::new();
        world.buffer(300);
        let limits = at_most(10).with_max_connections_per_host(NonZeroUsize::new(6));
        let client = limited(&world, limits);
        serve_storm(&world, 77);
        let most = Arc::new(AtomicUsize::new(0));
        let end = Instant::now() + 10 * SECOND;
        let mut tasks = JoinSet::new();
        for number in 0..200_u64 {
            let (client, world, most) = (client.clone(), world.clone(), Arc::clone(&most));
            tasks.spawn(async move {
                let mut random = Random::new(number);
                let mut answered = 0_u64;
                let mut round = 0;
                while Instant::now() < end {
                    round += 1;
                    let path = format!("/{number}-{round}-");
                    match storm_call(&client, &mut random, &path).await {
                        Some(Ok(body)) => {
                            assert!(body.starts_with(path.as_bytes()), "another call's response");
                            answered += 1;
                        }
                        Some(Err(error)) => assert!(
                            matches!(error.kind(), ErrorKind::Io | ErrorKind::Protocol),
                            "{error}"
                        ),
                        None => {}
                    }
                    most.fetch_max(world.open(), Ordering::SeqCst);
                    sleep(MILLI * u32::try_from(random.below(4)).unwrap()).await;
                }
                answered
            });
        }
        let answered: u64 = tasks.join_all().await.iter().sum();
        assert!(answered > 200, "{answered} answers");
        assert!(most.load(Ordering::SeqCst) <= 10);
        // What was dropped last may still be draining.
        crate::support::server::until("the pool is at rest", || {
            let total = client.stats().total;
            total.connections_active + total.connections_connecting + total.requests_pending == 0
        })
        .await;
        at_rest(&client);
        // The server goes on to cut every so many responses short.
        let mut later = None;
        for _ in 0..5 {
            let response = client.get("http://a.test/later").send().await;
            later = match response {
                Ok(response) => response.bytes().await.ok(),
                Err(_) => None,
            };
            if later.is_some() {
                break;
            }
        }
        assert!(later.unwrap().starts_with(b"/later"));
        let total = client.stats().total;
        assert!(total.cancelled > 1000, "{}", total.cancelled);
        assert_eq!(total.requests_active, 0);
        client.close(5 * SECOND).await;
        let total = client.stats().total;
        assert_eq!(total.connections_active + total.connections_idle, 0);
        assert_eq!(
            (total.connections_connecting, total.connections_draining),
            (0, 0)
        );
        assert_eq!(total.oldest_lease, None);
        assert_eq!(
            total.connections_closed.total(),
            total.connections_opened,
            "every connection was closed once"
        );
        crate::support::server::until("no socket is open", || world.open() == 0).await;
        at_rest(&client);
    });
}

/// 11, the same in paused time with several seeds: many tasks, few connections, and calls that are dropped at any point.
#[tokio::test(start_paused = true)]
async fn t11_cancel_storm() {
    for seed in 1..=5 {
        let world = World::new();
        world.buffer(200);
        let client = limited(
            &world,
            at_most(10).with_max_connections_per_host(NonZeroUsize::new(6)),
        );
        tokio::spawn({
            let world = world.clone();
            async move {
                let mut random = Random::new(seed * 1000);
                loop {
                    let mut connection = world.accept().await;
                    let delay = MILLI * u32::try_from(random.below(5)).unwrap();
                    tokio::spawn(async move {
                        let mut left = 7;
                        while let Some(request) = connection.next_request().await {
                            sleep(delay).await;
                            let body = format!("{}{}", request.target(), "z".repeat(300));
                            let sent = connection.try_write(ok(&body).as_bytes()).await;
                            left -= 1;
                            if !sent || left == 0 {
                                return;
                            }
                        }
                    });
                }
            }
        });
        let most = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..200_u64 {
            let (client, world, most) = (client.clone(), world.clone(), Arc::clone(&most));
            tasks.spawn(async move {
                let mut random = Random::new(seed * 10_000 + number);
                for round in 0..5 {
                    let path = format!("/{number}-{round}");
                    let url = format!(
                        "http://{}.test{path}",
                        ["a", "b", "c"][random.below(3) as usize]
                    );
                    let call = async {
                        let mut response = client.get(&url).send().await?;
                        most.fetch_max(world.open(), Ordering::SeqCst);
                        let mut body = Vec::new();
                        while let Some(chunk) = response.chunk().await? {
                            body.extend_from_slice(&chunk);
                        }
                        Ok::<_, sockeye::Error>(body)
                    };
                    let polls = match random.below(3) {
                        0 => usize::MAX,
                        _ => 1 + random.below(12) as usize,
                    };
                    match within_polls(polls, call).await {
                        Some(Ok(body)) => assert!(
                            body.starts_with(path.as_bytes()) && body.ends_with(b"zz"),
                            "a response of another call"
                        ),
                        Some(Err(error)) => assert!(
                            matches!(error.kind(), ErrorKind::Io | ErrorKind::Timeout),
                            "{error}"
                        ),
                        None => {}
                    }
                    if random.below(4) == 0 {
                        sleep(MILLI * u32::try_from(random.below(4)).unwrap()).await;
                    }
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 10);
        settle(&client, &world).await;
        client.get("http://a.test/later").send().await.unwrap();
        let total = client.stats().total;
        assert!(total.cancelled > 0 && total.responses_2xx > 0);
        assert_eq!(total.requests_total, 1001);
        client.close(SECOND).await;
        assert_eq!(world.open(), 0);
        settle(&client, &world).await;
    }
}
