//! The end: closing a client, dropping it, and what goes on to its end all the same.

use std::time::Duration;

use sockeye::stats::CloseCause;
use sockeye::{Body, Client, ErrorKind};
use tokio::time::{Instant, sleep, timeout};

use super::{MILLI, SECOND, URL, at_most, get, held, limited, streaming, text};
use crate::support::peer::{Dial, World, let_others_run, ok, settle, until};
use crate::support::streams::{fed, within_polls};

/// 37, R-LIFE-4: closing fails those who wait and those who come; the call that runs finishes.
#[tokio::test(start_paused = true)]
async fn t37_close() {
    let world = World::new();
    let client = limited(&world, at_most(2));
    let (call, mut connection) = held(&client, &world).await;
    let (other, mut idle) = held(&client, &world).await;
    idle.write(ok("")).await;
    other.await.unwrap().unwrap();
    let (busy, mut streaming) = {
        let call = get(&client, URL);
        idle.read_request().await;
        idle.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await;
        (call.await.unwrap().unwrap(), idle)
    };
    let waiters = [get(&client, URL), get(&client, "http://other.test/")];
    let_others_run().await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(5 * SECOND).await }
    });
    for waiter in waiters {
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ClientClosed);
        assert!(error.is_closed());
    }
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    let error = client.get("http://third.test/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    assert!(!closing.is_finished());
    connection.write(ok("held")).await;
    assert_eq!(text(call.await.unwrap()).await, "held");
    connection.closed().await;
    streaming.write(" whole").await;
    assert_eq!(busy.bytes().await.unwrap(), "half whole");
    streaming.closed().await;
    let started = Instant::now();
    let closed = closing.await.unwrap();
    assert_eq!((closed.finished, closed.cut), (2, 0));
    assert_eq!(started.elapsed(), Duration::ZERO);
    let again = client.close(5 * SECOND).await;
    assert_eq!((again.finished, again.cut), (0, 0));
    let error = client.preconnect(URL, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    assert_eq!(world.accepts(), 2);
    let total = client.stats().total;
    assert_eq!(total.connections_closed.get(CloseCause::PoolClosed), 2);
    settle(&client, &world).await;
}

/// 37, R-LIFE-4, its deadline: what is still in use then fails, whether it waits for a head or for more of a body, and closes.
#[tokio::test(start_paused = true)]
async fn t37_close_cuts_at_its_deadline() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    let (mut read, mut reading) = streaming(&world, &client, head).await;
    let read = tokio::spawn(async move { read.chunk().await });
    let (mut unread, mut resting) = streaming(&world, &client, head).await;
    let_others_run().await;
    let started = Instant::now();
    let closed = client.close(3 * SECOND).await;
    assert_eq!(started.elapsed().as_secs(), 3);
    assert_eq!((closed.finished, closed.cut), (0, 3));
    for error in [
        call.await.unwrap().unwrap_err(),
        read.await.unwrap().unwrap_err(),
        unread.chunk().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ClientClosed, "{error}");
        assert!(error.to_string().contains("deadline"), "{error}");
    }
    drop(unread);
    for connection in [&mut connection, &mut reading, &mut resting] {
        connection.closed().await;
    }
    let causes = client.stats().total.connections_closed;
    assert_eq!(causes.get(CloseCause::Cut), 3, "{causes:?}");
    assert_eq!(client.close(SECOND).await.cut, 0);
    settle(&client, &world).await;
}

/// 37: drains are not waited for.
#[tokio::test(start_paused = true)]
async fn t37_close_ends_drains() {
    let world = World::new();
    let client = world.client();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    let (response, mut connection) = streaming(&world, &client, head).await;
    drop(response);
    let_others_run().await;
    assert_eq!(client.stats().total.connections_draining, 1);
    let started = Instant::now();
    assert_eq!(client.close(SECOND).await.cut, 0);
    assert_eq!(started.elapsed(), Duration::ZERO);
    connection.closed().await;
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn close_ends_dials() {
    let world = World::new();
    world.always(Dial::Hang);
    let client = world.client();
    let call = get(&client, URL);
    let_others_run().await;
    assert_eq!(client.stats().total.connections_connecting, 1);
    let started = Instant::now();
    let closed = client.close(5 * SECOND).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(closed.cut, 0);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    settle(&client, &world).await;
}

/// 38, R-LIFE-5: the last client is dropped while a body is read; the body goes on, then its connection closes.
#[tokio::test(start_paused = true)]
async fn t38_drop_client_keep_body() {
    let world = World::new();
    let client = world.client();
    let (idle_call, mut idle) = held(&client, &world).await;
    let call = get(&client, URL);
    let mut connection = world.accept().await;
    connection.read_request().await;
    idle.write(ok("")).await;
    idle_call.await.unwrap().unwrap();
    connection
        .write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let response = call.await.unwrap().unwrap();
    drop(client);
    idle.closed().await;
    assert_eq!(world.open(), 1);
    connection.write(" whole").await;
    assert_eq!(response.bytes().await.unwrap(), "half whole");
    connection.closed().await;
    assert_eq!(world.open(), 0);
    // The reaper notices at its next turn.
    sleep(SECOND).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0, "a task is left");
}

/// Dropping the last client ends its dials.
#[tokio::test(start_paused = true)]
async fn dropping_the_client_ends_its_tasks() {
    let world = World::new();
    world.always(Dial::Hang);
    let client = world.client();
    assert!(within_polls(1, client.get(URL).send()).await.is_none());
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1, "the dial");
    drop(client);
    until("no task is left", || metrics.num_alive_tasks() == 0).await;
}

/// An unused client has no task: the reaper goes with the last idle connection.
#[tokio::test(start_paused = true)]
async fn a_client_at_rest_has_no_task() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    connection.write(ok("")).await;
    call.await.unwrap().unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1, "the reaper");
    sleep(10 * SECOND).await;
    connection.closed().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn close_idle_closes_what_is_idle_only() {
    let world = World::new();
    let client = world.client();
    let (call, mut busy) = held(&client, &world).await;
    let (other, mut idle) = held(&client, &world).await;
    idle.write(ok("")).await;
    other.await.unwrap().unwrap();
    client.close_idle();
    idle.closed().await;
    busy.write(ok("busy")).await;
    assert_eq!(text(call.await.unwrap()).await, "busy");
    let again = get(&client, URL);
    busy.read_request().await;
    busy.write(ok("again")).await;
    assert!(again.await.unwrap().unwrap().reused());
    settle(&client, &world).await;
}

/// 37, all at once: calls in line, a dial, an idle connection, two that are lent, a drain; and two who close. Those who wait
/// fail, those who are served finish, both closes come to the same end, and no socket is left.
#[tokio::test(start_paused = true)]
async fn t37_close_drains_everything() {
    let world = World::new();
    let client = limited(&world, at_most(5));
    let (idle_call, mut idle) = held(&client, &world).await;
    let (first, mut one) = held(&client, &world).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let (second, mut two) = streaming(&world, &client, head).await;
    let (dropped, mut draining) = streaming(&world, &client, head).await;
    world.always(Dial::Hang);
    let dialled_for = get(&client, "http://other.test/");
    let_others_run().await;
    idle.write(ok("")).await;
    idle_call.await.unwrap().unwrap();
    drop(dropped);
    // Five are open or being opened, so that these have to wait; the idle one makes room for the first of them.
    let waiting: Vec<_> = ["b", "c", "d"]
        .map(|host| get(&client, &format!("http://{host}.test/")))
        .into();
    let_others_run().await;
    idle.closed().await;
    let total = client.stats().total;
    assert_eq!(
        (total.connections_active, total.connections_draining),
        (3, 1)
    );
    assert_eq!(
        (total.connections_connecting, total.requests_pending),
        (2, 4)
    );

    let close = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move { client.close(SECOND).await })
    };
    let closing = [close(&client), close(&client)];
    // A third goes away; that changes nothing.
    assert!(within_polls(1, client.close(SECOND)).await.is_none());
    let_others_run().await;
    for call in waiting.into_iter().chain([dialled_for]) {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ClientClosed, "{error}");
    }
    draining.closed().await;
    let total = client.stats().total;
    assert_eq!(
        (total.connections_active, total.connections_connecting),
        (2, 0)
    );
    assert!(closing.iter().all(|close| !close.is_finished()));
    sleep(500 * MILLI).await;
    one.write(ok("one")).await;
    assert_eq!(text(first.await.unwrap()).await, "one");
    one.closed().await;
    two.write(" whole").await;
    assert_eq!(second.bytes().await.unwrap(), "half whole");
    two.closed().await;
    let started = Instant::now();
    for close in closing {
        assert_eq!(close.await.unwrap().cut, 0);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(world.open(), 0);
    let total = client.stats().total;
    let closed = total.connections_closed;
    assert_eq!(closed.total(), total.connections_opened, "{closed:?}");
    assert_eq!(closed.get(CloseCause::PoolClosed), 2, "{closed:?}");
    assert_eq!(closed.get(CloseCause::DrainGaveUp), 1, "{closed:?}");
    assert_eq!(closed.get(CloseCause::Evicted), 1, "{closed:?}");
    settle(&client, &world).await;
}

/// 37, R-LIFE-4: a close that is given up leaves the client closed and cuts nothing; a later one goes on with it.
#[tokio::test(start_paused = true)]
async fn t37_close_can_be_given_up_and_taken_up_again() {
    let world = World::new();
    let client = world.client();
    let (call, mut connection) = held(&client, &world).await;
    let gave_up = timeout(SECOND, client.close(5 * SECOND)).await;
    assert!(gave_up.is_err());
    sleep(6 * SECOND).await;
    assert!(
        !call.is_finished(),
        "nothing is cut by a close that was given up"
    );
    let error = client.get(URL).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClientClosed);
    let again = tokio::spawn({
        let client = client.clone();
        async move { client.close(SECOND).await }
    });
    let_others_run().await;
    assert!(!again.is_finished());
    connection.write(ok("late")).await;
    assert_eq!(text(call.await.unwrap()).await, "late");
    let closed = again.await.unwrap();
    assert_eq!((closed.finished, closed.cut), (1, 0));
    connection.closed().await;
    settle(&client, &world).await;
}

/// 38, R-LIFE-5: whatever still uses a connection when the last client goes comes to its end, and then nothing is left:
/// neither a call that waits for its head, nor one that uploads, nor a body that is dropped half read.
#[tokio::test(start_paused = true)]
async fn t38_drop_client_keep_calls() {
    let world = World::new();
    let client = world.client();
    let (mut call, mut connection) = held(&client, &world).await;
    let (feed, body) = fed();
    let upload = tokio::spawn(client.put(URL).body(Body::stream(body)).send());
    let mut uploading = world.accept().await;
    feed.give("begun");
    uploading.read_head().await.unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let (dropped, mut draining) = streaming(&world, &client, head).await;
    drop(client);
    let_others_run().await;
    assert!(within_polls(1, &mut call).await.is_none());
    drop(dropped);
    draining.closed().await;
    connection.write(ok("head")).await;
    assert_eq!(text(call.await.unwrap()).await, "head");
    connection.closed().await;
    feed.give("ended");
    drop(feed);
    for piece in ["begun", "ended", ""] {
        assert_eq!(uploading.read_chunk().await.unwrap(), piece.as_bytes());
    }
    uploading.write(ok("taken")).await;
    assert_eq!(text(upload.await.unwrap()).await, "taken");
    uploading.closed().await;
    assert_eq!(world.open(), 0);
    sleep(SECOND).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0, "a task is left");
}
