//! A name server on loopback that answers as it is told to, in messages framed by hand (RFC 1035 section 4).
//!
//! It runs on a thread of its own until it is dropped, over UDP alone. The tests of `names` use it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The types of records.
pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;

/// What is answered to one question.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These records, of which the first may be an alias.
    Records(Vec<Record>),
    /// An error, such as 3, that the name does not exist.
    Code(u8),
    /// Not a byte.
    Silence,
}

impl Answer {
    /// Addresses that hold for `ttl` seconds.
    pub(crate) fn addresses<T: Into<IpAddr>>(
        ttl: u32,
        addresses: impl IntoIterator<Item = T>,
    ) -> Self {
        let record = |address: T| Record::address(ttl, address.into());
        Self::Records(addresses.into_iter().map(record).collect())
    }
}

/// A record of the name that was asked for, or of the alias before it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

impl Record {
    pub(crate) fn address(ttl: u32, address: IpAddr) -> Self {
        let (kind, data) = match address {
            IpAddr::V4(address) => (A, address.octets().to_vec()),
            IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
        };
        Self { kind, ttl, data }
    }

    /// The records behind this one are those of `name`.
    pub(crate) fn alias(ttl: u32, name: &str) -> Self {
        Self {
            kind: CNAME,
            ttl,
            data: encoded(name),
        }
    }
}

/// The server.
pub(crate) struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// `answer` gets the name, in lower case and without the last dot, and the type of each question.
    pub(crate) fn new(answer: impl Fn(&str, u16) -> Answer + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let asked = Arc::clone(&asked);
            move || {
                let mut buffer = [0; 4096];
                loop {
                    let (len, from) = socket.recv_from(&mut buffer).unwrap();
                    // The server itself, which shall end.
                    let Some(query) = buffer.get(..len).filter(|query| !query.is_empty()) else {
                        return;
                    };
                    let (name, kind, end) = question(query);
                    asked.lock().unwrap().push(format!("{name} {kind}"));
                    if let Some(message) = message(query, end, answer(&name, kind)) {
                        // Who asked may have lost interest.
                        let _ = socket.send_to(&message, from);
                    }
                }
            }
        });
        Self {
            address,
            asked,
            thread: Some(thread),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often this was asked for.
    pub(crate) fn asked(&self, name: &str, kind: u16) -> usize {
        let question = format!("{name} {kind}");
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| **asked == question).count()
    }

    /// Everything that was asked for, in its order.
    pub(crate) fn questions(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[], self.address).unwrap();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking(),
            "the name server panicked"
        );
    }
}

/// The name and the type that are asked for, and where the question ends.
fn question(query: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (HEADER, Vec::new());
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    (labels.join("."), kind, at + 5)
}

fn message(query: &[u8], end: usize, answer: Answer) -> Option<Vec<u8>> {
    let (code, records) = match answer {
        Answer::Records(records) => (0, records),
        Answer::Code(code) => (code, Vec::new()),
        Answer::Silence => return None,
    };
    let mut message = query[..2].to_vec();
    // A response, with recursion wanted and available.
    message.extend([0x81, 0x80 | code]);
    message.extend([0, 1]);
    message.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    message.extend([0; 4]);
    message.extend(&query[HEADER..end]);
    // The name in the question.
    let mut owner = vec![0xc0, 12];
    for Record { kind, ttl, data } in records {
        message.extend(&owner);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(&data);
        if kind == CNAME {
            owner = data;
        }
    }
    Some(message)
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Bytes before the question.
const HEADER: usize = 12;
