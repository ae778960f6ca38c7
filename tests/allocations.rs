//! How many allocations a small call makes: at most three, its body included (design D16 and D17).
//!
//! A binary of its own, because the allocator that counts is there for all of it. It counts by thread, so that the
//! server on its own thread stays out of the sum.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use sockeye::test::at_rest;
use sockeye::{Client, Uri};

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

#[test]
fn a_small_call_makes_at_most_three_allocations() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new();
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
    assert!(each <= 3, "{each} allocations a call");
    at_rest(&client);
}

const CALLS: usize = 100;

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Mon, 27 Jul 2026 12:28:53 GMT\r\n\
    server: test\r\ncontent-length: 5\r\n\r\nhello";
