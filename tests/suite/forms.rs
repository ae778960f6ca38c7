//! Queries and forms (feature `form`): what is on the wire, and what is refused.

use std::collections::BTreeMap;

use serde::Serialize;
use sockeye::{Client, ErrorKind, Method, RequestBuilder};

use crate::support::peer::{Request, World, ok, settle};

/// Sends one request and gives it as the peer saw it.
async fn seen(make: impl FnOnce(&Client) -> RequestBuilder) -> Request {
    let world = World::new();
    let client = world.client();
    let call = tokio::spawn(make(&client).send());
    let mut peer = world.accept().await;
    let request = peer.read_request().await;
    peer.write(ok("")).await;
    call.await.unwrap().unwrap();
    settle(&client, &world).await;
    request
}

#[track_caller]
fn check_target(request: &Request, expected: &str) {
    assert_eq!(request.target(), expected);
}

#[derive(Serialize)]
struct Search<'a> {
    text: &'a str,
    tags: Vec<&'a str>,
    page: Option<u32>,
    exact: bool,
}

fn search<'a>() -> Search<'a> {
    Search {
        text: "a b",
        tags: vec!["x", "y&z", "x"],
        page: None,
        exact: true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_is_added_behind_what_the_url_has() {
    for (url, expected) in [
        ("http://peer.test", "/?k=v"),
        ("http://peer.test/p", "/p?k=v"),
        ("http://peer.test/p?", "/p?k=v"),
        ("http://peer.test/p?a=1", "/p?a=1&k=v"),
        ("http://peer.test/p?a=1&", "/p?a=1&k=v"),
        ("http://peer.test/p?k=v", "/p?k=v&k=v"),
        ("http://peer.test/p?a=1#part?b", "/p?a=1&k=v"),
        ("http://peer.test/%2F?a=%20+", "/%2F?a=%20+&k=v"),
    ] {
        let request = seen(|client| client.get(url).query(&[("k", "v")])).await;
        check_target(&request, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_leaves_the_userinfo_alone() {
    let url = "http://ann:secret@peer.test/p";
    let request = seen(|client| client.get(url).query(&[("k", "@:/")])).await;
    check_target(&request, "/p?k=%40%3A%2F");
    assert_eq!(
        request.field("authorization"),
        Some("Basic YW5uOnNlY3JldA==")
    );
    assert_eq!(request.field("host"), Some("peer.test"));
}

#[tokio::test(start_paused = true)]
async fn what_serde_can_serialise_as_pairs_is_a_query() {
    let map = BTreeMap::from([("a", vec![1, 2]), ("b", vec![])]);
    let request = seen(|client| client.get("http://peer.test/").query(&map)).await;
    check_target(&request, "/?a=1&a=2");
    let request = seen(|client| client.get("http://peer.test/").query(&search())).await;
    check_target(&request, "/?text=a%20b&tags=x&tags=y%26z&tags=x&exact=true");
    let none: [(&str, &str); 0] = [];
    let request = seen(|client| client.get("http://peer.test/p").query(&none)).await;
    check_target(&request, "/p");
    let request = seen(|client| {
        let request = client.get("http://peer.test/p").query(&[("a", 1)]);
        request.query(&none).query(&[("a", 2)]).query(&[("", "")])
    })
    .await;
    check_target(&request, "/p?a=1&a=2&=");
}

/// Every byte that could end a pair, a query or a line is escaped, and a server that decodes gets it back.
#[tokio::test(start_paused = true)]
async fn every_character_survives() {
    let hostile: String = ('\0'..='\u{ff}').chain("\u{2028}€😀".chars()).collect();
    let request = seen(|client| {
        client
            .post("http://peer.test/p")
            .query(&[(&*hostile, &*hostile)])
            .form(&[(&*hostile, &*hostile)])
    })
    .await;
    let query = request.target().strip_prefix("/p?").unwrap();
    let body = std::str::from_utf8(&request.body).unwrap();
    for (encoded, blank) in [(query, "%20"), (body, "+")] {
        let [name, value] = encoded.split('=').collect::<Vec<_>>()[..] else {
            panic!("{encoded}");
        };
        assert_eq!(name, value);
        assert!(name.contains(&format!("%1F{blank}%21")), "{name}");
        assert!(!encoded.contains(['&', '#', ' ', ';', '/']), "{encoded}");
        let encoded = name.replace('+', " ");
        let mut bytes = encoded.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            decoded.push(match byte {
                b'%' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                byte => byte,
            });
        }
        assert_eq!(String::from_utf8(decoded).unwrap(), hostile);
    }
}

#[tokio::test(start_paused = true)]
async fn a_form_is_sent_with_its_type_and_length() {
    let request = seen(|client| client.post("http://peer.test/").form(&search())).await;
    assert_eq!(
        request.field("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let body = "text=a+b&tags=x&tags=y%26z&tags=x&exact=true";
    assert_eq!(String::from_utf8_lossy(&request.body), body);
    assert_eq!(
        request.field("content-length"),
        Some(&*body.len().to_string())
    );
}

/// Whatever the order in which they were given: one type, that of the body which is sent.
#[tokio::test(start_paused = true)]
async fn the_last_body_wins_and_a_type_of_ones_own_stays() {
    const FORM: &str = "application/x-www-form-urlencoded";
    type Make = fn(RequestBuilder) -> RequestBuilder;
    let cases: [(Make, Option<&str>, &str); 6] = [
        (
            |request| request.body("x").form(&[("a", 1)]),
            Some(FORM),
            "a=1",
        ),
        (|request| request.form(&[("a", 1)]).body("x"), None, "x"),
        (
            |request| request.header("content-type", "a/b").form(&[("a", 1)]),
            Some("a/b"),
            "a=1",
        ),
        (
            |request| request.form(&[("a", 1)]).header("content-type", "a/b"),
            Some("a/b"),
            "a=1",
        ),
        (
            |request| request.form(&[("a", 1)]).form(&[("b", 2)]),
            Some(FORM),
            "b=2",
        ),
        (
            |request| request.form(&[("a", 1)]).try_clone().unwrap(),
            Some(FORM),
            "a=1",
        ),
    ];
    for (at, (make, content_type, body)) in cases.into_iter().enumerate() {
        let request = seen(|client| make(client.post("http://peer.test/"))).await;
        let types: Vec<_> = request.fields("content-type").collect();
        assert_eq!(types, Vec::from_iter(content_type), "case {at}");
        assert_eq!(request.body, body.as_bytes(), "case {at}");
    }
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn a_form_in_place_of_json_is_a_form() {
    let request = seen(|client| client.post("http://peer.test/").json(&1).form(&[("a", 1)])).await;
    let types: Vec<_> = request.fields("content-type").collect();
    assert_eq!(types, ["application/x-www-form-urlencoded"]);
    let request = seen(|client| client.post("http://peer.test/").form(&[("a", 1)]).json(&1)).await;
    let types: Vec<_> = request.fields("content-type").collect();
    assert_eq!(types, ["application/json"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_list_of_pairs_is_refused_before_a_connection_is_used() {
    #[derive(Serialize)]
    struct Nested<'a> {
        inner: Search<'a>,
    }

    let world = World::new();
    let client = world.client();
    let post = || client.post("http://peer.test/?key=hidden");
    let long = "x".repeat(70_000);
    for (request, said) in [
        (post().query("text"), "query: "),
        (post().form(&1), "form: "),
        (post().query(&Nested { inner: search() }), "query: "),
        (post().form(&[("a", search())]), "form: "),
        (post().query(&[("a", &*long)]), "70"),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("hidden"), "{error}");
        assert!(!error.to_string().contains("xxx"), "{error}");
    }
    assert_eq!(world.dials(), 0);
    // A URL that was refused stays the mistake that is told.
    let error = client.get("http://127.1/").query(&[("a", 1)]).send().await;
    assert!(error.unwrap_err().to_string().contains("127.1"));
    settle(&client, &world).await;
}

#[tokio::test(start_paused = true)]
async fn a_query_survives_build_and_execute() {
    let client = World::new().client();
    let request = client
        .request(Method::GET, "http://peer.test/p?a=1")
        .query(&[("b", "2")])
        .form(&[("c", "3")])
        .build()
        .unwrap();
    assert_eq!(request.uri(), "http://peer.test/p?a=1&b=2");
    assert_eq!(
        request.headers()["content-type"],
        "application/x-www-form-urlencoded"
    );
}
