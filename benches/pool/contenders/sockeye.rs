//! Sockeye, with limits that keep every connection where the figure needs them all.

use std::io;
use std::time::Duration;

use http::Uri;
use sockeye::{BoxFuture, Client, Connect, Limits, Response, Route, Socket, Timeouts};

use super::{Pooled, expect_ok};
use crate::instant::Dialler;
use crate::scenario::Failure;

/// A clone of the client.
#[derive(Clone)]
pub(crate) struct Sockeye(Client);

impl Sockeye {
    /// One over TCP that keeps every connection for as long as a turn can last.
    pub(crate) fn keeping_all() -> Result<Self, Failure> {
        // Dialling thousands may take a busy machine longer than the defaults allow.
        let timeouts = Timeouts::all(LONG);
        let builder = Client::builder().timeouts(timeouts);
        Ok(Self(builder.limits(all_kept()).build()?))
    }

    /// The same on peers that answer at once.
    pub(crate) fn instant(dialler: Dialler) -> Result<Self, Failure> {
        let builder = Client::builder().connector(Instantly(dialler));
        Ok(Self(builder.limits(all_kept()).build()?))
    }
}

impl From<Client> for Sockeye {
    fn from(client: Client) -> Self {
        Self(client)
    }
}

impl Pooled for Sockeye {
    type Response = Response;

    async fn begin(&self, uri: &Uri) -> Result<Response, Failure> {
        let response = self.0.get(uri).send().await?;
        expect_ok(response.status())?;
        Ok(response)
    }

    async fn finish(response: Response) -> Result<u64, Failure> {
        Ok(response.bytes().await?.len() as u64)
    }
}

/// Limits under which no connection is ever closed for being one too many or too old.
fn all_kept() -> Limits {
    Limits::default()
        .with_max_connections(None)
        .with_max_idle(usize::MAX)
        .with_max_pending(None)
        .with_idle_timeout(LONG)
}

/// The connector of the peer that answers at once.
struct Instantly(Dialler);

impl Connect for Instantly {
    fn connect<'a>(&'a self, _route: &'a Route) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async { Ok(Socket::from_io(self.0.dial())) })
    }
}

/// Longer than any turn.
const LONG: Duration = Duration::from_secs(3600);
