//! Requests of `http` URLs that a proxy forwards: their form, their connections, and which of them a proxy cannot forward.

use http::{HeaderValue, Method, StatusCode};
use sockeye::{Alpn, ErrorKind, on_request};

use super::{CREDENTIALS, through, tunnel};
use crate::support::peer::{World, ok, reply, settle};

/// RFC 9112 section 3.2.2: the whole URL, and the credentials for the proxy (security R5).
#[tokio::test(start_paused = true)]
async fn the_request_line_is_the_whole_url() {
    let world = World::new();
    let client = through(&world, "http://user:s3cret@proxy.test:3128")
        .user_agent("test")
        .build()
        .unwrap();
    let call = client.get("http://a.test/x/y?z=1").send();
    let peer = async {
        let mut connection = world.accept().await;
        assert_eq!(connection.host, "proxy.test");
        let request = connection.read_request().await;
        connection.write(ok("forwarded")).await;
        (connection, request)
    };
    let (response, (mut connection, request)) = tokio::join!(call, peer);
    let expected = format!(
        "GET http://a.test/x/y?z=1 HTTP/1.1\r\nhost: a.test\r\nproxy-authorization: {CREDENTIALS}\r\n"
    );
    assert!(request.head.starts_with(&expected), "{}", request.head);
    assert_eq!(request.fields("proxy-authorization").count(), 1);
    let response = response.unwrap();
    assert_eq!(
        response.connection().proxy().as_deref(),
        Some("http://proxy.test:3128")
    );
    assert_eq!(response.text().await.unwrap(), "forwarded");
    // The same connection serves the next, with a body, a port and no path.
    let call = client.post("http://a.test").body("content").send();
    let peer = async {
        let request = connection.read_request().await;
        connection.write(ok("again")).await;
        request
    };
    let (response, request) = tokio::join!(call, peer);
    assert!(response.unwrap().reused());
    assert!(
        request
            .head
            .starts_with("POST http://a.test/ HTTP/1.1\r\nhost: a.test\r\n")
    );
    assert_eq!(request.field("proxy-authorization"), Some(CREDENTIALS));
    assert_eq!(request.body, b"content");
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn forms_of_the_authority() {
    let world = World::new();
    world.serve(|request| {
        ok(&format!(
            "{} {}",
            request.target(),
            request.field("host").unwrap()
        ))
    });
    let client = through(&world, "proxy.test").build().unwrap();
    for (url, expected) in [
        ("http://a.test:80/", "http://a.test/ a.test"),
        ("http://a.test:8080", "http://a.test:8080/ a.test:8080"),
        ("http://A.TEST./?q", "http://a.test./?q a.test."),
        ("http://[::1]:81/", "http://[::1]:81/ [::1]:81"),
        ("http://10.0.0.1/%20", "http://10.0.0.1/%20 10.0.0.1"),
        ("http://us:er@a.test/", "http://a.test/ a.test"),
    ] {
        let text = client.get(url).send().await.unwrap().text().await.unwrap();
        assert_eq!(text, expected, "{url}");
    }
    settle(&client, &world).await;
}

/// Ruling 15: the target is a part of the key, with a proxy that forwards as well.
#[tokio::test(start_paused = true)]
async fn each_origin_has_connections_of_its_own() {
    let world = World::new();
    world.serve(|request| ok(request.target()));
    let client = through(&world, "proxy.test").build().unwrap();
    for _ in 0..3 {
        for url in ["http://a.test/", "http://b.test/", "http://a.test:81/"] {
            let response = client.get(url).send().await.unwrap();
            assert_eq!(response.text().await.unwrap(), url);
        }
    }
    assert_eq!(world.accepts(), 3);
    settle(&client, &world).await;
}

/// Security R5: credentials for a proxy are a setting of the proxy and never a field of a request.
#[tokio::test(start_paused = true)]
async fn a_field_of_the_caller_is_refused_everywhere() {
    let world = World::new();
    for builder in [world.builder(), through(&world, "proxy.test")] {
        let client = builder.build().unwrap();
        // Without TLS that is what is missing first.
        let urls = ["http://a.test/", "https://a.test/"].iter();
        for url in urls.take(if cfg!(feature = "rustls") { 2 } else { 1 }) {
            let request = client
                .get(*url)
                .header("proxy-authorization", "Basic s3cret");
            let error = request.send().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
            assert!(error.to_string().contains("Proxy::basic_auth"), "{error}");
            assert!(!format!("{error:?}").contains("s3cret"));
        }
    }
    let sneaky = through(&world, "proxy.test")
        .attempt_interceptor(on_request(|parts| {
            let value = HeaderValue::from_static("Basic s3cret");
            parts.headers.insert("proxy-authorization", value);
            Ok(())
        }))
        .build()
        .unwrap();
    let error = sneaky.get("http://a.test/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    settle(&sneaky, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_field_that_the_proxy_would_throw_away_is_refused() {
    let world = World::new();
    world.serve(|request| ok(request.field("host").unwrap()));
    let client = through(&world, "proxy.test").build().unwrap();
    let with = |host: &'static str| client.get("http://a.test/").header("host", host).send();
    let same = with("A.test").await.unwrap();
    assert_eq!(same.text().await.unwrap(), "A.test");
    let error = with("b.test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert!(error.to_string().contains("proxy"), "{error}");
    settle(&client, &world).await;
}

/// What the proxy says itself of a forwarded request is a response like any other.
#[tokio::test(start_paused = true)]
async fn the_proxys_own_answers() {
    let world = World::new();
    world.serve(|_| {
        reply(
            "407 Proxy Authentication Required",
            "proxy-authenticate: Basic realm=\"x\"\r\n",
            "log in",
        )
    });
    let client = through(&world, "proxy.test").build().unwrap();
    let error = client.get("http://a.test/").send().await.unwrap_err();
    assert_eq!(
        error.status(),
        Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED)
    );
    assert_eq!(error.proxy_status(), None);
    assert_eq!(error.status_error().unwrap().body, "log in");
    settle(&client, &world).await;
}

/// RFC 9110 section 7.6.1: a proxy keeps Upgrade to itself, so what wants another protocol goes through a tunnel.
#[tokio::test(start_paused = true)]
async fn an_upgrade_goes_through_a_tunnel() {
    let world = World::new();
    let client = through(&world, "http://user:s3cret@proxy.test")
        .build()
        .unwrap();
    let call = client.get("http://a.test/chat").upgrade("echo").send();
    let peer = async {
        let (mut connection, asked) = tunnel(&world).await;
        let request = connection.read_request().await;
        connection
            .write(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
            )
            .await;
        (connection, asked, request)
    };
    let (response, (mut connection, asked, request)) = tokio::join!(call, peer);
    let expected = format!(
        "CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\nproxy-authorization: {CREDENTIALS}\r\n\r\n"
    );
    assert_eq!(asked.head, expected);
    assert!(
        request
            .head
            .starts_with("GET /chat HTTP/1.1\r\nhost: a.test\r\n")
    );
    assert_eq!(request.field("proxy-authorization"), None);
    let upgraded = response.unwrap().upgrade().unwrap();
    drop(upgraded);
    connection.closed().await;
    settle(&client, &world).await;
}

/// A CONNECT of the caller's is for the URL's host, which is reached like any other: through a tunnel.
#[tokio::test(start_paused = true)]
async fn a_connect_of_the_caller_goes_through_a_tunnel() {
    let world = World::new();
    let client = through(&world, "proxy.test").build().unwrap();
    let call = client.request(Method::CONNECT, "http://b.test:8080").send();
    let peer = async {
        let (mut connection, asked) = tunnel(&world).await;
        let request = connection.read_head().await.unwrap();
        connection.write("HTTP/1.1 200 OK\r\n\r\n").await;
        (connection, asked, request)
    };
    let (response, (connection, asked, request)) = tokio::join!(call, peer);
    let line = "CONNECT b.test:8080 HTTP/1.1\r\nhost: b.test:8080\r\n";
    assert!(asked.head.starts_with(line), "{}", asked.head);
    assert!(request.head.starts_with(line), "{}", request.head);
    drop((response.unwrap(), connection));
    settle(&client, &world).await;
}

/// A connector that says that its stream leads to the server is believed.
#[tokio::test(start_paused = true)]
async fn a_secured_socket_is_the_end_of_the_way() {
    let world = World::new();
    world.negotiates(Alpn::Http1);
    world.serve(|request| ok(&format!("{} {}", request.method(), request.target())));
    let client = through(&world, "http://user:s3cret@proxy.test")
        .build()
        .unwrap();
    for url in ["http://a.test/x", "https://a.test/x"] {
        let response = client.get(url).send().await;
        match response {
            Ok(response) => {
                assert_eq!(response.connection().proxy(), None);
                assert_eq!(response.text().await.unwrap(), "GET /x");
            }
            // Without TLS in the build `https` is refused, whoever connects.
            Err(error) => assert!(error.to_string().contains("feature `tls`"), "{error}"),
        }
    }
    settle(&client, &world).await;
}
