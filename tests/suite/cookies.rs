//! The cookie jar in a client: what it keeps, whom it tells, and what it leaves alone. The rules are a table in
//! `src/policy/cookies.rs`.

use std::sync::{Arc, Mutex};

use http::{HeaderValue, Uri};
use sockeye::{CookieJar, CookieStore};

use crate::support::peer::{Request, World, ok, reply, settle};

/// Serves by target, and keeps host, target and cookies of every request.
fn serve(
    world: &World,
    answer: impl Fn(&Request) -> String + Clone + Send + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    world.serve(move |request| {
        let host = request.field("host").unwrap();
        let cookies: Vec<_> = request.fields("cookie").collect();
        let line = format!("{host}{} {}", request.target(), cookies.join(" | "));
        log.lock().unwrap().push(line);
        answer(request)
    });
    seen
}

fn take(seen: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut seen.lock().unwrap())
}

fn sets(status: &str, fields: &str) -> String {
    reply(status, fields, "")
}

#[tokio::test(start_paused = true)]
async fn every_hop_and_status_is_kept_and_each_host_gets_its_own() {
    let world = World::new();
    let seen = serve(&world, |request| match request.target() {
        "/login" => sets(
            "302 Found",
            "set-cookie: sid=1; Path=/\r\nset-cookie: theme=dark; Path=/\r\nlocation: http://b.test/b\r\n",
        ),
        "/b" => sets(
            "302 Found",
            "set-cookie: b=1; Path=/\r\nlocation: http://a.test/home\r\n",
        ),
        "/fails" => sets("403 Forbidden", "set-cookie: denied=1; Path=/\r\n"),
        _ => ok(""),
    });
    let jar = CookieJar::new();
    let client = world.builder().cookies(jar.clone()).build().unwrap();
    client.get("http://a.test/login").send().await.unwrap();
    client.get("http://a.test/fails").send().await.unwrap_err();
    client.get("http://a.test/end").send().await.unwrap();
    assert_eq!(
        take(&seen),
        [
            "a.test/login ",
            "b.test/b ",
            "a.test/home sid=1; theme=dark",
            "a.test/fails sid=1; theme=dark",
            "a.test/end sid=1; theme=dark; denied=1",
        ]
    );
    // A jar is shared by clients, and not by those that have none.
    let other = world.builder().cookies(jar.clone()).build().unwrap();
    other.get("http://b.test/").send().await.unwrap();
    drop(other);
    let without = world.client();
    without.get("http://b.test/").send().await.unwrap();
    drop(without);
    assert_eq!(take(&seen), ["b.test/ b=1", "b.test/ "]);
    let cookies = jar.get("http://a.test/").unwrap().unwrap();
    assert!(cookies.is_sensitive());
    assert!(!format!("{jar:?} {cookies:?} {client:?}").contains("sid"));
    settle(&client, &world).await;
}

/// Security C1: what a request says itself is all that it says, and is gone at another origin.
#[tokio::test(start_paused = true)]
async fn a_cookie_field_of_the_request_stands_alone() {
    let world = World::new();
    let seen = serve(&world, |request| match request.target() {
        "/1" => sets("302 Found", "location: /2\r\n"),
        "/2" => sets("302 Found", "location: http://b.test/3\r\n"),
        "/3" => sets("302 Found", "location: http://a.test/4\r\n"),
        _ => ok(""),
    });
    let jar = CookieJar::new();
    jar.set("http://a.test/", "jar=a").unwrap();
    jar.set("http://b.test/", "jar=b").unwrap();
    let client = world.builder().cookies(jar.clone()).build().unwrap();
    let call = client.get("http://a.test/1").header("cookie", "own=1");
    call.send().await.unwrap();
    assert_eq!(
        take(&seen),
        [
            "a.test/1 own=1",
            "a.test/2 own=1",
            "b.test/3 jar=b",
            "a.test/4 jar=a",
        ]
    );
    drop(client);
    let default = world
        .builder()
        .default_header("cookie", "default=1")
        .cookies(jar);
    let client = default.build().unwrap();
    client.get("http://a.test/2").send().await.unwrap();
    assert_eq!(
        take(&seen),
        ["a.test/2 default=1", "b.test/3 jar=b", "a.test/4 jar=a"]
    );
    settle(&client, &world).await;
}

/// The URL counts, and no field that says otherwise.
#[cfg(feature = "rustls")]
#[tokio::test(start_paused = true)]
async fn the_jar_goes_by_the_url() {
    use sockeye::{Alpn, Redirects};

    let world = World::new();
    world.negotiates(Alpn::Http1);
    let seen = serve(&world, |request| match request.target() {
        "/down" => sets(
            "302 Found",
            "set-cookie: safe=1; Secure\r\nset-cookie: plain=1\r\nlocation: http://a.test/\r\n",
        ),
        _ => sets(
            "200 OK",
            "set-cookie: safe=evil\r\nset-cookie: bad=1; Domain=test\r\n",
        ),
    });
    let redirects = Redirects::default().with_downgrade(true);
    let builder = world.builder().redirects(redirects);
    let client = builder.cookies(CookieJar::new()).build().unwrap();
    let call = client
        .get("https://a.test/down")
        .header("host", "victim.test");
    call.send().await.unwrap();
    client.get("https://a.test/x").send().await.unwrap();
    client.get("https://victim.test/x").send().await.unwrap();
    assert_eq!(
        take(&seen),
        [
            "victim.test/down ",
            "a.test/ plain=1",
            "a.test/x safe=1; plain=1",
            "victim.test/x ",
        ]
    );
    settle(&client, &world).await;
}

/// A store of the user's is given what the limits let through.
#[tokio::test(start_paused = true)]
async fn a_store_of_ones_own() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl CookieStore for Log {
        fn set(&self, url: &Uri, cookie: &HeaderValue) {
            assert!(cookie.is_sensitive());
            let line = format!("{url} {}", cookie.len());
            self.0.lock().unwrap().push(line);
        }

        fn get(&self, url: &Uri) -> Option<HeaderValue> {
            HeaderValue::try_from(format!("for={}", url.path())).ok()
        }
    }

    let world = World::new();
    let seen = serve(&world, |_| {
        let fit = format!("set-cookie: {}\r\n", "x".repeat(4096));
        let long = format!("set-cookie: {}\r\n", "x".repeat(4097));
        let many = "set-cookie: a\r\n".repeat(60);
        sets("200 OK", &(fit + &long + &many))
    });
    let log = Log::default();
    let jar = CookieJar::with_store(log.clone());
    let client = world.builder().cookies(jar).build().unwrap();
    client.get("http://u:p@a.test/p?q").send().await.unwrap();
    assert_eq!(take(&seen), ["a.test/p?q for=/p"]);
    {
        let log = log.0.lock().unwrap();
        assert_eq!(log[0], "http://a.test/p?q 4096");
        assert_eq!(log[1], "http://a.test/p?q 1");
        assert_eq!(log.len(), 49, "50 fields, one of them too long");
    }
    settle(&client, &world).await;
}
