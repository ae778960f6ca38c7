//! The test doubles that users get (feature `test-util`): what they promise, and what they say when they are misused.

mod faults;
mod net;
mod rules;

use sockeye::test::{MemNet, MockTransport};
use sockeye::{Client, ClientBuilder};

use crate::support::peer::settle_among;

const URL: &str = "https://peer.test/";

fn client(mock: &MockTransport) -> Client {
    build(mock, |builder| builder)
}

fn build(mock: &MockTransport, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    let builder = Client::builder().connector(mock.clone());
    set(builder).build().unwrap()
}

/// Nothing of the client moves any more, and what is open is idle.
async fn settle(client: &Client, mock: &MockTransport) {
    settle_among(client, || mock.open_connections()).await;
}

/// The same in a net.
async fn settle_in(client: &Client, net: &MemNet) {
    let open = || net.connections().iter().filter(|one| one.is_open()).count();
    settle_among(client, open).await;
}

/// What a panic says.
fn panic_of(f: impl FnOnce()) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    let payload = caught.expect_err("it panics");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .expect("a panic with words")
}
