//! Which proxy a call goes through: settings of clients and calls, redirects, and what never shares a connection.

use std::sync::{Arc, Mutex};

use sockeye::{Client, ErrorKind, Proxy};

use super::{CREDENTIALS, proxy, through};
use crate::redirects::found;
use crate::support::peer::{Request, World, ok, settle};

/// Serves every connection as whoever was dialled: the log has that, the request's target and its credentials for a proxy.
fn serve(
    world: &World,
    answer: impl Fn(&str, &Request) -> String + Clone + Send + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (shared, world) = (Arc::clone(&log), world.clone());
    tokio::spawn(async move {
        loop {
            let mut connection = world.accept().await;
            let (log, answer) = (Arc::clone(&shared), answer.clone());
            tokio::spawn(async move {
                while let Some(request) = connection.next_request().await {
                    let credentials = request.field("proxy-authorization").unwrap_or("-");
                    log.lock().unwrap().push(format!(
                        "{} {} {credentials}",
                        connection.host,
                        request.target()
                    ));
                    let answer = answer(&connection.host, &request);
                    if !connection.try_write(answer.as_bytes()).await {
                        return;
                    }
                }
            });
        }
    });
    log
}

async fn get(client: &Client, url: &str) {
    let response = client.get(url).send().await.unwrap();
    response.bytes().await.unwrap();
}

/// Security R5 (curl CVE-2026-6253, 7168, 8927, 9079): each hop goes through the proxy that is for it, with the credentials of
/// that one, and a server without a proxy is given none.
#[tokio::test(start_paused = true)]
async fn a_redirect_chooses_anew() {
    let world = World::new();
    let log = serve(&world, |_, request| match request.target() {
        "http://a.test/" => found("http://b.test/"),
        "http://b.test/" => found("http://direct.test/x"),
        "/x" => found("http://c.test/"),
        "http://c.test/" => found("http://a.test/end"),
        target => ok(target),
    });
    let one = proxy("http://user:s3cret@one.test")
        .except("b.test, direct.test, c.test")
        .unwrap();
    let two = proxy("http://two.test")
        .except("direct.test c.test")
        .unwrap();
    let three = proxy("http://us3r:pass@three.test")
        .except("direct.test")
        .unwrap();
    let client = world
        .builder()
        .proxy(one)
        .proxy(two)
        .proxy(three)
        .build()
        .unwrap();
    let response = client.get("http://a.test/").send().await.unwrap();
    assert_eq!(response.redirects().len(), 4);
    assert_eq!(response.text().await.unwrap(), "http://a.test/end");
    let one = |target: &str| format!("one.test http://a.test/{target} {CREDENTIALS}");
    assert_eq!(
        *log.lock().unwrap(),
        [
            one(""),
            "two.test http://b.test/ -".to_owned(),
            "direct.test /x -".to_owned(),
            "three.test http://c.test/ Basic dXMzcjpwYXNz".to_owned(),
            one("end"),
        ]
    );
    settle(&client, &world).await;
}

/// Security P1: calls that differ in nothing but the proxy use different sockets, and those that do not share them.
#[tokio::test(start_paused = true)]
async fn the_proxy_is_part_of_the_key() {
    let world = World::new();
    let log = serve(&world, |_, request| ok(request.target()));
    let client = world.builder().no_proxy().build().unwrap();
    let proxies = [
        "http://one.test",
        "http://one.test:81",
        "http://two.test",
        "http://user:s3cret@one.test",
        "http://user:S3cret@one.test",
        "http://us3r:s3cret@one.test",
    ];
    for round in 0..2 {
        for url in proxies {
            // Equal ones share connections, although each is made anew.
            let response = client
                .get("http://a.test/")
                .proxy(proxy(url))
                .send()
                .await
                .unwrap();
            assert_eq!(response.reused(), round > 0, "{url}");
            response.bytes().await.unwrap();
        }
        get(&client, "http://a.test/").await;
    }
    // Fields of CONNECT are for tunnels, and still tell two apart.
    let with_field = proxy(proxies[0]).header("x-tenant", "7").unwrap();
    let response = client
        .get("http://a.test/")
        .proxy(with_field)
        .send()
        .await
        .unwrap();
    assert!(!response.reused());
    response.bytes().await.unwrap();
    assert_eq!(world.accepts(), proxies.len() + 2);
    let log = log.lock().unwrap().clone();
    assert_eq!(log[6], "a.test / -");
    assert_eq!(log[3], format!("one.test http://a.test/ {CREDENTIALS}"));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_beats_its_client() {
    let world = World::new();
    let log = serve(&world, |_, request| ok(request.target()));
    let client = through(&world, "one.test").build().unwrap();
    get(&client, "http://a.test/1").await;
    let send = async |request: sockeye::RequestBuilder| {
        request.send().await.unwrap().bytes().await.unwrap();
    };
    send(client.get("http://a.test/2").no_proxy()).await;
    send(client.get("http://a.test/3").proxy(proxy("two.test"))).await;
    let other = Proxy::https("two.test").unwrap();
    send(client.get("http://a.test/4").proxy(other.clone())).await;
    send(
        client
            .get("http://a.test/5")
            .proxy(other)
            .proxy(proxy("three.test")),
    )
    .await;
    send(
        client
            .get("http://a.test/6")
            .proxy(proxy("two.test"))
            .no_proxy(),
    )
    .await;
    // It travels with a request that is built, and with a copy.
    let request = client.get("http://a.test/7").proxy(proxy("two.test"));
    send(request.try_clone().unwrap()).await;
    let built = request.build().unwrap();
    client.execute(built).await.unwrap().bytes().await.unwrap();
    assert_eq!(
        *log.lock().unwrap(),
        [
            "one.test http://a.test/1 -",
            "a.test /2 -",
            "two.test http://a.test/3 -",
            "a.test /4 -",
            "three.test http://a.test/5 -",
            "a.test /6 -",
            "two.test http://a.test/7 -",
            "two.test http://a.test/7 -",
        ]
    );
    settle(&client, &world).await;
}

/// Connections in advance go the way that calls go.
#[tokio::test(start_paused = true)]
async fn preconnect_goes_through_the_proxy() {
    let world = World::new();
    let log = serve(&world, |_, request| ok(request.target()));
    let client = through(&world, "one.test").build().unwrap();
    assert_eq!(client.preconnect("http://a.test/", 2).await.unwrap(), 2);
    let response = client.get("http://a.test/").send().await.unwrap();
    response.bytes().await.unwrap();
    assert_eq!(world.accepts(), 2);
    assert_eq!(*log.lock().unwrap(), ["one.test http://a.test/ -"]);
    settle(&client, &world).await;
}

#[tokio::test]
async fn what_a_call_asks_for_must_go_together() {
    let careful = Client::builder().deny_private(true).build().unwrap();
    let request = careful.get("http://a.test/").proxy(proxy("http://p.test"));
    let error = request.send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert!(error.to_string().contains("guards_addresses"), "{error}");
    // The guard looks at the proxy's own address.
    let guarding = proxy("http://127.0.0.1:9").guards_addresses(true);
    let request = careful.get("http://a.test/").proxy(guarding);
    let error = request.send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
    assert!(error.to_string().contains("deny_private"), "{error}");
    assert!(!error.is_retryable());
    #[cfg(unix)]
    {
        let client = Client::builder().no_proxy().build().unwrap();
        let request = client.get("http://a.test/").proxy(proxy("http://p.test"));
        let error = request.unix_socket("/a").send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        assert!(error.to_string().contains("unix_socket"), "{error}");
    }
}
