//! The delay line: a relay that hands on every byte a while after it came, in both directions.
//!
//! It has threads of its own, because tokio's timers know no less than a millisecond, and it never lets its
//! sender wait: as on a long way, what is under way is bounded by the windows of HTTP/2.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::scenario::Failure;

/// Starts it in front of `server`; gives its address.
pub(crate) fn start(server: SocketAddr) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that cannot be served sees its connection end.
            let _ = relay(client, server);
        }
    });
    Ok(address)
}

fn relay(client: TcpStream, server: SocketAddr) -> Result<(), Failure> {
    let server = TcpStream::connect(server)?;
    for side in [&client, &server] {
        side.set_nodelay(true)?;
    }
    hand_on(client.try_clone()?, server.try_clone()?);
    hand_on(server, client);
    Ok(())
}

/// One direction, to its end.
fn hand_on(mut from: TcpStream, mut to: TcpStream) {
    let (sender, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut room = vec![0; PIECE];
        while let Ok(read @ 1..) = from.read(&mut room) {
            let piece = room.get(..read).unwrap_or_default().to_vec();
            if sender.send((Instant::now() + ONE_WAY, piece)).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        // The other side may have closed it already.
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// How long a byte is under way in each direction.
const ONE_WAY: Duration = Duration::from_millis(5);

/// Room for one read.
const PIECE: usize = 256 * 1024;
