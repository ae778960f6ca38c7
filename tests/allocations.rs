//! How many allocations a small call makes: at most three, its body included (design D16 and D17), and over HTTP/2 one more
//! than the framing layer makes by itself.
//!
//! A binary of its own, because the allocator that counts is there for all of it. It counts by thread, so that the
//! server on its own thread stays out of the sum.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use sockeye::test::at_rest;
use sockeye::{Client, Resilience, Uri};

/// Answers every request without a body with the same small response, until the client has gone.
fn serve(mut client: TcpStream) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        request.extend_from_slice(&buffer[..read]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            client.write_all(RESPONSE).unwrap();
        }
    }
}

fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            serve(client.unwrap());
        }
    });
    address
}

/// Allocations of one small call of a client, counted over many.
fn of_a_call(client: &Client) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let uri: Uri = format!("http://{}/some/path?with=query", server())
        .parse()
        .unwrap();
    let calls = |count: usize| {
        runtime.block_on(async {
            for _ in 0..count {
                let response = client.get(&uri).send().await.unwrap();
                assert_eq!(response.header("content-type"), Some("text/plain"));
                assert_eq!(response.bytes().await.unwrap(), "hello");
            }
        });
    };
    // The first calls dial, and fill what is kept.
    calls(10);
    let counted = |count| allocation_counter::measure(|| calls(count)).count_total;
    // The difference leaves out what starting to block costs. A turn of the reaper may fall into either count; it makes
    // fewer allocations than there are calls, and is lost in the division.
    let (few, many) = (counted(10), counted(10 + CALLS));
    let each = many.saturating_sub(few) / CALLS as u64;
    println!(
        "{each} allocations a call ({few} for 10, {many} for {})",
        10 + CALLS
    );
    assert!(each > 0, "nothing was counted");
    at_rest(client);
    each
}

#[test]
fn a_small_call_makes_at_most_three_allocations() {
    let each = of_a_call(&Client::new());
    assert!(each <= 3, "{each} allocations a call");
}

/// Retry, breaker and rate limit allocate when something fails, and not before.
#[test]
fn a_call_that_succeeds_at_once_allocates_nothing_for_its_policies() {
    let standard = Client::builder().resilience(Resilience::standard());
    let (plain, standard) = (
        of_a_call(&Client::new()),
        of_a_call(&standard.build().unwrap()),
    );
    assert_eq!(standard, plain);
}

const CALLS: usize = 100;

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Mon, 27 Jul 2026 12:28:53 GMT\r\n\
    server: test\r\ncontent-length: 5\r\n\r\nhello";

/// HTTP/2 beside the same calls by the h2 crate alone, which is a floor and no client.
#[cfg(feature = "http2")]
mod http2 {
    use std::future::poll_fn;
    use std::net::SocketAddr;
    use std::num::NonZeroUsize;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, mpsc};

    use bytes::Bytes;
    use h2::client::SendRequest;
    use http::{HeaderMap, Request, Response, Uri, Version};
    use sockeye::test::at_rest;
    use sockeye::{Client, Http2Config, HttpVersions};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::{Builder, Runtime};

    use super::CALLS;

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Answers every request with the same small response, on a thread of its own.
    fn server() -> SocketAddr {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(tcp));
                }
            });
        });
        told.recv().unwrap()
    }

    async fn serve(tcp: TcpStream) {
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut response = Response::new(());
            let fields = [("content-type", "text/plain"), ("content-length", "5")];
            for (name, value) in fields {
                response.headers_mut().append(name, value.parse().unwrap());
            }
            let mut body = respond.send_response(response, false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        }
    }

    async fn bare(send: &SendRequest<Bytes>, uri: &Uri) {
        let mut send = send.clone().ready().await.unwrap();
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.clone();
        let mut fields = HeaderMap::with_capacity(2);
        fields.insert("accept", http::HeaderValue::from_static("*/*"));
        fields.insert("user-agent", http::HeaderValue::from_static("bare"));
        *request.headers_mut() = fields;
        let (response, _) = send.send_request(request, true).unwrap();
        drop(send);
        let mut body = response.await.unwrap().into_body();
        let data = body.data().await.unwrap().unwrap();
        assert_eq!(data, "hello");
        body.flow_control().release_capacity(data.len()).unwrap();
        assert!(body.data().await.is_none());
    }

    async fn ours(client: &Client, uri: &Uri) {
        let response = client.get(uri).send().await.unwrap();
        assert_eq!(response.header("content-type"), Some("text/plain"));
        assert_eq!(response.bytes().await.unwrap(), "hello");
    }

    /// Allocations of one call, counted over many; those of a turn of the reaper are lost in the division.
    fn each(mut calls: impl FnMut(usize)) -> u64 {
        calls(10);
        let mut counted = |count| allocation_counter::measure(|| calls(count)).count_total;
        let (few, many) = (counted(10), counted(10 + CALLS));
        many.saturating_sub(few) / CALLS as u64
    }

    /// Sends a body without end to every request, as far as the windows allow, and counts its bytes; a request for `/end` gets none.
    fn endless_server(sent: Arc<AtomicU64>) -> SocketAddr {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (tcp, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let ends = request.uri().path() == "/end";
                    let body = respond.send_response(Response::new(()), ends).unwrap();
                    if !ends {
                        tokio::spawn(send_endlessly(body, Arc::clone(&sent)));
                    }
                }
            });
        });
        told.recv().unwrap()
    }

    async fn send_endlessly(mut body: h2::SendStream<Bytes>, sent: Arc<AtomicU64>) {
        let piece = Bytes::from(vec![b'x'; 16 * 1024]);
        loop {
            body.reserve_capacity(piece.len());
            let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else {
                return;
            };
            if body.send_data(piece.slice(..room), false).is_err() {
                return;
            }
            sent.fetch_add(room as u64, Ordering::SeqCst);
        }
    }

    /// What a reader that stops has not taken is in the window of its stream, and no more than that is held for it.
    #[test]
    fn a_streaming_response_holds_its_window() {
        const WINDOW: u64 = 1 << 20;

        let sent = Arc::new(AtomicU64::new(0));
        let url = format!("http://{}/", endless_server(Arc::clone(&sent)));
        let runtime = runtime();
        let client = Client::builder()
            .http_versions(HttpVersions::Http2PriorKnowledge)
            .http2(Http2Config::default().with_stream_window(WINDOW as u32))
            .build()
            .unwrap();
        let get = |path: &str| client.get(format!("{url}{path}")).send();
        let stream = |stalls: bool| {
            runtime.block_on(async {
                sent.store(0, Ordering::SeqCst);
                let mut response = get("").await.unwrap();
                if stalls {
                    while sent.load(Ordering::SeqCst) < WINDOW {
                        tokio::task::yield_now().await;
                    }
                    // What comes behind it on the connection shows that it has come.
                    get("end").await.unwrap();
                }
                let mut read = 0;
                while read < 64 << 20 {
                    read += response.chunk().await.unwrap().unwrap().len();
                }
            });
        };
        // The session is open then; what it holds is not this response's.
        stream(false);
        for stalls in [false, true] {
            let held = allocation_counter::measure(|| stream(stalls));
            println!("{} bytes held at most, stalls: {stalls}", held.bytes_max);
            assert!(held.bytes_max > 4 * 1024, "nothing was counted");
            assert!(held.bytes_max < WINDOW + 64 * 1024, "{}", held.bytes_max);
        }
        at_rest(&client);
    }

    #[test]
    fn a_small_call_allocates_at_most_one_more_than_the_framing_layer() {
        let uri: Uri = format!("http://{}/some/path", server()).parse().unwrap();
        let runtime = runtime();
        let send = runtime.block_on(async {
            let tcp = TcpStream::connect(uri.authority().unwrap().as_str());
            let (send, connection) = h2::client::handshake(tcp.await.unwrap()).await.unwrap();
            tokio::spawn(connection);
            send
        });
        let floor = each(|count| {
            runtime.block_on(async {
                for _ in 0..count {
                    bare(&send, &uri).await;
                }
            });
        });
        let one = NonZeroUsize::new(1).unwrap();
        let client = Client::builder()
            .http_versions(HttpVersions::Http2PriorKnowledge)
            .http2(Http2Config::default().with_max_sessions_per_origin(one))
            .build()
            .unwrap();
        let ours = each(|count| {
            runtime.block_on(async {
                for _ in 0..count {
                    ours(&client, &uri).await;
                }
            });
        });
        println!("{ours} allocations a call, {floor} of the framing layer alone");
        assert!(floor > 1, "nothing was counted");
        assert!(ours <= floor + 1, "{ours} against {floor}");
        at_rest(&client);
    }
}

/// Sends a body without end to every request, as fast as it is taken.
fn serve_endless(mut client: TcpStream) {
    let mut request = [0; 4096];
    assert!(client.read(&mut request).unwrap() > 0);
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    while client.write_all(&[b'x'; 64 * 1024]).is_ok() {}
}

/// Over HTTP/1.1 the window is the system's: what is held here are a few reads, of 64 KiB at most each.
#[test]
fn a_streaming_response_holds_a_few_reads() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            serve_endless(client.unwrap());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new();
    let held = allocation_counter::measure(|| {
        runtime.block_on(async {
            let mut response = client.get(&url).send().await.unwrap();
            let mut read = 0;
            while read < 64 << 20 {
                read += response.chunk().await.unwrap().unwrap().len();
            }
        });
    });
    println!("{} bytes held at most", held.bytes_max);
    assert!(held.bytes_max > 4 * 1024, "nothing was counted");
    assert!(held.bytes_max < 4 * 64 * 1024, "{}", held.bytes_max);
    at_rest(&client);
}

/// Answers every request with gzip that would be two gigabytes of zeros (security D2).
#[cfg(feature = "gzip")]
fn serve_bomb(mut client: TcpStream) {
    use flate2::{Compress, Compression, FlushCompress};

    let mut compress = Compress::new_gzip(Compression::fast(), 15);
    let mut piece = || {
        let mut coded = Vec::with_capacity(256 * 1024);
        let zeros = vec![0; 8 << 20];
        // The flush ends on a byte and starts no new header, so that the second piece can be sent again and again.
        compress
            .compress_vec(&zeros, &mut coded, FlushCompress::Sync)
            .unwrap();
        assert_eq!(compress.total_in() % zeros.len() as u64, 0, "all went in");
        coded
    };
    let (first, again) = (piece(), piece());
    let mut request = [0; 4096];
    assert!(client.read(&mut request).unwrap() > 0);
    let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n";
    client.write_all(&[&head[..], &first].concat()).unwrap();
    for _ in 0..256 {
        if client.write_all(&again).is_err() {
            return;
        }
    }
}

/// Read piece by piece, a bomb takes the memory of a few pieces; collected, that of `max_body`.
#[cfg(feature = "gzip")]
#[test]
fn a_bomb_takes_little_memory() {
    const READ: usize = 96 << 20;
    const LIMIT: usize = 4 << 20;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            serve_bomb(client.unwrap());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new();
    let in_pieces = allocation_counter::measure(|| {
        runtime.block_on(async {
            let mut response = client.get(&url).send().await.unwrap();
            let mut read = 0;
            while read < READ {
                read += response.chunk().await.unwrap().unwrap().len();
            }
        });
    });
    println!("{} bytes held at most in pieces", in_pieces.bytes_max);
    assert!(in_pieces.bytes_max > 64 * 1024, "nothing was counted");
    // Most of it is what the connection reads at once.
    assert!(in_pieces.bytes_max < 2 << 20, "{}", in_pieces.bytes_max);
    let collected = allocation_counter::measure(|| {
        runtime.block_on(async {
            let response = client.get(&url).max_body(LIMIT).send().await.unwrap();
            let error = response.bytes().await.unwrap_err();
            assert_eq!(error.kind(), sockeye::ErrorKind::TooLarge);
        });
    });
    println!("{} bytes held at most collected", collected.bytes_max);
    assert!(
        collected.bytes_max < 4 * LIMIT as u64,
        "{}",
        collected.bytes_max
    );
    at_rest(&client);
}
