//! What a net has seen of the clients that dial in it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::socket::Alpn;
use crate::test::pipe::Control;
use crate::test::server::Place;

/// An address that a dial tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempted {
    /// The host that was dialled.
    pub host: Arc<str>,
    /// Which of its addresses.
    pub address: IpAddr,
}

/// A connection of a net, whether it is still open or not.
#[derive(Clone)]
pub struct Connected {
    number: usize,
    host: Arc<str>,
    port: u16,
    address: IpAddr,
    alpn: Alpn,
    control: Control,
}

impl Connected {
    pub(super) fn new(place: &Place, address: IpAddr, alpn: Alpn, control: Control) -> Self {
        Self {
            number: place.number,
            host: place.origin.host().into(),
            port: place.origin.port(),
            address,
            alpn,
            control,
        }
    }

    /// How many connections were made before it.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The host that was dialled.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that was dialled.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which of the host's addresses it leads to.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What is spoken on it.
    pub fn alpn(&self) -> Alpn {
        self.alpn
    }

    /// Whether the client has not closed it.
    pub fn is_open(&self) -> bool {
        self.control.is_open()
    }

    /// Bytes that the client has written.
    pub fn sent(&self) -> u64 {
        self.control.sent()
    }

    /// Bytes that were written to the client.
    pub fn received(&self) -> u64 {
        self.control.received()
    }

    /// Resets it: both sides see that, the client after what is on its way.
    pub fn reset(&self) {
        self.control.reset();
    }

    /// Closes it from the side of the peer: the client sees the end after what is on its way.
    pub fn close(&self) {
        self.control.close();
    }

    /// Returns when the client has closed it.
    pub async fn closed(&self) {
        self.control.closed().await;
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("number", &self.number)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("address", &self.address)
            .field("alpn", &self.alpn)
            .field("is_open", &self.is_open())
            .field("sent", &self.sent())
            .field("received", &self.received())
            .finish()
    }
}
